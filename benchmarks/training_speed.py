"""Useful tokens a second: the course's training cell against the tutorial default, side by side.

    python -m benchmarks.training_speed [--rows 60] [--rounds 2] [--memory] [--out file.json]
    python -m benchmarks.training_speed --float32  # the two ends on a processor without bfloat16
    python -m benchmarks.training_speed --profile  # where a step's time goes, before and after

The default is TRL's: a base named by string (float32), NF4, padding, checkpointing, batches
of 8, the loss as TRL computes it. The ladder switches the course's choices on one after another.
Every rung trains one epoch of the same rows, the rungs take turns, and the first step of each is
not counted. A useful token is one of a row that is taught, and not padding: the beginning that all
rows share counts in each of them, also where it is computed once.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from peft.helpers import disable_input_dtype_casting
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    TrainerCallback,
)

from helpers import ROOT, CourseError
from helpers.choose import memory, models
from helpers.core import rows, runtime
from helpers.core.files import write_text
from helpers.core.pilot import Pilot
from helpers.tune import examples, training

DEFAULT = {
    "load": "float32",
    "four_bit": True,
    "activation_checkpointing": True,
    "packing": False,
    "batch_size": 8,
    "max_length": 1024,
    "guards": False,
    "answer_only": False,
    "share_start": False,
    "fused": False,
    "casts": True,  # PEFT's way through float32 before each adapter, see training.fit
}
LADDER = {  # each rung keeps what stands above it
    "default": {},
    "load_bf16": {"load": "bfloat16"},
    "no_checkpointing": {"activation_checkpointing": False},
    "packed_512": {"packing": True, "batch_size": 1, "max_length": 512},
    "answer_loss": {"answer_only": True},
    "guarded": {"casts": False, "guards": True},
    "shared_start": {"share_start": True},
    "fast": {"fused": True},
}
BESIDE = {  # the fast cell with one thing changed
    "packed_256": {"max_length": 256},
    "packed_1024": {"max_length": 1024},
    "dense_base": {"four_bit": False},
}


def speed_rungs(names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """{name: choices} of the ladder and of what stands beside it; `names` picks some.

    Without bfloat16 in hardware the rung that loads in bfloat16 is left out, and all are float32.
    """
    choices, rungs = dict(DEFAULT), {}
    for name, change in LADDER.items():
        if name == "load_bf16" and runtime.detect("cpu").dtype == "float32":
            continue
        choices = choices | change
        rungs[name] = choices
    for name, change in BESIDE.items():
        rungs[name] = rungs["fast"] | change
    return {name: rungs[name] for name in names or rungs}


def benchmark_rows(pilot: Pilot, base: Any, number: int, packs: int = 4) -> list[dict[str, str]]:
    """`number` training rows, labels in turns, repeated until they fill `packs` packs of 512."""
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    train = [dict(row) for row in rows.load(pilot).train]
    few = rows.spread(train, pilot.labels, number)
    taught, _ = examples.training_rows(pilot, few, tokenizer, 512)
    tokens = sum(examples.row_length(tokenizer, row) - 1 for row in taught)
    return taught * max(1, -(-packs * 512 // tokens), -(-9 // len(taught)))


def rung_trainer(
    choices: Mapping[str, Any], base: Any, taught: Sequence[Mapping], folder: str
) -> training.AnswerSFTTrainer:
    """The trainer of one rung, for one epoch."""
    here = runtime.detect("cpu")
    return training.build_trainer(
        training.load_base(base.path, here, choices["four_bit"], getattr(torch, choices["load"])),
        AutoTokenizer.from_pretrained(base.path),
        taught,
        here,
        folder,
        training.lora_config(),
        guards=choices["guards"],
        answer_only=choices["answer_only"],
        share_start=choices["share_start"],
        fused=choices["fused"],
        packing=choices["packing"],
        max_length=choices["max_length"],
        per_device_train_batch_size=choices["batch_size"],
        activation_checkpointing=choices["activation_checkpointing"],
        num_train_epochs=1,
        learning_rate=1e-3,
        logging_steps=1,
    )


class _StepEnds(TrainerCallback):
    """Notes when each step ends, in seconds."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def timed_training(trainer: Any, casts: bool) -> tuple[int, float, list[float]]:
    """(useful tokens, seconds, losses) of trainer.train(); the first step is not in the first two.

    Raises CourseError for a single step.
    """
    tokens, ends, step = [], _StepEnds(), trainer.training_step

    def counted(model: Any, inputs: Mapping[str, torch.Tensor], *rest: Any, **more: Any) -> Any:
        mask = inputs.get("attention_mask")
        tokens.append(inputs["input_ids"].numel() if mask is None else int(mask.sum()))
        return step(model, inputs, *rest, **more)

    trainer.training_step = counted
    trainer.add_callback(ends)
    with disable_input_dtype_casting(trainer.model, active=not casts):
        trainer.train()
    if len(ends.times) < 2:
        raise CourseError(f"{len(ends.times)} step is too few to time; take more rows.")
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return sum(tokens[1:]), ends.times[-1] - ends.times[0], losses


def measure_speed(
    number: int = 60,
    rounds: int = 2,
    names: Sequence[str] | None = None,
    pilot: Pilot | None = None,
    say: Callable[[str], None] = lambda line: None,
    packs: int = 4,
) -> dict[str, dict[str, float]]:
    """{rung: tokens_per_second, lowest, highest, tokens, seconds, loss}: medians over rounds."""
    pilot = pilot or Pilot.load(ROOT / "data/inbox")
    base = models.resolve(pilot.base_model, pilot.folder)
    taught = benchmark_rows(pilot, base, number, packs)
    timings = {name: [] for name in speed_rungs(names)}
    for turn in range(rounds):
        order = list(speed_rungs(names).items())
        if turn % 2:  # there and back, so that a warming machine helps no side
            order.reverse()
        for name, choices in order:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                trainer = rung_trainer(choices, base, taught, folder)
                tokens, seconds, losses = timed_training(trainer, choices["casts"])
            del trainer
            gc.collect()  # a trainer holds itself: without this two models lie in memory
            runtime.give_back_memory()
            timings[name].append((tokens / seconds, tokens, seconds, losses[-1]))
            say(f"{name:18}{tokens / seconds:7.1f} tokens/s")
    speeds = {}
    for name, rounds_of in timings.items():
        keys = ("tokens_per_second", "tokens", "seconds", "loss")
        medians = [statistics.median(values) for values in zip(*rounds_of)]
        speeds[name] = dict(zip(keys, medians))
        speeds[name] |= {"lowest": min(rounds_of)[0], "highest": max(rounds_of)[0]}
    return speeds


# of the loss in nats a token, or of one nat where it is smaller, after the same steps
LOSS_TOLERANCE = {"bfloat16": 0.05, "float32": 0.005}


def loss_difference(speeds: Mapping[str, Mapping[str, float]]) -> float:
    """Last loss of fast against that of the same packs trained the plain way, in nats a token.

    Raises CourseError above LOSS_TOLERANCE: then the fast way computes something else.
    """
    plain = speeds["guarded"]["loss"]
    apart = abs(speeds["fast"]["loss"] - plain)
    allowed = LOSS_TOLERANCE[runtime.detect("cpu").dtype] * max(1, plain)
    if not apart <= allowed:
        raise CourseError(
            f"The fast training ends at a loss {apart:.3f} away from the plain one; {allowed:.3f} "
            "is allowed. Train with fused=False and share_start=False, and report it."
        )
    return apart


def measure_float32(
    number: int = 24, rounds: int = 2, packs: int = 3, pilot: Pilot | None = None
) -> dict[str, Any]:
    """{rung: speed} of default, guarded and fast in a fresh process without bfloat16.

    Raises CourseError when that process fails, so also when its losses are apart.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        out = Path(folder) / "speeds.json"
        command = [sys.executable, "-m", "benchmarks.training_speed", "--out", str(out)]
        command += ["--rows", str(number), "--rounds", str(rounds), "--packs", str(packs)]
        command += ["--only", "default", "guarded", "fast"]
        command += ["--pilot", str((pilot or Pilot.load(ROOT / "data/inbox")).folder)]
        environment = {**os.environ, "COURSE_FLOAT32": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it was killed"])[-1][:300]
            raise CourseError(f"Measuring the training in float32 stopped: {last}")
        return json.loads(out.read_text(encoding="utf-8"))["rungs"]


KINDS = {  # of operators, by a piece of the name; the first that fits
    "attention": ("scaled_dot_product",),
    "four bits unpacked": ("4bit", "4Bit", "dequantize", "bitsandbytes"),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear"),
    "element by element": ("aten::",),
}


def step_profile(name: str, pilot: Pilot | None = None, number: int = 24) -> dict[str, float]:
    """Milliseconds of one training step of a rung by kind of operator; the rest is Python's."""
    pilot = pilot or Pilot.load(ROOT / "data/inbox")
    base, choices = models.resolve(pilot.base_model, pilot.folder), speed_rungs([name])[name]
    taught = benchmark_rows(pilot, base, number, packs=2)
    step = _ProfiledStep()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trainer = rung_trainer(choices, base, taught, folder)
        trainer.add_callback(step)
        timed_training(trainer, choices["casts"])
    del trainer
    gc.collect()
    runtime.give_back_memory()
    spent = dict.fromkeys(KINDS, 0.0)
    for event in step.profiler.key_averages():
        for kind, pieces in KINDS.items():
            if any(piece in event.key for piece in pieces):
                spent[kind] += event.self_cpu_time_total / 1000
                break
    return spent | {"between them": 1000 * step.seconds - sum(spent.values())}


@contextmanager
def _no_notes() -> Iterator[None]:
    """Without what the profiler's own library writes to the process's second stream."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _ProfiledStep(TrainerCallback):
    """Profiles the second step of a training."""

    def __init__(self) -> None:
        self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        self.seconds = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            with _no_notes():
                self.profiler.start()
            self.seconds -= time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            self.seconds += time.perf_counter()
            with _no_notes():
                self.profiler.stop()


def speedup_of(speeds: Mapping[str, Mapping[str, float]]) -> float:
    """Useful tokens a second of the fast cell over those of the default."""
    return speeds["fast"]["tokens_per_second"] / speeds["default"]["tokens_per_second"]


def compare_cells(pilot: Pilot, here: runtime.Runtime) -> dict[str, dict[str, float]]:
    """Chapter 05a's ladder: default and fast in turns, three rounds; the others once.

    Smoke takes one round of the two ends. Empty on a GPU, where other choices are the fast ones.
    """
    if here.device != "cpu":
        return {}
    if here.profile.name == "smoke":
        return measure_speed(11, 1, ["default", "guarded", "fast"], pilot, packs=2)
    ends = ["default", "fast"]
    between = [name for name in speed_rungs() if name not in (*ends, "packed_1024")]
    speeds = measure_speed(24, 1, between, pilot, packs=3)
    speeds |= measure_speed(24, 3, ends, pilot, packs=3)
    return {name: speeds[name] for name in speed_rungs() if name in speeds}


def rung_memory(name: str, number: int = 24) -> int:
    """Growth of a fresh process's own memory over training on a rung, at its peak, in bytes."""
    command = [sys.executable, "-m", "benchmarks.training_speed"]
    command += ["--peak", name, "--rows", str(number)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    lines = [line for line in done.stdout.splitlines() if line.startswith("peak ")]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it was killed"])[-1][:300]
        raise CourseError(f"Measuring the memory of {name} stopped: {last}")
    return int(lines[-1].split()[1])


def _print_peak(name: str, number: int) -> None:
    """The measurement behind `rung_memory`, in this process."""
    pilot, choices = Pilot.load(ROOT / "data/inbox"), speed_rungs([name])[name]
    base = models.resolve(pilot.base_model, pilot.folder)
    taught = benchmark_rows(pilot, base, number)
    torch.randn(64, 64) @ torch.randn(64, 64)  # the library's own buffers are not the model's
    before = memory.own_bytes()
    with (
        memory.PeakMemory(False) as peak,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        timed_training(rung_trainer(choices, base, taught, folder), choices["casts"])
    print("peak", peak.top - before)


def train_on_shape(
    config: str | Path,
    rows_a_step: int = 4,
    length: int = 512,
    steps: int = 8,
    cap_gib: float | None = None,
) -> dict[str, Any]:
    """QLoRA of random weights in the shape of a config.json: speed, memory and two losses.

    Keys: tokens_per_second, peak_gib (None on a CPU), first_loss, last_loss, device. The base is
    random, so the loss only shows that something is learnt: the same rows of random tokens again
    and again. `cap_gib` caps the memory of the card, as a smaller one would. rows_a_step=0 takes as
    many rows as fit, up to a large pack.
    """
    here = runtime.detect()
    cuda = here.device == "cuda"
    if cuda and cap_gib:
        card = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gib * 2**30 / card))
    # what the caller keeps on the card is not this run's
    before = torch.cuda.memory_allocated() if cuda else 0
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        shape = AutoConfig.from_pretrained(config)
        random_model = AutoModelForCausalLM.from_config(shape, dtype=here.torch_dtype)
        random_model.save_pretrained(f"{scratch}/random")
        del random_model
        model = training.load_base(f"{scratch}/random", here, four_bit=True)
        if not rows_a_step:
            rows_a_step = training.pack_length(here, model.config, [length] * 1000) // length
        ids = torch.randint(3, min(1000, shape.vocab_size), (rows_a_step, length)).tolist()
        trainer = training.build_trainer(
            model,
            AutoTokenizer.from_pretrained(models.resolve("embedded").path),
            [{"input_ids": row} for row in ids * steps],
            here,
            scratch,
            training.lora_config(),
            answer_only=False,
            per_device_train_batch_size=rows_a_step,
            max_steps=steps,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            logging_steps=1,
        )
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        tokens, seconds, losses = timed_training(trainer, casts=not (here.bf16 or here.fp16))
    return {
        "tokens_per_second": tokens / seconds,
        "peak_gib": (torch.cuda.max_memory_allocated() - before) / 2**30 if cuda else None,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "device": torch.cuda.get_device_name(0) if cuda else "cpu",
    }


SHAPES = {  # of real models: hidden size, layers, heads, key-value heads, width, vocabulary, tied
    "1.5B": (1536, 28, 12, 2, 8960, 151_936, True),
    "8B": (4096, 32, 32, 8, 14_336, 128_256, False),
}


def measure_shapes(here: runtime.Runtime, folder: Path) -> dict[str, dict[str, Any]]:
    """{"1.5B": train_on_shape of that size, ...} on a card, where memory allows; empty on a CPU."""
    measured = {}
    if here.device != "cuda":
        return measured
    for name, (hidden, layers, heads, key_values, width, vocabulary, tied) in SHAPES.items():
        shape = LlamaConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_values,
            intermediate_size=width,
            vocab_size=vocabulary,
            tie_word_embeddings=tied,
        )
        needed = 3 * 2 * memory.shape_of(shape).parameters  # made, written and read again
        if psutil.virtual_memory().available < needed:
            print(f"{name}: left out, it needs {needed / 2**30:.0f} GiB of free memory")
            continue
        shape.save_pretrained(folder / f"shape_{name}")
        cap = None if here.bf16 else 15
        measured[name] = train_on_shape(folder / f"shape_{name}", 0, cap_gib=cap)
    return measured


def speed_lines(
    speeds: Mapping[str, Mapping[str, float]], used: Mapping[str, int] | None = None
) -> Iterator[str]:
    """A line of text for each rung: tokens a second, ratio to the default, memory if measured."""
    for name, speed in speeds.items():
        line = f"{name:18}{speed['tokens_per_second']:7.1f} tokens/s"
        if "default" in speeds:
            line += f"{speed['tokens_per_second'] / speeds['default']['tokens_per_second']:7.2f} x"
        if used:
            line += f"{used[name] / 2**30:8.2f} GiB"
        yield f"{line}   loss {speed['loss']:.2f}"


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_speed")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(speed_rungs()))
    parser.add_argument("--pilot", default=str(ROOT / "data/inbox"))
    parser.add_argument("--packs", type=int, default=4, help="of 512 tokens, at least")
    parser.add_argument("--float32", action="store_true", help="without bfloat16: the two ends")
    parser.add_argument("--profile", action="store_true", help="a step's time by operator")
    parser.add_argument("--memory", action="store_true", help="also each rung's peak memory")
    parser.add_argument("--peak", choices=list(speed_rungs()), help=argparse.SUPPRESS)
    parser.add_argument("--out")
    options = parser.parse_args()
    runtime.quiet()
    if options.peak:
        _print_peak(options.peak, options.rows)
        return
    pilot = Pilot.load(options.pilot)
    if options.profile:
        for name in ("guarded", "fast"):
            times = step_profile(name, pilot).items()
            print(name, ", ".join(f"{kind} {spent:.0f} ms" for kind, spent in times))
        return
    if options.float32:
        speeds = measure_float32(options.rows, options.rounds, options.packs, pilot)
        print("\n".join(speed_lines(speeds)))
        print(f"training.speedup.float32 {speedup_of(speeds):.2f}")
        return
    speeds = measure_speed(
        options.rows, options.rounds, options.only, pilot, say=print, packs=options.packs
    )
    used = {name: rung_memory(name) for name in speeds} if options.memory else {}
    print("\n".join(speed_lines(speeds, used)))
    figures = {}
    for name, speed in speeds.items():
        figures[f"training.tokens_per_second.{name}"] = speed["tokens_per_second"]
    for name, value in used.items():
        figures[f"training.peak_bytes.{name}"] = value
    if {"fast", "default"} <= set(speeds):
        figures["training.speedup"] = speedup_of(speeds)
        print(f"training.speedup {figures['training.speedup']:.2f}")
    if {"fast", "guarded"} <= set(speeds):
        figures["training.loss_difference"] = loss_difference(speeds)
        print(f"training.loss_difference {figures['training.loss_difference']:.5f}")
    if options.out:
        result = {"figures": figures, "rungs": speeds, "machine": runtime.machine()}
        write_text(options.out, json.dumps(result, indent=1))


if __name__ == "__main__":
    _main()

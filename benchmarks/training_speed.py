"""Useful tokens a second: the course's training cell against the tutorial default, side by side, and what each choice gives.

    python -m benchmarks.training_speed [--rows 60] [--rounds 2] [--memory] [--out file.json]

The default is TRL's: a base named by string (float32), NF4, padding, gradient checkpointing, batches of 8, the loss as TRL computes
it. The ladder switches the course's choices on one after another. Every rung trains one epoch of the same rows, the rungs take turns,
and the first step of each is not counted. A useful token is one that is not padding.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("COURSE_QUIET", "1")

from helpers import ROOT, CourseError
from helpers.choose import models
from helpers.core import rows, runtime
from helpers.core.pilot import Pilot
from helpers.tune import examples, training

DEFAULT = {
    "load": "float32",
    "nf4": True,
    "checkpointing": True,
    "packing": False,
    "batch": 8,
    "length": 1024,
    "guards": False,
    "loss": "all",
    "casts": True,
}
LADDER = [  # each rung keeps what stands above it
    ("default", {}),
    ("load_bf16", {"load": "bfloat16"}),
    ("no_checkpointing", {"checkpointing": False}),
    ("packed_512", {"packing": True, "batch": 1, "length": 512}),
    ("answer_loss", {"loss": "answer"}),
    ("fast", {"casts": False, "guards": True}),
]
BESIDE = [  # the fast cell with one thing changed
    ("packed_256", {"length": 256}),
    ("packed_1024", {"length": 1024}),
    ("dense_base", {"nf4": False}),
]


def rungs(names=None):
    """{name: choices} of the ladder and of what stands beside it; `names` picks some."""
    found, choices = {}, dict(DEFAULT)
    for name, change in LADDER:
        choices = choices | change
        found[name] = dict(choices)
    found |= {name: found["fast"] | change for name, change in BESIDE}
    if (
        runtime.detect("cpu").dtype == "float32"
    ):  # without bfloat16 in hardware the same ladder, in float32
        found = {name: c | {"load": "float32"} for name, c in found.items() if name != "load_bf16"}
    return {name: found[name] for name in names or found}


def prepared(pilot, base, number, packs=4):
    """`number` training rows, their labels in turns, as prompt and completion; few or short ones are repeated until they fill `packs` packs of 512."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    few = rows.spread([dict(row) for row in rows.load(pilot).train], pilot.labels, number)
    data, _ = examples.examples(pilot, few, tokenizer, 512)
    tokens = sum(len(tokenizer(row["prompt"] + row["completion"]).input_ids) for row in data)
    return data * max(1, -(-packs * 512 // tokens), -(-9 // len(data)))


def build(choices, pilot, base, data, out):
    """An SFTTrainer with these choices over `data` (prompt and completion), one epoch."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        PrinterCallback,
    )
    from trl import SFTConfig, SFTTrainer

    here = runtime.detect("cpu")
    number = here.torch_dtype
    nf4 = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=number,
        )
        if choices["nf4"]
        else None
    )
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    longest = 1 + max(len(tokenizer(row["prompt"] + row["completion"]).input_ids) for row in data)
    model = AutoModelForCausalLM.from_pretrained(
        base.path, dtype=getattr(torch, choices["load"]), quantization_config=nf4
    )
    hardware = training.hardware_arguments(here) | {
        "activation_checkpointing": choices["checkpointing"]
    }
    arguments = SFTConfig(
        output_dir=str(out),
        packing=choices["packing"],
        max_length=max(choices["length"], longest),
        num_train_epochs=1,
        per_device_train_batch_size=choices["batch"],
        learning_rate=1e-3,
        seed=0,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        **hardware,
    )
    torch.manual_seed(0)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=16,
            lora_alpha=32,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    if choices["guards"]:
        training.guard_4bit(trainer.model)
        training.guard_adapter(trainer.model)
    if choices["loss"] == "answer":
        training.answer_loss(trainer)
    return trainer


def timed(trainer, casts):
    """(useful tokens, seconds) of trainer.train() without its first step, and the last loss. Raises CourseError for a single step."""
    from peft.helpers import disable_input_dtype_casting
    from transformers import TrainerCallback

    tokens, ends, step = [], [], trainer.training_step

    def counted(model, inputs, *rest, **more):
        padded = "attention_mask" in inputs
        tokens.append(
            int(inputs["attention_mask"].sum()) if padded else inputs["input_ids"].numel()
        )
        return step(model, inputs, *rest, **more)

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

    trainer.training_step = counted
    trainer.add_callback(Clock())
    with disable_input_dtype_casting(trainer.model, active=not casts):
        trainer.train()
    if len(ends) < 2:
        raise CourseError(f"{len(ends)} step is too few to time; take more rows.")
    return (
        sum(tokens[1:]),
        ends[-1] - ends[0],
        [e["loss"] for e in trainer.state.log_history if "loss" in e][-1],
    )


def measure(number=60, rounds=2, names=None, pilot=None, say=lambda line: None, packs=4):
    """{rung: {tokens_per_second, lowest, highest, tokens, seconds, loss}}: medians over rounds in which the rungs take turns."""
    pilot = pilot or Pilot.load(ROOT / "data/inbox")
    base = models.resolve(pilot.base_model, pilot.folder)
    data = prepared(pilot, base, number, packs)
    taken = {name: [] for name in rungs(names)}
    for turn in range(rounds):
        order = list(rungs(names).items())
        for name, choices in (
            order if turn % 2 == 0 else order[::-1]
        ):  # there and back, so that a warming machine helps no side
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as out:
                tokens, seconds, loss = timed(
                    build(choices, pilot, base, data, out), choices["casts"]
                )
            taken[name].append((tokens / seconds, tokens, seconds, loss))
            say(f"{name:18}{tokens / seconds:7.1f} tokens/s")
    return {
        name: dict(
            zip(
                ("tokens_per_second", "tokens", "seconds", "loss"),
                map(statistics.median, zip(*found)),
            )
        )
        | {"lowest": min(found)[0], "highest": max(found)[0]}
        for name, found in taken.items()
    }


def speedup(found):
    """Useful tokens a second of the fast cell over those of the default, one number."""
    return found["fast"]["tokens_per_second"] / found["default"]["tokens_per_second"]


def memory(name, number=24):
    """Growth of a fresh process's own memory over loading and training on a rung, at its peak, in bytes."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.training_speed",
        "--peak",
        name,
        "--rows",
        str(number),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("peak ")]
    if done.returncode or not lines:
        raise CourseError(
            f"Measuring the memory of {name} stopped: {(done.stderr.strip().splitlines() or ['it was killed'])[-1][:300]}"
        )
    return int(lines[-1].split()[1])


def peak(name, number):
    """The measurement behind `memory`, in this process."""
    import torch

    from helpers.choose import memory as watch

    pilot, choices = Pilot.load(ROOT / "data/inbox"), rungs([name])[name]
    base = models.resolve(pilot.base_model, pilot.folder)
    data = prepared(pilot, base, number)
    torch.randn(64, 64) @ torch.randn(64, 64)
    before = watch.own_bytes()
    with watch.PeakMemory(False) as top, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as out:
        timed(build(choices, pilot, base, data, out), choices["casts"])
    print("peak", top.top - before)


def on_shape(config, rows_a_step=4, length=512, steps=8, cap_gib=None):
    """QLoRA of random weights in the shape of a config.json, for cards: {tokens_per_second, peak_gib, first_loss, last_loss, device}.

    The base model is random, so the loss only shows that something is learnt: the same few rows of random tokens, again and again.
    `cap_gib` caps the memory of the card, as a smaller one would. Runs on a CPU too, where the peak is None.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        PrinterCallback,
    )
    from trl import SFTConfig, SFTTrainer

    here = runtime.detect()
    cuda, number = here.device == "cuda", here.torch_dtype
    if cuda and cap_gib:
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, cap_gib * 2**30 / torch.cuda.get_device_properties(0).total_memory)
        )
    held = (
        torch.cuda.memory_allocated() if cuda else 0
    )  # what the caller keeps on the card is not this run's
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(config), dtype=number
        ).save_pretrained(f"{scratch}/random")
        nf4 = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=number,
        )
        model = AutoModelForCausalLM.from_pretrained(
            f"{scratch}/random",
            dtype=number,
            quantization_config=nf4,
            device_map={"": 0} if cuda else None,
        )
        ids = torch.randint(3, min(1000, model.config.vocab_size), (rows_a_step, length)).tolist()
        arguments = SFTConfig(
            output_dir=scratch,
            max_length=length,
            per_device_train_batch_size=rows_a_step,
            max_steps=steps,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
            **training.hardware_arguments(here),
        )
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"input_ids": ids * steps}),
            processing_class=AutoTokenizer.from_pretrained(models.resolve("embedded").path),
            peft_config=LoraConfig(
                r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        trainer.remove_callback(PrinterCallback)
        training.guard_4bit(trainer.model)
        training.guard_adapter(trainer.model)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        tokens, seconds, last = timed(trainer, casts=not (here.bf16 or here.fp16))
        losses = [e["loss"] for e in trainer.state.log_history if "loss" in e]
    return {
        "tokens_per_second": tokens / seconds,
        "peak_gib": (torch.cuda.max_memory_allocated() - held) / 2**30 if cuda else None,
        "first_loss": losses[0],
        "last_loss": last,
        "device": torch.cuda.get_device_name(0) if cuda else "cpu",
    }


def table(found, used=None):
    """Lines of text: a rung each, with its tokens a second, the ratio to the default and, where measured, its memory."""
    slow = found["default"]["tokens_per_second"] if "default" in found else None
    for name, f in found.items():
        ratio = f"{f['tokens_per_second'] / slow:6.2f} x" if slow else ""
        gib = f"{used[name] / 2**30:8.2f} GiB" if used else ""
        yield f"{name:18}{f['tokens_per_second']:7.1f} tokens/s {ratio}{gib}   loss {f['loss']:.2f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(rungs()))
    parser.add_argument(
        "--memory", action="store_true", help="also the peak memory of each rung, a process each"
    )
    parser.add_argument("--peak", choices=list(rungs()), help=argparse.SUPPRESS)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    runtime.quiet()
    if arguments.peak:
        return peak(arguments.peak, arguments.rows)
    found = measure(
        arguments.rows, arguments.rounds, arguments.only, say=lambda line: print(line, flush=True)
    )
    used = {name: memory(name) for name in found} if arguments.memory else None
    print("\n".join(table(found, used)))
    figures = {
        f"training.tokens_per_second.{name}": f["tokens_per_second"] for name, f in found.items()
    }
    if {"fast", "default"} <= set(found):
        figures["training.speedup"] = speedup(found)
        print(f"training.speedup {figures['training.speedup']:.2f}")
    if used:
        figures |= {f"training.peak_bytes.{name}": value for name, value in used.items()}
    if arguments.out:
        Path(arguments.out).write_text(
            json.dumps({"figures": figures, "rungs": found, "machine": runtime.machine()}, indent=1)
        )


if __name__ == "__main__":
    main()

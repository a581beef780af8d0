"""Will it fit? Peak memory from a model's config, and the same thing measured.

The estimate counts tensors, term by term, for dense Llama-like models (Llama, Mistral, Qwen2,
Qwen3, SmolLM); no library does that for LoRA, QLoRA and the loss in tiles. `measure_peak` runs the
real thing in a process of its own: `python -m helpers.tune.memory_trial --mode qlora`.
"""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from helpers import ROOT, CourseError
from helpers.core.runtime import Profile

MODES = ("inference", "lora", "qlora", "full")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# bytes a weight: 4 bits, an 8-bit scale per 64 weights, a float32 per 256 scales
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
TILE = 32768  # columns of the vocabulary that TRL's loss handles at a time
GIB = 2**30
SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a dense decoder: what a config.json says, in elements."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the seven linear layers of one block."""
        hidden, mlp = self.hidden, self.intermediate
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
        return attention + [(hidden, mlp), (hidden, mlp), (mlp, hidden)]

    @property
    def in_linears(self) -> int:
        """Weights in the linear layers of all blocks."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def parameters(self) -> int:
        """All weights: linear layers, embeddings (once where they are tied), norms."""
        tables = 1 if self.tied else 2  # the way in and the way out may share one table
        norms = (2 * self.layers + 1) * self.hidden
        return self.in_linears + tables * self.vocab * self.hidden + norms


def shape_of(config: Any) -> Shape:
    """The Shape in a config: a dict, a transformers config, a config.json or a folder with one.

    Raises CourseError when a key is missing or the model is of a kind the estimate does not cover.
    """
    if isinstance(config, (str, Path)):
        config = _read_config(Path(config))
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    if not isinstance(config, dict):
        raise CourseError(
            "A config is the content of a model's config.json, 'key: value' pairs; "
            "this is something else."
        )
    if isinstance(config.get("text_config"), dict):  # a model that also reads pictures
        config = {**config, **config["text_config"]}
    for key in ("num_experts", "num_local_experts", "n_routed_experts"):
        if config.get(key):
            raise CourseError(
                f"The config has {key}: a mixture of experts. "
                "The estimate covers dense models only."
            )
    missing = [key for key in SIZES if not isinstance(config.get(key), int) or config[key] <= 0]
    if missing:
        raise CourseError(
            f"The config lacks {', '.join(missing)} as whole numbers; "
            "without them there is no estimate."
        )
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return Shape(
        layers=config["num_hidden_layers"],
        hidden=hidden,
        heads=heads,
        # without these two keys every head has its own keys, and the heads divide the width
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        intermediate=config["intermediate_size"],
        vocab=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _read_config(place: Path) -> Any:
    if place.is_dir():
        place = place / "config.json"
    if not place.is_file():
        raise CourseError(
            f"There is no file {place.name!r} there; "
            "give a config.json or the folder that holds it."
        )
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except ValueError:
        raise CourseError(f"{place.name} is not valid JSON.") from None


def shape_of_row(row: dict[str, str]) -> Shape | None:
    """The Shape of a row of data/catalog/models.csv; None where sizes are missing or not dense.

    The catalogue has no MLP width: it is what makes the parameters come out right.
    """
    keys = ("parameters", "layers", "hidden_size", "heads", "kv_heads", "vocab_size")
    if row["kind"] != "dense" or not all(row[key] for key in keys):
        return None
    total, layers, hidden, heads, kv_heads, vocab = (int(row[key]) for key in keys)
    tied = row["tied"] == "yes"
    head_dim = hidden // heads  # the catalogue does not say otherwise
    without_mlp = Shape(layers, hidden, heads, kv_heads, head_dim, 0, vocab, tied)
    width = round((total - without_mlp.parameters) / (3 * layers * hidden))
    if width <= 0:
        return None
    return Shape(layers, hidden, heads, kv_heads, head_dim, width, vocab, tied)


@dataclass(frozen=True)
class Estimate:
    """Peak memory in bytes, by what it holds."""

    mode: str
    weights: float
    adapter: float = 0.0
    optimizer: float = 0.0
    gradients: float = 0.0
    activations: float = 0.0
    kv_cache: float = 0.0
    head: float = 0.0

    @property
    def total(self) -> float:
        """Bytes at the peak: the end of the forward pass, or the optimizer's step."""
        always = self.weights + self.adapter + self.optimizer + self.kv_cache
        return always + max(self.activations + self.head, self.gradients)

    def __str__(self) -> str:
        terms = []
        for name, value in vars(self).items():
            if name != "mode" and value:
                terms.append(f"{name} {value / GIB:.2f}")
        return f"{self.mode:10}{self.total / GIB:6.2f} GiB  " + ", ".join(terms)


def estimate(
    shape: Shape,
    mode: str,
    max_length: int = 256,
    batch_size: int = 1,
    r: int = 16,
    dtype: str = "bfloat16",
    checkpointing: bool = False,
    max_new_tokens: int = 16,
) -> Estimate:
    """Estimate the peak for `batch_size` rows of `max_length` tokens (inference: prompts at once).

    LoRA on all linear layers, adapter and AdamW states in float32; the loss in tiles of the
    vocabulary, as TRL does it. Full tuning keeps weights, gradients and AdamW states in `dtype`.
    Raises CourseError for an unknown mode or dtype.
    """
    if mode not in MODES or dtype not in BYTES:
        raise CourseError(
            f"mode can be {', '.join(MODES)} and dtype {', '.join(BYTES)}, "
            f"not {mode!r} and {dtype!r}."
        )
    if min(max_length, batch_size, r) < 1:
        raise CourseError("max_length, batch_size and r are whole numbers from 1 on.")
    size, tokens = BYTES[dtype], max_length * batch_size
    weights: float = size * shape.parameters
    if mode == "qlora":
        weights = NF4 * shape.in_linears + size * (shape.parameters - shape.in_linears)
    if mode == "inference":
        per_token = 2 * shape.layers * shape.kv_heads * shape.head_dim * size
        # only one block works at a time, and only the last token of a prompt is scored
        return Estimate(
            mode,
            weights,
            activations=tokens * size * (4 * shape.hidden + 3 * shape.intermediate),
            kv_cache=per_token * batch_size * (max_length + max_new_tokens),
            head=4 * batch_size * shape.vocab,
        )
    # full tuning: the optimizer keeps its two states in the number format of the weights
    added, state = 0, size
    if mode != "full":
        added, state = shape.layers * sum(r * (a + b) for a, b in shape.linears), 4
    tile = min(shape.vocab, TILE)
    activations = tokens * _kept_per_token(shape, size, r * bool(added), checkpointing)
    if size < 4:
        activations += size * added  # autocast's copy of the adapter
    return Estimate(
        mode,
        weights,
        adapter=4 * added,
        optimizer=2 * state * (added or shape.parameters),
        gradients=state * (added or shape.parameters),
        activations=activations,
        # up to six copies of a tile of scores in float32 live at once, as measured
        head=6 * 4 * tokens * tile + 4 * tile * shape.hidden,
    )


def _kept_per_token(shape: Shape, size: int, r: int, checkpointing: bool) -> int:
    """Bytes a token that all blocks keep for the backward pass; r is 0 without an adapter."""
    inputs = size * (4 * shape.hidden + shape.intermediate)  # what the linear layers need again
    if r:
        inputs = size * sum(width + r for width, _ in shape.linears)
    block = 8 * shape.hidden  # two norms in float32
    # queries, keys, values, attention's result and its sums, three pieces of the MLP
    block += 2 * size * shape.head_dim * (shape.heads + shape.kv_heads) + 4 * shape.heads
    block += 3 * size * shape.intermediate + inputs
    if checkpointing:  # every block keeps its input; one at a time is computed again
        return size * shape.hidden * shape.layers + block
    return block * shape.layers


# Measuring the real thing ---------------------------------------------------------------------

# what chapter 01 measures: mode, max_length, batch_size
TRIALS = (
    ("qlora", 256, 1),
    ("lora", 256, 1),
    ("full", 256, 1),
    ("qlora", 768, 1),
    ("inference", 512, 16),
)
SMOKE_TRIALS = (("qlora", 64, 1),)


def trials_of(profile: Profile) -> tuple[tuple[str, int, int], ...]:
    """(mode, max_length, batch_size) of each trial that a profile has the time for."""
    return SMOKE_TRIALS if profile.name == "smoke" else TRIALS


def measure_peak(
    mode: str,
    max_length: int = 256,
    batch_size: int = 1,
    dtype: str = "bfloat16",
    config: str | Path | None = None,
    frugal: bool = True,
) -> dict[str, Any]:
    """Run `mode` on the embedded model, or random weights of a config, in a process of its own.

    `bytes` is the growth of the process's own memory over what it had before the model was loaded;
    on a GPU torch's peak. frugal=True fixes glibc's threshold for giving memory back to the system,
    which it otherwise raises as it goes. Raises CourseError with a dead trial's last line.
    """
    command = [sys.executable, "-m", "helpers.tune.memory_trial", "--mode", mode, "--dtype", dtype]
    command += ["--max-length", str(max_length), "--batch-size", str(batch_size)]
    if config:
        command += ["--config", str(config)]
    environment = {**os.environ, "COURSE_QUIET": "1"}
    if frugal:
        environment["MALLOC_MMAP_THRESHOLD_"] = "131072"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    results = [line for line in done.stdout.splitlines() if line.startswith('{"mode"')]
    if done.returncode or not results:  # a kill by the system leaves no word behind
        errors = done.stderr.strip().splitlines()
        last = errors[-1] if errors else "it was killed, most often because memory ran out"
        raise CourseError(f"Measuring {mode} stopped: {last[:300]}")
    return json.loads(results[-1])


def own_bytes() -> int:
    """Bytes that belong to this process alone, without files that are mapped into it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # not on Linux: the nearest that the system tells
        return psutil.Process().memory_full_info().uss
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


class PeakMemory:
    """The largest `own_bytes` within a block, sampled `every` so many seconds, in `.top`; on a GPU
    torch's own peak.
    """

    def __init__(self, cuda: bool, every: float = 0.004) -> None:
        self.cuda, self.every, self.top = cuda, every, 0
        self.stop = threading.Event()

    def __enter__(self) -> "PeakMemory":
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            self.thread = threading.Thread(target=self._sample, daemon=True)
            self.thread.start()
        return self

    def _sample(self) -> None:
        while not self.stop.is_set():
            self.top = max(self.top, own_bytes())
            time.sleep(self.every)  # a peak shorter than this may be missed

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            import torch

            self.top = torch.cuda.max_memory_allocated()
        else:
            self.stop.set()
            self.thread.join()

"""Will it fit? Peak memory from a model's config, and the same thing measured.

The estimate counts tensors, term by term, for dense Llama-like models (Llama, Mistral, Qwen2,
Qwen3, SmolLM); no library does that for LoRA, QLoRA and the loss in tiles.
"""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from helpers import ROOT, CourseError
from helpers.choose.catalog import WHOLE_NUMBERS
from helpers.core.runtime import Profile

MODES = ("inference", "lora", "qlora", "full")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# bytes a weight: 4 bits, an 8-bit scale per 64 weights, a float32 per 256 scales
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
TILE = 32768  # columns of the vocabulary that TRL's loss handles at a time
NEW_TOKENS = 16  # of an answer, in inference
RANK = 16  # of the course's adapters
GIB = 2**30
PROMISED = 7 * GIB  # what a chapter takes at its peak, 8 with the system's own
BESIDE = 2 * GIB  # libraries, rows, a trainer: what a chapter holds beside weights and answers


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
    """The Shape in a config of transformers.

    Raises CourseError when a size is missing or the model is of a kind the estimate does not cover.
    """
    config = config.to_dict()
    config |= config.get("text_config") or {}  # of a model that also reads pictures
    for key in ("num_experts", "num_local_experts", "n_routed_experts"):
        if config.get(key):
            what = f"The config has {key}: a mixture of experts"
            raise CourseError(f"{what}. The estimate covers dense models only.")
    sizes = ["num_hidden_layers", "hidden_size", "num_attention_heads"]
    sizes += ["intermediate_size", "vocab_size"]
    missing = [key for key in sizes if not isinstance(config.get(key), int) or config[key] <= 0]
    if missing:
        what = f"The config lacks {', '.join(missing)} as whole numbers"
        raise CourseError(f"{what}; without them there is no estimate.")
    layers, hidden, heads, intermediate, vocab = (config[key] for key in sizes)
    # without these two keys every head has its own keys, and the heads divide the width
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    tied = bool(config.get("tie_word_embeddings", False))
    return Shape(layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, tied)


def shape_of_row(row: dict[str, str]) -> Shape | None:
    """The Shape of a row of data/catalog/models.csv; None where sizes are missing or not dense.

    The catalogue has no MLP width: it is what makes the parameters come out right.
    """
    if row["kind"] != "dense" or not all(row[key] for key in WHOLE_NUMBERS):
        return None
    total, layers, hidden, heads, kv_heads, vocab = (int(row[key]) for key in WHOLE_NUMBERS)
    # the catalogue says nothing of a width of heads, so that they divide the whole
    shape = Shape(layers, hidden, heads, kv_heads, hidden // heads, 0, vocab, row["tied"] == "yes")
    width = round((total - shape.parameters) / (3 * layers * hidden))
    return replace(shape, intermediate=width) if width > 0 else None


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
        terms = [f"{key} {size / GIB:.2f}" for key, size in list(vars(self).items())[1:] if size]
        return f"{self.mode:10}{self.total / GIB:6.2f} GiB  {', '.join(terms)}"


def estimate(
    shape: Shape,
    mode: str,
    max_length: int = 256,
    batch_size: int = 1,
    dtype: str = "bfloat16",
    recompute: bool = False,
) -> Estimate:
    """Estimate the peak for `batch_size` rows of `max_length` tokens (inference: prompts at once).

    LoRA on all linear layers, adapter and AdamW states in float32; full tuning has all in `dtype`.
    The loss in tiles, as TRL does it. `recompute`: with activation checkpointing, which keeps what
    goes into each block and makes the rest of one block at a time. CourseError for an unknown mode
    or dtype.
    """
    if mode not in MODES or dtype not in BYTES:
        known = f"mode can be {', '.join(MODES)} and dtype {', '.join(BYTES)}"
        raise CourseError(f"{known}, not {mode!r} and {dtype!r}.")
    if min(max_length, batch_size) < 1:
        raise CourseError("max_length and batch_size are whole numbers from 1 on.")
    size, tokens = BYTES[dtype], max_length * batch_size
    hidden, mlp = shape.hidden, shape.intermediate
    weights: float = size * shape.parameters
    if mode == "qlora":
        weights = NF4 * shape.in_linears + size * (shape.parameters - shape.in_linears)
    if mode == "inference":
        # only one block works at a time, and only the last token of a prompt is scored
        activations, head = tokens * size * (4 * hidden + 3 * mlp), 4 * batch_size * shape.vocab
        cached = batch_size * (max_length + NEW_TOKENS)
        kv_cache = 2 * shape.layers * shape.kv_heads * shape.head_dim * size * cached
        return Estimate(mode, weights, activations=activations, kv_cache=kv_cache, head=head)
    if mode == "full":  # the optimizer keeps its two states in the number format of the weights
        adapter, trained, state = 0, shape.parameters, size
        block = size * (4 * hidden + mlp)  # bytes a token that the linear layers need again
    else:
        adapter = shape.layers * sum(RANK * (a + b) for a, b in shape.linears)
        trained, state = adapter, 4
        block = size * sum(width + RANK for width, _ in shape.linears)
    block += 8 * hidden  # two norms in float32
    # queries, keys, values, attention's result and its sums, three pieces of the MLP
    block += 2 * size * shape.head_dim * (shape.heads + shape.kv_heads) + 4 * shape.heads
    block += 3 * size * mlp
    activations = tokens * shape.layers * block
    if recompute:
        activations = tokens * (shape.layers * size * hidden + block)
    if size < 4:
        activations += size * adapter  # autocast's copy of the adapter
    tile = min(shape.vocab, TILE)
    # up to six copies of a tile of scores in float32 live at once, as measured
    head = 6 * 4 * tokens * tile + 4 * tile * hidden
    optimizer, gradients = 2 * state * trained, state * trained
    return Estimate(mode, weights, 4 * adapter, optimizer, gradients, activations, head=head)


def answers_at_once(config: Any, dtype: str, tokens: int, most: int, cuda: bool = False) -> int:
    """How many rows of so many tokens, prompt and answer, a batch may have: 1 to `most`.

    On a CPU they share PROMISED less what a chapter holds beside them, or less where less is free.
    A model that the estimate does not cover gets `most`.
    """
    try:
        shape = shape_of(config)
    except CourseError:
        return most
    if cuda:
        import torch

        free = 0.8 * torch.cuda.mem_get_info()[0]
    else:
        weights = BYTES.get(dtype, 4) * shape.parameters
        left = max(PROMISED - BESIDE - weights, PROMISED / 4)  # a large base breaks the promise
        free = min(left, 0.8 * psutil.virtual_memory().available)
    one = estimate(shape, "inference", tokens, 1, dtype if dtype in BYTES else "float32")
    return max(1, min(most, int(free / (one.total - one.weights))))


def fits_on_card(config: Any, mode: str, tokens: int, dtype: str, recompute: bool = False) -> bool:
    """Whether steps of so many tokens fit into the card's memory; False where nothing tells."""
    import torch

    try:
        shape = shape_of(config)
    except CourseError:
        return False
    needed = estimate(shape, mode, tokens, 1, dtype, recompute).total
    # the rest is for the driver, for scores of attention and for what the estimate leaves out
    return needed < 0.85 * torch.cuda.get_device_properties(0).total_memory


def trials_of(profile: Profile) -> list[tuple[str, int, int]]:
    """(mode, max_length, batch_size) of each trial that a profile has the time for."""
    if profile.name == "smoke":
        return [("qlora", 64, 1)]
    trials = [("qlora", 256, 1), ("lora", 256, 1), ("full", 256, 1)]
    return [*trials, ("qlora", 768, 1), ("inference", 512, 16)]


def measure_peak(
    mode: str, max_length: int, batch_size: int, dtype: str, frugal: bool = True
) -> dict[str, Any]:
    """Run `mode` on the embedded model in a process of its own.

    `bytes` is the growth of the process's own memory from before the model was loaded; on a GPU
    torch's peak. frugal=True fixes glibc's threshold for giving memory back to the system, which it
    otherwise raises as it goes. Raises CourseError with a dead trial's last line.
    """
    command = [sys.executable, "-m", "helpers.tune.memory_trial", "--mode", mode, "--dtype", dtype]
    command += ["--max-length", str(max_length), "--batch-size", str(batch_size)]
    threshold = {"MALLOC_MMAP_THRESHOLD_": "131072"} if frugal else {}
    environment = {**os.environ, "COURSE_QUIET": "1", **threshold}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:  # a kill by the system leaves no word behind
        killed = "it was killed, most often because memory ran out"
        last = (done.stderr.strip() or killed).splitlines()[-1]
        raise CourseError(f"Measuring {mode} stopped: {last[:300]}")
    return json.loads(done.stdout.splitlines()[-1])


def own_bytes() -> int:
    """Bytes that belong to this process alone, without files that are mapped into it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # not on Linux: the nearest that the system tells
        return psutil.Process().memory_full_info().uss
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


class PeakMemory:
    """The largest `own_bytes` within a block, sampled `every` so many seconds: `.top`."""

    def __init__(self, cuda: bool, every: float = 0.004) -> None:
        self.every, self.top, self.gpu = every, 0, None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        if cuda:  # there torch keeps the peak itself
            import torch

            self.gpu = torch.cuda

    def _sample(self) -> None:
        stopped = False
        while not stopped:
            self.top = max(self.top, own_bytes())
            stopped = self.stop.wait(self.every)  # a peak shorter than this may be missed

    def __enter__(self) -> "PeakMemory":
        if self.gpu:
            self.gpu.reset_peak_memory_stats()
        else:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.gpu:
            self.top = self.gpu.max_memory_allocated()
        else:
            self.stop.set()
            self.thread.join()

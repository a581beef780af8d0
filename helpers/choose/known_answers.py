"""What the embedded model must give in every environment, held against `data/embedded.json`.

Libraries read the same GGUF in different ways: with transformers 5.17 the tokenizer comes out with
another end token. A figure made with such a model is no result, so it is refused.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from helpers import ROOT, CourseError

TABLE = ROOT / "data/embedded.json"
CURE = "python -m pip install -r requirements.txt, then start again"


def known_answers() -> dict[str, Any]:
    """The table: ids of fixed texts, special tokens, hash of the weights, first tokens."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def check_tokenizer(tokenizer: Any) -> None:
    """Raise CourseError that names the first part in which the embedded tokenizer differs."""
    known = known_answers()
    for name, wanted in known["special"].items():
        _compare(name, getattr(tokenizer, name), wanted)
        _compare(f"{name}_id", getattr(tokenizer, f"{name}_id"), known["special_ids"][f"{name}_id"])
    _compare("number of tokens", len(tokenizer), known["tokens"])
    for row in known["ids"]:
        ids = tokenizer(row["text"], add_special_tokens=False).input_ids
        _compare(f"ids of the text {row['text'][:20]!r}", ids, row["ids"])
        _compare("text made of these ids", tokenizer.decode(ids), row["text"])


def check_weights(model: Path) -> None:
    """Raise CourseError when the converted safetensors are not, bit for bit, the known weights."""
    digest = weights_digest([model / "model.safetensors"])
    _compare("hash over the weights", digest, known_answers()["weights_sha256"])


def weights_digest(files: Sequence[Path]) -> str:
    """Hex SHA-256 over names, number formats, shapes and bytes of tensors in safetensors files.

    The same weights give the same digest, whatever wrote the files and however many there are.
    """
    import torch
    from safetensors import safe_open

    digest = hashlib.sha256()
    holders: dict[str, Path] = {}
    for path in files:
        with safe_open(path, "pt") as file:
            holders |= dict.fromkeys(file.keys(), path)
    for name, path in sorted(holders.items()):
        with safe_open(path, "pt") as file:
            tensor = file.get_tensor(name)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _compare(part: str, here: Any, wanted: Any) -> None:
    if here != wanted:
        libraries = f"transformers {version('transformers')}"
        raise CourseError(
            f"The embedded model is another one here ({libraries}): its {part} is "
            f"{str(here)[:80]!r}, not {str(wanted)[:80]!r}. No figure would be true; {CURE}."
        )

"""Deltas as files: safetensors that say which base they belong to; and one added to a model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helpers import CourseError
from helpers.ship.deltas import WAYS, Delta, Packing, Parts, Whole, is_matrix


def write_delta(
    path: str | Path, delta: Mapping[str, torch.Tensor], way: Packing, base: str, embeddings: bool
) -> int:
    """Write a delta packed by `way` as safetensors, in one step; returns its size in bytes.

    `base`: the SHA-256 of the base's weights. Norms go whole; so do `embeddings`, or they stay the
    base's. Raises CourseError where the file cannot be written.
    """
    path, tensors, shapes = Path(path), {}, {}
    for name, weight in delta.items():
        of = way if is_matrix(name, weight) else Whole()
        if weight.ndim == 2 and of is not way and not embeddings:
            continue
        shapes[name] = [*weight.shape, type(of).__name__]
        for part, tensor in of.pack(weight).items():
            tensors[f"{name}:{part}"] = tensor.contiguous()
    about = {"way": type(way).__name__, "settings": vars(way), "base": base, "shapes": shapes}
    half = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, half, metadata={"delta": json.dumps(about)})
        half.replace(path)
    except (OSError, SafetensorError) as problem:
        half.unlink(missing_ok=True)
        cure = "free some space or name another folder"
        raise CourseError(f"{path.name} could not be written ({problem}); {cure}.") from None
    return path.stat().st_size


def read_delta(path: str | Path, base: str) -> Delta:
    """The delta in a file. CourseError: no such file, or it belongs to another base."""
    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["delta"])
            tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
    except (OSError, SafetensorError, TypeError, KeyError, ValueError):
        cure = "write it again with write_delta"
        raise CourseError(f"{path.name} is no delta that can be read; {cure}.") from None
    if about["base"] != base:
        what = f"{path.name} belongs to a base with the hash {about['base'][:12]}, not {base[:12]}"
        raise CourseError(f"{what}; load the base that it was made from.")
    ways, delta = {"Whole": Whole(), about["way"]: _way(about["way"], about["settings"])}, {}
    parts: dict[str, Parts] = {}
    for name, tensor in tensors.items():
        weight, _, part = name.rpartition(":")
        parts.setdefault(weight, {})[part] = tensor
    for name, (*shape, of) in about["shapes"].items():
        delta[name] = ways[of].unpack(parts[name], tuple(shape))
    return delta


def _way(name: str, settings: Mapping[str, Any]) -> Packing:
    values = dict(settings)
    if "groups" in values:  # JSON has no tuples
        values["groups"] = tuple(map(tuple, values["groups"]))
    return WAYS[name](**values)


def apply_delta(model: torch.nn.Module, delta: Mapping[str, torch.Tensor]) -> None:
    """Add a delta to a model's weights, in the model's own number format."""
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, change in delta.items():
            weight = weights[name]
            weight.copy_(weight.float() + change.to(weight.device))

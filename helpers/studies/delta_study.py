"""Study 09, first part: one full fine-tune, and what is left of it in fewer and fewer bytes.

The fine-tune is chapter 05's recipe with every weight trained (methods_study: its rate), seed 0.
Every way was fixed before one of them answered a test row, and none is chosen by what it scores.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from helpers.ask import answers
from helpers.core.files import Journal, fingerprint, sha256, write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.measure import harness, intervals
from helpers.ship.delta_files import apply_delta, read_delta, write_delta
from helpers.ship.deltas import (
    Delta,
    Dropped,
    LowRank,
    Mixed,
    Packing,
    Rounded,
    Signs,
    Ternary,
    Whole,
    delta_of,
    is_matrix,
)
from helpers.ship.distil import distilled_signs
from helpers.ship.records import weights_hash
from helpers.studies import study_figures as figures
from helpers.studies.methods_study import METHODS
from helpers.studies.recipe_study import recipe_job, recipe_rows
from helpers.tune import examples, training
from helpers.tune.students import InventingPilot, merged, scored_answers, train_student

# {name: (how a matrix is packed, are the embeddings shipped)}
PACKED: dict[str, tuple[Packing, bool]] = {
    "whole": (Whole(), True),
    "1 bit": (Signs(), False),
    "svd 16": (LowRank(16), False),
    "mixed": (Mixed(), False),
    "dare 95": (Dropped(0.95), False),
    "ternary 5": (Ternary(0.05), False),
    "whole, base's embeddings": (Whole(), False),
    "svd 64": (LowRank(64), False),
    "svd 4": (LowRank(4), False),
    "dare 99": (Dropped(0.99), False),
    "dare 99, seed 1": (Dropped(0.99, 1), False),
    "dare 99, seed 2": (Dropped(0.99, 2), False),
    "dare 90": (Dropped(0.9), False),
    "dare 50": (Dropped(0.5), False),
    "ternary 20": (Ternary(0.2), False),
    "ternary 1": (Ternary(0.01), False),
    "1 bit and embeddings": (Signs(), True),
}
DISTILLED, BASE, LORA = "1 bit, distilled", "base", "lora trained"
SQUEEZED: dict[str, Packing] = {  # of the LoRA's own matrices A and B
    "lora ternary 20": Ternary(0.2),
    "lora ternary 5": Ternary(0.05),
    "lora 4 bits": Rounded(4),
    "lora 2 bits": Rounded(2),
}
FREE = 100  # test rows that are answered without having to copy, for what is invented
STEPS, PACK = 100, 256  # of the distillation; tokens of a step


# What is compared ------------------------------------------------------------------------------


def full_tuned(pilot: Pilot, data: Any, run: Run) -> Path:
    """The folder of the full fine-tune: model.safetensors in float32, facts.json; trained once."""
    job = recipe_job("full", 0, recipe_rows(pilot, data, run), data, METHODS["full"])
    place = run.path("full") / job.key(pilot)
    if not (place / "facts.json").is_file():
        model, _, facts = train_student(pilot, job, run.runtime, place)
        weights = {name: weight.detach().cpu() for name, weight in model.named_parameters()}
        save_file({name: weight.contiguous() for name, weight in weights.items()}, _file(place))
        write_text(place / "facts.json", json.dumps(facts))
    return place


def _file(place: Path) -> Path:
    return place / "model.safetensors"


def base_weights(pilot: Pilot, run: Run) -> tuple[Any, str]:
    """(the dense base in the machine's number format, the hash of its weights)."""
    base, _ = answers.open_base(pilot)
    with base.loading():
        model = training.load_base(base.path, run.runtime, four_bit=False)
    return model.eval(), weights_hash(base)


def training_packs(pilot: Pilot, data: Any, run: Run, tokenizer: Any) -> list[list[int]]:
    """Token ids of training rows, filled up to PACK tokens: what the distillation reads."""
    rows, _ = examples.training_rows(pilot, recipe_rows(pilot, data, run), tokenizer, PACK)
    packs: list[list[int]] = [[]]
    for place in np.random.default_rng(0).permutation(len(rows)):
        ids = tokenizer(rows[place]["prompt"] + rows[place]["completion"]).input_ids
        if len(packs[-1]) + len(ids) > PACK:
            packs.append([])
        packs[-1] += ids
    return (packs[:-1] * (1 + STEPS // max(1, len(packs) - 1)))[:STEPS]


def squeezed_lora(adapter: Path, way: Packing, place: Path) -> tuple[dict[str, torch.Tensor], int]:
    """(a LoRA's own matrices after packing and unpacking, the bytes they take): ComPEFT."""
    stored = load_file(adapter / "adapter_model.safetensors")
    shipped = {name: weight.float() for name, weight in stored.items()}
    size = write_delta(place, shipped, way, "adapter", False)
    return {
        name: w.to(stored[name].dtype) for name, w in read_delta(place, "adapter").items()
    }, size


# Measuring -------------------------------------------------------------------------------------


def read_and_counted(
    pilot: Pilot, model: Any, tokenizer: Any, data: Any, run: Run, at: Path
) -> dict[str, list[bool]]:
    """{what: bools}: exact record and fields of the test rows, invented values, general answers."""
    rows, here = data.test, run.runtime
    limits = 512, max(64, max(len(tokenizer(pilot.answer(r)).input_ids) for r in data.train) + 16)
    _, result = scored_answers(pilot, model, tokenizer, rows, at / "test", here, *limits)
    right = {"test": result.exact.tolist()}
    for field, values in result.right.items():
        right[f"test.{field}"] = values.tolist()
    free = InventingPilot.model_construct(**dict(pilot))
    some = rows.select(range(min(FREE, len(rows))))
    _, result = scored_answers(free, model, tokenizer, some, at / "free", here, *limits)
    right["test.invented"] = result.invented.tolist()
    right["general"] = harness.by_hand(model, tokenizer, harness.general_docs()).tolist()
    return right


def measure_deltas(
    pilot: Pilot, data: Any, run: Run, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """A cell for every way, those that are finished are read back: arm, bytes, seconds, right."""
    journal = Journal(run.path("deltas.jsonl"), "A delta")
    place = full_tuned(pilot, data, run)
    cells, tuned = [], sha256(_file(place))
    for arm, make in _arms(pilot, data, run, place).items():
        drawn = ["a draw for each matrix"] if arm.startswith("dare") else []
        key = fingerprint(arm, tuned, [row[pilot.text] for row in data.test], *drawn)
        if journal.missing([key]):
            start = time.perf_counter()
            model, cell = make()
            cell = {"arm": arm, "seed": 0, "key": key} | cell
            _, tokenizer = answers.open_base(pilot)
            cell["right"] = read_and_counted(
                pilot, model, tokenizer, data, run, run.path(f"told/{key}")
            )
            cell |= {"machine": run.runtime.note, "versions": _versions()}
            journal.add({key: cell}, time.perf_counter() - start)
            del model
        cells += journal.of([key])
        say(_line(cells[-1]))
    return cells


def _versions() -> dict[str, str]:
    from helpers.core.runtime import versions

    return versions()


def _line(cell: Mapping[str, Any]) -> str:
    right = {name: f"{np.mean(values):.1%}" for name, values in cell["right"].items()}
    shown = f"exact {right['test']}  invented {right['test.invented']}"
    size = cell["bytes"] / 1e6
    return f"{cell['arm']:26} {size:8.2f} MB  {shown}  general {right['general']}"


def _arms(pilot: Pilot, data: Any, run: Run, place: Path) -> dict[str, Callable[[], Any]]:
    """{arm: what gives its model, and its bytes and seconds}; nothing is loaded before."""
    adapter = run.need("05", "adapter")

    def plain() -> tuple[Any, dict[str, Any]]:
        return base_weights(pilot, run)[0], {"bytes": 0, "seconds": 0.0}

    def packed(way: Packing, embeddings: bool, name: str) -> tuple[Any, dict[str, Any]]:
        model, digest = base_weights(pilot, run)
        delta, file = _delta(model, place), run.path(f"packed/{figures.arm_name(name)}.safetensors")
        return _applied(model, digest, delta, way, embeddings, file)

    def distilled() -> tuple[Any, dict[str, Any]]:
        model, digest = base_weights(pilot, run)
        _, tokenizer = answers.open_base(pilot)
        delta = _delta(model, place)
        packs = training_packs(pilot, data, run, tokenizer)
        delta = distil(pilot, run, delta, packs)
        file = run.path("packed/distilled.safetensors")
        return _applied(model, digest, delta, Signs(), False, file)

    def lora(way: Packing | None) -> tuple[Any, dict[str, Any]]:
        base, _ = answers.open_base(pilot)
        start = time.perf_counter()
        if way is None:
            model = merged(base, adapter, run.runtime)
            seconds = time.perf_counter() - start
            size = (adapter / "adapter_model.safetensors").stat().st_size
            return model, {"bytes": size, "seconds": seconds}
        weights, size = squeezed_lora(adapter, way, run.path("packed/lora.safetensors"))
        dense, _ = base_weights(pilot, run)
        start = time.perf_counter()
        model = PeftModel.from_pretrained(dense, str(adapter))
        named = dict(model.named_parameters())
        with torch.no_grad():
            for name, weight in weights.items():
                named[name.replace(".weight", ".default.weight")].copy_(weight)
        model = model.merge_and_unload()
        return model, {"bytes": size, "seconds": time.perf_counter() - start}

    arms: dict[str, Callable[[], Any]] = {BASE: plain, LORA: partial(lora, None)}
    for name, (way, embeddings) in PACKED.items():
        arms[name] = partial(packed, way, embeddings, name)
    arms[DISTILLED] = distilled
    for name, own in SQUEEZED.items():
        arms[name] = partial(lora, own)
    return arms


def _delta(model: Any, place: Path) -> Delta:
    tuned = load_file(_file(place))
    return delta_of(dict(model.named_parameters()), tuned)


def _applied(
    model: Any, digest: str, delta: Delta, way: Packing, embeddings: bool, file: Path
) -> tuple[Any, dict[str, Any]]:
    """(the model with what is left of a delta, its bytes, seconds to read and add it)."""
    size = write_delta(file, delta, way, digest, embeddings)
    start = time.perf_counter()
    left = read_delta(file, digest)
    apply_delta(model, left)
    seconds = time.perf_counter() - start
    lost, whole = 0.0, 0.0
    for name, change in delta.items():
        if is_matrix(name, change):
            lost += float((left[name] - change).square().sum())
            whole += float(change.square().sum())
    return model, {"bytes": size, "seconds": round(seconds, 3), "error": (lost / whole) ** 0.5}


def distil(pilot: Pilot, run: Run, delta: Delta, packs: list[list[int]]) -> Delta:
    """The signs of a delta with distilled scales: see distilled_signs."""
    base, tuned = (base_weights(pilot, run)[0].float() for _ in range(2))
    apply_delta(tuned, delta)
    return distilled_signs(base, tuned, delta, packs, print)


# Figures ---------------------------------------------------------------------------------------


def delta_figures(cells: list[dict[str, Any]]) -> Iterator[figures.StudyFigure]:
    """For each way bytes, exact record, its distance from the whole delta, invented, general."""
    whole = next(cell for cell in cells if cell["arm"] == "whole")
    how = "test, one full fine-tune, Wilson 95 %"
    for cell in cells:
        name, right = figures.arm_name(cell["arm"]), cell["right"]
        size = figures.StudyFigure(f"delta.{name}.bytes", cell["bytes"], "file", [0], "bytes")
        yield size
        exact = intervals.share(right["test"])
        yield figures.StudyFigure(f"delta.{name}.exact", exact, how, [0])
        gap = intervals.compare(right["test"], whole["right"]["test"])
        told = "minus the whole delta, paired bootstrap 95 %"
        yield figures.StudyFigure(f"delta.{name}.exact_difference", gap, told, [0])
        for what in ("invented", "general"):
            values = right.get(f"test.{what}", right.get(what))
            share = intervals.share(values)
            yield figures.StudyFigure(f"delta.{name}.{what}", share, "Wilson 95 %", [0])
        if "error" in cell and cell["arm"] != DISTILLED:  # that has its own delta
            error, told = cell["error"], "of all matrices, relative to the delta's size"
            yield figures.StudyFigure(f"delta.{name}.error", error, told, [0])
        seconds, told = cell["seconds"], "to read and add it"
        yield figures.StudyFigure(f"delta.{name}.seconds", seconds, told, [0], "s", 1)

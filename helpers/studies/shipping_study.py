"""Study 09, the whole: deltas of one full fine-tune, two adapters in one, serving, loads.

See delta_study, two_adapters_study and serving_study. An hour and a half on two cores, of which
the fine-tune takes a quarter; everything that is finished is read back.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from helpers.core.files import write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.measure import intervals
from helpers.ship.delta_files import write_delta
from helpers.ship.deltas import delta_of
from helpers.studies import delta_study, serving_study, two_adapters_study
from helpers.studies import study_figures as figures
from helpers.studies.methods_study import METHODS
from helpers.studies.recipe_study import STEPS

ONE = "model.layers.15.self_attn.o_proj.weight"  # the matrix that chapter 09 takes apart
SMALL = "dare_99.safetensors"  # a delta that the page adds to the base
PARTS = ("deltas", "combined", "served", "device", "loads")


def ship_all(
    pilot: Pilot, data: Any, run: Run, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Every cell, each with the `part` it belongs to; what is finished is not measured again."""
    makers = {
        "deltas": delta_study.measure_deltas,
        "combined": two_adapters_study.measure_combined,
        "served": serving_study.measure_served,
        "device": serving_study.measure_device,
        "loads": serving_study.measure_loads,
    }
    cells = []
    for part in PARTS:
        kept = run.path(f"part_{part}.json")
        if not kept.is_file():
            write_text(kept, json.dumps(makers[part](pilot, data, run, say)))
        own = json.loads(kept.read_text(encoding="utf-8"))
        cells += [{"part": part} | cell for cell in own]
    _keep_files(pilot, data, run)
    return cells


def _keep_files(pilot: Pilot, data: Any, run: Run) -> None:
    """For the page: one matrix of the base and of the fine-tune, and the smallest delta as such."""
    tuned = load_file(delta_study.full_tuned(pilot, data, run) / "model.safetensors")
    model, digest = delta_study.base_weights(pilot, run)
    delta = delta_of(dict(model.named_parameters()), tuned)
    parts = {"base": tuned[ONE] - delta[ONE], "delta": delta[ONE]}
    halves = {
        name: part.to(torch.bfloat16 if name == "base" else torch.float16)
        for name, part in parts.items()
    }
    save_file(halves, run.path("matrix.safetensors"))
    way, embeddings = delta_study.PACKED["dare 99"]
    write_delta(run.path(SMALL), delta, way, digest, embeddings)
    run.keep("matrix.safetensors", {"matrix": ONE})
    run.keep(SMALL)


def ship_figures(cells: list[dict[str, Any]]) -> Iterator[figures.StudyFigure]:
    """The figures of every part that is there."""
    parts = {part: [cell for cell in cells if cell["part"] == part] for part in PARTS}
    yield from delta_study.delta_figures(parts["deltas"])
    yield from two_adapters_study.combined_figures(parts["combined"])
    yield from serving_study.served_figures(parts["served"])
    for cell in parts["device"]:
        name = figures.arm_name(cell["arm"])
        yield figures.StudyFigure(f"memory.{name}", cell["rss"], "resident", [0], "bytes")
        if "tokens_per_second" in cell:
            speed, how = cell["tokens_per_second"], "one core, one message after the other"
            yield figures.StudyFigure(f"device.{name}.tokens_per_second", speed, how, [0], "1/s")
    for cell in parts["loads"]:
        yield from _load_figures(cell)


def _load_figures(cell: dict[str, Any]) -> Iterator[figures.StudyFigure]:
    name = f"load.{'mended' if cell['mended'] else 'as_it_comes'}.{cell['clients']}"
    how, n = f"three adapters, {cell['seconds']:.0f} s", cell["requests"]
    yield figures.StudyFigure(f"{name}.requests", n, how, [0], "count")
    failed = sum(cell["failed"].values())
    for what, count in (("failed", failed), ("wrong_adapter", cell["wrong_adapter"])):
        yield figures.StudyFigure(f"{name}.{what}", count, how, [0], "count", n)
    if not cell["wrong_adapter"]:
        most = intervals.highest_rate(0, cell["telling"])
        told = f"{how}, of telling answers, upper bound 95 %"
        yield figures.StudyFigure(f"{name}.wrong_adapter_at_most", most, told, [0], "share", n)
    for what in ("different", "telling"):
        yield figures.StudyFigure(f"{name}.{what}", cell[what], how, [0], "count", n)
    for what in ("p50", "p95"):
        yield figures.StudyFigure(f"{name}.{what}", cell[what], how, [0], "s", n)
    yield figures.StudyFigure(f"{name}.per_second", cell["per_second"], how, [0], "1/s", n)


def ship_settings(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """What results.json says about the study."""
    ways = {}
    for name, (way, _) in delta_study.PACKED.items():
        ways[name] = [type(way).__name__, vars(way)]
    whole = next(cell for cell in cells if cell["arm"] == "whole")
    return {
        "lead": [f"one full fine-tune, {len(whole['right']['test'])} test rows"],
        "fine_tune": {"steps": STEPS, "seed": 0, **METHODS["full"]},
        "ways": ways,
        "distilled_steps": delta_study.STEPS,
        "combined": two_adapters_study.COMBINED,
        "cases": [two_adapters_study.CASES[0], two_adapters_study.CASES[-1]],
        "load_seconds": serving_study.MINUTE,
        "parallel": [serving_study.PARALLEL, serving_study.TOGETHER],
    }

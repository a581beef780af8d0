"""Chapter 05's table: full tuning, LoRA and QLoRA, of the pilot's base model and of a larger one.

Same rows, steps and seeds for all (recipe_study). Two cores take about five hours, a fast card
minutes; nothing here chooses, and the rates of learning were set before a test row was answered.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.studies import recipe_study as recipe
from helpers.studies import study_figures as figures
from helpers.tune.students import StudentJob

LARGER = "larger"  # begins the names of the larger model's arms
# {method: what the larger model's student differs in}: smaller rates for more weights
LARGER_CHANGES: dict[str, dict[str, Any]] = {
    "qlora": recipe.LARGER_CHANGES,
    "lora": recipe.LARGER_CHANGES,
    "full": {"learning_rate": 5e-5},
}
BEST_EMBEDDED, BEST = "qlora", f"{LARGER} qlora"  # the recipe, whatever the others come to


def method_jobs(pilot: Pilot, data: Any, run: Run) -> list[StudentJob]:
    """Every way of tuning the pilot's own base model, each with every seed."""
    return [job for job in recipe.recipe_jobs(pilot, data, run) if job.arm in recipe.METHODS]


def larger_method_jobs(pilot: Pilot, data: Any, run: Run) -> tuple[Pilot, list[StudentJob]]:
    """(the pilot with the larger base model, the same students of it)."""
    jobs = []
    for job in method_jobs(pilot, data, run):
        changed = job.settings | LARGER_CHANGES[job.arm]
        jobs.append(replace(job, arm=f"{LARGER} {job.arm}", settings=changed))
    return pilot.model_copy(update={"base_model": recipe.LARGER}), jobs


def method_figures(pilot: Pilot, cells: figures.Cells) -> Iterator[figures.StudyFigure]:
    """Exact record, fields, seconds and sizes of each finished arm, and its distance from QLoRA."""
    how = "test: mean over seeds, bootstrap 95 % over rows"
    arms = list(dict.fromkeys(cell["arm"] for cell in cells))
    for arm in arms:
        yield from recipe.arm_figures(pilot, cells, arm)
    for name, arm in (("exact.best.embedded", BEST_EMBEDDED), ("exact.best", BEST)):
        if arm in arms:
            share, seeds = figures.mean_share(cells, arm, "test"), figures.seeds_of(cells, arm)
            yield figures.StudyFigure(name, share, f"{arm}, {how}", seeds)
    how = "paired over rows, seeds averaged, bootstrap 95 %"
    for arm in arms:
        if arm != BEST_EMBEDDED and BEST_EMBEDDED in arms:
            seeds = figures.seeds_of(cells, arm)
            yield figures.gap_figure(cells, arm, BEST_EMBEDDED, "test", "exact", how, seeds)

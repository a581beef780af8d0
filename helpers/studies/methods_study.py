"""Chapter 05's table: full tuning, LoRA and QLoRA of the pilot's base model and of a larger one.

Rows, steps and seeds are recipe_study's. The rates of learning were set before a student of these
answered a test row, and nothing is chosen by what they score.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from helpers.choose import gguf_parts, models
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.studies import recipe_study as recipe
from helpers.studies import study_figures as figures
from helpers.tune.students import SETTINGS, StudentJob, train_students

# {arm: what differs from the recipe}; the larger model takes smaller steps
METHODS: dict[str, dict[str, Any]] = {
    "qlora": {},
    "lora": {"method": "lora"},
    "full": {"method": "full", "learning_rate": 1e-4},
}
LARGER, LARGER_MODEL = "larger", "qwen2.5-coder-0.5b"
LARGER_RATES = {"qlora": 5e-4, "lora": 5e-4, "full": 5e-5}
BEST = f"{LARGER} {recipe.BEST}"  # the recipe of the larger model, whatever the others come to


def method_jobs(pilot: Pilot, data: Any, run: Run) -> list[StudentJob]:
    """Every way of tuning the pilot's own base model, each with every seed."""
    rows, jobs = recipe.recipe_rows(pilot, data, run), []
    for arm, changes in METHODS.items():
        for seed in recipe.SEEDS:
            jobs.append(recipe.recipe_job(arm, seed, rows, data, changes))
    return jobs


def larger_jobs(pilot: Pilot, data: Any, run: Run) -> tuple[Pilot, list[StudentJob]]:
    """(the pilot with the larger base model, the same students of that)."""
    jobs = []
    for job in method_jobs(pilot, data, run):
        settings = job.settings | {"learning_rate": LARGER_RATES[job.arm]}
        jobs.append(replace(job, arm=f"{LARGER} {job.arm}", settings=settings))
    return pilot.model_copy(update={"base_model": LARGER_MODEL}), jobs


def train_methods(
    pilot: Pilot, data: Any, run: Run, say: Callable[[str], None] = print, n_jobs: int = 1
) -> list[dict[str, Any]]:
    """Train what is missing; the larger model's students come last, where that is fetched."""
    jobs, here = method_jobs(pilot, data, run), run.runtime
    cells = train_students(pilot, jobs, here, run.path("students"), say, n_jobs)
    if gguf_parts.is_fetched(LARGER_MODEL, models.cache_folder()):
        larger, own = larger_jobs(pilot, data, run)
        cells += train_students(larger, own, here, run.path("larger"), say, n_jobs)
    return cells


def method_figures(pilot: Pilot, cells: figures.Cells) -> Iterator[figures.StudyFigure]:
    """Figures of each finished arm, `exact.best`, and each arm against QLoRA of the pilot's base.

    Arms may have been trained on different machines: see method_settings.
    """
    arms = list(dict.fromkeys(cell["arm"] for cell in cells))
    for arm in arms:
        yield from recipe.arm_figures(pilot, cells, arm)
    if BEST in arms:
        share, seeds = figures.mean_share(cells, BEST, "test"), figures.seeds_of(cells, BEST)
        how = f"{LARGER_MODEL}, QLoRA, {recipe.HOW}"
        yield figures.StudyFigure("exact.best", share, how, seeds)
    for arm in arms:
        seeds = figures.seeds_of(cells, arm)
        if arm != recipe.BEST and seeds == figures.seeds_of(cells, recipe.BEST):
            pair = (arm, recipe.BEST)
            yield figures.gap_figure(cells, *pair, "test", "exact", recipe.HOW_GAP, seeds)


def method_settings(pilot: Pilot, cells: figures.Cells) -> dict[str, Any]:
    """What results.json says about the study: where each arm was trained, and what is missing."""
    machines: dict[str, str] = {}
    versions: dict[str, dict[str, str]] = {}
    have = set()
    for cell in cells:
        machines.setdefault(cell["arm"], cell["machine"])
        versions.setdefault(cell["machine"], cell["versions"])
        have.add((cell["arm"], cell["seed"]))
    unfinished = []
    for arm in (*METHODS, *(f"{LARGER} {method}" for method in METHODS)):
        unfinished += [f"{arm}, seed {s}" for s in recipe.SEEDS if (arm, s) not in have]
    return {
        "lead": [f"{len(have)} students of {recipe.STEPS} steps each"],
        "steps": recipe.STEPS,
        "student": SETTINGS | recipe.RECIPE,
        "methods": METHODS,
        "larger": {"model": LARGER_MODEL, "learning_rate": LARGER_RATES},
        "machines": machines,
        "versions": versions,
        "unfinished": unfinished,
    }

"""Chapter 05's recipe: all rows that chapter 04 kept, read often enough, by each way of tuning.

Every student takes the same number of steps. Rows and steps were fixed before a student of this
study answered a test row; studies 04 and 05 had read these rows before. Beside the students: what
each reads in the labelled rows that it did not learn, and in the test rows, for chapter 08.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from helpers import CourseError
from helpers.agree.bar import Bar
from helpers.choose import gguf_parts, models
from helpers.core import rows as labelled_rows
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.core.text import is_wide, tokens
from helpers.measure import baselines, system
from helpers.studies import study_figures as figures
from helpers.tune.students import SETTINGS, StudentJob, shipped_reading, train_students

Rows = list[dict[str, Any]]
# how often a labelled row is read for each time a made one is; steps of 256 tokens; seeds
REPEAT, STEPS, SEEDS = 2, 720, (0, 1, 2)
RECIPE: dict[str, Any] = {"answer_only": True}  # beside SETTINGS: chapter 00's QLoRA
# {arm: what differs from RECIPE}; the first is the recipe of the chapter
METHODS: dict[str, dict[str, Any]] = {
    "qlora": {},
    "lora": {"method": "lora"},
    "full": {"method": "full", "learning_rate": 1e-4},
}
LABELLED_ONLY = "labelled only"  # the recipe without made rows: the same steps
LARGER_NAME, LARGER = "larger", "qwen2.5-coder-0.5b"
LARGER_CHANGES: dict[str, Any] = {"learning_rate": 5e-4}  # a larger model, a smaller rate
FOLDS = 3
RUN_OF_WORDS, RUN_OF_CHARACTERS = 4, 10  # that a row must not share with one it is kept apart from
UNSEEN = "unseen"  # the way of the fold students among the readings


def recipe_rows(pilot: Pilot, data: Any, run: Run) -> Rows:
    """The labelled rows REPEAT times, then the rows that chapter 04 kept; never a test row."""
    kept = figures.chapter_rows(run, "04", "curated.jsonl")
    banned = {row[pilot.text] for row in data.test}
    return list(data.train) * REPEAT + [row for row in kept if row[pilot.text] not in banned]


def recipe_jobs(pilot: Pilot, data: Any, run: Run) -> list[StudentJob]:
    """Every student of the pilot's base model, what matters most first."""
    rows, sets = recipe_rows(pilot, data, run), {"test": data.test}

    def job(arm: str, seed: int, table: Rows, changes: Mapping[str, Any]) -> StudentJob:
        return StudentJob(arm, table, seed, STEPS, sets, {**RECIPE, **changes}, study="recipe")

    jobs = []
    for seed in SEEDS:
        jobs.append(job("qlora", seed, rows, METHODS["qlora"]))
        jobs.append(job(LABELLED_ONLY, seed, list(data.train), {}))
    for arm in ("lora", "full"):
        jobs += [job(arm, seed, rows, METHODS[arm]) for seed in SEEDS]
    return jobs


def larger_jobs(pilot: Pilot, data: Any, run: Run) -> tuple[Pilot, list[StudentJob]]:
    """(the pilot with the larger base model, its students): the recipe at a smaller rate."""
    jobs = []
    for job in recipe_jobs(pilot, data, run):
        if job.arm == "qlora":
            jobs.append(replace(job, arm=LARGER_NAME, settings=job.settings | LARGER_CHANGES))
    return pilot.model_copy(update={"base_model": LARGER}), jobs


def fold_jobs(pilot: Pilot, data: Any, run: Run) -> list[tuple[np.ndarray, StudentJob]]:
    """[(places in data.train, student)]: each labelled row belongs to a student without it.

    A student learns from the labelled rows of the other folds, and from the made rows that share no
    run of words with a row that it will read: a made row may be a copy of a labelled one.
    """
    train = list(data.train)
    made = recipe_rows(pilot, data, run)[len(train) * REPEAT :]
    fold, jobs = baselines.folds(pilot, train, FOLDS, 0), []
    for number in range(FOLDS):
        places = np.flatnonzero(fold == number)
        read, own = [train[place] for place in places], []
        for row, of in zip(train, fold):
            if of != number:
                own.append(row)
        rows = own * REPEAT + made_apart_from(pilot, made, read)
        arm, sets = f"fold {number}", {"unseen": read}
        jobs.append((places, StudentJob(arm, rows, 0, STEPS, sets, RECIPE, study="folds")))
    return jobs


def made_apart_from(pilot: Pilot, made: Rows, read: Rows) -> Rows:
    """The made rows that share no run of words (in wide scripts: characters) with a row of `read`.

    Four words in a row stand in few messages by chance.
    """
    known: set[tuple[str, ...]] = set()
    for row in read:
        known |= _runs(row[pilot.text])
    return [row for row in made if not known & _runs(row[pilot.text])]


def _runs(text: str) -> set[tuple[str, ...]]:
    words = tokens(text)
    length = RUN_OF_CHARACTERS if is_wide(words) else RUN_OF_WORDS
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def train_all(
    pilot: Pilot,
    data: Any,
    run: Run,
    jobs: Sequence[StudentJob],
    say: Callable[[str], None] = print,
    n_jobs: int = 1,
) -> list[dict[str, Any]]:
    """Train what is missing and keep what the students read; returns the cells of `jobs`.

    The larger model's students come last, where it is fetched.
    """
    here, folds = run.runtime, fold_jobs(pilot, data, run)
    cells = train_students(pilot, jobs, here, run.path("students"), say, n_jobs)
    train_students(pilot, [job for _, job in folds], here, run.path("students"), say, n_jobs)
    unseen = unseen_reading(pilot, data, folds, run)
    texts = [row[pilot.text] for row in data.train]
    system.keep_reading(run.path(system.READINGS), UNSEEN, texts, unseen)
    recipe = [job for job in jobs if job.arm == "qlora"]
    keep_readings(pilot, run, recipe, data, "students")
    if gguf_parts.is_fetched(LARGER, models.cache_folder()):
        larger, own = larger_jobs(pilot, data, run)
        cells += train_students(larger, own, here, run.path("larger"), say, n_jobs)
        keep_readings(larger, run, own, data, "larger")
    run.keep(system.READINGS)
    return cells


# What the students read, for chapter 08 --------------------------------------------------------


def unseen_reading(
    pilot: Pilot, data: Any, jobs: Sequence[tuple[np.ndarray, StudentJob]], run: Run
) -> system.Reading:
    """Each labelled row, in the order of data.train, read by the student that did not learn it."""
    train, folder = list(data.train), run.path("students")
    fold = np.zeros(len(train), int)
    for number, (places, _) in enumerate(jobs):
        fold[places] = number

    def read(learnt: Rows, texts: Sequence[str]) -> system.Reading:
        for _, job in jobs:
            if [row[pilot.text] for row in job.sets["unseen"]] == list(texts):
                rows = job.sets["unseen"]
                return shipped_reading(pilot, job, rows, run.runtime, folder, "unseen")
        raise AssertionError("a fold without a student")

    return system.out_of_fold_reading(pilot, train, fold, read)


def keep_readings(
    pilot: Pilot, run: Run, jobs: Sequence[StudentJob], data: Any, folder: str
) -> None:
    """Enter what each trained student makes of the test and the odd rows into READINGS."""
    sets = {"test": data.test} | ({"ood": data.ood} if data.ood else {})
    for job in jobs:
        for name, rows in sets.items():
            reading = shipped_reading(pilot, job, rows, run.runtime, run.path(folder), name)
            texts = [row[pilot.text] for row in rows]
            way = f"{job.arm} {job.seed}"
            system.keep_reading(run.path(system.READINGS), way, texts, reading)


def read_new_rows(pilot: Pilot, data: Any, run: Run) -> Path:
    """The one look: what every seed reads in the new rows, for chapter 08; where it lies.

    Raises CourseError without new rows, or without a bar that was frozen on them.
    """
    new = labelled_rows.load_new(pilot)
    if new is None:
        raise CourseError(
            f"The pilot {pilot.name!r} has no new.csv, so there is nothing to look at."
        )
    Bar.load(pilot)
    tables = {"new": new}
    reworded = pilot.folder / "new_wording.csv"
    if reworded.is_file():
        tables["reworded"] = Dataset.from_list(labelled_rows.read(reworded))
    folder = run.folder.parent.parent / "08"
    recipe = [job for job in recipe_jobs(pilot, data, run) if job.arm == "qlora"]
    for job in recipe:
        for name, rows in tables.items():
            reading = shipped_reading(pilot, job, rows, run.runtime, run.path("students"), name)
            texts = [row[pilot.text] for row in rows]
            path = folder / labelled_rows.NEW_READINGS
            system.keep_reading(path, f"{job.arm} {job.seed}", texts, reading)
    return folder / labelled_rows.NEW_READINGS


# Figures ---------------------------------------------------------------------------------------


def recipe_figures(pilot: Pilot, cells: figures.Cells) -> Iterator[figures.StudyFigure]:
    """Every figure of the finished students; `exact.best` is that of the largest base model."""
    arms = list(dict.fromkeys(cell["arm"] for cell in cells))
    measured = {"test": "exact"} | {f"test.{field}": field for field in pilot.fields}
    how = "test: mean over seeds, bootstrap 95 % over rows"
    for arm in arms:
        yield from figures.seed_figures(cells, arm)
        seeds = figures.seeds_of(cells, arm)
        for what, key in measured.items():
            share = figures.mean_share(cells, arm, what)
            yield figures.StudyFigure(f"{key}.{figures.arm_name(arm)}", share, how, seeds)
        yield from _size_figures(cells, arm)
    if "qlora" in arms:
        best, seeds = figures.mean_share(cells, "qlora", "test"), figures.seeds_of(cells, "qlora")
        yield figures.StudyFigure("exact.best.embedded", best, f"qlora, {how}", seeds)
    if LARGER_NAME in arms:
        best = figures.mean_share(cells, LARGER_NAME, "test")
        seeds = figures.seeds_of(cells, LARGER_NAME)
        yield figures.StudyFigure("exact.best", best, f"{LARGER}, {how}", seeds)
    how = "paired over rows, seeds averaged, bootstrap 95 %"
    for other in (LABELLED_ONLY, "lora", "full", LARGER_NAME):
        shared = sorted({*_seeds(cells, "qlora")} & {*_seeds(cells, other)})
        if shared:
            same = [cell for cell in cells if cell["seed"] in shared]
            pair = ("qlora", other) if other == LABELLED_ONLY else (other, "qlora")
            yield figures.gap_figure(same, *pair, "test", "exact", how, shared)


def _seeds(cells: figures.Cells, arm: str) -> list[int]:
    return [cell["seed"] for cell in cells if cell["arm"] == arm]


def _size_figures(cells: figures.Cells, arm: str) -> Iterator[figures.StudyFigure]:
    own = figures.cells_of(cells, arm)
    seeds, name = figures.seeds_of(cells, arm), figures.arm_name(arm)
    seconds = float(np.mean([cell["seconds"] for cell in own]))
    how = "training, one thread, another student beside it"
    yield figures.StudyFigure(f"seconds.{name}", seconds, how, seeds, "s", len(own))
    size = own[0]["ship_bytes"]
    yield figures.StudyFigure(
        f"ship_bytes.{name}", size, "trained weights, 16 bits", seeds, "bytes"
    )


def recipe_settings(pilot: Pilot, data: Any, run: Run) -> dict[str, Any]:
    """What results.json says about the study."""
    rows = recipe_rows(pilot, data, run)
    return {
        "lead": [f"{len(data.test)} test rows, {len(SEEDS)} seeds, {STEPS} steps each"],
        "labelled": len(data.train),
        "repeat": REPEAT,
        "steps": STEPS,
        "student": SETTINGS | RECIPE,
        "recipes": dict(Counter(row.get("recipe", "labelled") for row in rows)),
        "larger": LARGER,
        "folds": FOLDS,
    }

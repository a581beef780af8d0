"""Chapter 05's recipe: all rows that chapter 04 kept, read often enough, and not without them.

Every student takes the same number of steps. Rows and steps were fixed before a student of this
study answered a test row; studies 04 and 05 had read these rows before. Beside the students: what
each reads in the labelled rows that it did not learn, and in the test rows, for chapter 08. The
same recipe by other methods, and of a larger model: methods_study.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from helpers import CourseError
from helpers.agree.bar import Bar
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
BEST = "qlora"  # the arm of the recipe
LABELLED_ONLY = "labelled only"  # the recipe without made rows: the same steps
HOW = "test: mean over seeds, bootstrap 95 % over rows"
HOW_GAP = "paired over rows, seeds averaged, bootstrap 95 %"
FOLDS = 3
RUN_OF_WORDS, RUN_OF_CHARACTERS = 4, 10  # that a row must not share with one it is kept apart from
UNSEEN = "unseen"  # the way of the fold students among the readings


def recipe_rows(pilot: Pilot, data: Any, run: Run) -> Rows:
    """The labelled rows REPEAT times, then the rows that chapter 04 kept; never a test row."""
    kept = figures.chapter_rows(run, "04", "curated.jsonl")
    banned = {row[pilot.text] for row in data.test}
    return list(data.train) * REPEAT + [row for row in kept if row[pilot.text] not in banned]


def recipe_jobs(pilot: Pilot, data: Any, run: Run) -> list[StudentJob]:
    """The recipe's students and those without made rows, a pair for each seed."""
    rows, jobs = recipe_rows(pilot, data, run), []
    for seed in SEEDS:
        jobs.append(recipe_job(BEST, seed, rows, data))
        jobs.append(recipe_job(LABELLED_ONLY, seed, list(data.train), data))
    return jobs


def recipe_job(
    arm: str, seed: int, rows: Rows, data: Any, changes: Mapping[str, Any] | None = None
) -> StudentJob:
    """A student of `rows` by the recipe, but for `changes` of its settings; it answers the test."""
    settings = {**RECIPE, **(changes or {})}
    return StudentJob(arm, rows, seed, STEPS, {"test": data.test}, settings, study="recipe")


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
    """Train what is missing and keep what the students read; returns the cells of `jobs`."""
    here, folds = run.runtime, fold_jobs(pilot, data, run)
    cells = train_students(pilot, jobs, here, run.path("students"), say, n_jobs)
    train_students(pilot, [job for _, job in folds], here, run.path("students"), say, n_jobs)
    unseen = unseen_reading(pilot, data, folds, run)
    texts = [row[pilot.text] for row in data.train]
    system.keep_reading(run.path(system.READINGS), UNSEEN, texts, unseen)
    keep_readings(pilot, run, [job for job in jobs if job.arm == BEST], data)
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


def keep_readings(pilot: Pilot, run: Run, jobs: Sequence[StudentJob], data: Any) -> None:
    """Enter what each trained student makes of the test and the odd rows into READINGS."""
    sets = {"test": data.test} | ({"ood": data.ood} if data.ood else {})
    for job in jobs:
        for name, rows in sets.items():
            reading = shipped_reading(pilot, job, rows, run.runtime, run.path("students"), name)
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
    recipe = [job for job in recipe_jobs(pilot, data, run) if job.arm == BEST]
    for job in recipe:
        for name, rows in tables.items():
            reading = shipped_reading(pilot, job, rows, run.runtime, run.path("students"), name)
            texts = [row[pilot.text] for row in rows]
            path = folder / labelled_rows.NEW_READINGS
            system.keep_reading(path, f"{job.arm} {job.seed}", texts, reading)
    return folder / labelled_rows.NEW_READINGS


# Figures ---------------------------------------------------------------------------------------


def recipe_figures(pilot: Pilot, cells: figures.Cells) -> Iterator[figures.StudyFigure]:
    """Every figure of the finished students; `exact.best.embedded` is the recipe's."""
    arms = list(dict.fromkeys(cell["arm"] for cell in cells))
    for arm in arms:
        yield from arm_figures(pilot, cells, arm)
    if BEST in arms:
        best, seeds = figures.mean_share(cells, BEST, "test"), figures.seeds_of(cells, BEST)
        yield figures.StudyFigure("exact.best.embedded", best, f"{BEST}, {HOW}", seeds)
    shared = sorted({*figures.seeds_of(cells, BEST)} & {*figures.seeds_of(cells, LABELLED_ONLY)})
    if shared:
        same = [cell for cell in cells if cell["seed"] in shared]
        yield figures.gap_figure(same, BEST, LABELLED_ONLY, "test", "exact", HOW_GAP, shared)


def arm_figures(pilot: Pilot, cells: figures.Cells, arm: str) -> Iterator[figures.StudyFigure]:
    """Exact record of each seed and of all, each field, seconds of training, bytes to ship."""
    yield from figures.seed_figures(cells, arm)
    seeds, name = figures.seeds_of(cells, arm), figures.arm_name(arm)
    measured = {"test": "exact"} | {f"test.{field}": field for field in pilot.fields}
    for what, key in measured.items():
        share = figures.mean_share(cells, arm, what)
        yield figures.StudyFigure(f"{key}.{name}", share, HOW, seeds)
    own = figures.cells_of(cells, arm)
    seconds = float(np.mean([cell["seconds"] for cell in own]))
    how = f"training, {own[0].get('machine', 'one thread')}, other students beside it"
    yield figures.StudyFigure(f"seconds.{name}", seconds, how, seeds, "s", len(own))
    size, how = own[0]["ship_bytes"], "trained weights, 16 bits"
    yield figures.StudyFigure(f"ship_bytes.{name}", size, how, seeds, "bytes")


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
        "folds": FOLDS,
    }

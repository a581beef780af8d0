"""Chapter 04's study: does curation pay? Students of the labelled rows and equally many made ones.

The made rows are those of chapter 03, from the labelled rows alone: the teacher's, and rows that
need no teacher (substitution, and the phrase book, whose author had read every training row).
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from datasets import Dataset

from helpers.choose import encoder
from helpers.core.files import write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.keep import filters, pipeline
from helpers.measure import intervals
from helpers.studies import study_figures as figures
from helpers.tune.students import SETTINGS, StudentJob

Rows = list[dict[str, Any]]
# how often the labelled rows are read for each time a made one is; steps; seeds
REPEAT, STEPS, DRAWS = 2, 160, (0, 1, 2)
# the filters that a regular expression or a count can do
RULES = (
    *(
        "schema",
        "copied",
        "unread",
        "length",
        "exact",
        "injection",
        "boilerplate",
        "leakage",
        "language",
    ),
    *("repetition", "truncation", "keywords"),
)
# shares of labels that are replaced, and of test rows that are trained on
NOISE, LEAK = (0.2, 0.4), 0.2
# chapter 00's student with the loss on the answers alone: faster, and no worse in chapter 05
CURATION_STUDENT = {"answer_only": True}
EXACT_PAIRS = (
    ("curated", "raw"),
    ("curated", "labelled only"),
    ("curated", "rules only"),
    ("raw", "labelled only"),
    ("phrase book", "labelled only"),
    ("curated", "phrase book"),
    ("all rows", "labelled only"),
    ("all rows", "phrase book"),
)
INVENTED_PAIRS = (("curated", "raw"),)


def made_rows(run: Run) -> tuple[Rows, Rows]:
    """Chapter 03's rows: (the teacher's, those without a teacher); Orca rows are seeds, left out.

    Raises CourseError where that chapter did not run for this pilot.
    """
    made = figures.chapter_rows(run, "03", "raw.jsonl")
    taught = [row for row in made if row["teacher"] != "none" and row["recipe"] != "explain"]
    return taught, [row for row in made if row["teacher"] == "none"]


def _as_lines(made: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)


def draw_rows(made: Rows, number: int, seed: int) -> Rows:
    """`number` rows drawn without looking at them."""
    return random.Random(seed).sample(made, min(number, len(made)))


def with_label_noise(pilot: Pilot, table: Rows, rate: float, seed: int) -> Rows:
    """The rows with each label replaced by another value of its field with probability `rate`."""
    chance, noisy_rows = random.Random(seed), []
    for row in table:
        noisy = dict(row)
        for name in pilot.labels:
            if chance.random() < rate:
                others = [value for value in pilot.fields[name].values if value != row[name]]
                noisy[name] = chance.choice(others)
        noisy_rows.append(noisy)
    return noisy_rows


def leaked_rows(data: Any) -> Rows:
    """The test rows that the arms "leak" train on."""
    return draw_rows(list(data.test), round(LEAK * len(data.test)), 0)


def curation_jobs(pilot: Pilot, data: Any, run: Run, say: Callable = print) -> list[StudentJob]:
    """Every student of the study, in the order of what matters most; writes the curated rows.

    Made rows are drawn anew for each seed.
    """
    taught, alone = made_rows(run)
    embed = encoder.encode if encoder.reads(data.train[pilot.text]) else None
    steps = filters.of_a_teacher(pilot, data.train, data.test, data.ood, embed)

    def chosen(some: Rows, which: Sequence[pipeline.Filter]) -> Rows:
        funnel = pipeline.curate(pilot, Dataset.from_list(some), which)
        say(str(funnel))
        return funnel.kept.to_list()

    ruled, kept = chosen(taught, pipeline.pick(steps, RULES)), chosen(taught, steps)
    # the labels of rows without a teacher are right: no keyword has to be in them
    everything = chosen(kept + alone, [step for step in steps if step.name != "keywords"])
    write_text(run.path("study_curated.jsonl"), _as_lines(kept))
    settings = {"labelled": len(data.train), "filters": [step.name for step in steps]}
    run.keep("study_curated.jsonl", settings)

    labelled, test = list(data.train), {"test": data.test}
    base, size, jobs = labelled * REPEAT, len(kept), []

    def add(study: str, arm: str, arm_rows: Rows, seed: int, sets: dict = test) -> None:
        # only these arms are about invented values; to answer freely takes as long again
        free = arm in ("raw", "curated") and seed == DRAWS[0]
        job = StudentJob(arm, arm_rows, seed, STEPS, sets, CURATION_STUDENT, free, study)
        jobs.append(job)

    for seed in DRAWS:
        sets = test | _labelled_ood(pilot, data)
        for arm, made in (("raw", taught), ("curated", kept)):
            add("arms", arm, base + draw_rows(made, size, seed), seed, sets)
        add("arms", "labelled only", labelled, seed, sets)
        add("arms", "all rows", base + everything, seed, sets)
    for seed in DRAWS:
        add("arms", "rules only", base + draw_rows(ruled, size, seed), seed)
        add("arms", "phrase book", base + draw_rows(alone, size, seed), seed)
    # what goes wrong: labels that are noise, and test rows in the training set
    clean = base + draw_rows(kept, size, 0)
    for rate in NOISE:
        add("harm", f"noise {rate:.0%}", with_label_noise(pilot, clean, rate, 0), 0)
    leaked = leaked_rows(data)
    # the same rows without those that the leak takes the place of
    fewer = base + draw_rows(kept, max(0, size - len(leaked)), 0)
    add("harm", "fewer", fewer, 0)
    add("harm", "leak", fewer + leaked, 0)
    # as often as a student learns by heart
    add("harm", "leak read often", fewer + leaked * 6, 0)
    return jobs


def _labelled_ood(pilot: Pilot, data: Any) -> dict[str, Any]:
    """{"ood": the odd rows that have every label}, empty when the pilot has none."""
    if data.ood is None:
        return {}
    labelled = []
    for number, row in enumerate(data.ood):
        if None not in [row[name] for name in pilot.labels]:
            labelled.append(number)
    return {"ood": data.ood.select(labelled)}


def curation_figures(
    pilot: Pilot, data: Any, cells: figures.Cells
) -> Iterator[figures.StudyFigure]:
    """Every figure of the study from its finished students."""
    arms = list(dict.fromkeys(cell["arm"] for cell in cells))
    for arm in arms:
        yield from _means(pilot, cells, arm)
        yield from figures.seed_figures(cells, arm)
        yield figures.spread_figure(cells, arm)
    how = "paired over rows, seeds averaged, bootstrap 95 %"
    for a, b in EXACT_PAIRS:
        if a in arms and b in arms:
            yield figures.gap_figure(cells, a, b, "test", "exact", how, figures.seeds_of(cells, a))
    how = "paired over rows, bootstrap 95 %"
    for a, b in INVENTED_PAIRS:
        if a in arms and b in arms:
            seeds = figures.seeds_of(cells, a, "test.invented")
            yield figures.gap_figure(cells, a, b, "test.invented", "invented_span", how, seeds)
    yield from _leak_figures(pilot, data, cells)


def _means(pilot: Pilot, cells: figures.Cells, arm: str) -> Iterator[figures.StudyFigure]:
    measured = {"test": "exact", "test.invented": "invented_span", "ood": "ood"}
    measured |= {f"test.{field}": field for field in pilot.fields}
    for what, key in measured.items():
        if seeds := figures.seeds_of(cells, arm, what):
            how = f"{what}: mean over seeds, bootstrap 95 % over rows"
            name, share = f"{key}.{figures.arm_name(arm)}", figures.mean_share(cells, arm, what)
            yield figures.StudyFigure(name, share, how, seeds)


def _leak_figures(pilot: Pilot, data: Any, cells: figures.Cells) -> Iterator[figures.StudyFigure]:
    """The score on the test rows that leaked, and on the others: only the first may rise."""
    arms = {cell["arm"] for cell in cells}
    if "leak" not in arms:
        return
    texts = {row[pilot.text] for row in leaked_rows(data)}
    for which, inside in (("leaked", True), ("other", False)):
        places = [i for i, row in enumerate(data.test) if (row[pilot.text] in texts) == inside]
        for arm in [a for a in ("leak", "leak read often", "fewer", "curated") if a in arms]:
            first = next(cell for cell in figures.cells_of(cells, arm) if cell["seed"] == 0)
            share = intervals.share([first["right"]["test"][i] for i in places])
            how = f"seed 0, the {len(places)} {which} test rows"
            yield figures.StudyFigure(f"exact.{figures.arm_name(arm)}.on_{which}", share, how)


def curation_settings(data: Any, jobs: Sequence[StudentJob]) -> dict[str, Any]:
    """What results.json says about the study: its sizes, and the recipes in each arm."""
    mix = {}
    for job in jobs:
        if job.study == "arms" and job.seed == DRAWS[0]:
            counts = Counter(row["recipe"] for row in job.rows if "recipe" in row)
            mix[job.arm] = dict(counts)
    return {
        "lead": [f"{len(data.test)} test rows, {len(DRAWS)} seeds"],
        "labelled": len(data.train),
        "repeat": REPEAT,
        "steps": STEPS,
        "student": SETTINGS | CURATION_STUDENT,
        "recipes": mix,
    }

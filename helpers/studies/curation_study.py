"""Chapter 04's study: does curation pay? Students on the same few seeds and equally many made rows.

All synthetic rows come from one pool: recipes of chapter 03 and substitution, from these seeds
alone, and the phrase book, whose author had read every training row.
"""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from datasets import Dataset

from helpers import ROOT
from helpers.ask import teachers
from helpers.core import rows
from helpers.core.files import Journal, read_entries, write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.keep import filters, pipeline
from helpers.make import augment, phrase_book, recipes
from helpers.measure import intervals
from helpers.studies import study_figures as figures
from helpers.tune.students import SETTINGS, StudentJob

Rows = list[dict[str, Any]]
# labelled rows, made rows, how often the labelled ones are read, steps, seeds
SEEDS, SIZE, REPEAT, STEPS, DRAWS = 24, 480, 6, 224, (0, 1, 2)
# the filters that a regular expression or a count can do
RULES = (
    *("schema", "copied", "length", "exact", "injection", "boilerplate", "leakage", "language"),
    *("repetition", "truncation"),
)
# rows asked for, by recipe
MADE = {"attributes": 400, "lamini": 64, "evolve": 64, "substitute": 160, "compose": 640}
# shares of labels that are replaced, and of test rows that are trained on
NOISE, LEAK = (0.1, 0.2, 0.4), 0.2
# the base in 16 bits: on two cores nothing is gained by 4, and chapter 05 compares them
CURATION_STUDENT = {"method": "lora", "answer_only": True}
EXACT_PAIRS = (
    ("curated", "seeds only"),
    ("curated", "raw"),
    ("curated", "rules only"),
    ("raw", "seeds only"),
    ("all seeds and curated", "all seeds"),
    ("teacher curated", "teacher raw"),
    ("curated", "no teacher, unfiltered"),
)
INVENTED_PAIRS = (("curated", "raw"), ("teacher curated", "teacher raw"))


def study_seeds(pilot: Pilot, data: Any) -> Rows:
    """Training rows, labels in turns: what a firm has labelled before it makes more."""
    return rows.spread(list(data.train), pilot.labels, SEEDS)


def synthetic_pool(pilot: Pilot, run: Run, seeds: Rows, say: Callable = print) -> Rows:
    """Every recipe's raw rows from these seeds; kept in study_pool.jsonl, resumed after a kill.

    The bundled pilot takes the rows of the recorded study; delete them to make others.
    """
    place = run.path("study_pool.jsonl")
    recorded = ROOT / "data/reference" / pilot.name / "04/study_pool.jsonl"
    if pilot.folder == ROOT / "data/inbox" and recorded.is_file() and not place.is_file():
        shutil.copy(recorded, place)
    if not place.is_file():
        made = _ask_teacher(pilot, run, seeds, say)
        book = phrase_book.read_phrase_book(pilot)
        made += augment.substitute(pilot, seeds, MADE["substitute"], 4, book.spans)
        made += phrase_book.compose(pilot, seeds, MADE["compose"], book, 4)
        write_text(place, _as_lines(made))
        teacher = teachers.of(pilot).name
        run.keep("study_pool.jsonl", {"seeds": SEEDS, "made": MADE, "teacher": teacher})
    return read_entries(place)


def _ask_teacher(pilot: Pilot, run: Run, seeds: Rows, say: Callable) -> Rows:
    teacher, made = teachers.of(pilot), []
    with teachers.opened(teacher) as engine:
        for name in ("attributes", "lamini", "evolve"):
            plans = getattr(recipes, name)(pilot, seeds, MADE[name], 4)
            # only requests of one length share a batch
            plans.sort(key=lambda plan: plan["request"]["max_tokens"])
            requests = [plan["request"] for plan in plans]
            journal = Journal(run.path(f"teacher/{name}.jsonl"))
            bill = teachers.collect(requests, engine, journal)
            made += recipes.rows_of(pilot, plans, bill.texts, teacher, seeds)
            say(f"{name:12}{bill}")
    return made


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

    Synthetic rows are drawn anew for each seed.
    """
    # everything slow is made here, once, before the students start side by side
    seeds = study_seeds(pilot, data)
    pool = synthetic_pool(pilot, run, seeds, say)
    table = Dataset.from_list(pool)
    steps = filters.standard(pilot, Dataset.from_list(seeds), data.test, data.ood)
    ruled = pipeline.curate(pilot, table, pipeline.pick(steps, RULES)).kept.to_list()
    funnel = pipeline.curate(pilot, table, steps)
    say(str(funnel))
    kept = funnel.kept.to_list()
    write_text(run.path("study_curated.jsonl"), _as_lines(kept))
    settings = {"seeds": SEEDS, "filters": [stage.name for stage in funnel.stages]}
    run.keep("study_curated.jsonl", settings)

    base, test = seeds * REPEAT, {"test": data.test}
    jobs = []

    def add(study: str, arm: str, arm_rows: Rows, seed: int, sets: dict = test) -> None:
        # only these arms are about invented values
        free = study in ("arms", "alone", "teacher")
        job = StudentJob(arm, arm_rows, seed, STEPS, sets, CURATION_STUDENT, free, study)
        jobs.append(job)

    for seed in DRAWS:
        sets = test | _labelled_ood(pilot, data)
        add("arms", "seeds only", seeds, seed, sets)
        for arm, made in (("raw", pool), ("rules only", ruled), ("curated", kept)):
            add("arms", arm, base + draw_rows(made, SIZE, seed), seed, sets)
    # with every labelled row: are made rows still worth it?
    every = list(data.train)
    repeat = max(1, round(len(base) / len(every)))
    add("more", "all seeds", every, 0)
    add("more", "all seeds and curated", every * repeat + draw_rows(kept, SIZE, 0), 0)
    # is it the choosing, or that the choosing leaves few of the teacher's rows?
    alone = [row for row in pool if row["teacher"] == "none"]
    for seed in DRAWS[:2]:
        arm_rows = base + draw_rows(alone, SIZE, seed)
        add("alone", "no teacher, unfiltered", arm_rows, seed)
    # the rows of the teacher alone: what curation is for when nothing else makes rows
    chosen = [row for row in kept if row["teacher"] != "none"]
    taught = [row for row in pool if row["teacher"] != "none"]
    size = min(SIZE, len(chosen))
    if size:
        add("teacher", "teacher raw", base + draw_rows(taught, size, 0), 0)
        add("teacher", "teacher curated", base + draw_rows(chosen, size, 0), 0)
    # what goes wrong: labels that are noise, and test rows in the training set
    clean = base + draw_rows(kept, SIZE, 0)
    for rate in NOISE:
        add("harm", f"noise {rate:.0%}", with_label_noise(pilot, clean, rate, 0), 0)
    leaked = leaked_rows(data)
    add("harm", "leak", base + draw_rows(kept, SIZE - len(leaked), 0) + leaked, 0)
    # as often as the seeds
    fewer = max(0, SIZE - REPEAT * len(leaked))
    add("harm", "leak read often", base + draw_rows(kept, fewer, 0) + leaked * REPEAT, 0)
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
            seeds = figures.seeds_of(cells, a)
            yield figures.gap_figure(cells, a, b, "test.invented", "invented_span", how, seeds)
    yield from _leak_figures(pilot, data, cells)


def _means(pilot: Pilot, cells: figures.Cells, arm: str) -> Iterator[figures.StudyFigure]:
    measured = {"test": "exact", "test.invented": "invented_span", "ood": "ood"}
    measured |= {f"test.{field}": field for field in pilot.fields}
    for what, key in measured.items():
        if all(what in cell["right"] for cell in figures.cells_of(cells, arm)):
            how = f"{what}: mean over seeds, bootstrap 95 % over rows"
            name, share = f"{key}.{figures.arm_name(arm)}", figures.mean_share(cells, arm, what)
            yield figures.StudyFigure(name, share, how, figures.seeds_of(cells, arm))


def _leak_figures(pilot: Pilot, data: Any, cells: figures.Cells) -> Iterator[figures.StudyFigure]:
    """The score on the test rows that leaked, and on the others: only the first may rise."""
    texts = {row[pilot.text] for row in leaked_rows(data)}
    for which, inside in (("leaked", True), ("other", False)):
        places = [i for i, row in enumerate(data.test) if (row[pilot.text] in texts) == inside]
        for arm in ("leak", "leak read often", "curated"):
            first = next(cell for cell in figures.cells_of(cells, arm) if cell["seed"] == 0)
            share = intervals.share([first["right"]["test"][i] for i in places])
            how = f"seed 0, the {len(places)} {which} test rows"
            yield figures.StudyFigure(f"exact.{figures.arm_name(arm)}.on_{which}", share, how)


def curation_settings(data: Any, jobs: Sequence[StudentJob]) -> dict[str, Any]:
    """What results.json says about the study: its sizes, and the recipes in each arm."""
    mix = {}
    for job in jobs:
        if job.free and job.seed == DRAWS[0]:
            counts = Counter(row["recipe"] for row in job.rows if "recipe" in row)
            mix[job.arm] = dict(counts)
    return {
        "lead": [f"{len(data.test)} test rows, {len(DRAWS)} seeds"],
        "seeds": SEEDS,
        "size": SIZE,
        "repeat": REPEAT,
        "steps": STEPS,
        "student": SETTINGS | CURATION_STUDENT,
        "recipes": mix,
        "made": MADE,
    }

"""Chapter 05's study: how much data, which method, mixed or in sequence, is fast as good?

All students answer the test rows, as a report: nothing of the chapter is chosen by these figures.
The order is that of what matters most; a study stopped early has the first tables.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from helpers import CourseError
from helpers.ask import answers
from helpers.choose import memory
from helpers.core import rows as labelled_rows
from helpers.core.files import write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.make import augment
from helpers.studies import study_figures as figures
from helpers.tune import examples
from helpers.tune.students import SETTINGS, StudentJob

Rows = list[dict[str, Any]]
FAST: dict[str, Any] = {"max_length": 512, "answer_only": True}
# as TRL's defaults would have it, but for the learning rate
DEFAULT: dict[str, Any] = {
    "packing": False,
    "batch_size": 8,
    "max_length": 1024,
    "load": "float32",
    "activation_checkpointing": True,
    "guards": False,
}
EPOCHS, SEEDS = 8, (0, 1, 2)
FEWER = (0, 1)  # seeds of what is compared beside the speed
CURVE, LEAST_EPOCHS = (15, 30, 120, 250, 500), 3  # rows; see curve_steps
STAGES = (("lamini", "LaMini"), ("explain", "Orca"), ("evolve", "Evol"))
STAGE_STEPS = 25
TIMED = ("fast", "default", "packs of 256", "lora", "full")  # arms whose seconds are compared
CHANGES: dict[str, dict[str, Any]] = {
    "rank 4": {"r": 4, "lora_alpha": 8},
    "rank 64": {"r": 64, "lora_alpha": 128},
    "attention only": {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
}


def rows_beyond_seeds(pilot: Pilot, data: Any, run: Run) -> tuple[Rows, str]:
    """(rows, "curated" or "substituted"): chapter 04's where they are; never a test row."""
    try:
        more, source = figures.chapter_rows(run, "04", "curated.jsonl"), "curated"
    except CourseError:
        train = list(data.train)
        more, source = augment.substitute(pilot, train, max(CURVE), 5), "substituted"
    # a test row may stand in an earlier chapter's file of another split
    banned = {row[pilot.text] for row in data.test}
    return [row for row in more if row[pilot.text] not in banned], source


def curve_rows(pilot: Pilot, data: Any, run: Run, seed: int = 0) -> dict[int, Rows]:
    """{size: rows}: labelled rows first, labels in turns, then made ones, both drawn with the seed.

    Sizes that there are not enough rows for are left out.
    """
    train = list(data.train)
    every = labelled_rows.spread(train, pilot.labels, len(train), seed)
    more, _ = rows_beyond_seeds(pilot, data, run)
    random.Random(seed).shuffle(more)  # the file lies recipe by recipe
    every += more
    return {size: every[:size] for size in CURVE if size <= len(every)}


def curve_steps(size: int, labelled: int, packs: int) -> int:
    """Packs for a set of `size` rows, when `labelled` rows take `packs` for EPOCHS passes.

    EPOCHS passes up to `labelled` rows; beyond them as many packs, and at least LEAST_EPOCHS
    passes. So a larger set never gets less work than a smaller one, and no row goes unread.
    """
    one_pass = packs / EPOCHS * size / labelled
    steps = EPOCHS * one_pass
    if size > labelled:
        steps = max(packs, LEAST_EPOCHS * one_pass)
    return max(1, round(steps))


def stage_rows(run: Run) -> dict[str, Rows]:
    """{stage: chapter 03's raw rows of its recipe}, in order; stages without rows are left out."""
    try:
        raw = figures.chapter_rows(run, "03", "raw.jsonl")
    except CourseError:
        return {}
    stages = {}
    for recipe, name in STAGES:
        of_recipe = [row for row in raw if row["recipe"] == recipe]
        if of_recipe:
            stages[name] = of_recipe
    return stages


def mean_row_tokens(pilot: Pilot, table: Rows) -> float:
    """Mean tokens of a training row, by the base model's tokenizer."""
    (_, tokenizer), lengths = answers.open_base(pilot), []
    for row in table:
        taught = examples.training_row(pilot, row, tokenizer, SETTINGS["max_prompt_length"])
        lengths.append(examples.row_length(tokenizer, taught))
    return float(np.mean(lengths))


def qlora_jobs(pilot: Pilot, data: Any, run: Run, say: Any = print) -> list[StudentJob]:
    """Every student of the study, first the ones that matter most."""
    seeds, sets = list(data.train), {"test": data.test}
    # the same passes for all: packs for the packed arms, batches for the padded one
    tokens = EPOCHS * len(seeds) * mean_row_tokens(pilot, seeds)
    packs = max(1, round(tokens / FAST["max_length"]))
    batches = -(-EPOCHS * len(seeds) // DEFAULT["batch_size"])

    def job(study: str, arm: str, table: Rows, seed: int, steps: int, **change: Any) -> StudentJob:
        settings = FAST | change
        # the tutorial cell shares none of the fast one's choices
        if arm == "default":
            settings = DEFAULT
        return StudentJob(arm, table, seed, steps, sets, settings, study=study)

    def speed(seed: int) -> list[StudentJob]:
        fast = job("speed", "fast", seeds, seed, packs)
        return [fast, job("speed", "default", seeds, seed, batches)]

    def methods(seed: int) -> list[StudentJob]:
        lora = job("methods", "lora", seeds, seed, packs, method="lora")
        full = {"method": "full", "learning_rate": 1e-4}
        return [lora, job("methods", "full", seeds, seed, packs, **full)]

    def curve(seed: int) -> list[StudentJob]:
        jobs = []
        for size, table in curve_rows(pilot, data, run, seed).items():
            steps = curve_steps(size, len(seeds), packs)
            jobs.append(job("curve", f"rows {size}", table, seed, steps))
        return jobs

    sizes, stages = curve(0), stage_rows(run)
    # the first seed of everything comes before the second of anything
    jobs = speed(0) + methods(0) + sizes
    for arm, change in CHANGES.items():
        jobs.append(job("sweep", arm, seeds, 0, packs, **change))
    # each stage goes on from the adapter of the one before
    before = None
    for name, table in stages.items():
        stage = job("sequence", f"after {name}", table, 0, STAGE_STEPS, start=before)
        before = stage.key(pilot)
        jobs.append(stage)
    if stages:
        mixed = sum(stages.values(), [])
        jobs.append(job("sequence", "mix", mixed, 0, len(stages) * STAGE_STEPS))
    for repeats, those in ((speed, SEEDS[1:]), (curve, FEWER[1:]), (methods, FEWER[1:])):
        for seed in those:
            jobs += repeats(seed)
    # is it the rows or the work? The labelled rows with the most steps
    most = max([large.steps for large in sizes], default=packs)
    jobs.append(job("curve", "no more rows", seeds, 0, most))
    # the same passes in twice the steps: a pack is the batch, too
    for seed in FEWER:
        half = FAST["max_length"] // 2
        jobs.append(job("packs", "packs of 256", seeds, seed, 2 * packs, max_length=half))
    _, source = rows_beyond_seeds(pilot, data, run)
    say(f"{len(jobs)} students; rows beyond the {len(seeds)} labelled ones are {source}")
    return jobs


def qlora_figures(cells: figures.Cells, peaks: Mapping[str, int]) -> Iterator[figures.StudyFigure]:
    """Every figure of the study from its finished students.

    `peaks` is {method: bytes at the peak}, see `method_peaks`. Raises CourseError without cells.
    """
    if not cells:
        raise CourseError(
            "There is no finished student of study 05; run `python -m helpers.studies 05`."
        )
    for arm in dict.fromkeys(cell["arm"] for cell in cells):
        if len(figures.cells_of(cells, arm)) > 1:
            yield from figures.seed_figures(cells, arm)
        yield from _means(cells, arm)
        yield from _counts(cells, arm)
    ladder = _ladder(cells)
    yield from _gaps(cells, ladder)
    for arm in ["default", "packs of 256", "lora", "full", "no more rows", *ladder]:
        seeds = figures.seeds_of(cells, arm)
        if len(seeds) > 1:
            yield figures.spread_figure(cells, arm, seeds)
    how = "growth of a fresh process, batches of 1 x 512 tokens"
    for method, peak in peaks.items():
        yield figures.StudyFigure(f"peak_bytes.{method}", float(peak), how, [0], "bytes")


def _means(cells: figures.Cells, arm: str) -> Iterator[figures.StudyFigure]:
    own = figures.cells_of(cells, arm)
    how = (
        f"{own[0]['rows']} rows, {own[0]['steps']} steps; "
        f"mean over {len(own)} seed(s), bootstrap 95 % over test rows"
    )
    for what in own[0]["right"]:
        key = "exact" if what == "test" else what.removeprefix("test.")
        share = figures.mean_share(cells, arm, what)
        yield figures.StudyFigure(
            f"{key}.{figures.arm_name(arm)}", share, how, figures.seeds_of(cells, arm)
        )


def _counts(cells: figures.Cells, arm: str) -> Iterator[figures.StudyFigure]:
    counted = [
        ("seconds", "s", "training; wall, one thread, two students side by side"),
        ("ship_bytes", "bytes", "trained weights in 16 bits"),
        ("trained", "count", "trained weights"),
    ]
    for what, unit, how in counted:
        if what != "seconds" or arm in TIMED:
            values = [cell[what] for cell in figures.cells_of(cells, arm)]
            name, mean = f"{what}.{figures.arm_name(arm)}", float(np.mean(values))
            yield figures.StudyFigure(
                name, mean, how, figures.seeds_of(cells, arm), unit, len(values)
            )


def _ladder(cells: figures.Cells) -> list[str]:
    """The arms of the learning curve by their rows; "fast" has the labelled ones."""
    arm_of = {}
    for cell in cells:
        if cell["arm"].startswith("rows ") or cell["arm"] == "fast":
            arm_of[cell["rows"]] = cell["arm"]
    return [arm_of[size] for size in sorted(arm_of)]


def _gaps(cells: figures.Cells, ladder: Sequence[str]) -> Iterator[figures.StudyFigure]:
    """Differences of two arms over the seeds that both have."""
    pairs = [(arm, "fast") for arm in ("packs of 256", "lora", "full", *CHANGES)]
    pairs += [("fast", "default"), ("packs of 256", "default"), ("after Evol", "mix")]
    pairs += [("no more rows", "fast"), *zip(ladder[1:], ladder)]
    if ladder:
        pairs += [(ladder[-1], "no more rows"), (ladder[-1], "fast")]
    how = "same test rows, seeds that both have averaged, bootstrap 95 %"
    for a, b in pairs:
        seeds = sorted({*figures.seeds_of(cells, a)} & {*figures.seeds_of(cells, b)})
        if seeds:
            # the same seeds on both sides, so that the two means subtract
            both = [cell for cell in cells if cell["seed"] in seeds]
            yield figures.gap_figure(both, a, b, "test", "exact", how, seeds)


def method_peaks(pilot: Pilot, run: Run) -> dict[str, int]:
    """{method: bytes at the peak} on packs of 512 tokens, each in a fresh process; see memory.json.

    Empty for another base model than the embedded one, which is what is measured.
    """
    if pilot.base_model != "embedded":
        return {}
    path = run.path("memory.json")
    known = json.loads(path.read_text()) if path.is_file() else {}
    for method in ("qlora", "lora", "full"):
        if method not in known:
            # full tuning updates the weights themselves, so they are kept exact
            dtype = "float32" if method == "full" else run.runtime.dtype
            known[method] = memory.measure_peak(method, FAST["max_length"], 1, dtype)["bytes"]
            write_text(path, json.dumps(known))
    return known


def qlora_settings(pilot: Pilot, data: Any, run: Run, cells: figures.Cells) -> dict[str, Any]:
    """What results.json says about the study beside its figures."""
    lead = []
    for arm in ("fast", "default"):
        share = figures.mean_share(cells, arm, "test")
        interval = f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
        lead.append(f"{interval} {arm}, {len(SEEDS)} seeds")
    return {
        "lead": lead,
        "epochs": EPOCHS,
        "curve": {cell["arm"]: cell["steps"] for cell in cells if cell["study"] == "curve"},
        "seed_rows": len(data.train),
        "rows_beyond_the_seeds": rows_beyond_seeds(pilot, data, run)[1],
        "fast": FAST,
        "default": DEFAULT,
        "student": SETTINGS,
        "stage_steps": STAGE_STEPS,
    }

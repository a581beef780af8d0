"""Chapter 05's study: how much data, which method, mixed or in sequence, and is fast as good as the default?

All students answer the 200 test rows, as a report: nothing of the chapter is chosen by these figures. The order is that of what matters
most; a study stopped early has the first tables.
"""

import json
import random

import numpy as np

from helpers import ROOT, CourseError
from helpers.choose import memory
from helpers.core import rows as rows_room
from helpers.core import files, runs
from helpers.make import augment
from helpers.measure import intervals
from helpers.tune import students

FAST = {"pack": 512, "loss": "answer"}
DEFAULT = {
    "packing": False,
    "batch": 8,
    "pack": 1024,
    "load": "float32",
    "checkpointing": True,
    "guards": False,
}  # as TRL's defaults would have it, but for the learning rate
EPOCHS, SEEDS, FEWER = 8, (0, 1, 2), (0, 1)  # FEWER: for what is compared beside the speed
CURVE, LEAST_EPOCHS = (15, 30, 120, 250, 500), 3  # rows; see curve_steps
STAGES = (("lamini", "LaMini"), ("explain", "Orca"), ("evolve", "Evol"))
STAGE_STEPS = 25
TIMED = ("fast", "default", "packs of 256", "lora", "full")  # the arms whose seconds are compared


def made_by(run, chapter, name):
    """A chapter's file as lines of JSON: from this pilot's run of the chapter, of its study, or the reference copy."""
    place = run.folder.parent.parent / chapter / name
    place = place if place.is_file() else run.need(chapter, name)
    return [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines() if line]


def curated(pilot, data, run, number):
    """(rows, name of their source): chapter 04's curated rows where they are, else rows by substitution; never a test row."""
    try:
        found, source = made_by(run, "04", "curated.jsonl"), "curated"
    except CourseError:
        found, source = (
            augment.substitute(pilot, [dict(row) for row in data.train], number, 5),
            "substituted",
        )
    banned = {row[pilot.text] for row in data.test}
    return [row for row in found if row[pilot.text] not in banned], source


def curve(pilot, data, run, seed=0):
    """{rows: list}: labelled rows first, the first label's values in turns, then curated ones, both in an order drawn with the seed.

    Sizes that there are not enough rows for are left out.
    """
    every = rows_room.spread([dict(row) for row in data.train], pilot.labels, len(data.train), seed)
    more, _ = curated(pilot, data, run, max(CURVE))
    random.Random(seed).shuffle(more)  # the file lies recipe by recipe
    every += more
    return {size: every[:size] for size in CURVE if size <= len(every)}


def curve_steps(size, seeds, packs):
    """Packs for a set of `size` rows: EPOCHS passes up to the number of seed rows, whose run takes `packs`; beyond it as many packs as
    those, and LEAST_EPOCHS passes at least. So a larger set never gets less work than a smaller one, and no row goes unread.
    """
    a_pass = packs / EPOCHS * size / seeds
    return max(1, round(EPOCHS * a_pass if size <= seeds else max(packs, LEAST_EPOCHS * a_pass)))


def raw(pilot, run):
    """{recipe: rows} of chapter 03's raw rows that the sequence study goes through, in order; no rows before chapter 03 has run."""
    try:
        found = made_by(run, "03", "raw.jsonl")
    except CourseError:
        found = []
    return {recipe: [row for row in found if row["recipe"] == recipe] for recipe, _ in STAGES}


def jobs(pilot, data, run):
    """[(folder, arm, rows, seed, steps, settings)]; a start that begins with '@' names the arm it goes on from."""
    seeds = [dict(row) for row in data.train]
    packs = max(1, round(EPOCHS * len(seeds) * study_tokens(pilot, seeds) / FAST["pack"]))
    batches = -(-EPOCHS * len(seeds) // DEFAULT["batch"])
    speed = [
        [
            ("speed", "fast", seeds, seed, packs, FAST),
            ("speed", "default", seeds, seed, batches, DEFAULT),
        ]
        for seed in SEEDS
    ]
    sizes = [
        [
            ("curve", f"rows {size}", rows, seed, curve_steps(size, len(seeds), packs), FAST)
            for size, rows in curve(pilot, data, run, seed).items()
        ]
        for seed in FEWER
    ]
    methods = [
        [
            ("methods", "lora", seeds, seed, packs, FAST | {"method": "lora"}),
            (
                "methods",
                "full",
                seeds,
                seed,
                packs,
                FAST | {"method": "full", "learning_rate": 1e-4},
            ),
        ]
        for seed in FEWER
    ]
    most = max(
        [steps for *_, steps, _ in sizes[0]], default=packs
    )  # is it the rows or the work? The labelled rows with most steps
    longer = [("curve", "no more rows", seeds, seed, most, FAST) for seed in FEWER[:1]]
    sweep = [
        ("sweep", name, seeds, 0, packs, FAST | change)
        for name, change in (
            ("rank 4", {"r": 4, "alpha": 8}),
            ("rank 64", {"r": 64, "alpha": 128}),
            ("attention only", {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}),
        )
    ]
    # the same passes in twice the steps: a pack is the batch, too
    halves = [
        ("packs", "packs of 256", seeds, seed, 2 * packs, FAST | {"pack": FAST["pack"] // 2})
        for seed in FEWER
    ]
    sets, before, sequence = raw(pilot, run), None, []
    for recipe, name in STAGES:
        if sets[recipe]:
            start = {"start": f"@{before}"} if before else {}
            sequence.append(
                ("sequence", f"after {name}", sets[recipe], 0, STAGE_STEPS, FAST | start)
            )
            before = f"after {name}"
    if sequence:
        mixed = [row for rows in sets.values() for row in rows]
        sequence.append(("sequence", "mix", mixed, 0, len(sequence) * STAGE_STEPS, FAST))
    return (
        speed[0]
        + methods[0]
        + sizes[0]
        + sweep
        + sequence
        + sum(speed[1:] + sizes[1:] + methods[1:], [])
        + longer
        + halves
    )


def shared_out(wanted, parts):
    """The part of each job: the one with the least work so far; the stages of the sequence stay together, in their order."""
    load, chosen, sequence = [0] * parts, [], None
    for folder, arm, _, _, steps, settings in wanted:
        together = folder == "sequence" and arm != "mix"
        part = sequence if together and sequence is not None else load.index(min(load))
        sequence = part if together else sequence
        load[part] += 40 + steps * (
            1 if settings.get("packing", True) else 4
        )  # answering costs about forty packs, a padded batch four
        chosen.append(part)
    return chosen


def study_tokens(pilot, rows):
    """Mean tokens of a row with its prompt and answer, by the base model's tokenizer."""
    from transformers import AutoTokenizer

    from helpers.ask import answers
    from helpers.choose import models

    tokenizer = AutoTokenizer.from_pretrained(models.resolve(pilot.base_model, pilot.folder).path)
    window = students.SETTINGS["window"]
    texts = [
        answers.prompt(pilot, tokenizer, row[pilot.text], full=False, max_length=window)
        + pilot.answer(row)
        for row in rows
    ]
    return float(np.mean([len(ids) + 1 for ids in tokenizer(texts).input_ids]))


def prepare(pilot, data, run, say=print):
    """Nothing is made before the students start; says what they will be trained on."""
    _, source = curated(pilot, data, run, max(CURVE))
    say(
        f"{len(jobs(pilot, data, run))} students; rows beyond the {len(data.train)} seeds are {source} ones"
    )


def train_students(pilot, data, run, say=print, part=0, parts=1):
    """Train what is not trained yet; returns the finished cells. The stages of the sequence stay in one part, in their order."""
    cells, keys, wanted = [], {}, jobs(pilot, data, run)
    for (folder, arm, rows, seed, steps, settings), whose in zip(wanted, shared_out(wanted, parts)):
        mine = part == whose
        start = settings.get("start")
        if start:
            if start[1:] not in keys:
                continue  # an earlier stage is another process's, or missing
            settings = settings | {"start": keys[start[1:]]}
        found = students.run_students(
            pilot,
            {arm: rows},
            [seed],
            steps,
            run.runtime,
            {"test": data.test},
            run.path(folder),
            say,
            False,
            0 if mine else -1,
            1,
            settings,
        )
        keys |= {cell["arm"]: cell["key"] for cell in found}
        cells += [cell | {"study": folder} for cell in found]
    return cells


def run(here, folder, say=print, pilot=None, data=None):
    """The whole study in one process, into `folder`; returns its cells. Resumes: a finished student is not made again."""
    from helpers.core.pilot import Pilot

    pilot = pilot or Pilot.load(ROOT / "data/inbox")
    place = runs.Run(pilot, "studies/05", here)
    place.folder = place.folder if folder is None else folder
    place.folder.mkdir(parents=True, exist_ok=True)
    return students(pilot, data or rows_room.load(pilot), place, say)


def figures(cells, used=None):
    """[(name, value, unit, n or None, seeds, how)] from finished cells; value is a Share where there is an interval.

    `used` is {method: bytes at the peak} of `memories`. Raises CourseError when there are no cells.
    """
    if not cells:
        raise CourseError(
            "There is no finished student of study 05; run `python -m helpers.studies 05`."
        )

    def name(arm):
        return arm.lower().replace(" ", "_")

    out = []
    for arm in dict.fromkeys(cell["arm"] for cell in cells):
        own = [cell for cell in cells if cell["arm"] == arm]
        seeds = sorted(cell["seed"] for cell in own)
        out += [
            (
                f"exact.{name(arm)}.seed_{cell['seed']}",
                intervals.share(cell["right"]["test"]),
                "share",
                None,
                [cell["seed"]],
                "test, one seed, Wilson 95 %",
            )
            for cell in own
            if len(own) > 1
        ]
        how = f"{own[0]['rows']} rows, {own[0]['steps']} steps; mean over {len(own)} seed(s), bootstrap 95 % over test rows"
        out.append(
            (f"exact.{name(arm)}", students.mean(cells, arm, "test"), "share", None, seeds, how)
        )
        out += [
            (f"{what[5:]}.{name(arm)}", students.mean(cells, arm, what), "share", None, seeds, how)
            for what in own[0]["right"]
            if what.startswith("test.")
        ]
        for what, unit in (("seconds", "s"), ("ship_bytes", "bytes"), ("trained", "count")):
            how = {
                "seconds": "training; wall, one thread, two students side by side",
                "ship_bytes": "trained weights in 16 bits",
                "trained": "trained weights",
            }[what]
            if what == "seconds" and arm not in TIMED:
                continue
            out.append(
                (
                    f"{what}.{name(arm)}",
                    float(np.mean([cell[what] for cell in own])),
                    unit,
                    len(own),
                    seeds,
                    how,
                )
            )
    arms = {cell["arm"] for cell in cells}
    sizes = {cell["rows"]: cell["arm"] for cell in cells if cell["arm"].startswith("rows ")}
    sizes |= {cell["rows"]: "fast" for cell in cells if cell["arm"] == "fast"}
    ladder = [sizes[size] for size in sorted(sizes)]
    pairs = [
        (arm, "fast")
        for arm in ("packs of 256", "lora", "full", "rank 4", "rank 64", "attention only")
    ]
    pairs += [
        ("fast", "default"),
        ("packs of 256", "default"),
        ("after Evol", "mix"),
        ("no more rows", "fast"),
        *zip(ladder[1:], ladder),
    ]
    pairs += [(ladder[-1], "no more rows"), (ladder[-1], "fast")] if ladder else []
    for a, b in pairs:
        if {a, b} <= arms:
            seeds = sorted(
                set.intersection(
                    *({cell["seed"] for cell in cells if cell["arm"] == arm} for arm in (a, b))
                )
            )
            both = [cell for cell in cells if cell["seed"] in seeds]
            out.append(
                (
                    f"exact.{name(a)}_minus_{name(b)}",
                    students.gap(both, a, b, "test"),
                    "difference",
                    None,
                    seeds,
                    "same test rows, seeds that both have averaged, bootstrap 95 %",
                )
            )
    for arm in ["default", "packs of 256", "lora", "full", "no more rows", *ladder]:
        spread = {
            cell["seed"]: float(np.mean(cell["right"]["test"]))
            for cell in cells
            if cell["arm"] == arm
        }
        if len(spread) > 1:
            out.append(
                (
                    f"seed_spread.{name(arm)}",
                    max(spread.values()) - min(spread.values()),
                    "difference",
                    len(spread),
                    sorted(spread),
                    "highest minus lowest seed",
                )
            )
    out += [
        (
            f"peak_bytes.{method}",
            float(value),
            "bytes",
            None,
            [0],
            "growth of a fresh process, batches of 1 x 512 tokens",
        )
        for method, value in (used or {}).items()
    ]
    return out


def memories(run):
    """{method: bytes at the peak} of the three methods on packs of 512 tokens, each in a process of its own; kept in memory.json."""
    path = run.path("memory.json")
    known = json.loads(path.read_text()) if path.is_file() else {}
    for method in ("qlora", "lora", "full"):
        if method not in known:
            dtype = (
                "float32" if method == "full" else run.runtime.dtype
            )  # full tuning updates the weights, so they are kept exact
            known[method] = memory.measure_peak(method, FAST["pack"], 1, dtype)["bytes"]
            files.write_text(path, json.dumps(known))
    return known


def report(pilot, data, run):
    """Enter every figure; returns the settings for results.json. Raises CourseError when a student is missing."""
    wanted, cells = jobs(pilot, data, run), train_students(pilot, data, run, part=-2)
    if len(cells) < len(wanted):
        raise CourseError(
            f"{len(wanted) - len(cells)} of {len(wanted)} students of study 05 are missing; run it again, it goes on "
            "where it stopped."
        )
    files.write_text(
        run.path("study_cells.jsonl"), "".join(json.dumps(cell) + "\n" for cell in cells)
    )  # every answer, right or wrong
    run.keep("study_cells.jsonl", {"students": len(cells)})
    used = memories(run) if pilot.base_model == "embedded" else None
    for name, value, unit, n, seeds, how in figures(cells, used):
        if hasattr(value, "value"):  # a mean's or a gap's Share; the unit tells which
            run.figure(name, value.value, value.low, value.high, value.n, unit, how, seeds)
        else:
            run.figure(name, value, n=n, unit=unit, how=how, seeds=seeds)
    _, source = curated(pilot, data, run, max(CURVE))
    by_name = {f["name"]: f for f in run.figures}
    lead = [
        f"{f['value']:.1%} [{f['low']:.1%}, {f['high']:.1%}] {what}"
        for what, f in (
            (f"{arm}, {len(SEEDS)} seeds", by_name[f"exact.{arm}"]) for arm in ("fast", "default")
        )
    ]
    return {
        "lead": lead,
        "epochs": EPOCHS,
        "curve": {c["arm"]: c["steps"] for c in cells if c["study"] == "curve"},
        "seed_rows": len(data.train),
        "rows_beyond_the_seeds": source,
        "fast": FAST,
        "default": DEFAULT,
        "student": students.SETTINGS,
        "stage_steps": STAGE_STEPS,
    }

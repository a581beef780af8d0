"""Chapter 05's study: how much data, which method, mixed or in sequence, and is fast as good as the default?

All students answer the 200 test rows, as a report: nothing of the chapter is chosen by these figures. The order is that of what matters
most; a study stopped early has the first tables.
"""

import json
import random

import numpy as np

from helpers import ROOT, CourseError, augment, memory, runs, study

FAST = {"pack": 512, "loss": "answer"}
DEFAULT = {"packing": False, "batch": 8, "pack": 1024, "load": "float32", "checkpointing": True}  # as TRL's defaults would have it
EPOCHS, SEEDS = 5, (0, 1, 2)
CURVE = {15: 20, 30: 35, 120: 85, 250: 110, 500: 130}  # rows: steps; fewer for few rows, which are learnt by heart otherwise
STAGES = (("lamini", "LaMini"), ("explain", "Orca"), ("evolve", "Evol"))
STAGE_STEPS = 25


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
        found, source = augment.substitute(pilot, [dict(row) for row in data.train], number, 5), "substituted"
    banned = {row[pilot.text] for row in data.test}
    return [row for row in found if row[pilot.text] not in banned], source


def curve(pilot, data, run):
    """{rows: list}: the seeds first, labels in turns, then curated rows; sizes that there are not enough rows for are left out."""
    seeds = [dict(row) for row in data.train]
    more, _ = curated(pilot, data, run, max(CURVE))
    every = seeds + more
    return {size: every[:size] for size in CURVE if size <= len(every)}


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
    out = []
    for seed in SEEDS:
        out += [("speed", "fast", seeds, seed, packs, FAST), ("speed", "default", seeds, seed, batches, DEFAULT)]
    out += [("methods", "lora", seeds, 0, packs, FAST | {"method": "lora"}),
            ("methods", "full", seeds, 0, packs, FAST | {"method": "full", "learning_rate": 1e-4})]
    out += [("curve", f"rows {size}", rows, 0, CURVE[size], FAST) for size, rows in curve(pilot, data, run).items()]
    for name, change in (("rank 4", {"r": 4, "alpha": 8}), ("rank 64", {"r": 64, "alpha": 128}),
                         ("attention only", {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]})):
        out.append(("sweep", name, seeds, 0, packs, FAST | change))
    sets, before = raw(pilot, run), None
    for recipe, name in STAGES:
        if sets[recipe]:
            start = {"start": f"@{before}"} if before else {}
            out.append(("sequence", f"after {name}", sets[recipe], 0, STAGE_STEPS, FAST | start))
            before = f"after {name}"
    mixed = [row for rows in sets.values() for row in rows]
    if before:
        stages = sum(bool(rows) for rows in sets.values())
        out.append(("sequence", "mix", mixed, 0, stages * STAGE_STEPS, FAST))
    return out


def study_tokens(pilot, rows):
    """Mean tokens of a row with its prompt and answer, by the base model's tokenizer."""
    from transformers import AutoTokenizer

    from helpers import answers, models

    tokenizer = AutoTokenizer.from_pretrained(models.resolve(pilot.base_model, pilot.folder).path)
    window = study.SETTINGS["window"]
    texts = [answers.prompt(pilot, tokenizer, row[pilot.text], full=False, max_tokens=window) + pilot.answer(row) for row in rows]
    return float(np.mean([len(ids) + 1 for ids in tokenizer(texts).input_ids]))


def prepare(pilot, data, run, say=print):
    """Nothing is made before the students start; says what they will be trained on."""
    _, source = curated(pilot, data, run, max(CURVE))
    say(f"{len(jobs(pilot, data, run))} students; rows beyond the {len(data.train)} seeds are {source} ones")


def students(pilot, data, run, say=print, part=0, parts=1):
    """Train what is not trained yet; returns the finished cells. The stages of the sequence stay in one part, in their order."""
    cells, keys, sequence = [], {}, 0
    for number, (folder, arm, rows, seed, steps, settings) in enumerate(jobs(pilot, data, run)):
        mine = part == (sequence if folder == "sequence" and arm != "mix" else number % parts)
        start = settings.get("start")
        if start:
            if start[1:] not in keys:
                continue  # an earlier stage is another process's, or missing
            settings = settings | {"start": keys[start[1:]]}
        found = study.study(pilot, {arm: rows}, [seed], steps, run.runtime, {"test": data.test}, run.path(folder), say, False,
                            0 if mine else -1, 1, settings)
        keys |= {cell["arm"]: cell["key"] for cell in found}
        cells += [cell | {"study": folder} for cell in found]
    return cells


def run(here, folder, say=print, pilot=None, data=None):
    """The whole study in one process, into `folder`; returns its cells. Resumes: a finished student is not made again."""
    from helpers import rows as rows_room
    from helpers.pilot import Pilot

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
        raise CourseError("There is no finished student of study 05; run `python -m helpers.studies 05`.")
    def name(arm):
        return arm.lower().replace(" ", "_")

    out = []
    for arm in dict.fromkeys(cell["arm"] for cell in cells):
        own = [cell for cell in cells if cell["arm"] == arm]
        seeds = sorted(cell["seed"] for cell in own)
        how = f"{own[0]['rows']} rows, {own[0]['steps']} steps; mean over {len(own)} seed(s), bootstrap 95 % over test rows"
        out.append((f"exact.{name(arm)}", study.mean(cells, arm, "test"), "share", None, seeds, how))
        out += [(f"{what[5:]}.{name(arm)}", study.mean(cells, arm, what), "share", None, seeds, how)
                for what in own[0]["right"] if what.startswith("test.")]
        for what, unit in (("seconds", "s"), ("ship_bytes", "bytes"), ("trained", "count")):
            how = {"seconds": "training, one process with the threads the study gave it", "ship_bytes": "trained weights in 16 bits",
                   "trained": "trained weights"}[what]
            out.append((f"{what}.{name(arm)}", float(np.mean([cell[what] for cell in own])), unit, len(own), seeds, how))
    arms = {cell["arm"] for cell in cells}
    pairs = [("fast", "default"), ("lora", "fast"), ("full", "fast"), ("rank 4", "fast"), ("rank 64", "fast"), ("attention only", "fast"),
             ("after Evol", "mix")]
    for a, b in pairs:
        if {a, b} <= arms:
            both = cells if (a, b) == ("fast", "default") else [cell for cell in cells if cell["seed"] == 0]
            seeds = sorted({cell["seed"] for cell in both if cell["arm"] in (a, b)})
            out.append((f"exact.{name(a)}_minus_{name(b)}", study.gap(both, a, b, "test"), "difference", None, seeds,
                        "same test rows, seeds averaged, bootstrap 95 %"))
    for arm in {"fast", "default"} & arms:
        spread = [float(np.mean(cell["right"]["test"])) for cell in cells if cell["arm"] == arm]
        out.append((f"seed_spread.{arm}", max(spread) - min(spread), "difference", len(spread), sorted(SEEDS[: len(spread)]),
                    "highest minus lowest seed"))
    out += [(f"peak_bytes.{method}", float(value), "bytes", None, [0], "growth of a fresh process, batches of 1 x 512 tokens")
            for method, value in (used or {}).items()]
    return out


def memories(run):
    """{method: bytes at the peak} of the three methods on packs of 512 tokens, each in a process of its own; kept in memory.json."""
    path = run.path("memory.json")
    known = json.loads(path.read_text()) if path.is_file() else {}
    for method in ("qlora", "lora", "full"):
        if method not in known:
            dtype = "float32" if method == "full" else run.runtime.dtype  # full tuning updates the weights, so they are kept exact
            known[method] = memory.measure(method, FAST["pack"], 1, dtype)["bytes"]
            runs.write_text(path, json.dumps(known))
    return known


def report(pilot, data, run):
    """Enter every figure; returns the settings for results.json. Raises CourseError when a student is missing."""
    wanted, cells = jobs(pilot, data, run), students(pilot, data, run, part=-2)
    if len(cells) < len(wanted):
        raise CourseError(f"{len(wanted) - len(cells)} of {len(wanted)} students of study 05 are missing; run it again, it goes on "
                          "where it stopped.")
    used = memories(run) if pilot.base_model == "embedded" else None
    for name, value, unit, n, seeds, how in figures(cells, used):
        run.figure(name, value, n=n, unit=unit, how=how)
        run.figures[-1] |= {"seeds": seeds, "unit": unit}
    _, source = curated(pilot, data, run, max(CURVE))
    by_name = {f["name"]: f for f in run.figures}
    lead = [f"{f['value']:.1%} [{f['low']:.1%}, {f['high']:.1%}] {what}" for what, f in
            (("fast, 3 seeds", by_name["exact.fast"]), ("default, 3 seeds", by_name["exact.default"]))]
    return {"lead": lead, "epochs": EPOCHS, "curve": {str(k): v for k, v in CURVE.items()}, "rows_beyond_the_seeds": source, "fast": FAST,
            "default": DEFAULT, "student": study.SETTINGS, "stage_steps": STAGE_STEPS}

"""Chapter 04's study: does curation pay? Students on the same few seeds, and on equally many raw, rule-filtered or curated rows.

All synthetic rows come from one pool: recipes of chapter 03 and substitution, from these seeds alone, and the phrase book, whose author had
read every training row.
"""

import json
import random
import re
import shutil
from collections import Counter

from datasets import Dataset

from helpers import ROOT, CourseError
from helpers.ask import engines, teachers
from helpers.core import files, rows, runs
from helpers.keep import filters, pipeline
from helpers.make import augment, recipes
from helpers.measure import intervals
from helpers.tune import students

SEEDS, SIZE, REPEAT, STEPS, DRAWS = 24, 480, 6, 224, (0, 1, 2)
RULES = (
    "schema",
    "copied",
    "length",
    "exact",
    "injection",
    "boilerplate",
    "leakage",
    "language",
    "repetition",
    "truncation",
)
MADE = {"attributes": 400, "lamini": 64, "evolve": 64, "substitute": 160, "compose": 640}
NOISE = (0.1, 0.2, 0.4)
LEAK = 0.2
STUDENT = {
    "method": "lora",
    "loss": "answer",
}  # the base in 16 bits: on two cores nothing is gained by 4, and chapter 05 compares them


def few(pilot, data, number=SEEDS):
    """`number` training rows, labels in turns: what a firm has labelled before it makes more."""
    return rows.spread([dict(row) for row in data.train], pilot.labels, number)


def pool(pilot, seeds, run, say=print, made=MADE):
    """Every recipe's raw rows from these seeds, as a list; asked once, kept in study_pool.jsonl, resumed after a kill."""
    place = run.path("study_pool.jsonl")
    recorded = ROOT / "data/reference" / pilot.name / "04/study_pool.jsonl"
    if not place.is_file() and recorded.is_file() and pilot.folder == ROOT / "data/inbox":
        shutil.copy(
            recorded, place
        )  # the same rows as in the recorded study; delete it there to make others
    if place.is_file():
        return [json.loads(line) for line in place.read_text(encoding="utf-8").split("\n") if line]
    book, teacher, found = augment.phrase_book(pilot), teachers.of(pilot), []
    plans = {
        "attributes": recipes.attributes(pilot, seeds, made["attributes"], 4),
        "lamini": recipes.lamini(pilot, seeds, made["lamini"], 4),
        "evolve": recipes.evolve(pilot, seeds, made["evolve"], 4),
    }
    with teachers.opened(teacher) as engine:
        for name, asked in plans.items():
            asked.sort(
                key=lambda plan: plan["request"]["max_tokens"]
            )  # only requests of one kind share a batch
            bill = teachers.collect(
                [plan["request"] for plan in asked],
                engine,
                engines.RowJournal(run.path(f"teacher/{name}.jsonl")),
            )
            found += recipes.rows_of(pilot, asked, bill.texts, teacher, seeds)
            say(f"{name:12}{bill}")
    found += augment.substitute(pilot, seeds, made["substitute"], 4, book.get("spans"))
    found += augment.compose(pilot, seeds, made["compose"], book, 4)
    files.write_text(place, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    run.keep("study_pool.jsonl", {"seeds": len(seeds), "made": made, "teacher": teacher.name})
    return found


def curated(pilot, data, seeds, table):
    """(list of the rows that pass the rules, Funnel of the whole pipeline), both over the same pool."""
    steps, asked = (
        filters.standard(pilot, Dataset.from_list(seeds), data.test, data.ood),
        Dataset.from_list(table),
    )
    return pipeline.curate(
        pilot, asked, pipeline.pick(steps, RULES)
    ).kept.to_list(), pipeline.curate(pilot, asked, steps)


def draw(found, number, seed):
    """`number` rows drawn without looking at them."""
    return random.Random(seed).sample(found, min(number, len(found)))


def noisy(pilot, table, rate, seed):
    """The rows with each label replaced by another value of its field with probability `rate`."""
    chance = random.Random(seed)
    return [
        {
            **row,
            **{
                n: chance.choice([v for v in pilot.fields[n].values if v != row[n]])
                for n in pilot.labels
                if chance.random() < rate
            },
        }
        for row in table
    ]


def jobs(pilot, data, run, say=print):
    """[(folder, {arm: rows}, seed, sets, free)]: what `students` trains and `report` reads. The draw of synthetic rows changes with the seed."""
    seeds, test = few(pilot, data), {"test": data.test}
    found = pool(pilot, seeds, run, say)
    ruled, funnel = curated(pilot, data, seeds, found)
    kept = funnel.kept.to_list()
    if data.ood is not None:
        labelled = [
            i for i, row in enumerate(data.ood) if all(row[n] is not None for n in pilot.labels)
        ]
        both = test | {"ood": data.ood.select(labelled)}
    base, every, out = seeds * REPEAT, [dict(row) for row in data.train], []
    for seed in DRAWS:
        arms = {
            "seeds only": seeds,
            "raw": base + draw(found, SIZE, seed),
            "rules only": base + draw(ruled, SIZE, seed),
            "curated": base + draw(kept, SIZE, seed),
        }
        out.append(("arms", arms, seed, both if data.ood is not None else test, True))
    for seed in DRAWS[:1]:
        more = every * max(1, round(len(base) / len(every))) + draw(kept, SIZE, seed)
        out.append(("more", {"all seeds": every, "all seeds and curated": more}, seed, test, False))

    def by_teacher(table):
        return [row for row in table if row["teacher"] != "none"]

    alone = [row for row in found if row["teacher"] == "none"]
    for seed in DRAWS[
        :2
    ]:  # is it the choosing, or that the choosing leaves few of the teacher's rows?
        out.append(
            ("alone", {"no teacher, unfiltered": base + draw(alone, SIZE, seed)}, seed, test, True)
        )
    size = min(SIZE, len(by_teacher(kept)))
    for seed in (
        DRAWS[:1] if size else ()
    ):  # the rows of the teacher alone: what curation is for when nothing else makes rows
        arms = {
            "teacher raw": base + draw(by_teacher(found), size, seed),
            "teacher curated": base + draw(by_teacher(kept), size, seed),
        }
        out.append(("teacher", arms, seed, test, True))
    clean = base + draw(kept, SIZE, 0)
    arms = {f"noise {rate:.0%}": noisy(pilot, clean, rate, 0) for rate in NOISE}
    leaked = draw([dict(row) for row in data.test], round(LEAK * len(data.test)), 0)
    arms["leak"] = base + draw(kept, SIZE - len(leaked), 0) + leaked
    arms["leak read often"] = (
        base + draw(kept, max(0, SIZE - REPEAT * len(leaked)), 0) + leaked * REPEAT
    )  # as often as the seeds
    out.append(("harm", arms, 0, test, False))
    return out


def prepare(pilot, data, run, say=print):
    """Make the pool and the curated rows before the students start, so that two processes do not both make them."""
    seeds = few(pilot, data)
    _, funnel = curated(pilot, data, seeds, pool(pilot, seeds, run, say))
    say(str(funnel))
    files.write_text(
        run.path("study_curated.jsonl"),
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in funnel.kept.to_list()),
    )
    run.keep(
        "study_curated.jsonl",
        {"seeds": SEEDS, "filters": [stage.name for stage in funnel.stages]},
        ["study_pool.jsonl"],
    )


def train_students(pilot, data, run, say=print, part=0, parts=1):
    """Train what is not trained yet; returns the finished cells."""
    cells = []
    for folder, arms, seed, sets, free in jobs(pilot, data, run, say):
        cells += students.run_students(
            pilot,
            arms,
            [seed],
            STEPS,
            run.runtime,
            sets,
            run.path(folder),
            say,
            free,
            part,
            parts,
            STUDENT,
        )
    return cells


def report(pilot, data, run):
    """Enter every figure; returns the settings for results.json. Raises CourseError when a student is missing."""
    wanted = jobs(pilot, data, run)
    cells = train_students(pilot, data, run, part=-1, parts=1)
    if len(cells) < sum(len(arms) for _, arms, *_ in wanted):
        raise CourseError(
            "Some students of the study are missing; run it again, it goes on where it stopped."
        )
    files.write_text(
        run.path("study_cells.jsonl"), "".join(json.dumps(cell) + "\n" for cell in cells)
    )  # every answer, right or wrong
    run.keep("study_cells.jsonl", {"students": len(cells)}, ["study_pool.jsonl"])
    name = lambda arm: re.sub(r"\W+", "_", arm).strip("_")

    def enter(figure, value, how, unit="share"):
        seeds = {
            c["seed"] for c in cells if name(c["arm"]) == figure.split(".")[1].split("_minus_")[0]
        }
        run.figure(figure, value, unit=unit, how=how, seeds=sorted(seeds))

    for arm in dict.fromkeys(cell["arm"] for cell in cells):
        for what, key in (
            ("test", "exact"),
            ("test.invented", "invented_span"),
            ("ood", "ood"),
            *((f"test.{field}", f"{field}") for field in pilot.fields),
        ):
            if all(what in c["right"] for c in cells if c["arm"] == arm):
                enter(
                    f"{key}.{name(arm)}",
                    students.mean(cells, arm, what),
                    f"{what}: mean over seeds, bootstrap 95 % over rows",
                )
        for cell in (c for c in cells if c["arm"] == arm):
            run.figure(
                f"exact.{name(arm)}.seed_{cell['seed']}",
                intervals.share(cell["right"]["test"]),
                how="test, one seed, Wilson 95 %",
                seeds=[cell["seed"]],
            )
        spread = [
            sum(c["right"]["test"]) / len(c["right"]["test"]) for c in cells if c["arm"] == arm
        ]
        run.figure(
            f"seed_spread.{name(arm)}",
            max(spread) - min(spread),
            n=len(spread),
            unit="difference",
            how="highest minus lowest seed",
        )
    for a, b in (
        ("curated", "seeds only"),
        ("curated", "raw"),
        ("curated", "rules only"),
        ("raw", "seeds only"),
        ("all seeds and curated", "all seeds"),
        ("teacher curated", "teacher raw"),
        ("curated", "no teacher, unfiltered"),
    ):
        if not {a, b} <= {cell["arm"] for cell in cells}:
            continue
        enter(
            f"exact.{name(a)}_minus_{name(b)}",
            students.gap(cells, a, b, "test"),
            "paired over rows, seeds averaged, bootstrap 95 %",
            "difference",
        )
    for a, b in (("curated", "raw"), ("teacher curated", "teacher raw")):
        if {a, b} <= {cell["arm"] for cell in cells}:
            enter(
                f"invented_span.{name(a)}_minus_{name(b)}",
                students.gap(cells, a, b, "test.invented"),
                "paired over rows, bootstrap 95 %",
                "difference",
            )
    texts = {
        row[pilot.text]
        for row in draw([dict(row) for row in data.test], round(LEAK * len(data.test)), 0)
    }
    for which, inside in (("leaked", True), ("other", False)):
        at = [i for i, row in enumerate(data.test) if (row[pilot.text] in texts) == inside]
        for arm in ("leak", "leak read often", "curated"):
            right = next(c["right"]["test"] for c in cells if c["arm"] == arm and c["seed"] == 0)
            run.figure(
                f"exact.{name(arm)}.on_{which}",
                intervals.share([right[i] for i in at]),
                how=f"seed 0, the {len(at)} {which} test rows",
            )
    mix = {
        arm: dict(Counter(row["recipe"] for row in table if "recipe" in row))
        for folder, arms, seed, *_ in wanted
        if folder in ("arms", "alone", "teacher") and seed == DRAWS[0]
        for arm, table in arms.items()
    }
    return {
        "lead": [f"{run.figures[0]['n']} test rows, {len(DRAWS)} seeds"],
        "seeds": SEEDS,
        "size": SIZE,
        "repeat": REPEAT,
        "steps": STEPS,
        "student": students.SETTINGS | STUDENT,
        "recipes": mix,
        "made": MADE,
    }

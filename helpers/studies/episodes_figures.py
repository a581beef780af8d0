"""Figures of study 06: success of each arm in each world, what the filter brings, what it costs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from helpers.measure import intervals
from helpers.play import costs
from helpers.studies import episodes_served as served
from helpers.studies import episodes_study as study
from helpers.studies import episodes_ways as ways
from helpers.studies.study_figures import StudyFigure, arm_name

HOW = "unseen tasks; 95 %: students and tasks drawn again, one student alone Wilson"


def of_arm(cells: Sequence[Mapping[str, Any]], world: str, arm: str, asked: str = "") -> np.ndarray:
    """Successes of an arm, shape (seeds, tasks); `asked`: another set than the world's own."""
    told = []
    for cell in cells:
        if (cell["world"], cell["arm"]) == (world, arm) and (asked or world) in cell["measured"]:
            told.append(cell["measured"][asked or world]["success"])
    return np.array(told, float)


def play_figures(
    cells: Sequence[Mapping[str, Any]], timed: Mapping[str, Any]
) -> Iterator[StudyFigure]:
    """pass1 of each arm in and out of domain, curated - uncurated, pass^5, the timed ways.

    `timed`: {world: what episodes_served.timed_ways returns}; {} where nothing was timed.
    """
    for world in ("desk", "babyai"):
        for arm in dict.fromkeys(cell["arm"] for cell in cells if cell["world"] == world):
            seeds = [c["seed"] for c in cells if (c["world"], c["arm"]) == (world, arm)]
            for asked in (world, f"{world}_out"):
                right = of_arm(cells, world, arm, asked)
                if right.size:
                    name = f"pass1.{asked}.{arm_name(arm)}"
                    yield StudyFigure(name, intervals.over_seeds_and_tasks(right), HOW, seeds)
            yield from general_figures(cells, world, arm)
            tries = of_arm(cells, world, arm, f"{world}_tries")
            if tries.size:
                value = float(np.mean([costs.pass_k(each, ways.TIMES) for each in tries]))
                how = f"{ways.TIMES} tries a task at temperature {ways.WARM}"
                name = f"pass{ways.TIMES}.{world}.{arm_name(arm)}"
                yield StudyFigure(name, value, how, seeds, n=tries.shape[1])
        for machine in ("", ", two cores"):
            yield from filter_figures(cells, world, machine)
    for world, ways_of_it in timed.items():
        yield from timed_figures(ways_of_it, "" if world == "desk" else f"{world}.")


def filter_figures(
    cells: Sequence[Mapping[str, Any]], world: str, machine: str = ""
) -> Iterator[StudyFigure]:
    """What the filter brings: curated - uncurated, success at one try and at all of five.

    `machine`: what the names of the arms end with where another machine made the same students.
    """
    arms = [f"{arm}{machine}" for arm in ("curated", "uncurated")]
    seeds = [c["seed"] for c in cells if (c["world"], c["arm"]) == (world, arms[0])]
    end = f"{world}.{arm_name(f'curated_minus_uncurated{machine}')}"
    how = f"equal number of episodes and of steps, {HOW}"
    curated, uncurated = (of_arm(cells, world, arm) for arm in arms)
    if curated.size and uncurated.size:
        gap = intervals.over_seeds_and_tasks(curated, uncurated)
        yield StudyFigure(f"pass1.{end}", gap, how, seeds, "difference")
    curated, uncurated = (of_arm(cells, world, arm, f"{world}_tries") for arm in arms)
    if curated.size and uncurated.size:  # a task counts where the least of its tries is a success
        gap = intervals.over_seeds_and_tasks(curated.min(axis=-1), uncurated.min(axis=-1))
        about = f"all of {ways.TIMES} tries at temperature {ways.WARM}, {how}"
        yield StudyFigure(f"pass{ways.TIMES}.{end}", gap, about, seeds, "difference")


def general_figures(
    cells: Sequence[Mapping[str, Any]], world: str, arm: str
) -> Iterator[StudyFigure]:
    """What the students of an arm still answer of forty general questions, against the base."""
    base = [c["general"] for c in cells if c["arm"] == "base"]
    own = [c["general"] for c in cells if (c["world"], c["arm"]) == (world, arm) and "general" in c]
    if not own:
        return
    how = "forty general questions, the likeliest choice"
    if arm == "base":
        yield StudyFigure("general.base", intervals.share(own[0]), how)
        return
    right = np.array(own, float)
    share = intervals.over_seeds_and_tasks(right)
    yield StudyFigure(f"general.{world}.{arm_name(arm)}", share, how)
    if base:
        gap = intervals.over_seeds_and_tasks(right, np.array(base, float))
        name = f"general.{world}.{arm_name(arm)}_minus_base"
        yield StudyFigure(name, gap, f"{how}, paired; {HOW}", None, "difference")


def timed_figures(timed: Mapping[str, Any], world: str = "") -> Iterator[StudyFigure]:
    """The ways on one machine: success, seconds and tokens of a task, cost ratios.

    `world`: what the names begin with, "" for the desk.
    """
    how = "the same tasks one after the other, llama.cpp, the same machine"
    for way, told in timed.items():
        tasks = len(told["success"])
        yield StudyFigure(f"{world}pass1.{way}", intervals.share(told["success"]), how)
        for what in ("seconds", "tokens_in", "tokens_out", "turns"):
            value = float(np.mean(told[what]))
            name = f"{world}{what}.{way}"
            yield StudyFigure(name, value, f"{how}, mean of a task", None, what, tasks)
    for way in [way for way in timed if not way.startswith("student")]:
        dear, tasks = timed[way], len(timed[way]["success"])  # fewer, where a way is very dear
        student = {what: timed["student"][what][:tasks] for what in ("seconds", "success")}
        if any(dear["success"]) and any(student["success"]):
            columns = (dear["seconds"], dear["success"], student["seconds"], student["success"])
            ratio = costs.cost_ratio(*columns)
            if not math.isfinite(ratio.high):
                continue  # a handful of successes: such a price has no upper end
            name = f"{world}cost_per_success.{'ratio' if way == 'large' else way}"
            yield StudyFigure(name, ratio, f"seconds, {way} over student; {how}", None, "times")
    if "large" in timed:
        gap = intervals.compare(timed["student"]["success"], timed["large"]["success"])
        about = f"paired difference; {how}"
        yield StudyFigure(f"{world}pass1.student_minus_large", gap, about, None, "difference")


def play_settings(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What results.json says about the study: settings, where students learnt, what is missing."""
    have = {(c["world"], c["arm"], c["seed"]) for c in cells}
    wanted = [
        (world, arm, seed)
        for world in ("desk", "babyai")
        for arm in study.MAIN
        for seed in study.SEEDS
    ]
    others = {"desk": ("distinct", "hinted"), "babyai": ("many", "alone 1", "alone 2", "alone 3")}
    wanted += [(world, arm, 0) for world, arms in others.items() for arm in arms]
    for world, numbers in study.NUMBERS.items():
        wanted += [(world, f"curated {number}", 0) for number in numbers]
    wanted += [(world, arm, 0) for world in ("desk", "babyai") for arm in served.PROMPTED]
    machines = {
        f"{cell['world']} {cell['arm']} {cell['seed']}": cell["machine"]
        for cell in cells
        if "machine" in cell
    }
    return {
        "lead": [f"{len(have)} students and ways"],
        "student": study.STUDENT,
        "many": {name: study.MANY[name] for name in ("episodes", "steps")},
        "round": {"steps": study.ROUND_STEPS, "most_of_a_shape": study.DISTINCT},
        "served": study.students.SERVED,
        "temperature_of_draws": ways.WARM,
        "slip": ways.SLIP,
        "turns_seen": study.students.LAST,
        "tasks": {
            "learnt": {world: _ends(tasks) for world, tasks in ways.LEARNT.items()},
            "own": {f"round {number}": _ends(tasks) for number, tasks in ways.OWN.items()},
            "measured": _ends(ways.MEASURED),
            "outside": _ends(ways.OUTSIDE),
            "tried": ways.TRIED,
            "many": _ends(study.MANY["tasks"]),
            "voted": [ways.VOTES, ways.VOTED],
            "asked": ways.ASKED,
        },
        "machines": machines,
        "unfinished": [" ".join(map(str, one)) for one in wanted if one not in have],
    }


def _ends(tasks: range) -> list[int]:
    """The first seed of a range of tasks, and the one behind its last."""
    return [tasks.start, tasks.stop]

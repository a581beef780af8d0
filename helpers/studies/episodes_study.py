"""Study 06: which episodes teach a small model to act, in two worlds, three students of each kind.

See episodes_ways for the tasks. Everything made lies under what it was made from.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from helpers.core import runtime
from helpers.core.files import Journal, fingerprint, write_text
from helpers.core.runs import Run
from helpers.measure import harness
from helpers.play import episode_filter, students
from helpers.play.episodes import Episode, random_episode
from helpers.play.prompted import prompted
from helpers.play.rollouts import play, play_timed
from helpers.play.students import LAST, engine_of, student_base, student_way, train_player
from helpers.studies import episodes_served as served
from helpers.studies.episodes_ways import (
    LARGE,
    LEARNT,
    MEASURED,
    OUTSIDE,
    OWN,
    TIMES,
    WARM,
    WORLDS,
    measure_others,
    on_unseen_tasks,
    read_episodes,
    slipping_expert,
    write_episodes,
)
from helpers.tune import training
from helpers.tune.students import merged

SEEDS = (0, 1, 2)
MAIN = ("curated", "uncurated", "random")  # compared at equal number, with every seed
STUDENT: dict[str, Any] = students.STUDENT | {
    "steps": {"desk": 120, "babyai": 400},
    "episodes": {"desk": 100, "babyai": 200},  # of each arm, the same number
}
NUMBERS = {"desk": (25, 50), "babyai": (50, 100)}  # other numbers of curated episodes
# an expert that is a program costs nothing more for a thousand: its tasks, successes, steps
MANY: dict[str, Any] = {"tasks": range(2_000, 3_500), "episodes": 1_000, "steps": 1_000}
FEW, DISTINCT = 3, 12  # episodes of each shape of path: in one log, in all rounds
ROUND_STEPS = 240  # of a student that learns from its own successes, too


# The logs that are learnt from ----------------------------------------------------------------


def log_of_large(run: Run, engine: Any, say: Callable[[str], None] = print) -> None:
    """What the large model does with the tasks to learn from; those it fails, again with a hint.

    A server keeps what it has read of a task for its next step, so it gets a task after the other.
    """
    failed: list[int] = list(LEARNT["desk"])
    for attempt, name in enumerate(("first", "hinted")):
        way = prompted(WORLDS["desk"], "large", temperature=WARM if attempt else 0.0)
        hint = (lambda world: world.hint()) if attempt else None
        folder = run.path(f"replies/large_{name}")
        pairs = play_timed(WORLDS["desk"], failed, way, engine, folder, attempt, hint)
        log = [episode for episode, _ in pairs]
        write_episodes(run.path(f"episodes/desk_{name}.jsonl"), log)
        say(f"large, desk, {name}: {sum(e.success for e in log)} of {len(log)}")
        failed = [episode.seed for episode in log if not episode.success]


def pools(run: Run, world: str) -> dict[str, list[Episode]]:
    """{arm: the episodes it draws from}; what the filter and its rivals keep of the logs."""
    walker = [random_episode(WORLDS[world](), seed) for seed in LEARNT[world]]
    if world == "babyai":
        made = WORLDS[world]()
        log = [slipping_expert(made, seed) for seed in LEARNT[world]]
        many = [slipping_expert(made, seed) for seed in MANY["tasks"]]
        return {
            "curated": episode_filter.successes(log),
            "uncurated": log,
            "random": walker,
            "many": episode_filter.successes(many),
        }
    log = read_episodes(run.path("episodes/desk_first.jsonl"))
    hinted = read_episodes(run.path("episodes/desk_hinted.jsonl"))
    kept = episode_filter.successes(log)
    return {
        "curated": kept,
        "uncurated": log,
        "random": walker,
        "distinct": episode_filter.distinct_paths(kept, FEW),
        "hinted": episode_filter.successes([*log, *hinted]),
    }


# The students ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlayJob:
    """One student: the world and arm of its episodes, how many, and its seed."""

    world: str
    arm: str
    seed: int
    number: int
    steps: int


def jobs_of(world: str, arms: Mapping[str, Sequence[Episode]]) -> list[PlayJob]:
    """Every student of a world: each arm at the same number, then other numbers of curated ones."""
    number, steps = STUDENT["episodes"][world], STUDENT["steps"][world]
    jobs = []
    for arm, pool in arms.items():
        if arm == "many":
            jobs.append(PlayJob(world, arm, 0, MANY["episodes"], MANY["steps"]))
            continue
        seeds = SEEDS if arm in MAIN else SEEDS[:1]
        for seed in seeds:
            jobs.append(PlayJob(world, arm, seed, min(number, len(pool)), steps))
    for other in (*NUMBERS[world], len(arms["curated"])):
        if other <= len(arms["curated"]):
            jobs.append(PlayJob(world, f"curated {other}", 0, other, steps))
    return jobs


def student_cell(
    about: Mapping[str, Any],
    episodes: Sequence[Episode],
    steps: int,
    here: runtime.Runtime,
    folder: Path,
    times: int = 0,
) -> dict[str, Any]:
    """Train and measure one student; a kill loses the steps since its last checkpoint at most.

    `about`: world, arm, seed and number of its cell. The cell lies in `folder` under what made it,
    with its adapter; `times` as in episodes_ways.on_unseen_tasks.
    """
    taught = [(episode.seed, episode.actions) for episode in episodes]
    asked = [[*MEASURED], [*OUTSIDE], times]
    key = fingerprint(dict(about), taught, steps, students.STUDENT, asked, LAST)
    place, world = folder / key, about["world"]
    if (place / "cell.json").is_file():
        return json.loads((place / "cell.json").read_text("utf-8"))
    if (place / "facts.json").is_file():  # trained before a kill
        facts = json.loads((place / "facts.json").read_text("utf-8"))
        base, tokenizer = student_base()
        model = merged(base, place / "adapter", here)
    else:
        model, tokenizer, facts = train_player(episodes, about["seed"], steps, here, place)
        write_text(place / "facts.json", json.dumps(facts))
        shutil.rmtree(place / "trainer", ignore_errors=True)  # its checkpoints
    engine = engine_of(model, tokenizer)

    def played(name: str, seeds: Sequence[int], attempt: int) -> list[Episode]:
        way = student_way(temperature=WARM if attempt else 0.0)
        journal = Journal(place / f"replies_{name}.jsonl")
        return play(WORLDS[name], seeds, way, engine, journal, attempt)

    cell = dict(about) | {"steps": steps, "key": key} | facts
    cell |= {"machine": here.note, "versions": runtime.versions()}
    cell["measured"] = on_unseen_tasks(world, played, times=times)
    cell["general"] = harness.by_hand(model, tokenizer, harness.general_docs()).tolist()
    write_text(place / "cell.json", json.dumps(cell))
    return cell


def base_cell(here: runtime.Runtime) -> dict[str, Any]:
    """The base before any tuning: what is left of its general answers is compared with these."""
    base, tokenizer = student_base()
    with base.loading():
        model = training.load_base(base.path, here, four_bit=False)
    right = harness.by_hand(model, tokenizer, harness.general_docs()).tolist()
    return {"world": "desk", "arm": "base", "seed": 0, "measured": {}, "general": right}


def run_job(job: PlayJob, pool: Sequence[Episode], folder: Path, profile: str) -> dict[str, Any]:
    """The cell of one job, in a process of its own: see student_cell."""
    runtime.quiet()
    episodes = episode_filter.drawn(pool, job.number, job.seed)
    about = {name: value for name, value in asdict(job).items() if name != "steps"}
    times = TIMES if job.arm in MAIN[:2] else 0
    return student_cell(about, episodes, job.steps, runtime.detect(profile), folder, times)


def train_players(
    run: Run, world: str, say: Callable[[str], None] = print, n_jobs: int = 1
) -> list[dict[str, Any]]:
    """Every student of a world; finished ones are read back."""
    arms = pools(run, world)
    for arm, pool in arms.items():
        say(f"{world}, {arm}: {len(pool)} episodes, {sum(e.success for e in pool)} successes")
    calls, profile = [], run.runtime.profile.name
    for job in jobs_of(world, arms):
        pool = arms[job.arm.split()[0]]
        calls.append(joblib.delayed(run_job)(job, pool, run.path("players"), profile))
    cells = list(joblib.Parallel(n_jobs)(calls))
    for cell in cells:
        right = cell["measured"][world]["success"]
        say(f"{world}, {cell['arm']}, seed {cell['seed']}: {np.mean(right):.1%}")
    return cells


def own_tries(
    run: Run, cell: Mapping[str, Any], tasks: Sequence[int], attempt: int = 1
) -> list[Episode]:
    """What the student of a cell does with tasks to learn from, drawing its actions."""
    place = run.path("players") / cell["key"]
    base, tokenizer = student_base()
    engine = engine_of(merged(base, place / "adapter", run.runtime), tokenizer)
    way, journal = student_way(temperature=WARM), Journal(place / "replies_own.jsonl")
    return play(WORLDS[cell["world"]], tasks, way, engine, journal, attempt)


def further_rounds(
    run: Run, first: Mapping[str, Any], say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Students that learn all successes so far: the large model's, hinted ones, and students' own.

    `first`: the cell of the student that tries the new tasks of the second round. Of each shape of
    path at most DISTINCT episodes teach: what a model does too often would be taught too often.
    """
    cells: list[dict[str, Any]] = [dict(first)]
    own: list[Episode] = []
    for number, tasks in OWN.items():
        own += own_tries(run, cells[-1], tasks)
        write_episodes(run.path(f"episodes/desk_round_{number}.jsonl"), own)
        won = episode_filter.successes([*pools(run, "desk")["hinted"], *own])
        kept = episode_filter.distinct_paths(won, DISTINCT)
        say(f"round {number}: {len(won)} successes so far, {len(kept)} of them teach")
        about = {"world": "desk", "arm": f"round {number}", "seed": 0, "number": len(kept)}
        folder = run.path("players")
        cells.append(student_cell(about, kept, ROUND_STEPS, run.runtime, folder, TIMES))
        say(f"round {number}: {np.mean(cells[-1]['measured']['desk']['success']):.1%}")
    return cells[1:]


def without_a_teacher(
    run: Run, world: str = "babyai", rounds: int = 3, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Nobody to learn from: the random walker's successes teach, then the student's own, repeated.

    Each round keeps every task's shortest success so far; the next student begins at the base.
    """
    walks, cells = [], []
    for draw in range(2):
        walks += [random_episode(WORLDS[world](), seed, draw) for seed in LEARNT[world]]
    kept = episode_filter.successes(walks)
    for number in range(1, rounds + 1):
        about = {"world": world, "arm": f"alone {number}", "seed": 0, "number": len(kept)}
        steps, folder = STUDENT["steps"][world], run.path("players")
        cells.append(student_cell(about, kept, steps, run.runtime, folder))
        say(f"alone, round {number}: {np.mean(cells[-1]['measured'][world]['success']):.1%}")
        kept = episode_filter.successes([*kept, *own_tries(run, cells[-1], LEARNT[world])])
    return cells


# Everything -----------------------------------------------------------------------------------


def play_all(run: Run, say: Callable[[str], None] = print, n_jobs: int = 1) -> list[dict[str, Any]]:
    """Everything of the study that is not there yet, in its order; returns its cells.

    Raises CourseError where a larger model is not fetched: the first sentence says how.
    """
    cells = [base_cell(run.runtime)]
    with served.embedded(LARGE) as engine:
        log_of_large(run, engine, say)
    for world in ("desk", "babyai"):
        cells += measure_others(world)
        cells += train_players(run, world, say, n_jobs)
    cells += without_a_teacher(run, say=say)
    first = {(cell["world"], cell["arm"], cell["seed"]): cell for cell in cells}
    cells += further_rounds(run, first["desk", "curated", 0], say)
    best = {"desk": cells[-1], "babyai": first["babyai", "curated", 0]}
    timed, players = {}, run.path("players")
    for world, cell in best.items():  # alone on the machine: these are timed
        cells += served.prompted_cells(run, world, say)
        adapter = players / cell["key"] / "adapter"
        timed[world] = served.timed_ways(run, adapter, world, say)
    write_text(run.path("timed.json"), json.dumps(timed))
    write_text(
        run.path("injected.json"),
        json.dumps(served.injected(run, players / best["desk"]["key"] / "adapter")),
    )
    return cells


def keep_recordings(run: Run) -> None:
    """Enter what chapter 06 reads into the run's manifest, under the names it reads."""
    names = {"desk_first": "log_large", "desk_hinted": "log_hinted"}
    for stored, name in names.items():
        path = run.path(f"episodes/{stored}.jsonl")
        if path.is_file():
            write_text(run.path(f"{name}.jsonl"), path.read_text("utf-8"))
            run.keep(f"{name}.jsonl")
    for name in ("timed.json", "injected.json"):
        if run.path(name).is_file():
            run.keep(name)

"""The ways of acting that study 06 compares, and how each is measured: the same tasks for all.

Tasks are seeds: those that are learnt from, and those that are measured on, are never the same. No
setting is chosen by what the measured ones score.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers import CourseError
from helpers.core.files import write_text
from helpers.play.babyai import BabyAI
from helpers.play.episodes import Episode, acted, random_episode
from helpers.play.order_desk import OrderDesk

WORLDS: dict[str, Callable[[], Any]] = {
    "desk": OrderDesk,
    "desk_out": lambda: OrderDesk("out"),
    "babyai": lambda: BabyAI("GoToLocal"),
    "babyai_out": lambda: BabyAI("PickupLoc"),
}
LEARNT = {"desk": range(240), "babyai": range(400)}  # by the large model, by the expert
OWN = {2: range(1_000, 1_500)}  # {round: tasks of the desk that a student tries to learn from}
MEASURED, OUTSIDE = range(10_000, 10_100), range(10_000, 10_050)
LARGE, MEDIUM = "qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b"
SLIP = 0.25  # of the expert of BabyAI: a quarter of its episodes fail
WARM = 0.7  # the temperature of every draw
TIMES, TRIED = 5, 20  # tries at each of so many measured tasks, for pass^5
VOTES, VOTED = 5, 30  # draws of the large model at each step, and tasks on which it votes
ASKED = {"desk": 100, "babyai": 40}  # measured tasks that the dear ways are given


def slipping_expert(world: BabyAI, seed: int) -> Episode:
    """An episode of BabyAI's expert, who slips."""
    trace = world.slipping_bot(seed, SLIP)
    return acted(world, seed, [action for _, action in trace.steps], "expert")


# Episodes and what is kept of them --------------------------------------------------------------


def write_episodes(path: Path, episodes: Sequence[Episode]) -> None:
    """Write episodes, one to a line."""
    write_text(path, "".join(json.dumps(e.as_dict(), ensure_ascii=False) + "\n" for e in episodes))


def read_episodes(path: Path) -> list[Episode]:
    """The episodes of a file; raises CourseError where there is none."""
    if not path.is_file():
        raise CourseError(f"{path.name} is not there; play the large model's tasks first.")
    return [Episode.of(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def summary(log: Sequence[Episode]) -> dict[str, Any]:
    """What is kept of measured episodes: one entry a task."""
    turns = [episode.turns for episode in log]
    return {
        "success": [episode.success for episode in log],
        "turns": [len(own) for own in turns],
        "errors": [sum(turn.error is not None for turn in own) for own in turns],
        "tokens_in": [sum(turn.tokens_in for turn in own) for own in turns],
        "tokens_out": [sum(turn.tokens_out for turn in own) for own in turns],
    }


def on_unseen_tasks(
    world: str,
    played: Callable[[str, Sequence[int], int], Sequence[Episode]],
    tasks: int = len(MEASURED),
    times: int = 0,
) -> dict[str, Any]:
    """{set: summary} of a way on unseen tasks, in and out of its domain.

    `played(world, seeds, attempt)` gives its episodes; attempt 0 takes the likeliest action, the
    `times` others are draws, for pass^k: their success has shape (tasks, times).
    """
    outside = f"{world}_out"
    told = {world: summary(played(world, MEASURED[:tasks], 0))}
    told[outside] = summary(played(outside, OUTSIDE[: tasks // 2], 0))
    tries = []
    for attempt in range(1, times + 1):
        log = played(world, MEASURED[:TRIED], attempt)
        tries.append([episode.success for episode in log])
    if tries:
        told[f"{world}_tries"] = {"success": np.array(tries).T.tolist()}
    return told


def measure_others(world: str) -> Iterator[dict[str, Any]]:
    """The random walker and the expert, on the measured tasks."""
    walks = [random_episode(WORLDS[world](), seed) for seed in MEASURED]
    yield {"world": world, "arm": "walker", "seed": 0, "measured": {world: summary(walks)}}
    made = WORLDS[world]()
    if isinstance(made, BabyAI):
        for arm, slip in (("expert", 0.0), ("slipping expert", SLIP)):
            log = []
            for seed in MEASURED:
                trace = made.slipping_bot(seed, slip)
                log.append(acted(made, seed, [action for _, action in trace.steps], arm))
            yield {"world": world, "arm": arm, "seed": 0, "measured": {world: summary(log)}}

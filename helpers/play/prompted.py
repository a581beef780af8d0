"""Ways of a model that nobody tuned: it is told the rules of a world and shown worked episodes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from helpers.ask import teachers
from helpers.core.pilot import Pilot
from helpers.play.episodes import Episode, acted
from helpers.play.order_desk import OrderDesk
from helpers.play.rollouts import Way, play_timed

CONTEXT = 4096  # tokens: rules, worked episodes and 25 turns in a room full of things
SHOWN = 900_000  # seeds of the worked episodes in a prompt begin here


def worked_episodes(make_world: Callable[[], Any]) -> list[Episode]:
    """What a prompted model is shown: one episode for each decision of the desk, or three walks."""
    made, shown = make_world(), []
    if not isinstance(made, OrderDesk):
        for seed in range(SHOWN, SHOWN + 3):
            shown.append(acted(made, seed, made.bot_actions(seed), "expert"))
        return shown
    # by turns with the number in the message and without
    wanted = [("refund", True), ("escalate", False), ("refuse", True), ("replace", False)]
    for seed in range(SHOWN, SHOWN + 1000):
        made.reset(seed)
        kind = made.task.decision, made.task.number in made.task.message
        if wanted and kind == wanted[0]:
            shown.append(acted(made, seed, made.expert_actions(), "expert"))
            wanted.pop(0)
    return shown


def prompted(make_world: Callable[[], Any], name: str, **changes: Any) -> Way:
    """A model that is told the rules and shown the worked episodes of a world."""
    return Way(name, make_world().rules, tuple(worked_episodes(make_world)), **changes)


def play_with_teacher(
    pilot: Pilot, make_world: Callable[[], Any], seeds: Sequence[int], folder: Path
) -> list[tuple[Episode, float]]:
    """(episode, seconds) of the pilot's teacher at each seed; none where it was not fetched.

    Any teacher of pilot.yaml will do: a model here, or an address.
    """
    teacher = teachers.of(pilot)
    if not teachers.is_here(teacher):
        return []
    verdict = teachers.catalogue_verdict(pilot, "internal")
    with teachers.opened(teacher, verdict, CONTEXT) as engine:
        return play_timed(make_world, seeds, prompted(make_world, teacher.name), engine, folder)

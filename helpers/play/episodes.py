"""Episodes: what was seen and done from the first observation to the end, and how it went."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from helpers import CourseError
from helpers.play.worlds import World


@dataclass(frozen=True)
class Move:
    """One action, what it brought, and the tokens that it took to choose it (read, written)."""

    action: str
    observation: str
    error: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass
class Episode:
    """One try at the task `seed` of a world by one `way` of working."""

    world: str
    way: str
    seed: int
    opening: str
    turns: list[Move] = field(default_factory=list)
    success: bool = False
    attempt: int = 0

    @property
    def actions(self) -> tuple[str, ...]:
        """The path: what was done, in order."""
        return tuple(turn.action for turn in self.turns)

    def as_dict(self) -> dict[str, Any]:
        """As it is stored in a line of JSON."""
        return asdict(self)

    @classmethod
    def of(cls, line: dict[str, Any]) -> "Episode":
        """From a stored line; raises CourseError where it is none."""
        try:
            return cls(**line | {"turns": [Move(**turn) for turn in line["turns"]]})
        except (TypeError, KeyError) as problem:
            raise CourseError(f"A stored episode cannot be read ({problem}).") from None


def transcript(opening: str, turns: Sequence[Move], last: int | None = None) -> str:
    """What a model reads before it acts: the opening, then each action with what it brought.

    `last`: only so many of the newest turns. It ends with a line break, so that an action begins
    with a token of its own; an episode of at most `last` turns is the start of a longer one.
    """
    shown = turns if last is None else turns[max(0, len(turns) - last) :]
    text = f"{opening}\nNext:\n"
    for turn in shown:
        text += f"{turn.action}\n{turn.observation}\nNext:\n"
    return text


def acted(world: World, seed: int, actions: Sequence[str], way: str) -> Episode:
    """The episode that these actions make; stops where the world ends it."""
    episode = Episode(world.name, way, seed, world.reset(seed))
    for action in actions:
        step = world.step(action)
        episode.turns.append(Move(action, step.observation, step.error))
        if step.done:
            break
    episode.success = world.success()
    return episode


def random_episode(world: World, seed: int, draw_seed: int = 0) -> Episode:
    """A random walker: legal actions, drawn alike, until the end."""
    draw = random.Random(f"random walker {world.name} {seed} {draw_seed}")
    episode = Episode(world.name, "random", seed, world.reset(seed), attempt=draw_seed)
    done = False
    while not done:
        action = draw.choice(world.legal_actions())
        step = world.step(action)
        episode.turns.append(Move(action, step.observation, step.error))
        done = step.done
    episode.success = world.success()
    return episode

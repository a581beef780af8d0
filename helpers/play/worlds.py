"""What every world can do: begin from a seed, take an action, say whether it went well."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Step:
    """What an action brought: a text, whether the episode has ended, what was wrong with it."""

    observation: str
    done: bool
    error: str | None = None


class World(Protocol):
    """A task that a program can judge. The same seed gives the same episode on every machine."""

    name: str
    max_steps: int

    @property
    def rules(self) -> str:
        """What a prompted model must be told: the aim and the actions, without an example."""

    def grammar(self) -> str:
        """GBNF of one action: what llama.cpp and llguidance let a model write."""

    def legal_actions(self) -> list[str]:
        """What a random walker draws from now, sorted."""

    def reset(self, seed: int) -> str:
        """Begin the episode of this seed; returns the first observation."""

    def step(self, action: str) -> Step:
        """Do one action; what cannot be read changes nothing but costs a step."""

    def success(self) -> bool:
        """Whether the aim is reached, read off the world itself."""

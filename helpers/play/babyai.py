"""BabyAI, a world by others: a room of things, a mission in words, a view of 7 x 7 squares.

The package minigrid (MIT) makes rooms and missions from a seed, says when the mission is done, and
brings an expert. Its view is a table of numbers; here it becomes a text, from that view alone.
"""

import random
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers import CourseError
from helpers.play.worlds import Step

ACTIONS = {
    "left": "turn left where you stand",
    "right": "turn right where you stand",
    "forward": "go to the square ahead, if it is free",
    "pickup": "take the thing in the square ahead, if you carry nothing",
    "drop": "put what you carry into the square ahead, if it is free",
    "toggle": "open or close the door ahead; for a locked one carry the key of its color",
}
WALK, HANDS = ("left", "right", "forward"), ("left", "right", "forward", "pickup", "drop")
# a level's actions; another level needs a line here (one room only: the sides of a mission)
LEVELS = {
    "GoToLocal": WALK,
    "PickupLoc": HANDS,
    "PutNextLocalS5N3": HANDS,
    "UnlockLocal": tuple(ACTIONS),
}
# places are complex numbers: squares ahead + 1j * squares to the right
SIDES = {
    "in front of you": ("ahead", lambda place: place.real > 0),
    "behind you": ("behind", lambda place: place.real < 0),
    "on your left": ("left", lambda place: place.imag < 0),
    "on your right": ("right", lambda place: place.imag > 0),
}
NO_THINGS = {"unseen": "", "empty": "free", "floor": "free", "wall": "wall"}
DOORS = ("open ", "closed ", "locked ")  # by the third number of a square
NEAREST_FIRST = sorted(
    ((ahead, right) for ahead in range(7) for right in range(-3, 4) if (ahead, right) != (0, 0)),
    key=lambda place: (place[0] + abs(place[1]), place[1]),
)
INSTALL = "python -m pip install -r requirements.txt"


@dataclass(frozen=True)
class Trace:
    """An episode of the expert: each observation with the action that followed, and the outcome."""

    seed: int
    steps: list[tuple[str, str]]
    success: bool


class BabyAI:
    """One level of BabyAI as a world in words.

    An observation has three lines: the mission; the square ahead (and what is carried); the things
    in view, nearest first, each with its place as seen by who acts. Where the mission names a side
    ("the ball on your left"), that side is meant as at the start: things that lie there say so.
    This is reckoned from the moves made and holds for things that nobody has moved.

    CourseError: no such level here, or minigrid is missing, as on Windows.
    """

    name = "babyai"

    def __init__(self, level: str = "GoToLocal", max_steps: int = 25):
        if level not in LEVELS:
            raise CourseError(f"BabyAI has no level {level!r} here; take {', '.join(LEVELS)}.")
        if max_steps < 1:
            raise CourseError(f"An episode needs at least one step, max_steps is {max_steps}.")
        self.level, self.max_steps, self.actions = level, max_steps, LEVELS[level]
        self._env = _environment(level, max_steps)
        self._done = True  # until `reset`
        self._success = False

    @property
    def rules(self) -> str:
        """What a prompted model must be told: the aim and the actions, without an example."""
        meanings = "\n".join(f"{action}: {ACTIONS[action]}" for action in self.actions)
        return f"""You stand in a room of squares and carry out a mission.
You see 6 squares ahead and 3 to each side; what is not in view may be behind you.
Answer with one word and nothing else. These are all the actions here:
{meanings}
Each answer costs a step; you have {self.max_steps}. Things block the way, as walls do.
You are at a thing or a door when it is in the square ahead.
Next to each other means in neighboring squares, not across a corner.
Sides that a mission names are those at the start."""

    def grammar(self) -> str:
        """GBNF of one action: what llama.cpp and llguidance let a model write."""
        return "root ::= " + " | ".join(f'"{action}"' for action in self.legal_actions()) + "\n"

    def legal_actions(self) -> list[str]:
        """The actions of this level, sorted; the same at every step."""
        return sorted(self.actions)

    def reset(self, seed: int) -> str:
        """Begin the episode of this seed; returns the first observation."""
        if seed < 0:
            raise CourseError(f"A seed of BabyAI is a whole number from 0 on, not {seed}.")
        self._seen, _ = self._env.reset(seed=int(seed))
        self._taken, self._done, self._success = 0, False, False
        self._place, self._facing = 0j, 1 + 0j  # as seen at the start
        return self._text()

    def step(self, action: str) -> Step:
        """Do one action; what is none of this level's changes nothing but costs a step.

        CourseError: before the first `reset`, and after the end.
        """
        if self._done:
            raise CourseError("No episode of BabyAI is under way: begin one with reset(seed).")
        known = action in self.actions
        if known:
            self._act(action)
        self._taken += 1
        self._done = self._done or self._taken >= self.max_steps
        return Step(self._text(), self._done, None if known else self._complaint(action))

    def success(self) -> bool:
        """Whether the mission is done, as minigrid judges it."""
        return self._success

    def picture(self) -> np.ndarray:
        """The room from above as minigrid draws it, bytes of shape (height, width, 3)."""
        return self._env.get_frame(tile_size=24)

    def bot_actions(self, seed: int) -> list[str]:
        """What minigrid's expert does in the episode of this seed; plays it to its end."""
        return [action for _, action in self.slipping_bot(seed, slip=0).steps]

    def slipping_bot(self, seed: int, slip: float, rng_seed: int = 0) -> Trace:
        """An episode of the expert with mistakes, to its end; `slip` is a share between 0 and 1.

        At each step the expert slips with probability `slip`: it does any action of the level. From
        a slip it carries on as it best can, but with the same probability it is lost: from then on
        it does anything, until the episode ends.
        """
        from minigrid.utils.baby_ai_bot import BabyAIBot

        draw = random.Random(f"{seed} {rng_seed}")
        observation, steps = self.reset(seed), []
        bot, taken, lost = BabyAIBot(self._env), None, False
        while not self._done:
            action = None if lost else _advice(bot, taken)
            if action not in self.actions or draw.random() < slip:
                lost = action not in self.actions or draw.random() < slip
                action = draw.choice(self.legal_actions())
            steps.append((observation, action))
            observation, taken = self.step(action).observation, action
        return Trace(seed, steps, self._success)

    def _act(self, action: str) -> None:
        self._facing *= {"left": -1j, "right": 1j}.get(action, 1)
        if action == "forward" and self._square(1, 0).startswith(("free", "open")):
            self._place += self._facing
        self._seen, reward, ended, _, _ = self._env.step(self._env.actions[action])
        self._done = ended
        self._success = ended and reward > 0

    def _complaint(self, action: str) -> str:
        what = "That is no action here" if action else "The answer is empty"
        return f"{what}: answer with one of these words, {', '.join(self.legal_actions())}."

    def _text(self) -> str:
        """The observation: from minigrid's own view of 7 x 7 squares, from nothing else."""
        mission = self._seen["mission"]
        lines = [f"Mission: {mission}.", f"Ahead: {self._square(1, 0)}."]
        if "pickup" in self.actions:
            carried = self._square(0, 0)  # minigrid shows there what is carried
            lines[1] += f" Carrying: {'nothing' if carried == 'free' else carried}."
        things = []
        for ahead, right in NEAREST_FIRST:
            name = self._square(ahead, right)
            if name not in NO_THINGS.values():
                side = self._side(mission, complex(ahead, right))
                things.append(f"{name} {_in_words(ahead, right)}{side}")
        lines.append(f"In view: {'; '.join(things) or 'nothing'}.")
        return "\n".join(lines)

    def _square(self, ahead: int, right: int) -> str:
        """What the view shows at a place: "locked red door", "free", "wall"; "" where it ends."""
        from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT

        kind, color, state = (int(n) for n in self._seen["image"][3 + right, 6 - ahead])
        name = IDX_TO_OBJECT[kind]
        if name in NO_THINGS:
            return NO_THINGS[name]
        return f"{DOORS[state] if name == 'door' else ''}{IDX_TO_COLOR[color]} {name}"

    def _side(self, mission: str, place: complex) -> str:
        """The mark of a thing that lies on the side which the mission names."""
        at_the_start = self._place + self._facing * place
        for words, (side, lies_there) in SIDES.items():
            if mission.endswith(words) and lies_there(at_the_start):
                return f" ({side} at start)"
        return ""


def _environment(level: str, max_steps: int) -> Any:
    """Minigrid's environment of a level, without a word printed."""
    if sys.platform == "win32":
        raise CourseError(
            "BabyAI needs minigrid, which its makers do not support on Windows: take the order "
            "desk, or run this part on Linux, macOS or Colab."
        )
    try:
        import gymnasium  # first: it keeps pygame from greeting
        import minigrid  # noqa: F401  (it tells gymnasium its levels)
        from minigrid.envs.babyai.core import roomgrid_level
    except ImportError as problem:
        raise CourseError(f"BabyAI needs minigrid and gymnasium: run {INSTALL}.") from problem
    # it prints a line for each room that it draws again; to redirect would touch other threads
    roomgrid_level.print = lambda *words: None  # type: ignore[attr-defined]
    made = gymnasium.make(f"BabyAI-{level}-v0", max_steps=max_steps, disable_env_checker=True)
    return made.unwrapped


def _advice(bot: Any, taken: str | None) -> str | None:
    """The expert's next action after the one taken, one of minigrid's; None without a plan."""
    from minigrid.core.actions import Actions
    from minigrid.utils.baby_ai_bot import DisappearedBoxError

    try:
        return bot.replan(Actions[taken] if taken else None).name
    except (AssertionError, DisappearedBoxError):  # a slip has led where it knows no way
        return None


def _in_words(ahead: int, right: int) -> str:
    side = f"{abs(right)} {'right' if right > 0 else 'left'}" if right else ""
    return " ".join(filter(None, [f"{ahead} ahead" if ahead else "", side]))

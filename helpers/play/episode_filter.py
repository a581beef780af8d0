"""Which episodes may teach, and the rows they become: all actions of one in one sequence."""

import random
import re
from collections.abc import Sequence
from typing import Any

from helpers import CourseError
from helpers.play.episodes import Episode, transcript


def successes(episodes: Sequence[Episode]) -> list[Episode]:
    """The episodes that reached their aim, each task once: the one with the fewest steps."""
    best: dict[tuple[str, int], Episode] = {}
    for episode in episodes:
        task = episode.world, episode.seed
        if episode.success and (task not in best or len(episode.turns) < len(best[task].turns)):
            best[task] = episode
    return list(best.values())


def path_shape(episode: Episode) -> str:
    """The path without what belongs to the task alone: numbers become 0, names X."""
    path = " / ".join(episode.actions)
    return re.sub(r"(?<!^)\b[A-Z]\w*", "X", re.sub(r"\d+", "0", path))


def distinct_paths(episodes: Sequence[Episode], most: int) -> list[Episode]:
    """At most `most` episodes of each shape of path, in their order."""
    seen: dict[str, int] = {}
    kept = []
    for episode in episodes:
        shape = path_shape(episode)
        seen[shape] = seen.get(shape, 0) + 1
        if seen[shape] <= most:
            kept.append(episode)
    return kept


def drawn(episodes: Sequence[Episode], number: int, seed: int) -> list[Episode]:
    """`number` of the episodes, drawn alike; raises CourseError where there are not so many."""
    if number > len(episodes):
        raise CourseError(
            f"There are {len(episodes)} episodes and {number} were asked for; play more tasks, "
            "or ask for fewer."
        )
    return random.Random(f"draw of episodes {seed}").sample(list(episodes), number)


def teaching_rows(
    episodes: Sequence[Episode], tokenizer: Any, last: int = 8
) -> list[dict[str, list[int]]]:
    """Rows of {"input_ids", "completion_mask"} for an SFTTrainer: the loss is on the actions.

    The first `last` + 1 actions of an episode stand in one sequence, which holds exactly what a
    model sees before each of them; a later action gets a row of its own, with its `last` turns.
    Raises CourseError without an episode.
    """
    if not episodes:
        raise CourseError("There is no episode to learn from: the filter rejected all of them.")
    rows = []
    for episode in episodes:
        turns = episode.turns
        together = turns[: last + 1]
        text, spans = f"{episode.opening}\nNext:\n", []
        for number, turn in enumerate(together):
            spans.append((len(text), len(text) + len(turn.action) + 1))
            text += f"{turn.action}\n"
            if number < len(together) - 1:
                text += f"{turn.observation}\nNext:\n"
        rows.append(_row(tokenizer, text, spans))
        for number in range(last + 1, len(turns)):
            before = transcript(episode.opening, turns[:number], last)
            action = f"{turns[number].action}\n"
            rows.append(_row(tokenizer, before + action, [(len(before), len(before + action))]))
    return rows


def _row(tokenizer: Any, text: str, spans: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    """Token ids of a text, and 1 for each token that lies in one of the `spans` of characters."""
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    mask = []
    for start, end in read.offset_mapping:
        mask.append(int(any(first <= start and end <= last for first, last in spans)))
    return {"input_ids": read.input_ids, "completion_mask": mask}

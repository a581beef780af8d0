"""Models that act: many episodes at once, a step of each at a time, every reply written down.

A reply is kept under its whole request, so a run that was killed replays what it has and asks for
the rest: no step is lost, none is paid for twice.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from helpers.ask import teachers
from helpers.core.files import Journal, fingerprint
from helpers.play.episodes import Episode, Move, transcript
from helpers.play.worlds import World


@dataclass(frozen=True)
class Way:
    """A way of working: what a model is told, how often it is asked, how its answers are used.

    `rules` and worked episodes (`shown`) stand before each transcript, as a chat; a student has
    none, since it has learnt them. `last`: turns it sees. `samples`: asked so often each step, the
    majority acts. `temperature`: 0 takes the likeliest token.
    """

    name: str
    rules: str = ""
    shown: tuple[Episode, ...] = ()
    last: int | None = None
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 24

    def requests(self, episode: Episode, grammar: str, hint: str = "") -> list[dict[str, Any]]:
        """What the engine is asked for the next action of an episode: `samples` requests."""
        asked: dict[str, Any] = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": 1.0,
            "grammar": grammar,
        }
        if self.rules:
            asked["messages"] = self._chat(episode, hint)
        else:
            # a student ends its action as it has learnt to: with the line
            asked["prompt"] = transcript(episode.opening, episode.turns, self.last)
            asked["grammar"] = 'root ::= action "\\n"\n' + grammar.replace("root", "action", 1)
            asked["stop"] = ["\n"]
        # another attempt or sample is another draw
        first = 1000 * episode.attempt
        return [asked | {"seed": first + number} for number in range(self.samples)]

    def _chat(self, episode: Episode, hint: str) -> list[dict[str, str]]:
        """Rules, worked episodes and this one as turns of user and assistant."""
        chat = [{"role": "system", "content": self.rules}]
        for one in (*self.shown, episode):
            told = one.opening
            if one is episode and hint:
                told += f"\n({hint})"
            for turn in one.turns:
                chat.append({"role": "user", "content": told})
                chat.append({"role": "assistant", "content": turn.action})
                told = turn.observation
            if one is episode:
                chat.append({"role": "user", "content": told})
        return chat


def play(
    make_world: Callable[[], World],
    seeds: Sequence[int],
    way: Way,
    engine: Any,
    journal: Journal,
    attempt: int = 0,
    hint: Callable[[Any], str] | None = None,
) -> list[Episode]:
    """One episode for each seed, in their order; `journal` keeps every reply, and their seconds.

    A reply that the engine failed to give is an empty action, which a world refuses. `hint(world)`:
    what a model is told beside the opening, for a second try. Raises CourseError when the engine
    cannot be asked; what was answered is kept.
    """
    worlds, episodes = [], []
    for seed in seeds:
        world = make_world()
        opening = world.reset(seed)
        worlds.append(world)
        episodes.append(Episode(world.name, way.name, seed, opening, attempt=attempt))
    live = list(range(len(worlds)))
    while live:
        asked = []
        for number in live:
            world = worlds[number]
            told = hint(world) if hint else ""
            asked.append(way.requests(episodes[number], world.grammar(), told))
        replies = _replies([one for requests in asked for one in requests], engine, journal)
        going = []
        for place, number in enumerate(live):
            own = replies[place * way.samples : (place + 1) * way.samples]
            if not _act(worlds[number], episodes[number], own):
                going.append(number)
        live = going
    return episodes


def _replies(requests: list[dict], engine: Any, journal: Journal) -> list[dict]:
    unanswered = []
    for request in requests:
        kept = journal.entries.get(fingerprint(request, engine.identity))
        if kept is None or kept["text"] is None:
            unanswered.append(request)
    if unanswered:
        teachers.collect(requests, engine, journal)
    return journal.of([fingerprint(request, engine.identity) for request in requests])


def _act(world: World, episode: Episode, replies: Sequence[dict]) -> bool:
    """Do what most replies say, of equals the first; returns whether the episode has ended."""
    texts = [reply["text"] or "" for reply in replies]
    action = Counter(texts).most_common(1)[0][0]
    step = world.step(action)
    read = sum(reply["tokens_in"] for reply in replies)
    written = sum(reply["tokens_out"] for reply in replies)
    episode.turns.append(Move(action, step.observation, step.error, read, written))
    if step.done:
        episode.success = world.success()
    return step.done


def play_timed(
    make_world: Callable[[], World],
    seeds: Sequence[int],
    way: Way,
    engine: Any,
    folder: Path,
    attempt: int = 0,
    hint: Callable[[Any], str] | None = None,
) -> list[tuple[Episode, float]]:
    """(episode, seconds of the engine) for each seed, one task after the other as mail comes in.

    The engine keeps what it has read of a task for its next step. Each task has a journal of its
    own in `folder`, which also counts the seconds that a start spent before it was killed.
    """
    told = []
    for seed in seeds:
        world = make_world()
        made_from = [world.reset(seed), world.grammar(), asdict(way), attempt, engine.identity]
        if hint:
            made_from.append(hint(world))
        replies = Journal(folder / f"{seed}-{fingerprint(*made_from)}.jsonl")
        (episode,) = play(make_world, [seed], way, engine, replies, attempt, hint)
        told.append((episode, replies.seconds))
    return told

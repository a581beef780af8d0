"""Who answers at work: the system that chapter 08 chooses for a pilot, or one way of reading."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helpers import CourseError, probe
from helpers.agree.bar import Bar
from helpers.agree.wish import WISH_FILE, Wish
from helpers.ask import answers
from helpers.ask.file_answers import Answer
from helpers.ask.likelihood import log_likelihoods
from helpers.choose import models
from helpers.core import rows, runtime
from helpers.core.files import fingerprint, sha256
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.measure import baselines, confidence, readers, reviews, scoring, system
from helpers.measure.error_costs import Costs
from helpers.measure.system import Reading
from helpers.ship.registry import Registry
from helpers.tune import students

Read = Callable[[Sequence[str]], Reading]

TUNED = "tuned"
# as chapters 08 and 11 take them
UNSEEN = {"studies/recipe": "unseen", "11": "unseen", "00": "unseen"}
FIRST = "The tuned model is that of chapter 00, of labelled rows alone; chapter 05 makes a better."
CHEAP_ONLY = "Chapter 11 decided for the cheap ways: no model is loaded."
NOT_YET = "Chapter 11 did not say GO: let these answers run in the shadow, and use none."
OTHER = (
    "How far the tuned model is trusted, and who checks, was settled on readings of another model "
    "than the one that answers now; chapter 08 says which."
)
CUT = "longer than the model reads: the end was left out"


@dataclass(frozen=True)
class OneWay:
    """A single way of reading, such as a model before there is a system: nobody says who checks."""

    pilot: Pilot
    read: Read
    name: str = "model"
    identity: str = ""

    def answers(self, messages: Sequence[str]) -> list[Answer]:
        """One Answer for each message: confidence as the way itself has it, `check` None."""
        reading, told = self.read(list(messages)), []
        for place, record in enumerate(reading.records):
            values = {name: (record or {}).get(name) for name in self.pilot.fields}
            sure = {name: _chance(reading, name, place) for name in self.pilot.fields}
            told.append(Answer(values, sure, dict.fromkeys(self.pilot.fields, self.name)))
        return told


def _chance(reading: Reading, name: str, place: int) -> float | None:
    if name in reading.probabilities:
        return float(reading.probabilities[name][place].max())
    return float(reading.sure[name][place]) if name in reading.sure else None


@dataclass(frozen=True)
class PilotSystem:
    """The system of a pilot, and the review that decides who checks; made by `open_system`.

    `ways`: {way: its read}, those that the review needs. `is_cut`: does the model leave out the end
    of this message?
    """

    review: reviews.Review
    ways: Mapping[str, Read]
    is_cut: Callable[[str], bool] = lambda message: False
    identity: str = ""

    @property
    def pilot(self) -> Pilot:
        """The pilot whose fields are read."""
        return self.review.system.pilot

    def answers(self, messages: Sequence[str]) -> list[Answer]:
        """One Answer for each message; a person should look where the end was left out, too."""
        readings = {way: read(list(messages)) for way, read in self.ways.items()}
        records = self.review.system.records(readings)
        chances, needed = self.review.chances(readings), self.review.needed(readings)
        by = {name: " + ".join(each) for name, each in self.review.system.weights.items()}
        told = []
        for place, message in enumerate(messages):
            sure: dict[str, float | None] = {name: float(c[place]) for name, c in chances.items()}
            cut = self.is_cut(message)
            check = bool(needed[place]) or cut
            told.append(Answer(records[place], sure, by, check, CUT if cut else ""))
        return told


def ways_needed(review: reviews.Review, known: Sequence[str]) -> list[str]:
    """The ways that a review asks: those with a weight, and the model where values are copied."""
    used = {way for weights in review.system.weights.values() for way in weights}
    if review.curves:  # the model's doubt counts also where another way copies
        used.add(TUNED)
    return [way for way in known if way in used]


def tuned_read(
    model: Any, tokenizer: Any, pilot: Pilot, train: baselines.Rows, here: runtime.Runtime
) -> Read:
    """A tuned model as a way of reading: its answers, and how likely it finds each label."""
    room, length = _room(tokenizer, pilot, train), here.profile.max_length

    def read(messages: Sequence[str]) -> Reading:
        some = [{pilot.text: message} for message in messages]
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "told"
            return students.read_with(model, tokenizer, pilot, some, told, here, length, room)[1]

    return read


def untuned_read(
    model: Any, tokenizer: Any, pilot: Pilot, train: baselines.Rows, here: runtime.Runtime
) -> Read:
    """A base model as it comes, with the whole instruction: its records, how sure of each value."""
    room, length = _room(tokenizer, pilot, train), 8 * here.profile.max_length
    limits: dict[str, Any] = {"max_length": length, "max_new_tokens": room}

    def read_whole(messages: Sequence[str]) -> Reading:
        some = [{pilot.text: message} for message in messages]
        with tempfile.TemporaryDirectory() as folder:
            at = Path(folder) / "told"
            texts = answers.generate(model, tokenizer, pilot, some, at, full=True, **limits).texts
        prompts = []
        for message in messages:
            prompts.append(answers.prompt(pilot, tokenizer, message, max_length=length))
        read = log_likelihoods(model, tokenizer, prompts, texts)
        records, sure = [], {name: np.zeros(len(texts)) for name in pilot.fields}
        for place, (text, (logs, begins)) in enumerate(zip(texts, read)):
            records.append(scoring.parse(text) or dict.fromkeys(pilot.fields))
            for name, chance in _chances(pilot, text, logs, begins).items():
                sure[name][place] = chance
        return Reading(records, {}, sure)

    return read_whole


def _chances(pilot: Pilot, text: str, logs: np.ndarray, begins: list[int]) -> dict[str, float]:
    """{field: how likely a model finds the value that it wrote}; none for half a record."""
    first, last = np.array(begins), np.array([*begins[1:], len(text)])
    chances = {}
    for name, (start, end) in (confidence.field_places(pilot, text) or {}).items():
        chances[name] = float(np.exp(logs[(first < end) & (last > start)].sum()))
    return chances


def _room(tokenizer: Any, pilot: Pilot, train: baselines.Rows) -> int:
    """Tokens that an answer may take."""
    longest = max(len(tokenizer(pilot.answer(row)).input_ids) for row in train)
    return max(students.SETTINGS["max_new_tokens"], longest + 16)


# The system of a pilot -------------------------------------------------------------------------


def open_system(
    pilot: Pilot, here: runtime.Runtime | None = None, say: Callable[[str], None] = print
) -> PilotSystem:
    """The system that chapter 08 chooses for this pilot, ready to be asked.

    Nothing is trained: it needs what chapter 05, 11 or 00 has made; no model where chapter 11
    decided for the cheap ways. Raises CourseError without it.
    """
    here = here or runtime.detect()
    run = Run(pilot, "08", here)
    decided = decision_of(run)
    with_model = decided.get("model", True)
    if not with_model:
        say(CHEAP_ONLY)
    if decided and decided["answer"] != "GO":
        say(NOT_YET)
    # the profile has fewer rows for the model's sake: cheap ways alone learn from all
    data = rows.load(pilot, here.profile if with_model else None)
    train = list(data.train)
    unseen, costs = unseen_readings(run, train, with_model), error_costs_of(run, say)
    chosen = system.choose_system(pilot, train, unseen)
    review = reviews.choose_review(chosen, train, unseen, costs)
    known = [*baselines.ways_for(pilot, train), *([TUNED] if with_model else [])]
    ways: dict[str, Read] = {}
    is_cut, adapter = None, ""
    for way in ways_needed(review, known):
        if way == TUNED:
            say(probe.check_parts(pilot, data, here))
            ways[way], is_cut, file = _open_model(run, train, say)
            adapter = sha256(file)
            judged = readers.who_read(run, unseen[TUNED], len(train))
            # the weights come from readings of the recorded adapter, where that answers
            if judged.remark and not readers.is_recorded(file):
                say(OTHER)
        else:
            ways[way] = cheap_read(pilot, train, way)
    made_from = fingerprint(
        pilot.model_dump(mode="json"),
        rules_in_words(pilot),
        train,
        review.system.weights,
        review.curves,
        review.costs.model_dump(),
        adapter,
        [here.dtype, here.device, here.profile.max_length],
        runtime.versions(),
    )
    return PilotSystem(review, ways, is_cut or (lambda message: False), made_from)


def decision_of(run: Run) -> dict[str, Any]:
    """What chapter 11 decided: answer, way, model (is one asked?); {} before it has."""
    try:
        decided = run.need("11", "decision.json")
    except CourseError:
        return {}
    return dict(json.loads(decided.read_text(encoding="utf-8")))


def unseen_readings(run: Run, train: list[dict], with_model: bool = True) -> dict[str, Reading]:
    """{way: what it reads in training rows that it did not learn from}."""
    pilot, texts = run.pilot, [row[run.pilot.text] for row in train]
    unseen = system.unseen_cheap_readings(pilot, train, baselines.folds(pilot, train, 3, 0))
    if not with_model:
        return unseen
    unseen[TUNED] = system.stored_reading(run, UNSEEN, texts)
    for field in pilot.fields:
        _refuse_other_fields(pilot, field, unseen[TUNED])
    return unseen


def error_costs_of(run: Run, say: Callable[[str], None]) -> Costs:
    """The prices on the bar; without one those of the wish, said to be assumed."""
    try:
        return Bar.load(run.pilot, run.runtime.profile).costs
    except CourseError as missing:
        whose = "assumed from the field types"
        if (run.pilot.folder / WISH_FILE).is_file():
            whose = f"those of {WISH_FILE}"
        say(f"{missing} Until then the prices behind 'check' are {whose}.")
    return Wish.load(run.pilot).costs


def _refuse_other_fields(pilot: Pilot, field: str, reading: Reading) -> None:
    """CourseError where a stored reading was made for other fields than pilot.yaml has now."""
    fits = field in reading.sure
    if field in pilot.labels:
        table = reading.probabilities.get(field)
        fits = table is not None and table.shape[1] == len(baselines.label_classes(pilot, field))
    if not fits:
        cure = "run chapter 00 once more (--fresh), then 05"
        raise CourseError(
            f"pilot.yaml has another field {field!r} than when the model was tuned; {cure}."
        )


def cheap_read(pilot: Pilot, train: list[dict], way: str) -> Read:
    """A function that reads messages by one cheap way, learnt from the labelled rows `train`."""
    return lambda messages: system.cheap_reading(pilot, train, messages, way)


def _open_model(
    run: Run, train: list[dict], say: Callable[[str], None]
) -> tuple[Read, Callable[[str], bool], Path]:
    """(the tuned model's read, does it leave out the end of a message, the adapter's file)."""
    pilot, here, weights = run.pilot, run.runtime, "adapter/adapter_model.safetensors"
    chapter, file = _adapter_of(run, weights)
    if chapter == "05":
        _, tokenizer = answers.open_base(pilot)
        model = students.shipped(pilot, file.parent, here)
    else:
        if chapter == "00":
            say(FIRST)
        _, tokenizer, model = students.load_student(pilot, file.parent, here)
    length = here.profile.max_length

    def is_cut(message: str) -> bool:
        if len(message.encode()) < length:  # a token is at least a byte
            return False
        whole = answers.prompt(pilot, tokenizer, message, full=False)
        return whole != answers.prompt(pilot, tokenizer, message, full=False, max_length=length)

    return tuned_read(model, tokenizer, pilot, train, here), is_cut, file


def _adapter_of(run: Run, weights: str) -> tuple[str, Path]:
    """(chapter, file) of the adapter in use; CourseError where there is none.

    The one that chapter 11's registry has promoted, so that a rollback is followed; else the best.
    """
    store = Registry(run.folder.parent / "11/registry")
    current = store.current()
    if current:
        chapter = str(store.record(current).get("chapter", "11"))
        base = models.resolve(run.pilot.base_model, run.pilot.folder)
        return chapter, store.open(None, base) / weights.split("/")[-1]
    for chapter in ("05", "11"):
        try:
            return chapter, run.need(chapter, weights)
        except CourseError:
            continue
    return "00", run.need("00", weights)


def rules_in_words(pilot: Pilot) -> str:
    """The hash of the pilot's keywords, or ""."""
    path = pilot.folder / "rules.yaml"
    return sha256(path) if path.is_file() else ""

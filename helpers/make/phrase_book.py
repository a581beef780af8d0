"""Messages put together from a phrase book, whose records follow from the phrases."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from helpers import CourseError
from helpers.core.files import read_yaml
from helpers.core.pilot import Pilot
from helpers.core.text import is_wide, pydantic_sentences, tokens
from helpers.make.augment import Rows, augmented, copied_fields, known_values, new_value, records

Phrases = dict[str, list[str]]  # {value of a label field: what it is said with}
SLOT = re.compile(r"{([^{}]*)}")


class PhraseBook(BaseModel):
    """A pilot's phrases.yaml, as `compose` takes it.

    `request` belongs to the pilot's first label field. Every further label field has a part of its
    own name in the file; these are the `cues`.
    """

    model_config = ConfigDict(extra="forbid")
    request: Phrases
    cues: dict[str, Phrases]
    open: list[str] = []
    close: list[str] = []
    aside: list[str] = []
    spans: Phrases = {}
    licence: str | None = None


def read_phrase_book(pilot: Pilot, path: str | Path | None = None) -> PhraseBook:
    """The pilot's phrases.yaml, checked.

    Raises CourseError with the part and the phrase for whatever `compose` could not use.
    """
    path = Path(path or pilot.folder / "phrases.yaml")
    if not path.is_file():
        where = f"There is no phrase book {path.name} in the pilot's folder"
        raise CourseError(f"{where}; data/inbox/phrases.yaml shows its form.")
    if not pilot.labels:
        why = "its requests are sorted by the values of the first one"
        raise CourseError(f"A phrase book needs a label field: {why}.")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise CourseError(f"{path.name} is empty or not a list of 'part: phrases' lines.")
    # parts named after label fields differ from pilot to pilot; pydantic sees them as one
    cues = {name: content.pop(name) for name in pilot.labels[1:] if name in content}
    try:
        book = PhraseBook.model_validate(content | {"cues": cues})
    except ValidationError as problem:
        parts = [*PhraseBook.model_fields, *pilot.labels[1:]]
        parts.remove("cues")
        sentences = pydantic_sentences(problem, path.name, parts)
        raise CourseError(sentences.replace("cues > ", "")) from None
    phrases_at = {"open": book.open, "close": book.close, "aside": book.aside}
    phrases_at |= _phrases_of_values(book, pilot, path.name)
    _refuse_unknown_slots(phrases_at, pilot, path.name)
    copied = copied_fields(pilot)
    for name, values in book.spans.items():
        if name not in copied or not all(map(str.strip, values)):
            needs = f"needs a list of texts, and must be one of {', '.join(copied) or 'no field'}"
            raise CourseError(f"{path.name}, spans: {name!r} {needs}.")
    return book


def _phrases_of_values(book: PhraseBook, pilot: Pilot, file: str) -> dict[str, list[str]]:
    """{"part, value": phrases}; raises CourseError unless every value has some."""
    found = {}
    for name in pilot.labels:
        part, phrases, values = name, book.cues.get(name), pilot.fields[name].values
        if name == pilot.labels[0]:
            part, phrases = "request", book.request
        if phrases is None:
            needs = f"with phrases for each of {', '.join(values)}"
            raise CourseError(f"{file} has no part {part!r} {needs}.")
        for value in phrases:
            if value not in values:
                known = ", ".join(values)
                raise CourseError(f"{file}, {part}: {value!r} is not among the values ({known}).")
        for value in values:  # compose draws every value
            if not phrases.get(value):
                raise CourseError(f"{file}, {part}: {value!r} has no phrases.")
            found[f"{part}, {value}"] = phrases[value]
    return found


def _refuse_unknown_slots(phrases_at: Phrases, pilot: Pilot, file: str) -> None:
    copied = copied_fields(pilot)
    for where, phrases in phrases_at.items():
        slots = [f"other.{name}" for name in copied]
        if where.startswith("request, "):  # only a request fills the record
            slots = copied + slots
        for phrase in phrases:
            # a brace that is left opens a slot that never closes
            loose = re.search("[{}]", SLOT.sub("", phrase))
            if loose or not set(SLOT.findall(phrase)) <= set(slots):
                known = ", ".join(slots) or "none"
                what = f"{phrase!r} is not a phrase with the slots {known}"
                raise CourseError(f"{file}, {where}: {what}.")


def compose(pilot: Pilot, seeds: Rows, number: int, book: PhraseBook, seed: int = 0) -> list[dict]:
    """Messages put together: greeting, background, request, what decides the other labels, close.

    The record follows from the phrases: only a request's own slots fill it, so it is as right as
    the book. The first label takes turns, the others come as often as in the seeds. A fifth is
    written small, a tenth has a typing error (not in Japanese or Chinese).
    """
    # the draws stand in a fixed order: a seed must give the same rows in every version
    writer = _Writer(pilot, seeds, book, random.Random(seed))
    own = records(pilot, seeds, number, seed, book.spans)
    foreign = records(pilot, seeds, number, seed + 1, book.spans)
    rows = []
    for i in range(number):
        text, record = writer.message(own[i], foreign[i])
        parent = dict(seeds[i % len(seeds)]) | {"id": "phrase book", "licence": book.licence}
        rows.append(augmented(pilot, "compose", parent, text, record, seed, i))
    return rows


class _Writer:
    """Writes one message after the other; the order of its draws makes a seed repeat."""

    def __init__(self, pilot: Pilot, seeds: Rows, book: PhraseBook, draw: random.Random) -> None:
        self.pilot, self.book, self.draw = pilot, book, draw
        self.seeds = seeds
        self.wide = is_wide(tokens(" ".join(map(" ".join, book.request.values()))))

    def message(self, own: dict, foreign: dict) -> tuple[str, dict]:
        """(text, record): `own` values fill the record, `foreign` ones what is not asked about."""
        for name in self.pilot.labels[1:]:
            known = known_values(self.seeds, name)
            if known:  # drawn evenly, a student would expect too many urgent ones
                own[name] = self.draw.choice(known)
        pieces = self._pieces(own)
        small = self.draw.random() < 0.2 and not self.wide
        slip = self.draw.random() < 0.1 and not self.wide
        values = self._values(pieces, own, foreign, small)
        texts = [self._filled(piece, values, small, slip) for piece in pieces if piece]
        space = "" if self.wide else " "  # none in a script that has none
        text = re.sub(r" ?\n", "\n", space.join(texts)).strip()
        record = {}
        for name, field in self.pilot.fields.items():
            record[name] = own[name] if field.type == "label" else values.get(name)
        return text, record

    def _pieces(self, own: dict) -> list[str]:
        """The phrases of one message, in the order in which they will stand."""
        book, draw = self.book, self.draw
        first, *others = self.pilot.labels
        request = draw.choice(book.request[own[first]])
        cues = [draw.choice(book.cues[name][own[name]]) for name in others]
        asides = []
        if book.aside and draw.random() < 0.25:
            asides = [draw.choice(book.aside)]
        middle = [*cues, request]
        if draw.random() < 0.75:
            middle = [request, *cues]
        pieces = [*middle, *asides]
        if draw.random() < 0.7:
            pieces = [*asides, *middle]
        if draw.random() < 0.5:
            # an empty part is drawn from too, or the draws behind it would move
            greeting = draw.choice(book.open or [""])
            pieces = [greeting, *pieces, "\n" + draw.choice(book.close or [""])]
        return pieces

    def _values(self, pieces: list[str], own: dict, foreign: dict, small: bool) -> dict[str, str]:
        """{slot: text} in the order in which the slots stand, so that a seed repeats."""
        values = {}
        for slot in dict.fromkeys(SLOT.findall(" ".join(pieces))):
            name = slot.removeprefix("other.")
            value = own[name] if slot == name else foreign[name]
            field = self.pilot.fields[name]
            if not value:
                known = known_values(self.seeds, name) + self.book.spans.get(name, [])
                value = new_value(field, known, self.draw)
            if small and field.type == "span":  # a pattern must still match
                value = value.lower()
            values[slot] = value
        return values

    def _filled(self, piece: str, values: dict[str, str], small: bool, slip: bool) -> str:
        parts = SLOT.split(piece)  # words, slot, words, slot, ..., words
        if small:
            parts[::2] = map(str.lower, parts[::2])
        if slip:  # never in a slot: the record must stand in the text
            place = 2 * self.draw.randrange(len(parts[::2]))
            parts[place] = _mistyped(parts[place], self.draw)
        parts[1::2] = map(values.get, parts[1::2])
        return "".join(parts)


def _mistyped(text: str, draw: random.Random) -> str:
    """Two letters of one word change places."""
    words: Sequence[re.Match] = list(re.finditer(r"[^\W\d_]{5,}", text))
    if not words:
        return text
    word = draw.choice(words)
    place = draw.randrange(word.start() + 1, word.end() - 2)
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]

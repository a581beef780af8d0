"""What stands in a file of messages before anybody labels, trains or tests with it."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from datasets import Dataset
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from helpers.core.pilot import FieldSpec, Pilot
from helpers.core.text import narrow, same_message
from helpers.keep import duplicates, filters
from helpers.keep.pipeline import catalogue
from helpers.keep.privacy import mask, personal
from helpers.pilot.mending import EMPTY, NOT_IN_TEXT, UNLABELLED, WHY, Row, mended_rows
from helpers.pilot.message_files import MessageTable
from helpers.pilot.roles import Roles

FEWEST = 5  # rows of a class; with fewer nothing is learnt and nothing tested
LETTERS = 10  # in a message whose language can be told
SAMPLE = 400  # messages from which the language is told
MOST_LOOKED_AT = 5_000  # messages for personal data and near-copies
SHOWN = 5
TAG = re.compile(r"</?[a-zA-Z][^<>]{0,300}>")
WHY_SHARE = {EMPTY: "without a text", UNLABELLED: "without a label"}


@dataclass(frozen=True)
class Findings:
    """What was found; prints as short lines. No value of personal data is in it.

    `rows`: with the pilot's own names. `contradictory`: lists of places in `rows` that hold one
    message with different labels. `classes`: {label field: Counter}. `personal`: {kind: messages}.
    """

    rows: list[Row]
    languages: dict[str, float]
    language: str
    classes: dict[str, Counter[str]]
    contradictory: list[list[int]] = field(default_factory=list)
    duplicates: int = 0
    near: int = 0
    personal: dict[str, int] = field(default_factory=dict)
    orders: int = 0
    tags: int = 0
    longest: tuple[int, str] = (0, "")
    notes: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Every finding as a sentence."""
        shares = ", ".join(f"{code} {share:.0%}" for code, share in self.languages.items())
        lines = [f"{len(self.rows):,} rows. Languages: {shares or 'too short to tell'}."]
        why = Counter(row[WHY] for row in self.rows)
        for key, what in WHY_SHARE.items():
            if why[key]:
                lines.append(f"{why[key]:,} row(s) {what}.")
        if why[NOT_IN_TEXT]:
            what = "have a value that should be copied from the message and does not stand in it"
            lines.append(f"{why[NOT_IN_TEXT]:,} row(s) {what}.")
        for name, counts in self.classes.items():
            lines += _class_lines(name, counts)
        lines += self._repeats()
        if self.personal:
            kinds = ", ".join(f"{kind} in {number:,}" for kind, number in self.personal.items())
            lines.append(f"Personal data, by form (messages): {kinds}.")
        if self.orders:
            what = "read like an order to a model ('ignore all rules'); look at them"
            lines.append(f"{self.orders:,} message(s) {what}.")
        if self.tags:
            lines.append(f"{self.tags:,} message(s) hold HTML tags; they stay as they are.")
        if self.longest[0] > 4000:
            what = "a model reads its beginning only"
            lines.append(f"The longest message has {self.longest[0]:,} characters: {what}.")
        return [*lines, *self.notes]

    def _repeats(self) -> list[str]:
        lines = []
        if self.duplicates:
            lines.append(f"{self.duplicates:,} row(s) repeat the message of an earlier row.")
        if self.near:
            lines.append(f"{self.near:,} row(s) are near-copies of an earlier row.")
        if self.contradictory:
            rows = sum(map(len, self.contradictory))
            what = f"stand there with different labels ({rows:,} rows)"
            lines.append(f"{len(self.contradictory):,} message(s) {what}, for example:")
            lines += self.examples
        return lines

    def __str__(self) -> str:
        return narrow(*self.lines())


def _class_lines(name: str, counts: Counter[str]) -> list[str]:
    ordered = counts.most_common()
    shown = ", ".join(f"{_short(value)} {number:,}" for value, number in ordered[:12])
    more = f", and {len(ordered) - 12} more" if len(ordered) > 12 else ""
    lines = [f"{name}: {len(ordered)} classes: {shown}{more}."]
    few = [_short(value) for value, number in ordered if number < FEWEST]
    if few:
        named = ", ".join(few[:8]) + (" …" if len(few) > 8 else "")
        lines.append(f"{name}: fewer than {FEWEST} rows each: {named}.")
    long = [value for value in counts if len(value) > 60]
    if long:
        what = "a shorter name is read and learnt more easily"
        lines.append(f"{name}: the label {_short(long[0])} has {len(long[0])} characters; {what}.")
    return lines


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 40 else f"{plain[:37]} …"


def examine(table: MessageTable, roles: Roles, language: str = "") -> Findings:
    """Everything that can be counted before training. `language`: given, or that of most."""
    notes: list[str] = []
    rows = mended_rows(table, roles, notes)
    text = roles.names[roles.text]
    texts = [row[text] for row in rows if row[WHY] != EMPTY]
    languages = language_shares(texts)
    language = language or next(iter(languages), "en")
    fields = [roles.names[column] for column in roles.labels]
    contradictory = _contradictory(rows, text, fields)
    looked_at = texts[:MOST_LOOKED_AT]
    if len(texts) > len(looked_at):
        notes.append(f"Personal data and near-copies: the first {MOST_LOOKED_AT:,} messages only.")
    stand_in = stand_in_pilot(text, language)
    orders = filters.injection(stand_in).judge({text: looked_at})
    near = duplicates.near(stand_in).judge(Dataset.from_dict({text: looked_at}))
    copies = len(texts) - len(set(map(same_message, texts)))
    return Findings(
        rows=rows,
        languages=languages,
        language=language,
        classes={name: _class_counts(rows, name) for name in fields},
        contradictory=contradictory,
        duplicates=copies,
        near=max(0, len(near) - copies),
        personal=_personal(looked_at, language, list(roles.patterns.values())),
        orders=len(orders) - orders.count(None),
        tags=sum(bool(TAG.search(each)) for each in texts),
        longest=max(((len(row[text]), row["id"]) for row in rows), default=(0, "")),
        notes=notes,
        examples=_examples(rows, contradictory, text, fields),
    )


def _class_counts(rows: Sequence[Row], name: str) -> Counter[str]:
    return Counter(row[name] for row in rows if row[name] and row[WHY] != EMPTY)


def stand_in_pilot(text: str, language: str) -> Pilot:
    """A pilot that only says which column is read, and in which language."""
    return Pilot(
        name="draft", text=text, language=language, fields={"part": FieldSpec(type="span")}
    )


@cache
def _identifier() -> Any:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(tuple(catalogue()["languages"].split()))
    return identifier


def language_shares(texts: Sequence[str]) -> dict[str, float]:
    """{code: share} of up to SAMPLE messages whose language is sure, the most frequent first.

    Where none is sure, all of them together decide; without letters there is none.
    """
    step = max(1, len(texts) // SAMPLE)
    sample = [re.sub(r"\S+@\S+|https?://\S+", " ", text)[:2000] for text in texts[::step]]
    sample = [text for text in sample if len(re.findall(r"[^\W\d_]", text)) >= LETTERS]
    told: Counter[str] = Counter()
    for text in sample:
        code, sure = _identifier().classify(text)
        if sure > 0.9:
            told[code] += 1
    if not told and sample:
        told[_identifier().classify(" ".join(sample)[:20_000])[0]] += 1
    return {code: number / told.total() for code, number in told.most_common(4)}


def _contradictory(rows: Sequence[Row], text: str, fields: Sequence[str]) -> list[list[int]]:
    same: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if not row[WHY]:
            same[same_message(row[text])].append(place)
    found = []
    for places in same.values():
        if len({tuple(rows[place][name] for name in fields) for place in places}) > 1:
            found.append(places)
    return found


def _examples(
    rows: Sequence[Row], contradictory: Sequence[Sequence[int]], text: str, fields: Sequence[str]
) -> list[str]:
    lines = []
    for places in contradictory[:SHOWN]:
        said: dict[str, None] = {}
        for place in places:
            said[" / ".join(_short(rows[place][name]) for name in fields)] = None
        ids = ", ".join(rows[place]["id"] for place in places[:4])
        message = rows[places[0]][text][:200]
        masked = mask(message, personal(message))  # this is printed, and may be passed on
        lines.append(f"  {_short(masked)!r} (rows {ids}): {'; '.join(said)}")
    return lines


def _personal(texts: Sequence[str], language: str, spare: Sequence[str]) -> dict[str, int]:
    regions = catalogue()["phone_regions"].get(language, "GB US").split()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({kind for *_, kind in personal(text[:20_000], regions, spare)})
    return dict(counts)

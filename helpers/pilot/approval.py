"""Test rows for somebody to approve: ten that look right, ten that a simple model doubts."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helpers.core.pilot import Pilot
from helpers.measure import baselines
from helpers.measure.pages import render
from helpers.pilot.mending import Row
from helpers.pilot.to_label import word_count_chances

SHOWN = 10  # rows of each kind
DOUBT = 0.2  # probability of the label; below, the row is shown as doubtful
LONGEST = 700  # characters of a message on the page


@dataclass(frozen=True)
class ToApprove:
    """Rows to look at: `right` and `doubtful`, each (row, what speaks against it or "")."""

    right: list[tuple[Row, str]]
    doubtful: list[tuple[Row, str]]
    doubted: int = 0  # of all test rows


def to_approve(pilot: Pilot, train: Sequence[Row], test: Sequence[Row], seed: int = 0) -> ToApprove:
    """Up to ten test rows that look right and ten doubtful ones, the most doubtful first.

    Word counts that learnt the training rows give a probability for every label; an empty span
    whose known values stand in the message is doubtful, too.
    """
    against = _unlikely_labels(pilot, train, test)
    for place, reason in _left_out(pilot, train, test).items():
        against.setdefault(place, (DOUBT, reason))
    order = sorted(against, key=lambda place: against[place][0])
    fine = [place for place in range(len(test)) if place not in against]
    random.Random(seed).shuffle(fine)
    return ToApprove(
        [(test[place], "") for place in sorted(fine[:SHOWN])],
        [(test[place], against[place][1]) for place in order[:SHOWN]],
        len(against),
    )


def _unlikely_labels(
    pilot: Pilot, train: Sequence[Row], test: Sequence[Row]
) -> dict[int, tuple[float, str]]:
    """{place: (probability of its least likely label, why)} below DOUBT."""
    found: dict[int, tuple[float, str]] = {}
    if not pilot.labels:
        return found
    texts = [row[pilot.text] for row in test]
    for name, table in word_count_chances(pilot, train, texts).items():
        classes = baselines.label_classes(pilot, name)
        places = np.array([classes.index(row[name] or None) for row in test])
        given, best = table[np.arange(len(test)), places], table.argmax(axis=1)
        for place in np.flatnonzero((given < DOUBT) & (best != places)):
            other = classes[best[place]] or "none"
            why = f"{name}: word counts say {other} ({table[place].max():.0%} sure)"
            before = found.get(int(place), (1.0, ""))
            found[int(place)] = min(before, (float(given[place]), why))
    return found


def _left_out(pilot: Pilot, train: Sequence[Row], test: Sequence[Row]) -> dict[int, str]:
    """{place: why} where a span is empty though one that other rows have stands in the message."""
    found = {}
    for name, spec in pilot.fields.items():
        if spec.type != "span":
            continue
        known = sorted({row[name] for row in [*train, *test] if len(row[name] or "") > 3})
        for place, row in enumerate(test):
            if row[name]:
                continue
            text = row[pilot.text]
            stand = [value for value in known if value in text and _as_words(value, text)]
            if stand:
                found[place] = f"{name} is empty, and {max(stand, key=len)} stands in the message"
    return found


def _as_words(value: str, text: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text)) or not value.isascii()


def approval_page(pilot: Pilot, rows: ToApprove, test: int, form: str) -> str:
    """approve.html or approve.md (`form`), every value shown as text."""
    parts = {
        "Rows that look right": [_shown(pilot, *each) for each in rows.right],
        "Rows in doubt": [_shown(pilot, *each) for each in rows.doubtful],
    }
    return render(
        f"approve.{form}",
        pilot=pilot.name,
        fields=list(pilot.fields),
        parts={head: some for head, some in parts.items() if some},
        tested=test,
        doubted=rows.doubted,
    )


def _shown(pilot: Pilot, row: Row, against: str) -> dict:
    text = row[pilot.text]
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} … ({len(text):,} characters)"
    values = [row[name] or "none" for name in pilot.fields]
    return {"id": row["id"], "text": text, "values": values, "against": against}

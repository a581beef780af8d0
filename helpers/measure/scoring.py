"""Answers against labelled rows: which fields are right, which records are exact."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers import CourseError
from helpers.core.pilot import Pilot
from helpers.measure.intervals import Share, share


@dataclass(frozen=True)
class Scored:
    """Answers held against labelled rows; every array is of bools, shape (rows,)."""

    right: dict[str, np.ndarray]  # field by field
    exact: np.ndarray  # every field is right and there is no other
    valid: np.ndarray  # the answer is a record
    invented: np.ndarray  # a copied value does not stand in the text
    records: list[dict | None]

    @property
    def share(self) -> Share:
        """Share of exact records."""
        return share(self.exact)

    @property
    def shares(self) -> dict[str, Share]:
        """{field: Share of rows where it is right}."""
        return {name: share(right) for name, right in self.right.items()}

    def __str__(self) -> str:
        lines = [f"{'exact record':16}{self.share}"]
        for name, right in self.shares.items():
            lines.append(f"{name:16}{right}")
        return "\n".join(lines)


def parse(answer: Any) -> dict | None:
    """The JSON object in an answer; None for text around it, a repeated key, NaN, another type."""

    def without_repeats(pairs: list[tuple]) -> dict:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("repeated key")
        return dict(pairs)

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    try:
        record = json.loads(answer, object_pairs_hook=without_repeats, parse_constant=refuse)
    except (ValueError, TypeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


FEW = 4  # so many answers may all be broken by chance


def score(pilot: Pilot, rows: Sequence[Mapping], answers: Sequence[str | dict | None]) -> Scored:
    """Score answers (JSON texts or records, one for each row) against labelled rows.

    Raises CourseError when none of several answers is a record with all fields: a run in which
    everything is broken has no score.
    """
    answers, n = list(answers), len(rows)
    if len(answers) != n:
        raise CourseError(f"{len(answers)} answers for {n} rows: every row needs one.")
    records = []
    for answer in answers:
        records.append(answer if isinstance(answer, dict) else parse(answer))
    complete = [record for record in records if record and set(pilot.fields) <= set(record)]
    # free text may run beyond the longest answer: then it is the model that is broken
    if n >= FEW and pilot.copies and not complete:
        raise CourseError(
            f"None of the {n} answers is a record with {', '.join(pilot.fields)}; the first is "
            f"{str(answers[0])[:60]!r}. That is a broken run and not a score of 0 %, most likely "
            "by a version of a library that the course does not know: run `python -m "
            "helpers.check`, which names it."
        )
    right = {name: np.zeros(n, bool) for name in pilot.fields}
    exact, valid, invented = np.zeros((3, n), bool)
    for i, (row, record) in enumerate(zip(rows, records)):
        if record is None:
            continue
        valid[i] = True
        for name in pilot.fields:
            right[name][i] = name in record and same_value(record[name], row[name])
        exact[i] = set(record) == set(pilot.fields) and all(right[f][i] for f in pilot.fields)
        invented[i] = _invents(pilot, record, row[pilot.text])
    return Scored(right, exact, valid, invented, records)


def same_value(value: Any, truth: Any) -> bool:
    """Equal and of one type: True is not 1."""
    return value == truth and type(value) is type(truth)


def _invents(pilot: Pilot, record: dict, text: str) -> bool:
    for name, spec in pilot.fields.items():
        value = record.get(name)
        if spec.type != "label" and isinstance(value, str) and value not in text:
            return True
    return False

"""From answers to figures that say how sure they are: Wilson intervals, exact paired tests, bootstrap differences."""

import json
from dataclasses import dataclass

import numpy as np

from helpers import CourseError
from helpers.measure.intervals import share


@dataclass(frozen=True)
class Scored:
    """`right`: {field: bool array of shape (rows,)}; `exact`: rows where every field is right; `invented`: values not in the text."""

    right: dict
    exact: np.ndarray
    valid: np.ndarray
    invented: np.ndarray
    records: list

    @property
    def share(self):
        """Share of exact records."""
        return share(self.exact)

    @property
    def shares(self):
        """{field: Share of rows where it is right}."""
        return {name: share(right) for name, right in self.right.items()}

    def __str__(self):
        lines = [f"{'exact record':16}{self.share}"]
        lines += [f"{name:16}{right}" for name, right in self.shares.items()]
        return "\n".join(lines)


def parse(answer):
    """The JSON object in an answer as a dict, or None. Text around it, a repeated key, NaN or another type is not valid."""

    def once(pairs):
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            raise ValueError("repeated key")
        return dict(pairs)

    def never(word):
        raise ValueError(f"{word} is no JSON")

    try:
        record = json.loads(answer, object_pairs_hook=once, parse_constant=never)
    except (ValueError, TypeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def score(pilot, rows, answers):
    """Score answers (JSON texts or dicts, one per row) against labelled rows.

    A field is right when it is present and equal; an exact record has every field right and no other key.
    """
    answers = list(answers)
    if len(answers) != len(rows):
        raise CourseError(f"{len(answers)} answers for {len(rows)} rows: every row needs one.")
    records = [a if isinstance(a, dict) else parse(a) for a in answers]
    right = {name: np.zeros(len(rows), bool) for name in pilot.fields}
    exact, invented = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    missing = object()
    for i, (row, record) in enumerate(zip(rows, records)):
        found = record or {}
        for name, spec in pilot.fields.items():
            value = found.get(name, missing)
            right[name][i] = value == row[name] and type(value) is type(row[name])
            if spec.type != "label" and isinstance(value, str) and value not in row[pilot.text]:
                invented[i] = True
        exact[i] = set(found) == set(pilot.fields) and all(right[name][i] for name in pilot.fields)
    return Scored(right, exact, np.array([r is not None for r in records]), invented, records)

"""From answers to figures that say how sure they are: Wilson intervals, exact paired tests, bootstrap differences."""

import json
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from helpers import CourseError


@dataclass(frozen=True)
class Share:
    """A share of n rows with its Wilson 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self):
        return f"{self.value:6.1%}  [{self.low:.1%}, {self.high:.1%}]  n={self.n}"


@dataclass(frozen=True)
class Comparison:
    """Two strategies on the same rows: difference a - b in shares, its interval, and the exact McNemar p."""

    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p: float
    n: int

    def __str__(self):
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        return (f"{100 * self.difference:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}], "
                f"only the first right {self.only_a}, only the second {self.only_b}, {p}, n={self.n}"
                + ("; too few rows to conclude anything" if self.n < 50 else ""))


@dataclass(frozen=True)
class Scored:
    """`right`: {field: bool array of shape (rows,)}; `exact`: rows where every field is right; `invented`: values not in the text."""

    right: dict
    exact: np.ndarray
    valid: np.ndarray
    invented: np.ndarray
    records: list

    def __str__(self):
        lines = [f"{'exact record':16}{share(self.exact)}"]
        lines += [f"{name:16}{share(ok)}" for name, ok in self.right.items()]
        return "\n".join(lines)


def share(right):
    """Share of True in a bool sequence with a Wilson 95 % interval (statsmodels). Raises CourseError without rows."""
    right = np.asarray(right, dtype=bool)
    if right.size == 0:
        raise CourseError("There are no rows to score.")
    low, high = proportion_confint(int(right.sum()), right.size, alpha=0.05, method="wilson")
    return Share(float(right.mean()), float(low), float(high), int(right.size))


def compare(a, b, seed=0):
    """Compare two bool sequences over the same rows: bootstrap 95 % interval (10,000 draws), exact McNemar test."""
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape:
        raise CourseError(f"A paired comparison needs the same rows on both sides, not {a.size} and {b.size}.")
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    table = [[int((a & b).sum()), only_a], [only_b, int((~a & ~b).sum())]]
    difference = a.astype(float) - b.astype(float)
    low = high = float(difference.mean())
    if difference.std() > 0:
        interval = bootstrap((difference,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(seed))
        low, high = map(float, interval.confidence_interval)
    p = float(mcnemar(table, exact=True).pvalue) if only_a + only_b else 1.0
    return Comparison(float(difference.mean()), low, high, only_a, only_b, p, int(a.size))


def parse(answer):
    """The JSON object in an answer as a dict, or None. Text around it, a repeated key or another type is not valid."""

    def once(pairs):
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            raise ValueError("repeated key")
        return dict(pairs)

    try:
        record = json.loads(answer, object_pairs_hook=once)
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

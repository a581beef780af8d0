"""From answers to figures that say how sure they are: Wilson intervals, exact paired tests, bootstrap differences."""

import json
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, bootstrap, norm
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


# How sure, and how many rows ---------------------------------------------------------------------------------


def paired_interval(only_a, only_b, n, alpha=0.05):
    """(low, high) of a paired difference a - b in shares: Tango's score interval (Statistics in Medicine 1998, 17, 891).

    Unlike a bootstrap it stays honest when few rows differ or none do. Raises CourseError for impossible counts.
    """
    if n < 1 or min(only_a, only_b) < 0 or only_a + only_b > n:
        raise CourseError(f"{only_a} and {only_b} rows that differ do not fit into {n} rows.")

    def statistic(delta):
        b = -only_a - only_b + (2 * n - only_a + only_b) * delta
        q = (np.sqrt(max(0.0, b * b + 8 * n * only_b * delta * (1 - delta))) - b) / (4 * n)  # share of only_b under delta
        return (only_a - only_b - n * delta) / np.sqrt(max(1e-300, n * (2 * q + delta * (1 - delta))))

    z, edge = norm.isf(alpha / 2), 1 - 1e-9
    low = brentq(lambda d: statistic(d) - z, -edge, edge) if statistic(-edge) > z > statistic(edge) else -1.0
    high = brentq(lambda d: statistic(d) + z, -edge, edge) if statistic(-edge) > -z > statistic(edge) else 1.0
    return float(low), float(high)


def paired_power(n, gain, discordant, alpha=0.05):
    """Probability that the exact two-sided McNemar test on n rows finds a true difference of `gain` (a share).

    `discordant` is the share of rows where just one of the two is right. Exact: summed over every number of such rows.
    Raises CourseError when the gain is larger than the discordant share, which cannot be.
    """
    if not 0 <= gain <= discordant <= 1 or discordant == 0 or n < 1:
        raise CourseError(f"A difference of {gain:g} needs at least as large a share of rows that differ, not {discordant:g}.")
    rows = np.arange(n + 1)
    edge = binom.ppf(alpha / 2, rows, 0.5) - 1
    edge += binom.cdf(edge + 1, rows, 0.5) <= alpha / 2  # the largest count that still gives p <= alpha
    win = min(1.0, (discordant + gain) / (2 * discordant))
    found = binom.cdf(edge, rows, win) + binom.sf(rows - edge - 1, rows, win)
    return float(np.sum(binom.pmf(rows, n, discordant) * np.where(edge < 0, 0.0, found)))


def rows_needed(gain, discordant, power=0.8, alpha=0.05):
    """Rows for the exact McNemar test to find `gain` with this power. Its power climbs in tiny steps: the first n that has it."""
    high = 8
    while paired_power(high, gain, discordant, alpha) < power:
        high *= 2
        if high > 1_000_000:
            raise CourseError(f"A difference of {gain:g} at {discordant:g} discordant rows needs more than a million rows.")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if paired_power(middle, gain, discordant, alpha) >= power else (middle, high)
    return high


def smallest_difference(n, discordant, power=0.8, alpha=0.05):
    """The smallest true difference (a share) that n rows find with this power, or None when they find none at all."""
    if paired_power(n, discordant, discordant, alpha) < power:
        return None
    return float(brentq(lambda gain: paired_power(n, gain, discordant, alpha) - power, 0, discordant, xtol=1e-9))


def highest_rate(errors, n, confidence=0.95):
    """The error rate that `errors` in n rows rule out from above, one-sided (Clopper and Pearson 1934)."""
    if n < 1 or not 0 <= errors <= n:
        raise CourseError(f"{errors} errors in {n} rows cannot be.")
    return float(proportion_confint(errors, n, alpha=2 * (1 - confidence), method="beta")[1]) if errors < n else 1.0


def rows_for_zero_errors(rate, confidence=0.95):
    """Rows without a single error that show an error rate of at most `rate`."""
    if not 0 < rate < 1:
        raise CourseError(f"No number of rows shows an error rate of at most {rate:g}; take a rate between 0 and 1.")
    n = int(np.ceil(np.log(1 - confidence) / np.log1p(-rate)))
    return n if (1 - rate) ** n <= 1 - confidence else n + 1


# What kind of error ------------------------------------------------------------------------------------------


def known_kinds(pilot):
    """Every kind of error a record of this pilot can have, as a list of names."""
    kinds = ["invalid"]
    for name, spec in pilot.fields.items():
        kinds += [f"{name}.wrong"] + ([f"{name}.empty", f"{name}.extra"] if spec.optional else [])
        kinds += [f"{name}.missed.{value}" for value in (spec.values if spec.type == "label" else ())]
    return kinds


def error_kinds(pilot, row, record, named=()):
    """What is wrong with one record (dict or None), at most one kind a field; empty for an exact record.

    `invalid`: no record with exactly the pilot's fields, a person must read the message. `<field>.wrong`: another value.
    `.empty`: nothing where a value stood. `.extra`: a value where none belongs. A label that is told apart in `named`
    as `<field>.missed.<value>` gets that kind when this value should have been given and was not.
    """
    if record is None or set(record) != set(pilot.fields):
        return ["invalid"]
    kinds = []
    for name in pilot.fields:
        value, truth = record[name], row[name]
        if value != truth or type(value) is not type(truth):
            kind = f"{name}.extra" if truth is None else f"{name}.empty" if value is None else f"{name}.wrong"
            if f"{name}.missed.{truth}" in named:
                kind = f"{name}.missed.{truth}"
            elif kind == f"{name}.empty" and not pilot.fields[name].optional:
                kind = f"{name}.wrong"
            kinds.append(kind)
    return kinds

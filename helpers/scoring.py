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
                + ("; fewer than 50 rows: read the interval" if self.n < 50 else ""))


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


# How sure, and how many rows ---------------------------------------------------------------------------------


def _tango(only_a, only_b, n, delta):
    """Tango's score statistic of the difference `delta`, for counts or arrays of counts; it falls as delta grows."""
    b = -only_a - only_b + (2 * n - only_a + only_b) * delta
    q = (np.sqrt(np.maximum(0.0, b * b + 8 * n * only_b * delta * (1 - delta))) - b) / (4 * n)  # share of only_b under delta
    return (only_a - only_b - n * delta) / np.sqrt(np.maximum(1e-300, n * (2 * q + delta * (1 - delta))))


def paired_interval(only_a, only_b, n, alpha=0.05):
    """(low, high) of a paired difference a - b in shares: Tango's score interval (Statistics in Medicine 1998, 17, 891).

    Unlike a bootstrap it stays honest when few rows differ or none do. Raises CourseError for impossible counts.
    """
    if n < 1 or min(only_a, only_b) < 0 or only_a + only_b > n:
        raise CourseError(f"{only_a} and {only_b} rows that differ do not fit into {n} rows.")

    def statistic(delta):
        return float(_tango(only_a, only_b, n, delta))

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


def chance_to_clear(n, gain, discordant, margin, alpha=0.05):
    """Probability that n rows show a true difference `gain` to be at least `margin`: the lower end of paired_interval clears it.

    `discordant` as in paired_power; a negative margin asks for 'no worse by'. Summed over every outcome (but 1e-9 of them).
    """
    if not abs(gain) <= discordant <= 1 or n < 1:
        raise CourseError(f"A difference of {gain:g} needs at least as large a share of rows that differ, not {discordant:g}.")
    a, b = (discordant + gain) / 2, (discordant - gain) / 2
    wins = np.arange(binom.ppf(5e-10, n, a), binom.isf(5e-10, n, a) + 1)[:, None]
    losses = np.arange(max(0, binom.ppf(5e-10, n, b)), binom.isf(5e-10, n, b) + 1)[None, :]
    weight = binom.pmf(wins, n, a) * binom.pmf(losses, n - wins, b / (1 - a) if a < 1 else 0.0)
    return float(np.sum(weight * (_tango(wins, losses, n, margin) >= norm.isf(alpha / 2))))


def chance_to_be_rare(n, rate, limit):
    """Probability that n rows show an error of the true rate `rate` to be rarer than `limit`, as highest_rate judges it."""
    counts = np.arange(n + 1)
    return float(binom.pmf(counts, n, rate)[proportion_confint(counts, n, alpha=0.1, method="beta")[1] <= limit].sum())


def rows_for_chance(chance, wanted=0.8):
    """The fewest rows, to within 5 %, from which `chance(n)` is `wanted`; None beyond 20,000."""
    n = 10
    while n <= 20_000:
        if chance(n) >= wanted:
            return n
        n = max(n + 1, int(1.05 * n))
    return None


def rows_for_perfect(wrong, margin, alpha=0.05):
    """Rows on which a result without an error clears `margin` over a baseline wrong in the share `wrong`; None: no number does."""
    each = float(_tango(wrong, 0.0, 1, margin))  # the statistic grows with the square root of n
    return int(np.ceil((norm.isf(alpha / 2) / each) ** 2 - 1e-9)) if each > 0 else None

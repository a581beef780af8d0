"""Intervals for rows that belong together, and for a share that an imperfect judge counted."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import bootstrap, norm, t
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
        return (
            f"{100 * self.difference:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}], "
            f"only the first right {self.only_a}, only the second {self.only_b}, {p}, n={self.n}"
            + ("; fewer than 50 rows: read the interval" if self.n < 50 else "")
        )


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
        raise CourseError(
            f"A paired comparison needs the same rows on both sides, not {a.size} and {b.size}."
        )
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    table = [[int((a & b).sum()), only_a], [only_b, int((~a & ~b).sum())]]
    difference = a.astype(float) - b.astype(float)
    low = high = float(difference.mean())
    if difference.std() > 0:
        interval = bootstrap(
            (difference,),
            np.mean,
            n_resamples=10_000,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        low, high = map(float, interval.confidence_interval)
    p = float(mcnemar(table, exact=True).pvalue) if only_a + only_b else 1.0
    return Comparison(float(difference.mean()), low, high, only_a, only_b, p, int(a.size))


def tango_statistic(only_a, only_b, n, delta):
    """Tango's score statistic of the difference `delta`, for counts or arrays of counts; it falls as delta grows."""
    b = -only_a - only_b + (2 * n - only_a + only_b) * delta
    q = (np.sqrt(np.maximum(0.0, b * b + 8 * n * only_b * delta * (1 - delta))) - b) / (
        4 * n
    )  # share of only_b under delta
    return (only_a - only_b - n * delta) / np.sqrt(
        np.maximum(1e-300, n * (2 * q + delta * (1 - delta)))
    )


def paired_interval(only_a, only_b, n, alpha=0.05):
    """(low, high) of a paired difference a - b in shares: Tango's score interval (Statistics in Medicine 1998, 17, 891).

    Unlike a bootstrap it stays honest when few rows differ or none do. Raises CourseError for impossible counts.
    """
    if n < 1 or min(only_a, only_b) < 0 or only_a + only_b > n:
        raise CourseError(f"{only_a} and {only_b} rows that differ do not fit into {n} rows.")

    def statistic(delta):
        return float(tango_statistic(only_a, only_b, n, delta))

    z, edge = norm.isf(alpha / 2), 1 - 1e-9
    low = (
        brentq(lambda d: statistic(d) - z, -edge, edge)
        if statistic(-edge) > z > statistic(edge)
        else -1.0
    )
    high = (
        brentq(lambda d: statistic(d) + z, -edge, edge)
        if statistic(-edge) > -z > statistic(edge)
        else 1.0
    )
    return float(low), float(high)


def highest_rate(errors, n, confidence=0.95):
    """The error rate that `errors` in n rows rule out from above, one-sided (Clopper and Pearson 1934)."""
    if n < 1 or not 0 <= errors <= n:
        raise CourseError(f"{errors} errors in {n} rows cannot be.")
    return (
        float(proportion_confint(errors, n, alpha=2 * (1 - confidence), method="beta")[1])
        if errors < n
        else 1.0
    )


def _groups(values, clusters):
    """(values as floats, number of each row's cluster, number of clusters); CourseError for rows or clusters that do not fit."""
    values, clusters = np.asarray(values, float), list(clusters)
    if values.size != len(clusters):
        raise CourseError(
            f"Every row needs a cluster, not {values.size} rows and {len(clusters)} clusters."
        )
    if not values.size:
        raise CourseError("There are no rows to score.")
    names = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    if len(names) < 2:
        raise CourseError(
            "All rows belong to one thread or template; an interval needs at least two."
        )
    return values, np.array([names[name] for name in clusters]), len(names)


def clustered_error(values, clusters):
    """(mean, standard error, number of clusters) when rows share a thread or template: deviations are added up per cluster first.

    The sandwich estimate of Miller 2024 (arXiv 2411.00640) with the small-sample factor G / (G - 1).
    """
    values, place, count = _groups(values, clusters)
    sums = np.bincount(place, weights=values - values.mean(), minlength=count)
    return (
        float(values.mean()),
        float(np.sqrt(count / (count - 1) * (sums**2).sum()) / values.size),
        count,
    )


def clustered_share(right, clusters):
    """Share of True with a 95 % interval when rows share a thread or template.

    Wilson's interval on the effective number of rows, p(1 - p) / error^2, with Student's t for G clusters (Korn and Graubard 1998 do
    this to an exact interval). Never more effective rows than rows; when all are right or all wrong, one row per cluster.
    """
    p, error, count = clustered_error(np.asarray(right, bool), clusters)
    rows = len(right)
    effective = (
        min(rows, p * (1 - p) / error**2)
        if 0 < p < 1 and error > 0
        else count
        if p in (0, 1)
        else rows
    )
    z2 = t.ppf(0.975, count - 1) ** 2
    middle, half = (
        (p + z2 / (2 * effective)) / (1 + z2 / effective),
        np.sqrt(p * (1 - p) / effective + z2 / (4 * effective**2)),
    )
    half *= np.sqrt(z2) / (1 + z2 / effective)
    return Share(p, float(max(0.0, middle - half)), float(min(1.0, middle + half)), rows)


def clustered_difference(a, b, clusters):
    """(a - b, low, high) in shares over the same rows, 95 %, when rows share a thread or template; Student's t for G clusters."""
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape:
        raise CourseError(
            f"A paired comparison needs the same rows on both sides, not {a.size} and {b.size}."
        )
    value, error, count = clustered_error(a.astype(float) - b, clusters)
    half = float(t.ppf(0.975, count - 1)) * error
    return value, max(-1.0, value - half), min(1.0, value + half)


def unpaired_difference(a, error_a, b, error_b):
    """(a - b, low, high), 95 %, from two figures and their standard errors, as if they came from different rows.

    What a harness' table invites you to do. On the same rows it ignores that both ways find the same rows hard.
    """
    half = 1.96 * float(np.hypot(error_a, error_b))
    return a - b, a - b - half, a - b + half


def between_seeds(shares):
    """(mean, standard deviation, lowest, highest) of one figure over the seeds of a training; CourseError for fewer than two."""
    values = np.asarray(list(shares), float)
    if values.size < 2:
        raise CourseError("A spread between seeds needs at least two; train another one.")
    return float(values.mean()), float(values.std(ddof=1)), float(values.min()), float(values.max())


def corrected_share(said, n, sensitivity, positives, specificity, negatives, alpha=0.05):
    """The true share behind a judge's, as a Share: Rogan and Gladen 1978 with the interval of Lang and Reiczigel 2014.

    `said`: the share the judge called right among `n` rows. `sensitivity`: what it calls right of the `positives` rows that a person
    calls right; `specificity`: what it calls wrong of the `negatives` that a person calls wrong. Point estimate
    (said + specificity - 1) / (sensitivity + specificity - 1), cut to 0..1. How to use it for judges: Lee et al. 2025, arXiv
    2511.21140. Raises CourseError when the judge is not shown to be better than chance: dividing by nothing gives anything.
    """
    if min(n, positives, negatives) < 1 or not all(
        0 <= x <= 1 for x in (said, sensitivity, specificity)
    ):
        raise CourseError(
            "A correction needs shares between 0 and 1, and rows that a person called right as well as rows called wrong."
        )
    z = norm.isf(alpha / 2)
    point = sensitivity + specificity - 1
    se, sp = (
        (sensitivity * positives + 1) / (positives + 2),
        (specificity * negatives + 1) / (negatives + 2),
    )
    v_se, v_sp = se * (1 - se) / (positives + 2), sp * (1 - sp) / (negatives + 2)
    power = se + sp - 1
    if point <= 0 or power - z * np.sqrt(v_se + v_sp) <= 0:
        raise CourseError(
            f"The judge's sensitivity {sensitivity:.2f} and specificity {specificity:.2f} on {positives + negatives} rows "
            "do not show that it is better than chance, so its figure cannot be corrected; use people's labels."
        )
    p = (said * n + z * z / 2) / (n + z * z)
    middle = (p + sp - 1) / power
    shift = 2 * z * z * (middle * v_se - (1 - middle) * v_sp)
    half = (
        z * np.sqrt(p * (1 - p) / (n + z * z) + middle**2 * v_se + (1 - middle) ** 2 * v_sp) / power
    )
    value = float(np.clip((said + specificity - 1) / point, 0, 1))
    low, high = (float(np.clip(middle + shift + side * half, 0, 1)) for side in (-1, 1))
    return Share(value, min(low, value), max(high, value), n)

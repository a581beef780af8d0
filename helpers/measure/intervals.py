"""From right and wrong answers to figures that say how sure they are."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.stats import binom, bootstrap, norm, t
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from helpers import CourseError

Bools = Sequence[bool] | np.ndarray


@dataclass(frozen=True)
class Share:
    """A share of n rows with its 95 % interval (Wilson's unless said otherwise)."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:6.1%}  [{self.low:.1%}, {self.high:.1%}]  n={self.n}"


@dataclass(frozen=True)
class Comparison:
    """Two ways on the same rows."""

    difference: float  # a - b in shares
    low: float
    high: float
    only_a: int  # rows where only a is right
    only_b: int
    p: float  # of the exact McNemar test
    n: int

    def __str__(self) -> str:
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        few = "; fewer than 50 rows: read the interval" if self.n < 50 else ""
        return (
            f"{100 * self.difference:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}], "
            f"only the first right {self.only_a}, only the second {self.only_b}, "
            f"{p}, n={self.n}{few}"
        )


def share(right: Bools) -> Share:
    """Share of True with a Wilson 95 % interval. Raises CourseError without rows."""
    right = np.asarray(right, dtype=bool)
    if right.size == 0:
        raise CourseError("There are no rows to score.")
    low, high = proportion_confint(int(right.sum()), right.size, alpha=0.05, method="wilson")
    return Share(float(right.mean()), float(low), float(high), int(right.size))


def bootstrap_interval(
    samples: Sequence | np.ndarray,
    seed: int = 0,
    draws: int = 10_000,
    alpha: float = 0.05,
    statistic: Callable[..., float] = np.mean,
) -> tuple[float, float]:
    """(low, high) of a statistic over rows drawn again and again, percentiles at 1 - alpha.

    `samples` has shape (rows,), or (columns, rows) for a statistic of several columns. Raises
    CourseError for several columns of fewer than two rows.
    """
    samples = np.atleast_2d(np.asarray(samples, float))
    value = float(statistic(*samples))
    if len(samples) == 1 and samples.std() == 0:
        return value, value  # every draw would be the same
    if samples.shape[1] < 2:
        raise CourseError("An interval needs at least two rows; there is one.")
    result = bootstrap(
        tuple(samples),
        statistic,
        n_resamples=draws,
        method="percentile",
        confidence_level=1 - alpha,
        paired=len(samples) > 1,
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return float(low), float(high)


def over_seeds_and_tasks(
    first: np.ndarray, second: np.ndarray | None = None, draws: int = 10_000
) -> Share:
    """Mean of `first`, less that of `second` on the same tasks; bootstrap 95 % over both axes.

    Shape (students, tasks) each; the number of students may differ. Students and tasks are drawn
    again (Owen 2007, doi 10.1214/07-AOAS122), so three students who differ widen the interval. One
    student alone, or students who all do the same everywhere, have Wilson's interval over tasks.
    Raises CourseError without a value, or when the tasks are not the same.
    """
    arms = [np.atleast_2d(np.asarray(arm, float)) for arm in (first, second) if arm is not None]
    if not all(arm.size for arm in arms) or len({arm.shape[1] for arm in arms}) != 1:
        shapes = " and ".join(str(arm.shape) for arm in arms)
        raise CourseError(f"Students and tasks of the same number are needed, not {shapes}.")
    if second is None and (len(arms[0]) == 1 or np.ptp(arms[0]) == 0):
        return share(arms[0][0])
    rng, tasks = np.random.default_rng(0), arms[0].shape[1]
    drawn = rng.multinomial(tasks, np.full(tasks, 1 / tasks), draws) / tasks
    value, means = 0.0, np.zeros(draws)
    for sign, arm in zip((1, -1), arms, strict=False):
        students = rng.multinomial(len(arm), np.full(len(arm), 1 / len(arm)), draws) / len(arm)
        value += sign * float(arm.mean())
        means += sign * ((students @ arm) * drawn).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Share(value, float(low), float(high), tasks)


def compare(a: Bools, b: Bools, seed: int = 0) -> Comparison:
    """Comparison of two bool sequences over the same rows: bootstrap 95 %, exact McNemar test."""
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape:
        raise CourseError(
            f"A paired comparison needs the same rows on both sides, not {a.size} and {b.size}."
        )
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    table = [[int((a & b).sum()), only_a], [only_b, int((~a & ~b).sum())]]
    difference = a.astype(float) - b.astype(float)
    low, high = bootstrap_interval(difference, seed)
    p = float(mcnemar(table, exact=True).pvalue)
    return Comparison(float(difference.mean()), low, high, only_a, only_b, p, int(a.size))


def paired_power(n: int, gain: float, discordant: float, alpha: float = 0.05) -> float:
    """Probability that the exact two-sided McNemar test on n rows finds a true difference `gain`.

    `discordant` is the share of rows where just one of the two is right. Exact, summed over every
    number of such rows; libraries have only the large-sample formula, which is wrong for few rows.
    Raises CourseError when the gain is larger than the discordant share, which cannot be.
    """
    check_gain(n, gain, discordant)
    differing = np.arange(n + 1)
    # the largest count on the losing side that still gives p <= alpha
    edge = binom.ppf(alpha / 2, differing, 0.5) - 1
    edge += binom.cdf(edge + 1, differing, 0.5) <= alpha / 2
    win = min(1.0, (discordant + gain) / (2 * discordant))
    rejected = binom.cdf(edge, differing, win) + binom.sf(differing - edge - 1, differing, win)
    weight = binom.pmf(differing, n, discordant)
    return float(np.sum(weight * np.where(edge < 0, 0.0, rejected)))


def check_gain(n: int, gain: float, discordant: float) -> None:
    """Raises CourseError for a difference that so many differing rows cannot have."""
    if not 0 < discordant <= 1 or abs(gain) > discordant or n < 1:
        what = "needs at least as large a share of rows that differ"
        raise CourseError(f"A difference of {gain:g} {what}, not {discordant:g}.")


def rows_needed(gain: float, discordant: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """The first n with which the exact McNemar test finds `gain` with this power."""
    high = 8
    while paired_power(high, gain, discordant, alpha) < power:
        high *= 2
        if high > 1_000_000:
            what = f"A difference of {gain:g} at {discordant:g} discordant rows"
            raise CourseError(f"{what} needs more than a million rows.")
    low = high // 2  # halve what lies between until the two are neighbours
    while high - low > 1:
        middle = (low + high) // 2
        if paired_power(middle, gain, discordant, alpha) >= power:
            high = middle
        else:
            low = middle
    return high


def highest_rate(errors: int, n: int, confidence: float = 0.95) -> float:
    """The error rate that `errors` in n rows rule out from above, one-sided (Clopper-Pearson)."""
    if n < 1 or not 0 <= errors <= n:
        raise CourseError(f"{errors} errors in {n} rows cannot be.")
    if errors == n:
        return 1.0
    return float(proportion_confint(errors, n, alpha=2 * (1 - confidence), method="beta")[1])


def clustered_error(
    values: Sequence[float] | np.ndarray, clusters: Iterable[Hashable]
) -> tuple[float, float, int]:
    """(mean, standard error, number of clusters) when rows share a thread or template.

    Raises CourseError without rows, and when all rows belong to one cluster.
    """
    values = np.asarray(values, float)
    groups, names = pd.factorize(pd.Series(list(clusters), dtype=object))
    if values.size != groups.size:
        raise CourseError(
            f"Every row needs a cluster, not {values.size} rows and {groups.size} clusters."
        )
    if not values.size:
        raise CourseError("There are no rows to score.")
    if len(names) < 2:
        raise CourseError(
            "All rows belong to one thread or template; an interval needs at least two."
        )
    # the sandwich error of a regression on a constant, as Miller 2024 (arXiv 2411.00640) advises
    fit = sm.OLS(values, np.ones(values.size)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    return float(values.mean()), float(fit.bse[0]), len(names)


def clustered_share(right: Bools, clusters: Iterable[Hashable]) -> Share:
    """Share of True with a 95 % interval when rows share a thread or template.

    Wilson's interval on the effective number of rows, p(1 - p) / error^2, with Student's t for the
    number of clusters (Korn and Graubard 1998 do this to an exact interval).
    """
    p, error, count = clustered_error(np.asarray(right, bool), clusters)
    rows = len(right)
    effective: float = rows  # never more effective rows than rows
    if p in (0, 1):
        effective = count  # nothing varies, so nothing can be estimated: one row for each cluster
    elif error > 0:
        effective = min(rows, p * (1 - p) / error**2)
    alpha = 2 * norm.sf(t.ppf(0.975, count - 1))  # makes Wilson's normal quantile Student's
    low, high = proportion_confint(p * effective, effective, alpha=alpha, method="wilson")
    return Share(p, float(low), float(high), rows)


def corrected_share(
    claimed: float,
    n: int,
    sensitivity: float,
    positives: int,
    specificity: float,
    negatives: int,
) -> Share:
    """The true share behind the share of n rows that a judge `claimed` to be right.

    `sensitivity`: what it calls right of the `positives` that a person calls right; `specificity`:
    what it calls wrong of the `negatives`. Rogan and Gladen's estimate (1978) with the interval of
    Lang and Reiczigel (2014), which no Python library has; for judges: arXiv 2511.21140. Raises
    CourseError when the judge is not shown to be better than chance.
    """
    figures = (claimed, sensitivity, specificity)
    if min(n, positives, negatives) < 1 or not all(0 <= figure <= 1 for figure in figures):
        raise CourseError(
            "A correction needs shares between 0 and 1, and rows that a person called right as "
            "well as rows called wrong."
        )
    z = norm.isf(0.025)
    # the judge's skill is known from few rows: one success and one failure are added to each side
    hits = (sensitivity * positives + 1) / (positives + 2)
    rejections = (specificity * negatives + 1) / (negatives + 2)
    hits_variance = hits * (1 - hits) / (positives + 2)
    rejections_variance = rejections * (1 - rejections) / (negatives + 2)
    power = hits + rejections - 1
    uncertain = z * np.sqrt(hits_variance + rejections_variance)
    if sensitivity + specificity <= 1 or power <= uncertain:
        raise CourseError(
            f"The judge's sensitivity {sensitivity:.2f} and specificity {specificity:.2f} on "
            f"{positives + negatives} rows do not show that it is better than chance, so its "
            "figure cannot be corrected; use people's labels."
        )
    p = (claimed * n + z * z / 2) / (n + z * z)
    middle = (p + rejections - 1) / power
    shift = 2 * z * z * (middle * hits_variance - (1 - middle) * rejections_variance)
    spread = p * (1 - p) / (n + z * z)
    spread += middle**2 * hits_variance + (1 - middle) ** 2 * rejections_variance
    half = z * np.sqrt(spread) / power
    value = (claimed + specificity - 1) / (sensitivity + specificity - 1)
    value, low, high = np.clip([value, middle + shift - half, middle + shift + half], 0, 1)
    return Share(float(value), float(min(low, value)), float(max(high, value)), n)

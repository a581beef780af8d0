"""How many rows a question needs: power of the exact McNemar test, and chances to clear a margin or a limit."""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm
from statsmodels.stats.proportion import proportion_confint

from helpers import CourseError
from helpers.measure.intervals import tango_statistic


def paired_power(n, gain, discordant, alpha=0.05):
    """Probability that the exact two-sided McNemar test on n rows finds a true difference of `gain` (a share).

    `discordant` is the share of rows where just one of the two is right. Exact: summed over every number of such rows.
    Raises CourseError when the gain is larger than the discordant share, which cannot be.
    """
    if not 0 <= gain <= discordant <= 1 or discordant == 0 or n < 1:
        raise CourseError(
            f"A difference of {gain:g} needs at least as large a share of rows that differ, not {discordant:g}."
        )
    rows = np.arange(n + 1)
    edge = binom.ppf(alpha / 2, rows, 0.5) - 1
    edge += (
        binom.cdf(edge + 1, rows, 0.5) <= alpha / 2
    )  # the largest count that still gives p <= alpha
    win = min(1.0, (discordant + gain) / (2 * discordant))
    found = binom.cdf(edge, rows, win) + binom.sf(rows - edge - 1, rows, win)
    return float(np.sum(binom.pmf(rows, n, discordant) * np.where(edge < 0, 0.0, found)))


def rows_needed(gain, discordant, power=0.8, alpha=0.05):
    """Rows for the exact McNemar test to find `gain` with this power. Its power climbs in tiny steps: the first n that has it."""
    high = 8
    while paired_power(high, gain, discordant, alpha) < power:
        high *= 2
        if high > 1_000_000:
            raise CourseError(
                f"A difference of {gain:g} at {discordant:g} discordant rows needs more than a million rows."
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle)
            if paired_power(middle, gain, discordant, alpha) >= power
            else (middle, high)
        )
    return high


def smallest_difference(n, discordant, power=0.8, alpha=0.05):
    """The smallest true difference (a share) that n rows find with this power, or None when they find none at all."""
    if paired_power(n, discordant, discordant, alpha) < power:
        return None
    return float(
        brentq(
            lambda gain: paired_power(n, gain, discordant, alpha) - power, 0, discordant, xtol=1e-9
        )
    )


def rows_for_zero_errors(rate, confidence=0.95):
    """Rows without a single error that show an error rate of at most `rate`."""
    if not 0 < rate < 1:
        raise CourseError(
            f"No number of rows shows an error rate of at most {rate:g}; take a rate between 0 and 1."
        )
    n = int(np.ceil(np.log(1 - confidence) / np.log1p(-rate)))
    return n if (1 - rate) ** n <= 1 - confidence else n + 1


def chance_to_clear(n, gain, discordant, margin, alpha=0.05):
    """Probability that n rows show a true difference `gain` to be at least `margin`: the lower end of paired_interval clears it.

    `discordant` as in paired_power; a negative margin asks for 'no worse by'. Summed over every outcome (but 1e-9 of them).
    """
    if not abs(gain) <= discordant <= 1 or n < 1:
        raise CourseError(
            f"A difference of {gain:g} needs at least as large a share of rows that differ, not {discordant:g}."
        )
    a, b = (discordant + gain) / 2, (discordant - gain) / 2
    wins = np.arange(binom.ppf(5e-10, n, a), binom.isf(5e-10, n, a) + 1)[:, None]
    losses = np.arange(max(0, binom.ppf(5e-10, n, b)), binom.isf(5e-10, n, b) + 1)[None, :]
    weight = binom.pmf(wins, n, a) * binom.pmf(losses, n - wins, b / (1 - a) if a < 1 else 0.0)
    return float(np.sum(weight * (tango_statistic(wins, losses, n, margin) >= norm.isf(alpha / 2))))


def chance_to_be_rare(n, rate, limit):
    """Probability that n rows show an error of the true rate `rate` to be rarer than `limit`, as highest_rate judges it."""
    counts = np.arange(n + 1)
    return float(
        binom.pmf(counts, n, rate)[
            proportion_confint(counts, n, alpha=0.1, method="beta")[1] <= limit
        ].sum()
    )


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
    each = float(
        tango_statistic(wrong, 0.0, 1, margin)
    )  # the statistic grows with the square root of n
    return int(np.ceil((norm.isf(alpha / 2) / each) ** 2 - 1e-9)) if each > 0 else None

"""How many rows a question needs: power of the exact McNemar test, chances to clear a margin."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm
from statsmodels.stats.proportion import proportion_confint

from helpers import CourseError
from helpers.agree.paired import tango_statistic
from helpers.measure.intervals import check_gain, paired_power
from helpers.measure.intervals import rows_needed as rows_needed  # so chapters need one import

if TYPE_CHECKING:
    from helpers.agree.bar import Bar
    from helpers.measure.scoring import Scored

Chance = Callable[[int], float]  # n rows: probability that they show it

# assumed shares of rows where just one of the two ways is right
DISCORDANT_RECORDS, DISCORDANT_FIELDS = 0.4, 0.1


def smallest_difference(
    n: int, discordant: float, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """The smallest true difference (a share) that n rows find with this power, None for none."""
    if paired_power(n, discordant, discordant, alpha) < power:
        return None

    def lack(gain: float) -> float:
        return paired_power(n, gain, discordant, alpha) - power

    return float(brentq(lack, 0, discordant, xtol=1e-9))


def rows_for_zero_errors(rate: float, confidence: float = 0.95) -> int:
    """Rows without a single error that show an error rate of at most `rate`."""
    if not 0 < rate < 1:
        what = f"No number of rows shows an error rate of at most {rate:g}"
        raise CourseError(f"{what}; take a rate between 0 and 1.")
    n = int(np.ceil(np.log(1 - confidence) / np.log1p(-rate)))
    if (1 - rate) ** n > 1 - confidence:  # rounding
        n += 1
    return n


def rows_for_perfect(wrong: float, margin: float, alpha: float = 0.05) -> int | None:
    """Rows for one without errors to clear `margin` over a baseline wrong so often, or None."""
    one_row = float(tango_statistic(wrong, 0.0, 1, margin))
    if one_row <= 0:
        return None
    # the statistic grows with the square root of n
    return int(np.ceil((norm.isf(alpha / 2) / one_row) ** 2 - 1e-9))


# Before anybody signs: how likely a page is to be passed ---------------------------------------


def chance_to_clear(
    n: int, gain: float, discordant: float, margin: float, alpha: float = 0.05
) -> float:
    """Probability that n rows show a true difference `gain` to be at least `margin`.

    That is, the lower end of paired_interval clears it. `discordant` as in paired_power; a negative
    margin asks for 'no worse by'. Summed over every outcome (but 1e-9 of them).
    """
    check_gain(n, gain, discordant)
    a, b = (discordant + gain) / 2, (discordant - gain) / 2
    wins = np.arange(binom.ppf(5e-10, n, a), binom.isf(5e-10, n, a) + 1)[:, None]
    losses = np.arange(max(0, binom.ppf(5e-10, n, b)), binom.isf(5e-10, n, b) + 1)[None, :]
    b_of_the_rest = b / (1 - a) if a < 1 else 0.0
    weight = binom.pmf(wins, n, a) * binom.pmf(losses, n - wins, b_of_the_rest)
    cleared = tango_statistic(wins, losses, n, margin) >= norm.isf(alpha / 2)
    return float(np.sum(weight * cleared))


def chance_to_be_rare(n: int, rate: float, limit: float) -> float:
    """Probability that by highest_rate n rows show an error of the true `rate` below `limit`."""
    counts = np.arange(n + 1)
    highest = proportion_confint(counts, n, alpha=0.1, method="beta")[1]
    return float(binom.pmf(counts, n, rate)[highest <= limit].sum())


def rows_for_chance(chance: Chance, wanted: float = 0.8) -> int | None:
    """The fewest rows, to within 5 %, from which `chance(n)` is `wanted`; None beyond 20,000."""
    n = 10
    while n <= 20_000:
        if chance(n) >= wanted:
            return n
        n = max(n + 1, int(1.05 * n))  # a chance costs time, and 5 % are near enough
    return None


def chances_of_passing(bar: "Bar") -> dict[str, tuple[str, Chance]]:
    """{figure name: (what is true, Chance that the condition is shown)}.

    The page passes only when every condition does: see chance_as_hoped.
    """
    chances: dict[str, tuple[str, Chance]] = {}
    clear = partial(chance_to_clear, alpha=bar.alpha / bar.looks)
    for extra in (5, 10):
        gain = min(1.0, bar.margin + extra / 100)
        discordant = max(DISCORDANT_RECORDS, gain)  # never less than the gain itself
        chance = partial(clear, gain=gain, discordant=discordant, margin=bar.margin)
        chances[f"exact_record.plus_{extra}"] = (f"exact record, plus {extra}", chance)
    if bar.secondary:
        margin = -min(bar.secondary.values())
        chance = partial(clear, gain=0, discordant=DISCORDANT_FIELDS, margin=margin)
        chances["a_field"] = ("a field, exactly equal", chance)
    for kind, limit in bar.critical.items():
        name = kind.replace(" ", "_").replace("-", "_").lower()
        chance = partial(chance_to_be_rare, rate=limit / 2, limit=limit)
        chances[name] = (f"{kind}, at half its limit", chance)
    return chances


def chance_as_hoped(bar: "Bar", baseline: "Scored") -> dict[str, float]:
    """{condition: probability that the bar's rows show it} of a system that is as good as hoped.

    `baseline`: the bar's baseline on other rows. Errors of the two, and the conditions whose
    product "all" is, count as independent. Hard rows break several at once, so it is a little low.
    """
    n, hoped = bar.rows, bar.hoped
    clear = partial(_chance_of_shares, n, alpha=bar.alpha / bar.looks)
    chances = {"exact record": clear(hoped.exact, baseline.share.value, bar.margin)}
    for name, may_lose in bar.secondary.items():
        before = baseline.shares[name].value
        chances[name] = clear(hoped.fields.get(name, min(1.0, before + 0.03)), before, -may_lose)
    for kind, limit in bar.critical.items():
        chances[kind] = chance_to_be_rare(n, hoped.unchecked, limit)
    if bar.max_cost_per_1000 is not None:
        chances["cost of use"] = _chance_to_be_cheap(bar)
    chances["all"] = float(np.prod(list(chances.values())))
    return chances


def _chance_of_shares(n: int, share: float, before: float, margin: float, alpha: float) -> float:
    gain = share - before
    discordant = max(abs(gain) + 1e-6, share * (1 - before) + before * (1 - share))
    return chance_to_clear(n, gain, discordant, margin, alpha)


def _chance_to_be_cheap(bar: "Bar") -> float:
    """Probability that the upper end of the cost stays below its limit, errors being rare events.

    A check for each reviewed record, one critical error of each kind at the hoped rate, and for
    the other wrong records the mean price of the kinds that are not critical.
    """
    hoped, costs = bar.hoped, bar.costs
    mild = [costs.of(kind) for kind in costs.errors if kind not in bar.critical]
    wrong = 1 - hoped.exact
    missed = (1 - hoped.reviewed) + hoped.reviewed * (1 - costs.caught)
    mean = hoped.reviewed * costs.review + wrong * missed * float(np.mean(mild or [0.0]))
    variance = wrong * missed * float(np.mean(np.square(mild or [0.0])))
    for kind in bar.critical:
        mean += hoped.unchecked * costs.of(kind)
        variance += hoped.unchecked * costs.of(kind) ** 2
    mean += costs.fixed / 1000
    error = 1000 * np.sqrt(variance / bar.rows)
    assert bar.max_cost_per_1000 is not None
    # both the figure and the end of its interval are uncertain by `error`
    room = (bar.max_cost_per_1000 - 1000 * mean) / max(error, 1e-9)
    return float(norm.cdf(room - norm.isf(bar.alpha / bar.looks / 2)))

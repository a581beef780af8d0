"""What a success costs: the price of every try, over the tries that succeed."""

import math
from collections.abc import Sequence

import numpy as np

from helpers import CourseError
from helpers.measure import intervals


def _price(costs: np.ndarray, right: np.ndarray) -> float:
    return float(costs.sum() / max(right.sum(), 1e-9))


def cost_per_success(costs: Sequence[float], right: Sequence[bool]) -> intervals.Share:
    """Sum of `costs` (any unit) over the number of successes; bootstrap 95 % over the tasks.

    A failed try is paid for as well. With a handful of successes the interval has no upper end
    (inf). Raises CourseError without a success: then no number is right.
    """
    if not any(right):
        raise CourseError(f"None of {len(right)} tasks succeeded: a success has no finite price.")
    columns = np.array([costs, right], float)
    low, high = intervals.bootstrap_interval(columns, statistic=_price)
    return _with_an_end(_price(*columns), low, high, len(right))


def _with_an_end(value: float, low: float, high: float, tasks: int) -> intervals.Share:
    """A price whose upper end is infinite where one draw in forty held no success at all."""
    return intervals.Share(value, low, high if high <= 1e6 * value else math.inf, tasks)


def cost_ratio(
    costs: Sequence[float],
    right: Sequence[bool],
    other_costs: Sequence[float],
    other_right: Sequence[bool],
) -> intervals.Share:
    """Cost per success of the first way over that of the second, on the same tasks, paired.

    The upper end is inf where the first way succeeds a handful of times, as in cost_per_success.
    Raises CourseError where the tasks differ in number, one of the two never succeeds, or a task of
    the second one costs nothing.
    """
    columns = [costs, right, other_costs, other_right]
    if len(set(map(len, columns))) != 1:
        raise CourseError("The two ways were not given the same tasks; play the same seeds.")
    if not any(right) or not any(other_right):
        raise CourseError("One of the two ways never succeeds: there is no ratio.")
    if not all(other_costs):
        raise CourseError("A task of the second way has no cost: it was not timed, or not played.")

    def ratio(*drawn: np.ndarray) -> float:
        return _price(drawn[0], drawn[1]) / _price(drawn[2], drawn[3])

    table = np.array(columns, float)
    low, high = intervals.bootstrap_interval(table, statistic=ratio)
    return _with_an_end(ratio(*table), low, high, len(right))


def pass_k(right: Sequence[Sequence[bool]], k: int) -> float:
    """Chance that k tries at a task all succeed, estimated from the tries in each row.

    `right` has shape (tasks, tries). The estimate is that of tau-bench (arXiv 2406.12045): of all
    choices of k tries, the share in which every one succeeded, averaged over the tasks.
    """
    table = np.asarray(right, bool)
    tries = table.shape[1]
    if not 1 <= k <= tries:
        raise CourseError(f"pass^{k} needs at least {k} tries at each task; there are {tries}.")
    wins = table.sum(axis=1)
    chances = np.ones(len(table))
    for taken in range(k):  # C(wins, k) / C(tries, k), factor by factor
        chances *= np.clip(wins - taken, 0, None) / (tries - taken)
    return float(chances.mean())

"""What a drift alarm and a sampling plan are worth, tried on simulated weeks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from helpers import CourseError
from helpers.measure.intervals import Share, share
from helpers.watch.bins import SharedBins, is_number, psi
from helpers.watch.drift import JointAlarm
from helpers.watch.sampling import SamplingPlan, rows_for, wrong_above

Draw = Callable[[np.random.Generator, int], Any]
Truth = Mapping[str, float] | Draw  # {category: share}, or a function that draws so many messages
FIXED_LEVELS = (0.1, 0.25)  # "some drift", "much drift": a rule that knows neither n nor bins


def with_share(shares: Mapping[str, float], category: str, wanted: float) -> dict[str, float]:
    """The shares with one category at `wanted`, the others keeping their proportions.

    Raises CourseError for a share that cannot be.
    """
    rest = 1 - shares.get(category, 0.0)
    if not 0 <= wanted <= 1 or rest <= 0:
        raise CourseError(f"The share {wanted:g} of {category!r} cannot be; write one from 0 to 1.")
    moved = {name: value * (1 - wanted) / rest for name, value in shares.items()}
    return moved | {category: wanted}


def drawn_from(truth: Truth) -> Draw:
    """A function (rng, number) -> values, for shares of categories or for such a function."""
    if callable(truth):
        return truth
    names, shares = list(truth), np.array(list(truth.values()), float)
    if not names or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise CourseError("The shares of all categories must be 0 or more, and 1 together.")

    def draw(rng: np.random.Generator, number: int) -> list[str]:
        return [names[i] for i in rng.choice(len(names), number, p=shares / shares.sum())]

    return draw


def false_alarm_rate(
    truth: Truth,
    rows: int,
    n: int,
    seed: int = 0,
    weeks: int = 1000,
    false_alarm: float = 0.05,
    shuffles: int = 1000,
) -> Share:
    """Share of weeks in which an alarm rings though nothing has moved.

    Each week has a reference of its own, `rows` drawn from the truth, and `n` messages from the
    same. A function that draws {thing: values} tries several things that share an alarm.
    """
    return power(truth, truth, rows, n, seed, weeks, false_alarm, shuffles)


def power(
    truth: Truth,
    shifted: Truth,
    rows: int,
    n: int,
    seed: int = 0,
    weeks: int = 1000,
    false_alarm: float = 0.05,
    shuffles: int = 1000,
) -> Share:
    """Share of weeks in which an alarm rings when messages come from `shifted`, as above."""
    rings = []
    for number, (before, now) in enumerate(_pairs(truth, shifted, rows, n, seed, weeks)):
        alarm = JointAlarm.fit(before, n, seed + number, shuffles, false_alarm)
        rings.append(alarm.check(now).rings)
    return share(rings)


def fixed_rule_rates(
    truth: Truth,
    shifted: Truth,
    rows: int,
    n: int,
    seed: int = 0,
    weeks: int = 1000,
    levels: Sequence[float] = FIXED_LEVELS,
) -> dict[float, Share]:
    """{level: share of weeks in which the PSI of a thing is above it}: the rule of thumb.

    With `truth` twice these are its false alarms, else its power.
    """
    values = []
    for before, now in _pairs(truth, shifted, rows, n, seed, weeks):
        every = []
        for name, column in before.items():
            part = SharedBins.of(column, now[name], all(is_number(value) for value in column))
            every.append(float(psi(part.before, part.now)))
        values.append(max(every))
    return {level: share(np.array(values) > level) for level in levels}


def _pairs(
    truth: Truth, shifted: Truth, rows: int, n: int, seed: int, weeks: int
) -> Iterator[tuple[dict[str, list], dict[str, list]]]:
    """({thing: values of a reference}, {thing: values of a week}), `weeks` times."""
    before, now, rng = drawn_from(truth), drawn_from(shifted), np.random.default_rng(seed)
    for _ in range(weeks):
        yield _columns(before(rng, rows)), _columns(now(rng, n))


def _columns(drawn: Any) -> dict[str, list]:
    if isinstance(drawn, Mapping):
        return {name: list(values) for name, values in drawn.items()}
    return {"": list(drawn)}


# A sampling plan -----------------------------------------------------------------------------


def promised_bound_holds(plan: SamplingPlan, weeks: int = 2000, seed: int = 0) -> Share:
    """Share of weeks that the plan lets pass, its second draw included, just above the bound.

    The promise is at most 1 - confidence. Just above: one wrong message more than the bound allows,
    or, of many messages, the rate of the bound itself. `chance_to_pass` has the exact figure.
    """
    rng = np.random.default_rng(seed)
    if plan.messages is None:
        first = rng.binomial(plan.n, plan.highest_error, weeks)
        again = rng.binomial(plan.second, plan.highest_error, weeks)
    else:
        bad = wrong_above(plan.highest_error, plan.messages)
        first = rng.hypergeometric(bad, plan.messages - bad, plan.n, weeks)
        good_left = plan.messages - bad - (plan.n - first)
        again = rng.hypergeometric(bad - first, good_left, plan.second)
    clean = (first == plan.allowed + 1) & (again == 0) & (plan.second > 0)
    return share(np.array((first <= plan.allowed) | clean))


def accepted_by_peeking(
    plan: SamplingPlan, most: int = 1000, weeks: int = 2000, seed: int = 0
) -> Share:
    """Share of weeks that pass at the bound's own rate when a person stops at a quiet moment.

    They look after each row, and go on up to `most` until the rows so far happen to show the bound.
    """
    enough, errors = [], 0  # rows that are enough with 0, 1, 2, ... errors
    while (rows := rows_for(plan.highest_error, plan.confidence, errors)) <= most:
        enough.append(rows)
        errors += 1
    if not enough:
        raise CourseError(f"Within {most:,} rows nothing is shown; the plan needs {plan.n:,}.")
    wrong = np.random.default_rng(seed).random((weeks, most)) < plan.highest_error
    so_far = np.cumsum(wrong, axis=1)[:, np.array(enough) - 1]
    passed: np.ndarray = np.any(so_far <= np.arange(len(enough)), axis=1)
    return share(passed)

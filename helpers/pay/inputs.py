"""The numbers a cost model starts from: origin, how far they may be off, how they are drawn."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from helpers import CourseError
from helpers.pay.prices import age_warning, checked_number

MEASURED, TABLE, ASSUMED, COMPUTED = "measured", "dated table", "assumed: change me", "computed"
COUNTED = "measured counts x assumed prices"
# low and high are the 5th and 95th percentile of what is drawn; of a triangle, its two ends
EDGE = stats.norm.isf(0.05)


@dataclass(frozen=True)
class Input:
    """One number of the model, drawn from `distribution`; None for a number that is known.

    With `values` the distribution draws weights, and the input is the weighted mean of these.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    origin: str
    source: str
    distribution: Any = None
    values: tuple = ()
    age_warning: str = ""


class Inputs(dict):
    """{name: Input} in the order they were entered, in one `currency`, that of the bar.

    A unit that is 'share' keeps its number between 0 and 1. Every method raises CourseError with
    the input's name. The order counts: all inputs are drawn from one stream of random numbers.
    """

    def __init__(self, currency: str) -> None:
        super().__init__()
        self.currency = currency

    @property
    def notes(self) -> list[str]:
        """Sentences that belong beside every result: old prices, ranges wider than their value."""
        notes = [one.age_warning for one in self.values() if one.age_warning]
        few_rows, guesses = "too few rows to say it better", "guesses that the result leans on"
        wide: dict[str, list[str]] = {few_rows: [], guesses: []}
        for one in self.values():
            if one.high - one.low > one.value:
                why = few_rows if one.origin in (MEASURED, COUNTED) else guesses
                wide[why].append(one.name)
        for why, names in wide.items():
            if names:
                notes.append(f"The range is wider than the value for {', '.join(names)}: {why}.")
        return notes

    def share(self, name: str, right: Sequence[bool] | np.ndarray, source: str) -> None:
        """A measured share of rows (bools), drawn with Jeffreys' prior (Brown and others 2001)."""
        n, k = len(right), int(np.sum(right))
        if not n:
            cure = "run the chapter that makes the answers"
            raise CourseError(f"{name} has no rows to be measured on; {cure}.")
        drawn = stats.beta(k + 0.5, n - k + 0.5)
        low, high = drawn.ppf([0.05, 0.95])
        ends = min(low, k / n), max(high, k / n)  # the prior pulls to 1/2; the range holds k / n
        source = f"{source}, {k} of {n} rows"
        self._enter(Input(name, k / n, *ends, "share", MEASURED, source, drawn))

    def priced(self, columns: Mapping[str, tuple], source: str, origin: str = COUNTED) -> None:
        """Means over the same rows, {name: (values (rows,), the worst or None, unit)}.

        Drawn by weighing the rows anew (Rubin's Bayesian bootstrap, 1981), the same weights for all
        columns. Half a row with the worst values stands beside them (as Jeffreys' half): what was
        not seen can still come. With no row at all the worst is assumed.
        """
        for name, (values, worst, unit) in columns.items():
            for value in values:
                checked_number(float(value), f"A row of {name}")
            if worst is not None:
                checked_number(worst, f"The worst of {name}")
            elif not len(values):
                raise CourseError(f"{name} has no rows to be measured on; write an assumption.")
            if not len(values):
                self.assume(name, worst, 0, worst, unit, f"{source}: none was seen")
        rows = np.column_stack([values for values, _, _ in columns.values()]).astype(float)
        if not len(rows):
            return
        if origin != ASSUMED:
            source = f"{source}, {len(rows)} rows"
        groups, counts = np.unique(rows, axis=0, return_counts=True)  # equal rows, taken together
        worst = [most for _, most, _ in columns.values()]
        if None not in worst:
            groups, counts = np.vstack([groups, worst]), np.append(counts, 0.5)
        weights, means = stats.dirichlet(counts), groups
        if len(groups) > 1:  # rows that are all alike leave nothing to draw
            means = weights.rvs(20_000, np.random.default_rng(0)) @ groups
        lows, highs = np.quantile(means, [0.05, 0.95], axis=0)
        for column, (name, (_, _, unit)) in enumerate(columns.items()):
            value = rows[:, column].mean()
            ends = min(lows[column], value), max(highs[column], value)
            of_groups = tuple(groups[:, column])
            self._enter(Input(name, value, *ends, unit, origin, source, weights, of_groups))

    def table(self, name: str, row: Mapping, column: str, unit: str) -> None:
        """A number from a dated row of helpers.pay.prices; drawn if the row has low and high.

        A row whose source begins with 'assumed' is an assumption, whatever table it stands in.
        """
        value = checked_number(row[column], name)  # a table without low and high is known
        ends = float(row.get("low") or value), float(row.get("high") or value)
        origin = ASSUMED if row["source"].startswith("assumed") else TABLE
        source = f"{row['source']}, {row['date']}, confidence {row['confidence']}"
        warning = age_warning(row, f"{name} ({row['source']})")
        self._enter(Input(name, value, *ends, unit, origin, source, age_warning=warning))

    def assume(self, name: str, value: float, low: float, high: float, unit: str, why: str) -> None:
        """The reader's own number with the least and the most to be believed, a triangle."""
        self._enter(Input(name, value, low, high, unit, ASSUMED, why))

    def within_factor(
        self, name: str, value: float, factor: float, unit: str, source: str, origin: str = ASSUMED
    ) -> None:
        """A number that is within `factor` of the truth nine times of ten; drawn lognormally."""
        value = checked_number(value, name, above_zero=True)
        if checked_number(factor, f"The factor of {name}") < 1:
            cure = "write 2 for 'half or double', 1 for 'known exactly'"
            raise CourseError(f"The factor of {name} is {factor:g}; {cure}.")
        ends = value / factor, value * factor
        drawn = stats.lognorm(np.log(factor) / EDGE, scale=value)
        self._enter(Input(name, value, *ends, unit, origin, source, drawn))

    def computed(self, name: str, value: float, unit: str, how: str) -> None:
        """A number that follows from others; not drawn."""
        self._enter(Input(name, value, value, value, unit, COMPUTED, how))

    def fixed(self, **values: float) -> "Inputs":
        """A copy in which these inputs are known exactly; the others keep their ranges."""
        copy = Inputs(self.currency)
        copy.update(self)  # the same order, so the other inputs' draws stay as they are
        for name, value in values.items():
            if name not in self:
                raise CourseError(f"There is no input {name!r}; there are {', '.join(self)}.")
            copy._enter(replace(self[name], value=value, low=value, high=value))
        return copy

    def draw(self, size: int = 50_000, seed: int = 0) -> dict[str, Any]:
        """{name: array of shape (size,), or a float that is known} for CostModel.run."""
        stream = np.random.default_rng(seed)
        drawn: dict[str, Any] = {}

        @cache  # columns that were entered together share one distribution, and so their weights
        def draw_once(distribution: Any) -> np.ndarray:
            return distribution.rvs(size, random_state=stream)

        for name, one in self.items():
            drawn[name] = one.value
            if one.distribution:
                drawn[name] = draw_once(one.distribution)
                if one.values:
                    drawn[name] = drawn[name] @ np.array(one.values)
            if one.unit == "share":
                drawn[name] = np.minimum(drawn[name], 1.0)
        return drawn

    def as_table(self, names: Iterable[str]) -> pd.DataFrame:
        """These inputs as a table to be read: value, range, unit, kind of knowledge, origin."""
        rows = {}
        for name in names:
            one, ends = self[name], ""
            if one.low < one.high:
                ends = f"{plain_number(one.low)} to {plain_number(one.high)}"
            rows[name] = plain_number(one.value), ends, one.unit, one.origin, one.source
        head = ["value", "range", "unit", "kind of knowledge", "where it comes from"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=head)

    def _enter(self, one: Input) -> None:
        """Check an input and take it in; a range without a distribution becomes a triangle."""
        if not re.fullmatch(r"(?=.{4})[a-z]+(_[a-z]+)*", one.name):
            cure = (
                "small letters and _ only, four or more, so that a spreadsheet takes it for a name"
            )
            raise CourseError(f"An input cannot be called {one.name!r}: {cure}.")
        for place, value in {"": one.value, ", low end,": one.low, ", high end,": one.high}.items():
            checked_number(value, one.name + place)
            if one.unit == "share" and value > 1:
                cure = f"a share lies between 0 and 1: write {value / 100:g} for {value:g} %"
                raise CourseError(f"{one.name}{place} is {value:g}; {cure}.")
        value, low, high = float(one.value), float(one.low), float(one.high)
        if not low <= value <= high:
            outside = f"outside its own range {low:g} to {high:g}"
            raise CourseError(f"{one.name} is {value:g}, {outside}; put the three in order.")
        drawn = one.distribution
        if low == high:
            drawn = None  # known exactly
        elif drawn is None:
            top = (value - low) / (high - low)  # scipy wants the mode between 0 and 1
            drawn = stats.triang(top, loc=low, scale=high - low)
        self[one.name] = replace(one, value=value, low=low, high=high, distribution=drawn)


def plain_number(value: float) -> str:
    """A number as a reader wants it: whole from 1,000 on, else three digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

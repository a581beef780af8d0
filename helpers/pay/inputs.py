"""The numbers a cost model starts from: origin, how far they may be off, how they are drawn."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    """One number of the model. `origin`: what kind of knowledge it is; `distribution`: how Monte
    Carlo draws it, None for a number that is known. With `values`, one for each group of equal
    rows, the distribution draws the groups' weights and the input is their weighted mean.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    origin: str
    source: str
    distribution: Any = field(default=None, compare=False)
    values: tuple = field(default=(), compare=False)


class Inputs(dict):
    """{name: Input} in the order they were entered, in one `currency`, that of the bar.

    A unit that is 'share' keeps its number between 0 and 1. Every method raises CourseError with
    the input's name. The order counts: all inputs are drawn from one stream of random numbers.
    """

    def __init__(self, currency: str) -> None:
        super().__init__()
        self.currency = currency
        self.age_warnings: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        """Sentences that belong beside every result: old prices, ranges wider than their value."""
        few_rows, guesses = [], []
        for one in self.values():
            if one.high - one.low > one.value:
                seen = one.origin in (MEASURED, COUNTED)
                (few_rows if seen else guesses).append(one.name)
        notes, wide = list(self.age_warnings.values()), "The range is wider than the value for"
        if few_rows:
            notes.append(f"{wide} {', '.join(few_rows)}: too few rows to say it better.")
        if guesses:
            notes.append(f"{wide} {', '.join(guesses)}: guesses that the result leans on.")
        return notes

    def share(self, name: str, right: Sequence[bool], source: str) -> None:
        """A measured share of rows, from a bool sequence; drawn from Beta(k + 1/2, n - k + 1/2).

        Jeffreys' prior stays sensible for none and for all right (Brown, Cai and DasGupta 2001).
        """
        right = np.asarray(right, dtype=bool)
        n, k = int(right.size), int(right.sum())
        if not n:
            raise CourseError(
                f"{name} has no rows to be measured on; run the chapter that makes the answers."
            )
        drawn = stats.beta(k + 0.5, n - k + 0.5)
        low, high = drawn.ppf([0.05, 0.95])
        ends = min(low, k / n), max(high, k / n)  # the prior pulls to 1/2; the range holds k / n
        source = f"{source}, {k} of {n} rows"
        self._enter(Input(name, k / n, *ends, "share", MEASURED, source, drawn))

    def priced(self, columns: Mapping[str, tuple], source: str, origin: str = COUNTED) -> None:
        """Means over the same rows, {name: (values (rows,), the worst or None, unit)}.

        Drawn by weighing the rows anew (Rubin's Bayesian bootstrap, 1981), the same weights for all
        columns: a row that is expensive in minutes often is so in money. Half a row with the worst
        values is drawn beside them (as Jeffreys' half): what was not seen can still come. With no
        row at all the worst is assumed.
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
        if origin != ASSUMED:
            source = f"{source}, {len(rows)} rows"
        if len(rows):
            self._enter_means(columns, rows, source, origin)

    def _enter_means(
        self, columns: Mapping[str, tuple], rows: np.ndarray, source: str, origin: str
    ) -> None:
        groups, counts = np.unique(rows, axis=0, return_counts=True)  # equal rows, taken together
        # Jeffreys' half row: the worst of all columns, seen half a time
        worst = [most for _, most, _ in columns.values()]
        if None not in worst:
            groups, counts = np.vstack([groups, worst]), np.append(counts, 0.5)
        weights, means = stats.dirichlet(counts), groups
        if len(groups) > 1:  # rows that are all alike leave nothing to draw
            means = weights.rvs(20_000, np.random.default_rng(0)) @ groups
        for column, (name, (values, _, unit)) in enumerate(columns.items()):
            value = float(np.mean(values))
            low, high = np.quantile(means[:, column], [0.05, 0.95])
            ends, of_groups = (min(low, value), max(high, value)), tuple(groups[:, column])
            self._enter(Input(name, value, *ends, unit, origin, source, weights, of_groups))

    def table(self, name: str, row: Mapping, column: str, unit: str) -> None:
        """A number from a dated row of helpers.pay.prices; drawn if the row has low and high.

        A row whose source begins with 'assumed' is an assumption, whatever table it stands in.
        """
        self.age_warnings.pop(name, None)  # a new price takes the old warning away
        warning = age_warning(row, f"{name} ({row['source']})")
        if warning:
            self.age_warnings[name] = warning
        value = checked_number(row[column], name)  # a table without low and high is known
        ends = float(row.get("low") or value), float(row.get("high") or value)
        source = f"{row['source']}, {row['date']}, confidence {row['confidence']}"
        origin = ASSUMED if row["source"].startswith("assumed") else TABLE
        self._enter_triangle(Input(name, value, *ends, unit, origin, source))

    def assume(self, name: str, value: float, low: float, high: float, unit: str, why: str) -> None:
        """The reader's own number with the least and the most to be believed, a triangle."""
        self._enter_triangle(Input(name, value, low, high, unit, ASSUMED, why))

    def within_factor(
        self, name: str, value: float, factor: float, unit: str, source: str, origin: str = ASSUMED
    ) -> None:
        """A number that is within `factor` of the truth nine times of ten; drawn lognormally."""
        value = checked_number(value, name, above_zero=True)
        if checked_number(factor, f"The factor of {name}") < 1:
            raise CourseError(
                f"The factor of {name} is {factor:g}; write 2 for 'half or double', "
                "1 for 'known exactly'."
            )
        high = value * factor
        if unit == "share":  # the draws are cut at 1 as well
            high = min(high, 1.0)
        drawn = stats.lognorm(np.log(factor) / EDGE, scale=value)
        self._enter(Input(name, value, value / factor, high, unit, origin, source, drawn))

    def computed(self, name: str, value: float, unit: str, how: str) -> None:
        """A number that follows from others; not drawn."""
        self._enter(Input(name, value, value, value, unit, COMPUTED, how))

    def fixed(self, **values: float) -> "Inputs":
        """A copy in which these inputs are known exactly; the others keep their ranges."""
        copy = Inputs(self.currency)
        copy.age_warnings = dict(self.age_warnings)
        copy.update(self)  # the same order, so the other inputs' draws stay as they are
        for name, value in values.items():
            if name not in self:
                raise CourseError(f"There is no input {name!r}; there are {', '.join(self)}.")
            known = replace(self[name], value=value, low=value, high=value)
            copy[name] = copy._checked(known)
        return copy

    def draw(self, size: int = 50_000, seed: int = 0) -> dict[str, Any]:
        """{name: array of shape (size,), or a float that is known} for CostModel.run."""
        stream = np.random.default_rng(seed)
        drawn, weights = {}, {}
        for name, one in self.items():
            if one.distribution is None:
                drawn[name] = one.value
                continue
            # columns that were entered together share one distribution, and so one draw of weights
            draws = weights.get(id(one.distribution))
            if draws is None:
                draws = one.distribution.rvs(size, random_state=stream)
            if one.values:
                weights[id(one.distribution)] = draws
                draws = draws @ np.array(one.values)
            drawn[name] = np.minimum(draws, 1.0) if one.unit == "share" else draws
        return drawn

    def as_table(self, names: Sequence[str]) -> pd.DataFrame:
        """These inputs as a table to be read: value, range, unit, kind of knowledge, origin."""
        rows = []
        for one in (self[name] for name in names):
            ends = f"{plain_number(one.low)} to {plain_number(one.high)}"
            if one.low == one.high:
                ends = ""
            rows.append([plain_number(one.value), ends, one.unit, one.origin, one.source])
        head = ["value", "range", "unit", "kind of knowledge", "where it comes from"]
        return pd.DataFrame(rows, list(names), head)

    def _enter_triangle(self, one: Input) -> None:
        one = self._checked(one)
        width = one.high - one.low
        if width > 0:
            top = (one.value - one.low) / width  # scipy wants the mode between 0 and 1
            one = replace(one, distribution=stats.triang(top, loc=one.low, scale=width))
        self._enter(one)

    def _enter(self, one: Input) -> None:
        if not re.fullmatch(r"[a-z]+(_[a-z]+)*", one.name) or len(one.name) < 4:
            raise CourseError(
                f"An input cannot be called {one.name!r}: small letters and _ only, four or more, "
                "so that a spreadsheet takes it for a name."
            )
        self[one.name] = self._checked(one)

    def _checked(self, one: Input) -> Input:
        """The input with plain floats; what has no range is not drawn."""
        ends = {"": one.value, ", low end,": one.low, ", high end,": one.high}
        for place, value in ends.items():
            checked_number(value, one.name + place)
            if one.unit == "share" and value > 1:
                raise CourseError(
                    f"{one.name}{place} is {value:g}; a share lies between 0 and 1: "
                    f"write {value / 100:g} for {value:g} %."
                )
        if not one.low <= one.value <= one.high:
            raise CourseError(
                f"{one.name} is {one.value:g}, outside its own range {one.low:g} to "
                f"{one.high:g}; put low, value and high in order."
            )
        drawn = one.distribution if one.low < one.high else None
        value, low, high = float(one.value), float(one.low), float(one.high)
        return replace(one, value=value, low=low, high=high, distribution=drawn)


def plain_number(value: float) -> str:
    """A number as a reader wants it: whole from 1,000 on, else three digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

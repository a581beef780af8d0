"""The numbers a cost model starts from: each says where it comes from, how far it may be off, and how it is drawn."""

import re
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import beta, norm

from helpers import CourseError
from helpers.pay.prices import number, stale

MEASURED, TABLE, ASSUMED, COMPUTED = "measured", "dated table", "assumed: change me", "computed"
COUNTED = "measured counts x assumed prices"
EDGE = norm.isf(
    0.05
)  # low and high are the 5th and 95th percentile of what is drawn, of a triangle its ends


@dataclass(frozen=True)
class Input:
    """One number of the model. `origin` says what kind of knowledge it is, `shape` how Monte Carlo draws it:

    fixed; beta (a share; data: right, rows); rows (a mean; data: different values, their counts, the names drawn together); triangular
    between low and high; lognormal.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    origin: str
    source: str
    shape: str = "fixed"
    data: tuple = ()

    def draw(self, rng, size, weights):
        """`size` draws as an array, or the value itself where nothing is drawn. `weights`: {names: those of rows drawn before}."""
        if self.shape == "fixed":
            return self.value
        if self.shape == "beta":  # Jeffreys: stays sensible for none and for all right
            return rng.beta(self.data[0] + 0.5, self.data[1] - self.data[0] + 0.5, size)
        if self.shape == "rows":  # the Bayesian bootstrap (Rubin 1981), equal values taken together
            values, counts, names = self.data
            if names not in weights:
                weights[names] = rng.dirichlet(counts, size)
            return weights[names] @ np.array(values)
        if self.shape == "lognormal":
            drawn = rng.lognormal(np.log(self.value), np.log(self.value / self.low) / EDGE, size)
            return np.minimum(drawn, 1.0) if self.unit == "share" else drawn
        return rng.triangular(self.low, self.value, self.high, size)


class Inputs(dict):
    """{name: Input} in the order they were entered, in one `currency`, that of the bar.

    A unit that is 'share' keeps its number between 0 and 1. Every method raises CourseError with the input's name.
    """

    def __init__(self, currency):
        super().__init__()
        self.currency, self.old = currency, []

    @property
    def notes(self):
        """Sentences that belong beside every result: old prices, and ranges wider than their own value."""
        wide = {
            kind: [
                one.name
                for one in self.values()
                if one.high - one.low > one.value and (one.origin in (MEASURED, COUNTED)) is kind
            ]
            for kind in (True, False)
        }
        few = (
            [
                f"The range is wider than the value for {', '.join(wide[True])}: too few rows to say it better."
            ]
            if wide[True]
            else []
        )
        return (
            self.old
            + few
            + (
                [
                    f"The range is wider than the value for {', '.join(wide[False])}: guesses that the result leans on."
                ]
                if wide[False]
                else []
            )
        )

    def share(self, name, right, source):
        """A measured share of rows, from a bool sequence; drawn from Beta(k + 1/2, n - k + 1/2)."""
        right = np.asarray(right, dtype=bool)
        if not right.size:
            raise CourseError(
                f"{name} has no rows to be measured on; run the chapter that makes the answers."
            )
        k, n = int(right.sum()), int(right.size)
        low, high = beta.ppf([0.05, 0.95], k + 0.5, n - k + 0.5)
        self._enter(
            Input(
                name,
                k / n,
                min(low, k / n),
                max(high, k / n),
                "share",
                MEASURED,
                f"{source}, {k} of {n} rows",
                "beta",
                (k, n),
            )
        )

    def mean(self, name, values, unit, source):
        """A measured mean over rows, shape (rows,); drawn by weighing the rows anew."""
        self._means({name: (values, None, unit)}, source, MEASURED)

    def priced(self, columns, source):
        """Means of counted errors at assumed prices, {name: (values of shape (rows,), the worst value, unit)}, all over the same rows.

        They are drawn together: one weight a row for all of them, because a row that is expensive in minutes often is so in money.
        Half a row with the worst values is drawn beside them (as Jeffreys' half), because what was not seen can still come; the value
        stays the mean of the rows.
        """
        self._means(columns, source, COUNTED)

    def _means(self, columns, source, origin):
        for name, (values, _, _) in columns.items():
            if not len(values):
                raise CourseError(
                    f"{name} has no rows to be measured on; write an assumption instead."
                )
            for v in values:
                number(float(v), f"A row of {name}")
        rows = np.column_stack([np.asarray(values, float) for values, _, _ in columns.values()])
        found, counts = np.unique(rows, axis=0, return_counts=True)
        worst = [
            number(most, f"The worst of {name}")
            for name, (_, most, _) in columns.items()
            if most is not None
        ]
        if worst:
            found, counts = np.vstack([found, worst]), np.append(counts, 0.5)
        drawn = (
            np.random.default_rng(0).dirichlet(counts, 20_000) @ found if len(found) > 1 else found
        )
        for i, (name, (values, _, unit)) in enumerate(columns.items()):
            low, high = map(float, np.quantile(drawn[:, i], [0.05, 0.95]))
            data = tuple(map(float, found[:, i])), tuple(map(float, counts)), tuple(columns)
            middle = float(np.mean(values))
            self._enter(
                Input(
                    name,
                    middle,
                    min(low, middle),
                    max(high, middle),
                    unit,
                    origin,
                    f"{source}, {len(rows)} rows",
                    "rows",
                    data,
                )
            )

    def measured(self, name, value, unit, source, factor=1.0):
        """A number that was measured once; `factor` says how far another run may be off nine times of ten (lognormal)."""
        self._spread(name, value, factor, unit, MEASURED, source)

    def table(self, name, row, column, unit):
        """A number from a dated row (see helpers.pay.prices), drawn from a triangle when the row has low and high.

        A row whose source begins with 'assumed' is an assumption, whatever table it stands in.
        """
        said = stale(row, f"{name} ({row['source']})")
        self.old = [note for note in self.old if not note.startswith(f"{name} (")] + [said] * bool(
            said
        )
        value, source = (
            number(row[column], name),
            f"{row['source']}, {row['date']}, confidence {row['confidence']}",
        )
        low, high = float(row.get("low") or value), float(row.get("high") or value)
        origin = ASSUMED if row["source"].startswith("assumed") else TABLE
        self._enter(Input(name, value, low, high, unit, origin, source, "triangular"))

    def assume(self, name, value, low, high, unit, why):
        """The reader's own number with the least and the most to be believed; drawn from a triangle with its top at the value."""
        self._enter(Input(name, value, low, high, unit, ASSUMED, why, "triangular"))

    def assume_factor(self, name, value, factor, unit, why):
        """The reader's own number that may be `factor` times too small or too large, nine times of ten (lognormal)."""
        self._spread(name, value, factor, unit, ASSUMED, why)

    def computed(self, name, value, unit, how):
        """A number that follows from others; not drawn."""
        self._enter(Input(name, value, value, value, unit, COMPUTED, how))

    def fixed(self, **values):
        """A copy in which these inputs have these values, known exactly; the rest keep their ranges."""
        made = Inputs(self.currency)
        made.old = [*self.old]
        for name in values:
            if name not in self:
                raise CourseError(f"There is no input {name!r}; there are {', '.join(self)}.")
        for name, old in self.items():
            value = values.get(name, old.value)
            made[name] = (
                made._checked(replace(old, value=value, low=value, high=value, shape="fixed"))
                if name in values
                else old
            )
        return made

    def draw(self, size=50_000, seed=0):
        """{name: array of shape (size,) or float} for Model.run."""
        rng, weights = np.random.default_rng(seed), {}
        return {name: one.draw(rng, size, weights) for name, one in self.items()}

    def _spread(self, name, value, factor, unit, origin, source):
        value = number(value, name, above_zero=True)
        if number(factor, f"The factor of {name}") < 1:
            raise CourseError(
                f"The factor of {name} is {factor:g}; write 2 for 'half or double', 1 for 'known exactly'."
            )
        high = min(value * factor, 1.0) if unit == "share" else value * factor
        self._enter(Input(name, value, value / factor, high, unit, origin, source, "lognormal"))

    def _enter(self, one):
        if not re.fullmatch(r"[a-z]+(_[a-z]+)*", one.name) or len(one.name) < 4:
            raise CourseError(
                f"An input cannot be called {one.name!r}: small letters and _ only, four or more, so that a spreadsheet "
                "takes it for a name."
            )
        self[one.name] = self._checked(one)

    def _checked(self, one):
        for part, value in (("", one.value), (", low end,", one.low), (", high end,", one.high)):
            number(value, one.name + part)
            if one.unit == "share" and value > 1:
                raise CourseError(
                    f"{one.name}{part} is {value:g}; a share lies between 0 and 1: write {value / 100:g} for {value:g} %."
                )
        if not one.low <= one.value <= one.high:
            raise CourseError(
                f"{one.name} is {one.value:g}, outside its own range {one.low:g} to {one.high:g}; put low, value and high "
                "in order."
            )
        return replace(
            one,
            value=float(one.value),
            low=float(one.low),
            high=float(one.high),
            shape=one.shape if one.low < one.high else "fixed",
        )

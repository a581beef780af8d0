"""Which records a person checks: those whose errors are expected to cost more than the check.

A record that nobody checks costs what its errors cost. A check costs minutes, and the person
catches only a share of the wrong records. All prices are those of the pilot's cost table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

from helpers.core.pilot import Pilot
from helpers.core.plots import ACCENT, INK, SOFT, new_axes, set_title
from helpers.measure import baselines
from helpers.measure.error_costs import error_kinds
from helpers.measure.scoring import same_value
from helpers.measure.system import Reading, System
from helpers.pay.error_prices import Costs, check_costs

FLOOR = 0.005  # no chance is closer to 0 or to 1: so few rows cannot show it


@dataclass(frozen=True)
class Review:
    """Who checks the records of a System; made by `choose_review`.

    `curves`: {copied field: (intercept, slope)} of the chance that its value is right, a logistic
    curve on the log odds that the model gives to the value.
    """

    system: System
    costs: Costs
    curves: dict[str, tuple[float, float]]

    def chances(self, readings: Mapping[str, Reading]) -> dict[str, np.ndarray]:
        """{field: shape (texts,)}: how likely each value of the system's records is right."""
        tables, chances = self.system.probabilities(readings), {}
        records = self.system.records(readings)
        for field in self.system.pilot.fields:
            if field in tables:
                chances[field] = tables[field].max(axis=1)
            else:
                intercept, slope = self.curves[field]
                odds = _log_odds(field, records, readings)
                chances[field] = 1 / (1 + np.exp(-(intercept + slope * odds)))
            chances[field] = np.clip(chances[field], FLOOR, 1 - FLOOR)
        return chances

    def expected_cost(self, readings: Mapping[str, Reading]) -> np.ndarray:
        """Money that each record's errors are expected to cost when nobody checks: (texts,)."""
        pilot, records = self.system.pilot, self.system.records(readings)
        chances, tables = self.chances(readings), self.system.probabilities(readings)
        cost = np.zeros(len(records))
        for field in pilot.fields:
            for place, record in enumerate(records):
                if field in tables:
                    wrong = _label_risk(pilot, self.costs, field, record, tables[field][place])
                else:
                    price = _price_of_copy(self.costs, field, record[field])
                    wrong = (1 - chances[field][place]) * price
                cost[place] += wrong
        return cost

    def needed(self, readings: Mapping[str, Reading]) -> np.ndarray:
        """True where a person should check: bool, (texts,)."""
        return self.expected_cost(readings) * self.costs.caught > self.costs.review


def choose_review(
    system: System, rows: baselines.Rows, readings: Mapping[str, Reading], costs: Costs
) -> Review:
    """The Review of `system`, from labelled `rows` and `readings` by ways that did not learn them.

    Who checks follows from prices alone; the rows only say how far the chances of copied
    values may be believed.
    """
    pilot = system.pilot
    costs, curves = check_costs(pilot, costs), {}
    records = system.records(readings)
    for field in pilot.fields:
        if field not in pilot.labels:
            odds = _log_odds(field, records, readings)
            right = [same_value(one[field], row[field]) for one, row in zip(records, rows)]
            curves[field] = _curve(odds, np.array(right))
    return Review(system, costs, curves)


def _curve(odds: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """(intercept, slope) of a logistic curve; half a row of each kind keeps it from certainty."""
    middle = np.median(odds)
    x = np.append(odds, [middle, middle])[:, None]
    y = np.append(right, [True, False])
    weights = np.append(np.ones(len(right)), [0.5, 0.5])
    fitted = LogisticRegression(C=1.0).fit(x, y, sample_weight=weights)
    # a curve that falls would say that the model is right where it doubts
    slope = max(0.0, float(fitted.coef_[0, 0]))
    if slope == 0:
        share = np.average(y, weights=weights)
        return float(np.log(share / (1 - share))), 0.0
    return float(fitted.intercept_[0]), slope


def _log_odds(
    field: str, records: Sequence[Mapping], readings: Mapping[str, Reading]
) -> np.ndarray:
    """Log odds that the models give to each record's value: (texts,); 0 where there is none.

    Where the way that was chosen and a model differ, the model's chance counts against the value.
    """
    total = np.zeros(len(records))
    for reading in readings.values():
        if field not in reading.sure:
            continue
        chance = np.clip(reading.sure[field], FLOOR, 1 - FLOOR)
        for place, record in enumerate(records):
            agrees = same_value(reading.records[place].get(field), record[field])
            odds = np.log(chance[place] / (1 - chance[place]))
            total[place] += odds if agrees else -abs(odds)
    return total


def _label_risk(
    pilot: Pilot, costs: Costs, field: str, record: Mapping, shares: np.ndarray
) -> float:
    """Money: the chance of every other label, times what it costs to have missed that one."""
    risk, said = 0.0, record[field]
    for truth, share in zip(baselines.label_classes(pilot, field), shares):
        if truth != said:
            row = {**record, field: truth}
            kinds = error_kinds(pilot, row, dict(record), costs.errors)
            risk += max(float(share), FLOOR) * sum(costs.of(kind) for kind in kinds)
    return risk


def _price_of_copy(costs: Costs, field: str, value: str | None) -> float:
    """Money for the dearest error that this value of a copied field can be."""
    kinds = ["wrong", "extra"]
    if value is None:
        kinds = ["empty"]
    prices = [costs.of(f"{field}.{kind}") for kind in kinds if f"{field}.{kind}" in costs.errors]
    return max(prices, default=0.0)


def draw_checks(
    expected: np.ndarray, right: np.ndarray, line: float, currency: str, title: str = ""
) -> Figure:
    """Each record at the money that its errors are expected to cost, both of shape (texts,).

    Left of `line` nobody checks; wrong records are in colour.
    """
    order = np.argsort(expected)
    figure, axes = new_axes()
    for wanted, colour, words in ((True, SOFT, "right"), (False, ACCENT, "wrong")):
        at = np.flatnonzero(right[order] == wanted)
        axes.plot(expected[order][at], at, "o", color=colour, markersize=4, label=words)
    axes.axvline(line, color=INK, linestyle="--", linewidth=1)
    axes.set(xscale="log", ylabel="messages")
    set_title(figure, title)
    axes.set_xlabel(f"{currency} that its errors are expected to cost")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure

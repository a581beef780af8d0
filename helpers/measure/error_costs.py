"""The errors of a record, and what a way with such errors is expected to cost."""

import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from helpers import CourseError
from helpers.core.pilot import Pilot
from helpers.measure.intervals import bootstrap_interval
from helpers.measure.scoring import same_value
from helpers.pay.error_prices import Costs, check_costs
from helpers.pay.error_prices import default_costs as default_costs  # so chapters need one import

Records = Sequence[dict | None]
Interval = tuple[float, float, float]  # value, low, high


def error_kinds(
    pilot: Pilot, row: dict, record: dict | None, named: Collection[str] = ()
) -> list[str]:
    """What is wrong with one record, at most one kind a field; empty for an exact record.

    A value that was overlooked is a kind of its own where `named` has `<field>.missed.<value>`.
    """
    if record is None or set(record) != set(pilot.fields):
        return ["invalid"]  # a person must read the message
    kinds = []
    for name, spec in pilot.fields.items():
        value, truth = record[name], row[name]
        if same_value(value, truth):
            continue
        if f"{name}.missed.{truth}" in named:
            kinds.append(f"{name}.missed.{truth}")
        elif truth is None:
            kinds.append(f"{name}.extra")  # a value where none belongs
        elif value is None and spec.optional:
            kinds.append(f"{name}.empty")  # nothing where a value stood
        else:
            kinds.append(f"{name}.wrong")  # another value
    return kinds


@dataclass(frozen=True)
class Cost:
    """Expected cost per 1,000 messages with a bootstrap interval."""

    value: float
    low: float
    high: float
    n: int
    currency: str
    by_kind: dict[str, tuple[int, float]]  # number of errors, money per 1,000 messages
    by_field: dict[str, Interval]  # money per 1,000 messages

    def __str__(self) -> str:
        interval = f"[{self.low:,.0f}, {self.high:,.0f}]"
        return f"{self.value:7,.0f} {self.currency}  {interval} per 1,000 messages, n={self.n}"

    @property
    def driver(self) -> tuple[str, bool] | None:
        """(most expensive field, still so without kinds seen fewer than five times), or None."""
        fields = sorted(self.by_field, key=lambda name: -self.by_field[name][0])
        if not fields:
            return None
        often = 0.0
        for kind, (count, money) in self.by_kind.items():
            if count >= 5 and kind.split(".")[0] == fields[0]:
                often += money
        runner_up = self.by_field[fields[1]][0] if fields[1:] else 0
        return fields[0], often > runner_up


def error_cost(
    pilot: Pilot,
    rows: Sequence[dict],
    records: Records,
    costs: dict | Costs,
    seed: int = 0,
    alpha: float = 0.05,
) -> Cost:
    """What a way with these `records` costs per 1,000 messages, with its interval at 1 - alpha."""
    costs = check_costs(pilot, costs)
    kinds_of = []
    for row, record in zip(rows, records, strict=True):
        kinds_of.append(error_kinds(pilot, row, record, costs.errors))
    each = [costs.per_1000(kinds) for kinds in kinds_of]
    value, low, high = (figure + costs.fixed for figure in _mean_interval(each, seed, alpha))
    by_kind, by_field = {}, {}
    for kind, count in Counter(itertools.chain(*kinds_of)).items():
        by_kind[kind] = count, 1000 * count * costs.of(kind) / len(kinds_of)
        field = kind.split(".")[0]
        if field not in by_field:
            own = [[each for each in kinds if each.split(".")[0] == field] for kinds in kinds_of]
            by_field[field] = _mean_interval(list(map(costs.per_1000, own)), seed, alpha)
    return Cost(value, low, high, len(each), costs.currency, by_kind, by_field)


def cost_difference(
    pilot: Pilot,
    rows: Sequence[dict],
    one: Records,
    other: Records,
    costs: dict | Costs,
    seed: int = 0,
) -> Interval:
    """(one - other, low, high) in money per 1,000 messages on the same labelled rows, paired."""
    # what every automated way is charged (costs.fixed) falls out
    costs = check_costs(pilot, costs)
    each = []
    for row, a, b in zip(rows, one, other, strict=True):
        price = costs.per_1000(error_kinds(pilot, row, a, costs.errors))
        each.append(price - costs.per_1000(error_kinds(pilot, row, b, costs.errors)))
    return _mean_interval(each, seed, 0.05)


def _mean_interval(each: Sequence[float], seed: int, alpha: float) -> Interval:
    """(mean, low, high) of money row by row: bootstrap over the rows, 5,000 draws."""
    if not len(each):
        raise CourseError("There are no rows to price.")
    return float(np.mean(each)), *bootstrap_interval(each, seed, 5000, alpha)

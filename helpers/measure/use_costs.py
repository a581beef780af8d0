"""What a way of use costs: checks, corrections, and the errors that nobody caught."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helpers.core.pilot import Pilot
from helpers.measure.error_costs import error_kinds
from helpers.measure.intervals import bootstrap_interval
from helpers.pay.error_prices import Costs


@dataclass(frozen=True)
class CostOfUse:
    """What a way of use costs per 1,000 messages, with its interval, and where the money goes.

    `unchecked` {kind of error: how often it went out without a check} over `n` rows.
    """

    value: float
    low: float
    high: float
    n: int
    currency: str
    reviewed: float
    parts: dict[str, float]
    unchecked: dict[str, int]

    def __str__(self) -> str:
        interval = f"[{self.low:,.0f}, {self.high:,.0f}]"
        return f"{self.value:7,.0f} {self.currency}  {interval} per 1,000 messages, n={self.n}"


def cost_of_use(
    pilot: Pilot,
    rows: Sequence[dict],
    records: Sequence[dict | None],
    reviewed: np.ndarray,
    costs: Costs,
    seed: int = 0,
    alpha: float = 0.05,
) -> CostOfUse:
    """What `records` cost when a person checks those in `reviewed` (bool, one a row).

    A check takes minutes; of the wrong records a share is caught and put right, in minutes again;
    every other error costs its full price. Interval: bootstrap over the rows, 5,000 draws.
    """
    each = money_of_use(pilot, rows, records, reviewed, costs)
    parts = {name: 1000 * float(values.mean()) for name, values in each.items()}
    total = np.sum(list(each.values()), axis=0)
    low, high = bootstrap_interval(1000 * total, seed, 5000, alpha)
    unchecked: dict[str, int] = {}
    for row, record, checked in zip(rows, records, reviewed, strict=True):
        for kind in [] if checked else error_kinds(pilot, row, record, costs.errors):
            unchecked[kind] = unchecked.get(kind, 0) + 1
    fixed, share = costs.fixed, float(np.mean(reviewed))
    value = 1000 * float(total.mean()) + fixed
    return CostOfUse(
        value, low + fixed, high + fixed, len(total), costs.currency, share, parts, unchecked
    )


def errors_by_kind(
    pilot: Pilot,
    rows: Sequence[dict],
    records: Sequence[dict | None],
    reviewed: np.ndarray,
    costs: Costs,
) -> dict[str, tuple[int, int]]:
    """{kind of error: (unchecked, checked)}, the dearest first."""
    kinds: dict[str, list[int]] = {}
    for row, record, seen in zip(rows, records, reviewed, strict=True):
        for kind in error_kinds(pilot, row, record, costs.errors):
            kinds.setdefault(kind, [0, 0])[int(seen)] += 1
    dearest = sorted(kinds, key=lambda kind: -costs.of(kind))
    return {kind: (kinds[kind][0], kinds[kind][1]) for kind in dearest}


def money_of_use(
    pilot: Pilot,
    rows: Sequence[dict],
    records: Sequence[dict | None],
    reviewed: np.ndarray,
    costs: Costs,
) -> dict[str, np.ndarray]:
    """{"checks", "corrections", "errors"}: money for each row, shape (rows,)."""
    money = {name: np.zeros(len(rows)) for name in ("checks", "corrections", "errors")}
    for place, (row, record) in enumerate(zip(rows, records, strict=True)):
        kinds = error_kinds(pilot, row, record, costs.errors)
        price = sum(costs.of(kind) for kind in kinds)
        if reviewed[place]:
            money["checks"][place] = costs.review
            if kinds:
                money["corrections"][place] = costs.caught * costs.fixing
            price *= 1 - costs.caught
        money["errors"][place] = price
    return money

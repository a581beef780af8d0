"""A result held against a bar: pass, fail or not enough rows, condition by condition."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from helpers.agree.paired import paired_interval
from helpers.agree.planning import rows_for_perfect, rows_for_zero_errors
from helpers.core.pilot import Pilot
from helpers.measure.error_costs import error_kinds
from helpers.measure.intervals import Comparison, compare, highest_rate
from helpers.measure.scoring import Scored
from helpers.measure.use_costs import CostOfUse, cost_of_use

if TYPE_CHECKING:
    from helpers.agree.bar import Bar

EXACT, COST = "exact record", "cost of use"


@dataclass(frozen=True)
class BarVerdict:
    """What judge_against found; prints as one line.

    `conditions`: {condition: shown, missed or open}. `needs_rows`: {open condition: rows that even
    a result without an error would need}. `n`: rows judged. `remarks`: what must be said beside it.
    """

    exact: Comparison
    cost: CostOfUse
    conditions: dict[str, str]
    needs_rows: dict[str, int]
    n: int
    bar: "Bar"
    remarks: list[str]

    @property
    def status(self) -> str:
        """'pass', 'fail' or 'not enough rows'."""
        # a condition that even a perfect result could not show on these rows is nobody's failure
        states = [state for name, state in self.conditions.items() if name not in self.needs_rows]
        all_rows_used = self.n >= self.bar.rows
        if "missed" in states or ("open" in states and all_rows_used):
            return "fail"
        if "open" in states or self.needs_rows or not all_rows_used:
            return "not enough rows"
        return "pass"

    def _headline(self) -> str:
        points, low, high = np.array([self.exact.difference, self.exact.low, self.exact.high]) * 100
        return (
            f"{self.status.upper()}: exact record {points:+.1f} points [{low:+.1f}, {high:+.1f}] "
            f"against {self.bar.baseline}, asked {100 * self.bar.margin:+g}"
        )

    def _reasons(self) -> list[str]:
        missed, not_shown, cannot = [], [], []
        for name, state in self.conditions.items():
            if state == "missed":
                missed.append(name)
            elif name in self.needs_rows:
                cannot.append(f"{name} (needs {self.needs_rows[name]} rows)")
            elif state == "open":
                not_shown.append(name)
        kinds = {"missed": missed, "not shown": not_shown, "these rows cannot show": cannot}
        return [f"{words}: {', '.join(names)}" for words, names in kinds.items() if names]

    def __str__(self) -> str:
        words = [self._headline(), *self._reasons()]
        if self.bar.max_cost_per_1000 is not None:
            limit = f"{self.bar.max_cost_per_1000:,.0f}"
            words.append(f"costs {str(self.cost).strip()}, at most {limit}")
        words.append(f"{self.n} rows, {self.bar.rows} agreed")
        return "; ".join([*words, *self.remarks])

    @property
    def brief(self) -> str:
        """The figure and the first reason."""
        return "; ".join([self._headline(), *self._reasons()[:1]])


def judge_against(
    bar: "Bar",
    pilot: Pilot,
    system: Scored,
    baseline: Scored,
    data: Sequence[dict],
    looks: int = 1,
    reviewed: np.ndarray | None = None,
) -> BarVerdict:
    """A BarVerdict on two Scored over the same labelled rows `data`.

    Pass: every interval lies on the good side and the agreed rows were used. Fail: one lies on the
    bad side, or the agreed rows did not show what they could have shown. Else: not enough rows.
    Every condition must hold, so no further correction is due for their number. Critical errors
    count where nobody checks (`reviewed` is False); the cost holds checks and what they miss.
    """
    if reviewed is None:
        reviewed = np.zeros(len(data), bool)
    # Bonferroni: each look, of those allowed or made, gets its share of alpha
    alpha = bar.alpha / max(looks, bar.looks)
    exact = tango_comparison(system.exact, baseline.exact, alpha)
    cost = cost_of_use(pilot, data, system.records, reviewed, bar.costs, alpha=alpha)
    # the ends of each interval, measured from the limit towards the good side
    ends = {EXACT: (exact.low - bar.margin, exact.high - bar.margin)}
    # rows on which a result without an error would show it, None where no number does
    rows = {EXACT: rows_for_perfect(1 - baseline.exact.mean(), bar.margin, alpha)}
    for name, may_lose in bar.secondary.items():
        gap = tango_comparison(system.right[name], baseline.right[name], alpha)
        ends[name] = (gap.low + may_lose, gap.high + may_lose)
        rows[name] = rows_for_perfect(1 - baseline.right[name].mean(), -may_lose, alpha)
    for kind, limit in bar.critical.items():
        low, high = _rate(pilot, data, system.records, reviewed, kind)
        ends[kind] = (limit - high, limit - low)
        rows[kind] = rows_for_zero_errors(limit)
    if bar.max_cost_per_1000 is not None:
        ends[COST] = (bar.max_cost_per_1000 - cost.high, bar.max_cost_per_1000 - cost.low)

    conditions, needs_rows = {}, {}
    for name, (low, high) in ends.items():
        conditions[name] = "shown"
        if low < 0:
            conditions[name] = "missed" if high < 0 else "open"
        needed = rows.get(name) or 0  # the cost of errors has no such number
        if conditions[name] == "open" and needed > len(data):
            needs_rows[name] = needed
    remarks = list(bar.remarks)
    if looks > bar.looks:
        remarks.insert(0, f"looked {looks} times, {bar.looks} agreed")
    return BarVerdict(exact, cost, conditions, needs_rows, len(data), bar, remarks)


def _rate(
    pilot: Pilot, data: Sequence[dict], records: list, reviewed: np.ndarray, kind: str
) -> tuple[float, float]:
    """(low, high) of how often this error goes out unchecked, one-sided exact limits."""
    count, n = 0, len(data)
    for row, record, checked in zip(data, records, reviewed, strict=True):
        count += not checked and kind in error_kinds(pilot, row, record, (kind,))
    # Wilson's interval is too hopeful for rare errors; Clopper and Pearson's never is
    return 1 - highest_rate(n - count, n), highest_rate(count, n)


def tango_comparison(a: np.ndarray, b: np.ndarray, alpha: float = 0.05) -> Comparison:
    """compare(a, b) with Tango's interval at 1 - alpha instead of the bootstrap."""
    comparison = compare(a, b)
    low, high = paired_interval(comparison.only_a, comparison.only_b, comparison.n, alpha)
    return replace(comparison, low=low, high=high)

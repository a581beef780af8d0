"""A result held against a bar: pass, fail or not enough rows, condition by condition."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from helpers.core.pilot import Pilot
from helpers.measure.error_costs import Cost, error_cost, error_kinds
from helpers.measure.intervals import (
    Comparison,
    Share,
    compare,
    highest_rate,
    paired_interval,
    share,
)
from helpers.measure.planning import rows_for_perfect, rows_for_zero_errors
from helpers.measure.scoring import Scored

if TYPE_CHECKING:
    from helpers.agree.bar import Bar

EXACT, COST = "exact record", "cost of errors"


@dataclass(frozen=True)
class BarVerdict:
    """`status`: pass, fail or not enough rows; prints as one line.

    `conditions`: {condition: shown, missed or open}. `needs_rows`: {open condition: rows that even
    a result without an error would need}. `n`: rows judged. `remarks`: what must be said beside it.
    """

    status: str
    exact: Comparison
    cost: Cost
    conditions: dict[str, str]
    needs_rows: dict[str, int | None]
    n: int
    bar: "Bar"
    remarks: list[str]

    def _headline(self) -> str:
        points, low, high = np.array([self.exact.difference, self.exact.low, self.exact.high]) * 100
        return (
            f"{self.status.upper()}: exact record {points:+.1f} points [{low:+.1f}, {high:+.1f}] "
            f"against {self.bar.baseline}, asked {100 * self.bar.margin:+g}"
        )

    def _reasons(self) -> list[str]:
        """What was missed, what was not shown, what these rows cannot show: those that exist."""
        names: dict[str, list[str]] = {"missed": [], "open": [], "shown": []}
        for name, state in self.conditions.items():
            if name not in self.needs_rows:
                names[state].append(name)
        reasons = []
        if names["missed"]:
            reasons.append(f"missed: {', '.join(names['missed'])}")
        if names["open"]:
            reasons.append(f"not shown: {', '.join(names['open'])}")
        if self.needs_rows:
            reasons.append(f"these rows cannot show: {rows_in_words(self.needs_rows)}")
        return reasons

    def __str__(self) -> str:
        words = [self._headline(), *self._reasons()]
        limit = self.bar.max_cost_per_1000
        if limit is not None:
            words.append(f"costs {str(self.cost).strip()}, at most {limit:,.0f}")
        words.append(f"{self.n} rows, {self.bar.rows} agreed")
        return "; ".join([*words, *self.remarks])

    @property
    def brief(self) -> str:
        """The figure and the first reason."""
        return "; ".join([self._headline(), *self._reasons()[:1]])


def judge_against(
    bar: "Bar", pilot: Pilot, tuned: Scored, baseline: Scored, data: Sequence[dict], looks: int = 1
) -> BarVerdict:
    """A BarVerdict on two Scored over the same labelled rows `data`.

    Pass: every interval lies on the good side and the agreed rows were used. Fail: one lies on the
    bad side, or the agreed rows did not show what they could have shown. Else: not enough rows.
    Every condition must hold, so no further correction is due for their number.
    """
    # Bonferroni: each look, of those allowed or made, gets its share of alpha
    alpha = bar.alpha / max(looks, bar.looks)
    exact = tango_comparison(tuned.exact, baseline.exact, alpha)
    cost = error_cost(pilot, data, tuned.records, bar.costs, alpha=alpha)
    # the ends of each interval, measured from the limit towards the good side
    ends = {EXACT: (exact.low - bar.margin, exact.high - bar.margin)}
    wrong = {EXACT: 1 - baseline.exact.mean()}
    for name, may_lose in bar.secondary.items():
        gap = tango_comparison(tuned.right[name], baseline.right[name], alpha)
        ends[name] = (gap.low + may_lose, gap.high + may_lose)
        wrong[name] = 1 - baseline.right[name].mean()
    for kind, limit in bar.critical.items():
        rate = _rate(pilot, data, tuned.records, kind)
        ends[kind] = (limit - rate.high, limit - rate.low)
    if bar.max_cost_per_1000 is not None:
        ends[COST] = (bar.max_cost_per_1000 - cost.high, bar.max_cost_per_1000 - cost.low)

    conditions = {name: _state(low, high) for name, (low, high) in ends.items()}
    needs_rows: dict[str, int | None] = {}
    for name, rows in rows_without_error(bar, wrong, alpha).items():
        if conditions[name] == "open" and rows and rows > len(data):
            needs_rows[name] = rows
    remarks = list(bar.remarks)
    if looks > bar.looks:
        remarks.insert(0, f"looked {looks} times, {bar.looks} agreed")
    status = _status(conditions, needs_rows, len(data) >= bar.rows)
    return BarVerdict(status, exact, cost, conditions, needs_rows, len(data), bar, remarks)


def rows_without_error(bar: "Bar", wrong: dict[str, float], alpha: float) -> dict[str, int | None]:
    """{condition: rows on which a result without an error shows it, None for 'no number does'}.

    `wrong`: {condition: share of rows where the baseline is wrong}, for the record and each field.
    """
    rows = {EXACT: rows_for_perfect(wrong[EXACT], bar.margin, alpha)}
    for name, may_lose in bar.secondary.items():
        rows[name] = rows_for_perfect(wrong[name], -may_lose, alpha)
    for kind, limit in bar.critical.items():
        rows[kind] = rows_for_zero_errors(limit)
    return rows


def _state(low: float, high: float) -> str:
    if low >= 0:
        return "shown"
    return "missed" if high < 0 else "open"


def _status(
    conditions: dict[str, str], needs_rows: dict[str, int | None], all_rows_used: bool
) -> str:
    # a condition that even a perfect result could not show on these rows is nobody's failure
    states = set(conditions.values())
    could_be_shown = {name for name, state in conditions.items() if state == "open"}
    could_be_shown -= set(needs_rows)
    if "missed" in states or (could_be_shown and all_rows_used):
        return "fail"
    if "open" in states or not all_rows_used:
        return "not enough rows"
    return "pass"


def _rate(pilot: Pilot, data: Sequence[dict], records: list, kind: str) -> Share:
    """How often an error of this kind happened, with one-sided exact limits."""
    hits = []
    for row, record in zip(data, records, strict=True):
        hits.append(kind in error_kinds(pilot, row, record, (kind,)))
    # Wilson's interval is too hopeful for rare errors; Clopper and Pearson's never is
    n, count = len(hits), sum(hits)
    return replace(share(hits), low=1 - highest_rate(n - count, n), high=highest_rate(count, n))


def tango_comparison(a: np.ndarray, b: np.ndarray, alpha: float = 0.05) -> Comparison:
    """compare(a, b) with Tango's interval at 1 - alpha instead of the bootstrap."""
    comparison = compare(a, b)
    low, high = paired_interval(comparison.only_a, comparison.only_b, comparison.n, alpha)
    return replace(comparison, low=low, high=high)


def rows_in_words(needs_rows: dict[str, int | None]) -> str:
    """{condition: rows it needs, None for 'no number'} in words."""
    words = []
    for name, rows in needs_rows.items():
        needs = f"needs {rows} rows" if rows else "no number of rows does"
        words.append(f"{name} ({needs})")
    return ", ".join(words)

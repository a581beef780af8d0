"""Go, no-go or label more: ways of use held against one another, and against people's work."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helpers import CourseError
from helpers.agree.verdict import BarVerdict
from helpers.core.pilot import Pilot
from helpers.measure.intervals import Share, bootstrap_interval, highest_rate
from helpers.measure.scoring import Scored
from helpers.measure.use_costs import CostOfUse, cost_of_use, money_of_use
from helpers.pay.error_prices import Costs

GO, NO_GO, MORE = "GO", "NO-GO", "LABEL MORE ROWS"
FEWEST_TO_DECIDE = 50  # test rows; below, no answer but "label more"
MOST_TO_ASK = 2_000  # rows; more to label is a no
POWER = ((1.96 + 0.84) / 1.96) ** 2  # times the rows: from one case in two to four in five
LEAST_RIGHT = 0.5  # share of exact records; below, a check means to read the message anew


@dataclass(frozen=True)
class WayOfUse:
    """A way of use: its records against the labels, and True where a person checks: (rows,)."""

    scored: Scored
    checked: np.ndarray


@dataclass(frozen=True)
class Decision:
    """The answer for whoever signs; prints as lines.

    `way`: the way of use that is judged. `rows`: test rows to label, 0 where none are asked for.
    `costs`: {way: CostOfUse}, `exact`: {way: Share}. `unchecked_wrong`: (wrong records that nobody
    checks, records that nobody checks, the highest share of wrong ones these rows leave open).
    """

    answer: str
    way: str
    rows: int
    why: list[str]
    costs: dict[str, CostOfUse]
    exact: dict[str, Share]
    people: float
    unchecked_wrong: tuple[int, int, float]

    def __str__(self) -> str:
        head = self.answer if self.answer != MORE else f"LABEL {self.rows} MORE ROWS"
        return "\n".join([f"{head}: {self.way}", *(f"- {reason}" for reason in self.why)])


def decide_use(
    pilot: Pilot,
    rows: Sequence[dict],
    uses: Mapping[str, WayOfUse],
    costs: Costs,
    *,
    verdict: BarVerdict | None = None,
    judged: str = "",
    labels_hold: bool = True,
    seed: int = 0,
) -> Decision:
    """A Decision from `uses` {way: WayOfUse}, the simplest first, on the same labelled test `rows`.

    A way takes the place of a simpler one only where it is shown to cost less in use (paired
    bootstrap, 95 %). A way with fewer than LEAST_RIGHT of its records right is not considered: the
    prices hold for a check, not for a message that must be read anew. GO where the interval of its
    cost lies below what people cost today, NO-GO where the cost itself does not; else as many new
    rows as would show it in four of five cases, if the cost stays what it is. With the `verdict` of
    a frozen bar on the way `judged` that verdict decides. NO-GO where labels do not hold. Raises
    CourseError without a way, or without rows.
    """
    if not uses or not len(rows):
        raise CourseError("A decision needs at least one way of use and labelled test rows.")
    in_use, exact = {}, {}
    for name, use in uses.items():
        in_use[name] = cost_of_use(pilot, rows, use.scored.records, use.checked, costs, seed)
        exact[name] = use.scored.share
    if verdict is not None:
        way, why = judged, [f"The frozen bar says: {verdict}."]
        answer = {"pass": GO, "fail": NO_GO}.get(verdict.status, MORE)
        needed = max(verdict.needs_rows.values(), default=verdict.bar.rows) - len(rows)
        more = max(1, needed) if answer == MORE else 0
    else:
        useful = {name: use for name, use in uses.items() if exact[name].value >= LEAST_RIGHT}
        way, why = _choose(pilot, rows, useful or uses, costs, seed)
        why += _left_out(exact, useful)
        answer, more, reason = _against_people(in_use[way], costs)
        if not useful and len(rows) >= FEWEST_TO_DECIDE:
            answer, more = NO_GO, 0
        else:
            why.append(reason)
    if not labels_hold:
        answer, more = NO_GO, 0
        why.insert(0, "The labels do not hold, so training and this test mean nothing yet.")
    unchecked = _unchecked_wrong(uses[way])
    why.append(_unchecked_in_words(unchecked))
    return Decision(answer, way, more, why, in_use, exact, costs.people, unchecked)


def _choose(
    pilot: Pilot, rows: Sequence[dict], uses: Mapping[str, WayOfUse], costs: Costs, seed: int
) -> tuple[str, list[str]]:
    """(the way to judge, a sentence for each comparison that led there)."""
    money = {}
    for name, use in uses.items():
        parts = money_of_use(pilot, rows, use.scored.records, use.checked, costs)
        money[name] = 1000 * np.sum(list(parts.values()), axis=0)
    best, *others = uses
    why = []
    for name in others:
        saved = money[best] - money[name]
        low, high = bootstrap_interval(saved, seed, 5000)
        what = f"{saved.mean():+,.0f} [{low:+,.0f}, {high:+,.0f}] {costs.currency} per 1,000"
        if low > 0:
            why.append(f"{name} costs less in use than {best}: {what}.")
            best = name
        else:
            why.append(f"{best} is simpler and stays: {name} is not shown to cost less ({what}).")
    return best, why


def _left_out(exact: Mapping[str, Share], useful: Mapping[str, WayOfUse]) -> list[str]:
    """A sentence for each way that has too few records right to be used."""
    said = []
    for name, share in exact.items():
        if name not in useful:
            what = f"{name} has {share.value:.0%} of the records right"
            said.append(f"{what}, fewer than {LEAST_RIGHT:.0%}: to check it is to read anew.")
    return said


def _against_people(cost: CostOfUse, costs: Costs) -> tuple[str, int, str]:
    """(answer, rows to label, the sentence) of the way's cost beside people's."""
    people = costs.people
    words = f"It costs {str(cost).strip()}; people today {people:,.0f} {costs.currency}"
    if cost.n < FEWEST_TO_DECIDE:
        more = FEWEST_TO_DECIDE - cost.n
        return MORE, more, f"{words}; fewer than {FEWEST_TO_DECIDE} test rows decide nothing."
    if cost.high < people:
        return GO, 0, f"{words}: the whole interval is cheaper."
    if cost.value >= people:
        return NO_GO, 0, f"{words}: not cheaper."
    # an interval shrinks with the root of the rows
    enough = math.ceil(cost.n * POWER * ((cost.high - cost.value) / (people - cost.value)) ** 2)
    more = max(1, enough - cost.n)
    if more > MOST_TO_ASK:
        return NO_GO, 0, f"{words}: so small a saving would take {more:,} more rows to show."
    return MORE, more, f"{words}: cheaper, but not shown yet."


def _unchecked_wrong(use: WayOfUse) -> tuple[int, int, float]:
    alone = ~use.checked
    number, wrong = int(alone.sum()), int((~use.scored.exact[alone]).sum())
    return wrong, number, highest_rate(wrong, number) if number else 1.0


def _unchecked_in_words(unchecked: tuple[int, int, float]) -> str:
    wrong, number, highest = unchecked
    if not number:
        return "A person checks every record."
    return (
        f"Nobody checks {number} of these records; {wrong} of them are wrong, and of many such "
        f"up to {highest:.0%} may be."
    )

"""How many answers a person checks a week, which ones, and what the errors found there mean.

The bound is about the answers that nobody checks. It holds for rows drawn at random before anybody
looks, all of them checked; a person who stops at the first quiet moment has no bound.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binom, hypergeom

from helpers import CourseError
from helpers.measure.intervals import highest_rate

MOST_ROWS = 1_000_000
GO_ON, DOUBLE, STOP, UNFINISHED = "go on", "draw again", "stop and roll back", "unfinished"
UNCHECKED = "nobody"  # the route of an answer that no person checks
Row = Mapping[str, Any]


@dataclass(frozen=True)
class SampleVerdict:
    """What the checked answers show; prints as one sentence.

    `highest`: the error rate that they rule out from above, one-sided. `holds`: is the bound shown?
    None while rows are missing. `next`: go on, draw again, stop and roll back, or unfinished.
    """

    errors: int
    n: int
    highest: float
    holds: bool | None
    next: str
    advice: str

    def __str__(self) -> str:
        if not self.n:
            return f"No drawn answer is checked, so nothing is known. {self._next()}"
        verb = "was" if self.errors == 1 else "were"
        wrong = f"{self.errors} of {self.n:,} checked answers {verb} wrong"
        bound = f"at most {self.highest:.1%} of those that nobody checks are"
        return f"{wrong}, {bound}. {self._next()}"

    def _next(self) -> str:
        return f"{self.next.capitalize()}: {self.advice}."


@dataclass(frozen=True)
class CheckedDraw:
    """Rows to check: `rows`, and the `weights` that keep an estimate unbiased.

    A weight is how many messages of its stratum a row stands for. `topped_up`: rows beyond the
    plan, drawn so that every stratum has one.
    """

    rows: list[Row]
    weights: list[float]
    topped_up: int = 0

    def estimate(self, wrong: Sequence[bool]) -> float:
        """The unbiased share of wrong answers among all; `wrong`: one bool for each row."""
        if len(wrong) != len(self.rows) or not self.rows:
            raise CourseError(f"Say of each of the {len(self.rows)} drawn rows if it is wrong.")
        return float(np.dot(self.weights, np.asarray(wrong, float)) / np.sum(self.weights))


@dataclass(frozen=True)
class SamplingPlan:
    """How many answers to check so that an error rate above `highest_error` is found out.

    `n` rows with at most `allowed` errors are enough. With one error more, `second` further rows
    without any are; a system above the bound passes both ways together in at most 1 - confidence of
    the weeks (double sampling, Dodge and Romig 1929). `messages`: how many there are, None for
    many. Make one with `for_bound`.
    """

    highest_error: float
    confidence: float
    n: int
    second: int
    allowed: int = 0
    messages: int | None = None

    @classmethod
    def for_bound(
        cls,
        highest_error: float = 0.02,
        confidence: float = 0.95,
        messages: int | None = None,
        allowed: int = 0,
    ) -> "SamplingPlan":
        """The smallest plan that keeps this promise: exact, binomial or (few messages) without
        replacement. Raises CourseError for a bound that no number of rows can show.
        """
        if not 0 < highest_error < 1 or not 0.5 <= confidence < 1 or allowed < 0:
            what = f"A bound of {highest_error:g} with confidence {confidence:g}"
            raise CourseError(f"{what} cannot be planned; write shares such as 0.02 and 0.95.")
        if messages is not None and messages < 1:
            raise CourseError("No message went out unchecked, so there is nothing to sample.")
        law = _Draws.above(highest_error, messages)
        n = law.fewest(lambda rows: law.passes(rows, allowed) <= 1 - confidence)
        if n is None:
            what = f"{allowed} errors in {messages} messages would themselves be above the bound"
            raise CourseError(f"{what} of {highest_error:g}; allow fewer.")
        left = 1 - confidence - law.passes(n, allowed)
        once = law.exactly(n, allowed + 1)
        second = law.fewest(lambda rows: once * law.none_again(n, allowed + 1, rows) <= left, n)
        return cls(highest_error, confidence, n, second or 0, allowed, messages)

    def chance_to_pass(self, rate: float) -> float:
        """How likely a system of this true error rate passes the plan, its second draw included."""
        wrong = None if self.messages is None else round(rate * self.messages)
        law = _Draws(rate, wrong, self.messages)
        clean = 0.0
        if self.second:
            clean = law.none_again(self.n, self.allowed + 1, self.second)
        return law.passes(self.n, self.allowed) + law.exactly(self.n, self.allowed + 1) * clean

    def __str__(self) -> str:
        few = f" of {self.messages:,}" if self.messages else ""
        errors = f"at most {self.allowed} wrong" if self.allowed else "none wrong"
        what = f"Check {self.n:,}{few} answers drawn at random: {errors} shows an error rate of"
        return f"{what} at most {self.highest_error:.1%} ({self.confidence:.0%} confidence)."

    def draw(
        self,
        rows: Sequence[Row],
        seed: int = 0,
        stratum: Callable[[Row], Hashable] | None = None,
        least: int = 1,
        second: bool = False,
    ) -> CheckedDraw:
        """The rows to check, of those whose route is 'nobody' (or that have none), at random.

        `stratum`: row -> its label or kind; each then has `least` rows at least. Those come on top
        of the plan, so the bound stays exact. `second`: the further rows after an error, none of
        the first draw. Draw when the week is over: more rows give another draw.
        """
        open_rows = [row for row in rows if row.get("route", UNCHECKED) == UNCHECKED]
        order = [int(i) for i in np.random.default_rng(seed).permutation(len(open_rows))]
        kinds = [stratum(row) if stratum else None for row in open_rows]
        taken, rest = order[: self.n], order[self.n :]
        found, sizes = Counter(kinds[i] for i in taken), Counter(kinds)
        extra = []
        for i in rest:
            if stratum and found[kinds[i]] < least:
                found[kinds[i]] += 1
                extra.append(i)
        if second:
            beyond = [i for i in rest if i not in set(extra)][: self.second]
            return CheckedDraw([open_rows[i] for i in beyond], [1.0] * len(beyond))
        drawn = [*taken, *extra]
        weights = [sizes[kinds[i]] / found[kinds[i]] for i in drawn]
        return CheckedDraw([open_rows[i] for i in drawn], weights, len(extra))

    def verdict(self, errors: int, n: int, topped_up: int = 0) -> SampleVerdict:
        """What `errors` in `n` checked rows show, `topped_up` of them beyond the plan.

        After a second draw: the errors and rows of both draws together.
        """
        if not 0 <= errors <= n:
            raise CourseError(f"{errors} errors in {n} checked rows cannot be.")
        counted, further = max(errors, n - topped_up), self.allowed + 1 if self.second else 0
        # errors of a second draw count as if all were in the first: a second look is not free
        base = counted if errors <= self.allowed else max(errors, min(counted, self.n))
        highest = self._highest(errors, base) if base else 1.0
        bound = f"the bound of {self.highest_error:.1%}"
        holds: bool | None = None
        if errors > max(self.allowed, further):
            holds, what = False, STOP
            broken = 1 - highest_rate(counted - errors, counted) > self.highest_error
            state = "is broken" if broken else "is not shown"
            advice = f"{bound} {state}; let people check these answers again, and find out why"
        elif counted < self.n:
            what, advice = UNFINISHED, f"{self.n - counted:,} drawn answers are not checked yet"
        elif errors <= self.allowed:
            holds, what, advice = True, GO_ON, f"{bound} is shown"
        elif counted < self.n + self.second:
            missing = self.n + self.second - counted
            what, advice = DOUBLE, f"check {missing:,} further answers; one more error means stop"
        else:  # two draws together promise the bound itself, and no less
            holds, what, highest = True, GO_ON, self.highest_error
            advice = f"the second draw was clean, {bound} is shown"
        return SampleVerdict(errors, n, highest, holds, what, advice)

    def _highest(self, errors: int, n: int) -> float:
        if self.messages is None:
            return highest_rate(errors, n, self.confidence)
        return most_wrong(errors, n, self.messages, self.confidence) / self.messages


def most_wrong(errors: int, n: int, messages: int, confidence: float = 0.95) -> int:
    """The most wrong ones among `messages` that `errors` in n drawn ones do not rule out.

    One-sided and exact, drawn without replacement. Raises CourseError for counts that cannot be.
    """
    if not 0 <= errors <= n <= messages or n < 1:
        raise CourseError(f"{errors} errors in {n} of {messages} messages cannot be.")
    wrong = np.arange(errors, messages - (n - errors) + 1)
    possible = hypergeom.cdf(errors, messages, wrong, n) > 1 - confidence
    return int(wrong[possible].max(initial=errors))


def rows_for(
    highest_error: float, confidence: float = 0.95, errors: int = 0, messages: int | None = None
) -> int:
    """Rows that show an error rate of at most `highest_error` with so many errors among them."""
    return SamplingPlan.for_bound(highest_error, confidence, messages, errors).n


def wrong_above(highest_error: float, messages: int) -> int:
    """The fewest wrong ones among `messages` that are more than the bound allows."""
    return int(np.floor(highest_error * messages + 1e-9)) + 1


@dataclass(frozen=True)
class _Draws:
    """Chances of errors in drawn rows: of many at a rate, or of few with so many wrong ones."""

    rate: float
    wrong: int | None
    messages: int | None

    @classmethod
    def above(cls, highest_error: float, messages: int | None) -> "_Draws":
        wrong = None if messages is None else wrong_above(highest_error, messages)
        return cls(highest_error, wrong, messages)

    def passes(self, rows: int, errors: int) -> float:
        if self.messages is None:
            return float(binom.cdf(errors, rows, self.rate))
        return float(hypergeom.cdf(errors, self.messages, self.wrong, rows))

    def exactly(self, rows: int, errors: int) -> float:
        if self.messages is None:
            return float(binom.pmf(errors, rows, self.rate))
        return float(hypergeom.pmf(errors, self.messages, self.wrong, rows))

    def none_again(self, rows: int, errors: int, further: int) -> float:
        """The chance of no error in further rows, after so many in the first."""
        if self.messages is None:
            return float((1 - self.rate) ** further)
        left = max(0, (self.wrong or 0) - errors)
        return float(hypergeom.pmf(0, self.messages - rows, left, further))

    def fewest(self, is_enough: Callable[[int], bool], drawn: int = 0) -> int | None:
        """The fewest rows, of those not drawn, that are enough; None where none are."""
        most = MOST_ROWS if self.messages is None else self.messages - drawn
        low, high = 0, 1
        while high < most and not is_enough(high):
            low, high = high, 2 * high
        high = min(high, most)
        if high < 1 or not is_enough(high):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if is_enough(middle):
                high = middle
            else:
                low = middle
        return high

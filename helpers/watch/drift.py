"""A drift alarm: does this week look like the reference? Its threshold is simulated, not fixed.

Without drift the rows of the week and of the reference are one heap, so the heap is shuffled and
split again a thousand times. The reference is a sample, too, and that is counted in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

from helpers import CourseError
from helpers.core.text import visible
from helpers.watch.bins import SharedBins, categories_of, is_number, psi

FEWEST_ROWS = 30  # of a week or a reference; fewer decide nothing
LONGEST_NAME = 40  # characters of a value in a sentence
AT_ONCE = 4_000_000  # cells of shuffled rows that are held in memory

Values = Sequence[Any]


@dataclass(frozen=True)
class DriftFinding:
    """What a week showed of one thing; prints as one sentence.

    `value`: its PSI. `threshold`: the PSI from which it rings; both None where the week has too few
    messages. `by_value`: {category or range: (share of the reference, of the week)}, those that
    moved most first. `unseen`: {category that the reference has not: messages}.
    """

    value: float | None
    threshold: float | None
    rings: bool
    by_value: dict[str, tuple[float, float]]
    n: int
    name: str = ""
    unseen: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        what = self.name or "What is watched"
        if self.value is None or self.threshold is None:
            return f"{what}: {self.n} messages are too few ({FEWEST_ROWS} at least); no alarm."
        first = list(self.unseen.items())[:3]
        new = ", ".join(f"{_shown(name)} ({count})" for name, count in first)
        new = f"; not in the reference: {new}" if new else ""
        if not self.rings:
            return f"Quiet: {what} has a PSI of {self.value:.3f}, below {self.threshold:.3f}{new}."
        moved, (before, now) = next(iter(self.by_value.items()))
        most = f"most of all {_shown(moved)}, {before:.1%} before and {now:.1%} this week"
        alarm = f"{self.value:.3f} (alarm from {self.threshold:.3f})"
        return f"It rings: {what} has a PSI of {alarm}; {most}{new}."


@dataclass(frozen=True)
class JointFinding:
    """What a week showed of several things that share one alarm; prints as one sentence."""

    findings: dict[str, DriftFinding]

    @property
    def rings(self) -> bool:
        """True where one of the things rings."""
        return any(finding.rings for finding in self.findings.values())

    @property
    def decided(self) -> bool:
        """False where the week has too few messages for an alarm."""
        return all(finding.value is not None for finding in self.findings.values())

    def __str__(self) -> str:
        loud = [str(finding) for finding in self.findings.values() if finding.rings]
        if loud:
            return " ".join(loud)
        if not self.decided:
            return str(next(iter(self.findings.values())))
        return f"Quiet: none of {', '.join(self.findings)} has moved further than chance moves it."


@dataclass(frozen=True)
class JointAlarm:
    """Several things watched together, such as labels and how sure of them, with one alarm.

    Each has a threshold of its own, and all together ring in `false_alarm` of the weeks without
    drift: the shuffled rows stay whole, so what moves together is not counted twice (the maximum
    statistic of Westfall and Young 1993). Make one with `fit`.
    """

    reference: dict[str, list[Any]]
    numeric: dict[str, bool]
    n: int
    seed: int
    weeks: int
    false_alarm: float

    @classmethod
    def fit(
        cls,
        reference: Mapping[str, Values],
        n: int,
        seed: int = 0,
        weeks: int = 1000,
        false_alarm: float = 0.05,
    ) -> "JointAlarm":
        """An alarm on {thing: its values in the rows of the reference}; `n` messages a week.

        `weeks`: how many are simulated. The alarm rings in `false_alarm` of the weeks on the
        average of all references: one that is off by chance rings more often, week after week,
        until it is larger. It rings more often, too, where messages come in bursts. Raises
        CourseError for fewer than 30 rows, and for a thing that is neither a number nor has
        categories.
        """
        columns = {name: list(values) for name, values in reference.items()}
        sizes = {len(values) for values in columns.values()}
        if len(sizes) != 1:
            raise CourseError("Give every thing that is watched one value for each reference row.")
        rows = sizes.pop()
        if rows < FEWEST_ROWS:
            raise CourseError(f"The reference has {rows} rows; an alarm needs {FEWEST_ROWS}.")
        if n < 1 or weeks < 20 or not 0 < false_alarm < 1:
            what = "An alarm needs a week with messages, 20 simulated weeks"
            raise CourseError(f"{what} or more, and a rate of false alarms between 0 and 1.")
        numeric = {name: _is_numeric(values) for name, values in columns.items()}
        for name, values in columns.items():
            kinds = len(set(categories_of(values)))
            if not numeric[name] and kinds > max(20, len(values) / 2):
                what = f"{name or 'The thing to watch'} has {kinds} values in {len(values)} rows"
                raise CourseError(f"{what}; watch a label with few values, or a number.")
        return cls(columns, numeric, n, seed, weeks, false_alarm)

    def thresholds(self) -> dict[str, float]:
        """{thing: the PSI from which about it rings} in a week of `n` messages without drift."""
        rng = np.random.default_rng(self.seed)
        rows = len(next(iter(self.reference.values())))
        drawn = rng.integers(rows, size=max(self.n, FEWEST_ROWS))
        week = {name: [values[i] for i in drawn] for name, values in self.reference.items()}
        found = self.check(week).findings
        return {name: float(finding.threshold or 0) for name, finding in found.items()}

    def check(self, values: Mapping[str, Values]) -> JointFinding:
        """What a week shows: {thing: its values}, as many messages as there are."""
        lengths = {len(values[name]) for name in self.reference if name in values}
        if set(self.reference) - set(values) or len(lengths) != 1:
            names = ", ".join(self.reference)
            raise CourseError(f"A week needs one value for each message of each of: {names}.")
        n = lengths.pop()
        parts = {}
        for name, before in self.reference.items():
            parts[name] = SharedBins.of(before, list(values[name]), self.numeric[name])
        if n < FEWEST_ROWS:
            few = {}
            for name, part in parts.items():
                few[name] = DriftFinding(None, None, False, part.shares(), n, name)
            return JointFinding(few)
        simulated = _shuffled_values(list(parts.values()), self.weeks, self.seed)
        points = alarm_points(simulated, self.false_alarm)
        findings = {}
        for (name, part), point in zip(parts.items(), points, strict=True):
            value = float(psi(part.before, part.now))
            shares, unseen = part.shares(), {} if self.numeric[name] else part.unseen()
            findings[name] = DriftFinding(value, point, value >= point, shares, n, name, unseen)
        return JointFinding(findings)


@dataclass(frozen=True)
class DriftAlarm:
    """One thing watched; make one with `fit`. It is a JointAlarm on a single thing."""

    joint: JointAlarm
    name: str = ""

    @classmethod
    def fit(
        cls,
        reference: Values,
        n: int,
        seed: int = 0,
        weeks: int = 1000,
        false_alarm: float = 0.05,
        name: str = "",
    ) -> "DriftAlarm":
        """An alarm on values of the reference: labels (None: empty) or numbers; see JointAlarm."""
        joint = JointAlarm.fit({name: list(reference)}, n, seed, weeks, false_alarm)
        return cls(joint, name)

    @property
    def threshold(self) -> float:
        """The PSI from which about it rings in a week of n messages; `check` has the exact one."""
        return self.joint.thresholds()[self.name]

    def check(self, values: Values) -> DriftFinding:
        """What a week shows; its size may differ from the n that was planned."""
        return self.joint.check({self.name: list(values)}).findings[self.name]


def alarm_points(simulated: np.ndarray, false_alarm: float) -> list[float]:
    """The value of each thing from which it rings; `simulated`: without drift, (weeks, things).

    Chosen so that any of the things rings in a share `false_alarm` of these weeks. Equal values
    count half (the mid-p of Lancaster 1961): few categories have few different values.
    """
    weeks = len(simulated)
    above = (rankdata(-simulated, axis=0) - 0.5) / weeks
    strangest = above.min(axis=1)
    allowed = strangest[(rankdata(strangest) - 0.5) / weeks < false_alarm]
    limit = allowed.max(initial=-1.0)
    points = []
    for column, rarity in zip(simulated.T, above.T, strict=True):
        points.append(float(column[rarity <= limit].min(initial=np.inf)))
    return points


def _shuffled_values(parts: list[SharedBins], weeks: int, seed: int) -> np.ndarray:
    """PSI of each thing in weeks without drift, shape (weeks, things): the heap split anew."""
    rng, rows = np.random.default_rng(seed), int(parts[0].before.sum())
    table = np.stack([part.place for part in parts], axis=1)
    kinds, counts = np.unique(table, axis=0, return_counts=True)
    few = len(kinds) < 0.1 * counts.sum()
    method: Literal["marginals", "count"] = "marginals" if few else "count"
    values, step = [], max(1, AT_ONCE // len(kinds))
    for start in range(0, weeks, step):
        size = min(step, weeks - start)
        drawn = rng.multivariate_hypergeometric(counts, rows, size=size, method=method)
        of_things = []
        for number, part in enumerate(parts):
            member = np.eye(len(part.names))[kinds[:, number]]
            before = drawn @ member
            of_things.append(psi(before, part.before + part.now - before))
        values.append(np.stack(of_things, axis=1))
    return np.concatenate(values)


def _is_numeric(values: list[Any]) -> bool:
    filled = [value for value in values if value is not None]
    return bool(filled) and all(is_number(value) for value in filled)


def _shown(name: str) -> str:
    name = visible(name)
    return f"'{name[:LONGEST_NAME]}{'...' if len(name) > LONGEST_NAME else ''}'"

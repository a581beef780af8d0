"""The weekly page: what the log says of one week, and what to do now."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helpers import CourseError
from helpers.core.files import write_text
from helpers.measure.pages import render
from helpers.watch.bins import NOTHING
from helpers.watch.drift import JointAlarm, JointFinding
from helpers.watch.log_rows import columns_of, weeks
from helpers.watch.sampling import DOUBLE, STOP, UNCHECKED, SampleVerdict, SamplingPlan
from helpers.watch.shadow_log import ShadowLog

GOING_ON, LOOK, ROLL_BACK = "go on", "look", "roll back"
MANY_UNREAD = 0.01  # of the messages; more want a look
SHOWN_ROWS = 30  # of those to check next
SHOWN_VALUES = 12  # of a label
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class WeekReport:
    """One week of a log; `markdown()` is its page.

    `labels`: {field: {value: (share in the reference, share this week)}}. `verdict`: what the drawn
    answers show, None where none went out unchecked. `to_check`: rows to check next. `judged` and
    `changed`: messages with a person's verdict, and those found wrong. `seconds`: half of the
    messages took no more than the first, 95 of 100 no more than the second. `action`: go on, look
    or roll back; `why`: one sentence for each reason.
    """

    week: str
    messages: int
    routes: dict[str, int]
    unread: int
    labels: dict[str, dict[str, tuple[float, float]]]
    drift: JointFinding
    plan: SamplingPlan | None
    verdict: SampleVerdict | None
    to_check: list[dict[str, Any]]
    judged: int
    changed: int
    seconds: tuple[float, float]
    together: int
    answered_by: list[str]
    action: str
    why: list[str]

    def markdown(self, registry: str = "registry") -> str:
        """The page; `registry`: the folder of adapters that the command rolls back."""
        rows = [f"{row['row']}" for row in self.to_check]
        return render("weekly.md", r=self, rows=rows, shown=SHOWN_ROWS, registry=registry)


def week_report(
    log: ShadowLog | str | Path | Rows,
    reference: Rows,
    week: str | None = None,
    highest_error: float = 0.02,
    confidence: float = 0.95,
    seed: int = 0,
    things: Sequence[str] | None = None,
) -> WeekReport:
    """The WeekReport of `week`, such as '2026-W48', or of the newest week of a log.

    `reference`: rows of read_log from when all was well. `things`: which of their columns the alarm
    watches, all labels, confidences and numbers when left out. `seed`: of the draw of answers to
    check; fixed before anybody looks. Raises CourseError for a week without messages.
    """
    of_weeks = weeks(log)
    week = week or (list(of_weeks)[-1] if of_weeks else "now")
    if week not in of_weeks:
        raise CourseError(f"The log has no messages of week {week}; it has {_of(of_weeks)}.")
    rows = of_weeks[week]
    before, now = columns_of(reference), columns_of(rows)
    drift = _drift_of(before, now, list(before) if things is None else list(things), seed)
    plan, verdict, to_check = sample_of(rows, highest_error, confidence, seed)
    judged = [row for row in rows if row["right"] is not None]
    unread = sum(bool(row["unread"]) for row in rows)
    action, why = what_now(drift, verdict, unread / len(rows))
    names = {f"{row['model']} {(row['adapter'] or '')[:12]}".strip() for row in rows}
    p50, p95 = np.percentile([row["seconds"] for row in rows], [50, 95])
    return WeekReport(
        week=week,
        messages=len(rows),
        routes=dict(sorted(Counter(row["route"] for row in rows).items())),
        unread=unread,
        labels=_label_shares(before, now),
        drift=drift,
        plan=plan,
        verdict=verdict,
        to_check=to_check,
        judged=len(judged),
        changed=sum(not row["right"] for row in judged),
        seconds=(float(p50), float(p95)),
        together=max(row["together"] or 1 for row in rows),
        answered_by=sorted(names),
        action=action,
        why=why,
    )


def sample_of(
    rows: Rows, highest_error: float = 0.02, confidence: float = 0.95, seed: int = 0
) -> tuple[SamplingPlan | None, SampleVerdict | None, list[dict[str, Any]]]:
    """(the plan of a week, what its drawn answers show so far, the rows to check next).

    Only drawn rows count: what somebody looked at because it seemed odd is no sample.
    """
    unchecked = [row for row in rows if row["route"] == UNCHECKED and not row["unread"]]
    if not unchecked:
        return None, None, []
    plan = SamplingPlan.for_bound(highest_error, confidence, len(unchecked))
    drawn = plan.draw(unchecked, seed, _labels_of)
    extra = len(drawn.rows) - drawn.topped_up
    counted = [row for row in drawn.rows if row["right"] is not None]
    topped_up = sum(row["right"] is not None for row in drawn.rows[extra:])
    errors = sum(not row["right"] for row in counted)
    verdict = plan.verdict(errors, len(counted), topped_up)
    looked_at = list(drawn.rows)
    if verdict.next == DOUBLE:
        further = plan.draw(unchecked, seed, _labels_of, second=True).rows
        looked_at += further
        again = [row for row in further if row["right"] is not None]
        errors += sum(not row["right"] for row in again)
        verdict = plan.verdict(errors, len(counted) + len(again), topped_up)
    return plan, verdict, [dict(row) for row in looked_at if row["right"] is None]


def what_now(
    drift: JointFinding, verdict: SampleVerdict | None, unread: float = 0.0
) -> tuple[str, list[str]]:
    """(go on, look or roll back; one sentence for each reason). `unread`: a share."""
    action, why = GOING_ON, []
    if drift.rings:
        action = LOOK
        loud = [name for name, finding in drift.findings.items() if finding.rings]
        why.append(f"The drift alarm rings for {', '.join(loud)}.")
    if unread > MANY_UNREAD:
        action = LOOK
        why.append(f"{unread:.1%} of the messages could not be read.")
    if verdict is not None and verdict.holds is not True:
        action = ROLL_BACK if verdict.next == STOP else LOOK
        why.append(str(verdict))
    return action, why


def write_weekly_page(report: WeekReport, path: str | Path, registry: str = "registry") -> Path:
    """Write the page of a week; returns its path. Raises CourseError where it cannot."""
    path = Path(path)
    try:
        write_text(path, report.markdown(registry))
    except OSError as problem:
        what = f"{path.name} could not be written ({problem.strerror})"
        raise CourseError(f"{what}; name another folder.") from None
    return path


def _labels_of(row: Any) -> tuple:
    return tuple(value for name, value in sorted(row.items()) if name.startswith("label."))


def _drift_of(
    before: dict[str, list], now: dict[str, list], things: list[str], seed: int
) -> JointFinding:
    if not things or not set(things) <= set(before):
        raise CourseError(f"The reference has no such things to watch; it has {_of(before)}.")
    read = max((len(values) for values in now.values()), default=0)
    alarm = JointAlarm.fit({name: before[name] for name in things}, max(1, read), seed)
    return alarm.check({name: now.get(name, [None] * read) for name in things})


def _label_shares(before: dict[str, list], now: dict[str, list]) -> dict[str, dict]:
    shares: dict[str, dict[str, tuple[float, float]]] = {}
    for name, values in before.items():
        if not name.startswith("label."):
            continue
        these = now.get(name, [])
        old, new = Counter(values), Counter(these)
        order = sorted(old | new, key=lambda value: (-max(old[value], new[value]), str(value)))
        field = shares.setdefault(name.removeprefix("label."), {})
        for value in order[:SHOWN_VALUES]:
            one, other = old[value] / max(1, len(values)), new[value] / max(1, len(these))
            field[value or NOTHING] = one, other
    return shares


def _of(names: Any) -> str:
    return ", ".join(names) or "none"

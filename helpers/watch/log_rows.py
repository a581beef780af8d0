"""A log read back: flat rows with their verdicts, and the weeks they belong to."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as names

from helpers import CourseError
from helpers.core.files import read_entries
from helpers.watch.shadow_log import LABEL, NUMBER, SURE, ShadowLog
from helpers.watch.span_files import keyed_digest, log_files, own_key, whole_lines

VERDICTS = "verdicts.jsonl"
SHORT = {  # the names of a row, shorter than those of the log
    "course.message": "message",
    "course.id": "id",
    "course.source": "source",
    "course.position": "position",
    "course.row": "row",
    "course.together": "together",
    "course.route": "route",
    "course.unread": "unread",
    "course.why": "why",
    "course.fields": "fields",
    "course.adapter": "adapter",
    "course.prompt": "prompt",
    names.GEN_AI_PROVIDER_NAME: "provider",
    names.GEN_AI_REQUEST_MODEL: "model",
    names.GEN_AI_RESPONSE_MODEL: "response_model",
    names.GEN_AI_USAGE_INPUT_TOKENS: "input_tokens",
    names.GEN_AI_USAGE_OUTPUT_TOKENS: "output_tokens",
}


def read_log(log: ShadowLog | str | Path) -> list[dict[str, Any]]:
    """One flat row for each line, in the order of time, with the last verdict on it.

    Keys: time (UTC), seconds (a message's part of the time that its chunk took), message, id, row,
    route, unread, model, adapter, prompt; `label.<field>` (None: empty), `confidence.<field>`,
    `number.<measure>`; right (None: no verdict), wrong_fields, checked_by. With texts in the log
    also text and record. Raises CourseError where there is no log, and for a damaged line.
    """
    folder = log.path if isinstance(log, ShadowLog) else Path(log)
    if not log_files(folder):
        raise CourseError(f"There is no log in {folder.name}/; a shadow run makes one.")
    verdicts = {entry["message"]: entry for entry in read_entries(folder / VERDICTS)}
    rows = []
    for path, number, line in whole_lines(folder):
        row = _flat(_span(path, number, line))
        rows.append(row | _judged(row, verdicts.get(row["message"])))
    return sorted(rows, key=lambda row: row["time"])  # stable: a chunk keeps its order


def _span(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        span = json.loads(line)
        if span["attributes"]["course.message"] and span["end_time"]:
            return span
    except (ValueError, KeyError, TypeError):
        pass
    cure = "take that line out, and its message is read again by the next run"
    raise CourseError(f"{path.name} line {number} is damaged; {cure}.")


def _flat(span: Mapping[str, Any]) -> dict[str, Any]:
    attributes = span["attributes"]
    start, end = (datetime.fromisoformat(span[key]) for key in ("start_time", "end_time"))
    seconds = (end - start).total_seconds() / max(1, attributes.get("course.together", 1))
    row: dict[str, Any] = {"time": end.astimezone(UTC).isoformat(), "seconds": seconds}
    row |= {short: attributes.get(name) for name, short in SHORT.items()}
    for name, value in attributes.items():
        for start_of, short in ((LABEL, "label."), (SURE, "confidence."), (NUMBER, "number.")):
            if name.startswith(start_of):
                row[short + name.removeprefix(start_of)] = value if value != "" else None
    if names.GEN_AI_INPUT_MESSAGES in attributes:
        row["text"] = _content(attributes[names.GEN_AI_INPUT_MESSAGES])
        row["record"] = json.loads(_content(attributes[names.GEN_AI_OUTPUT_MESSAGES]))
    return row


def _content(messages: str) -> str:
    return json.loads(messages)[0]["parts"][0]["content"]


def _judged(row: Mapping[str, Any], verdict: Mapping[str, Any] | None) -> dict[str, Any]:
    """Right as a whole: said so, or said of every field; wrong: of one field is enough."""
    if verdict is None:
        return {"right": None, "wrong_fields": [], "checked_by": None}
    right, wrong = verdict["right"], []
    if isinstance(right, dict):
        wrong = [name for name, value in right.items() if not value]
        right = False if wrong else True if set(right) >= set(row["fields"]) else None
    return {"right": right, "wrong_fields": wrong, "checked_by": verdict["by"]}


def weeks(log: ShadowLog | str | Path | Sequence[dict]) -> dict[str, list[dict[str, Any]]]:
    """{week such as '2026-W48' (ISO, UTC): its rows}, oldest first; of a log or rows of one."""
    rows = read_log(log) if isinstance(log, ShadowLog | str | Path) else log
    found: dict[str, list[dict]] = {}
    for row in rows:
        year, week, _ = datetime.fromisoformat(row["time"]).isocalendar()
        found.setdefault(f"{year}-W{week:02}", []).append(row)
    return dict(sorted(found.items()))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """{thing: its values} of rows that were read: every label, confidence and number in them.

    What a JointAlarm takes, as a reference or as a week.
    """
    read = [row for row in rows if not row.get("unread")]
    things = dict.fromkeys(name for row in read for name in row if "." in name)
    return {name: [row.get(name) for row in read] for name in sorted(things)}


def found_line(folder: Path, known_as: str) -> dict[str, Any]:
    """The attributes of the one line with this id or message; CourseError for none or several."""
    if not log_files(folder):
        raise CourseError(f"There is no log in {folder.name}/; a shadow run makes one.")
    digest = keyed_digest(own_key(folder, make=False), "id", known_as)
    for name, value in (("message", known_as), ("id", digest)):
        needle = f'"course.{name}": "{value}"'.encode()
        found = list(whole_lines(folder, needle))
        if len(found) > 1:
            cure = "name one by its 'message' in read_log"
            raise CourseError(f"That id stands for {len(found)} answers in the log; {cure}.")
        if found:
            return _span(*found[0])["attributes"]
    raise CourseError(f"The log {folder.name}/ has no message of that id; look into read_log.")

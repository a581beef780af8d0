"""The log of a pilot's runs: a line for each, and which lever was moved since the one before."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.core.files import append_entry, fingerprint, read_entries

RUN_LOG = "run_log.jsonl"


@dataclass(frozen=True)
class LoggedRun:
    """A line of the log: `moved` names the levers that differ from the run before."""

    number: int
    moved: list[str]
    note: str
    figures: dict[str, float]

    def __str__(self) -> str:
        if not self.moved:
            what = "the first run" if self.number == 1 else "nothing was changed"
        else:
            what = f"changed: {', '.join(self.moved)}"
        shown = ", ".join(f"{name} {value:.1%}" for name, value in self.figures.items())
        line = f"run {self.number}: {what}; {shown}"
        if len(self.moved) > 1:
            line += "; more than one lever was moved: nobody can tell which one did it"
        return f"{line}; {self.note}" if self.note else line


def log_run(
    folder: str | Path,
    levers: Mapping[str, Any],
    figures: Mapping[str, float],
    note: str = "",
) -> LoggedRun:
    """Add a run to RUN_LOG in `folder` and say what was moved since the one before.

    `levers`: {name: anything JSON can hold}, such as rows, base, settings, prompt, prices; kept as
    hashes. The same levers and figures again add no line. Raises CourseError without levers, and
    where nothing can be written.
    """
    if not levers:
        raise CourseError("A run without levers says nothing; name at least its rows and its base.")
    path, hashes = Path(folder) / RUN_LOG, {}
    for name, value in levers.items():
        hashes[name] = fingerprint(value)
    before = read_entries(path)
    last = before[-1] if before else None
    if last and last["levers"] == hashes and last["figures"] == dict(figures):
        return LoggedRun(last["run"], last["moved"], last["note"], last["figures"])
    moved = []
    if last:
        names = dict.fromkeys([*last["levers"], *hashes])
        moved = [name for name in names if last["levers"].get(name) != hashes.get(name)]
    number = len(before) + 1
    when = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"run": number, "date": when, "levers": hashes, "moved": moved}
    append_entry(path, {**entry, "note": note, "figures": dict(figures)}, RUN_LOG, len(before))
    return LoggedRun(number, moved, note, dict(figures))

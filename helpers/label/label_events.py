"""What a labelling session leaves: a journal that survives a kill, and a plain table."""

import html
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.core.files import append_entry, read_entries
from helpers.core.pilot import Pilot
from helpers.core.text import visible

START = b'{"event": "start", '
WHOSE = {  # what must be the same as at the start, and how it is called when it is not
    "fields": "other fields or values",
    "rows": "other rows or texts",  # a hash of all ids and texts
    "annotator": "another annotator",
    "seed": "another seed",
    "simulated": "answers of another kind",
}


class EventJournal:
    """A JSONL file: a line that says whose it is, then a line per event, on disk when added.

    Raises CourseError when the file was made for something else than `header` and the row ids
    `known`, is damaged, or cannot be written; the file is left as it is then.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], known: Iterable[str]) -> None:
        self.path, name = path, path.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a+b") as file:  # a place that cannot be written is said now
                file.seek(0)
                data = file.read()
        except OSError as problem:
            why = f"cannot be written there ({problem.strerror})"
            raise CourseError(f"{name} {why}; choose another path.") from None
        # a first line that a kill cut short is a journal too
        if data[: len(START)] != START[: len(data)]:
            cure = "choose another path, that file is left as it is"
            raise CourseError(f"{name} is not a labelling journal; {cure}.")
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            try:
                event = json.loads(line)
                if event["event"] in ("answer", "skip", "undo"):
                    event["id"]  # a KeyError is damage, too
            except (ValueError, KeyError, TypeError):
                cure = "put the file back from a copy, or delete that line alone and run again"
                raise CourseError(f"{name} line {number} is damaged; {cure}.") from None
        self.events = read_entries(path)
        self.size = path.stat().st_size
        if not self.events:
            self.add({"event": "start", **header})
        self._refuse_another(self.events.pop(0), header, set(known))

    def _refuse_another(self, start: dict, header: Mapping[str, Any], known: set[str]) -> None:
        name = self.path.name
        for event in self.events:
            if event["event"] in ("answer", "skip") and event["id"] not in known:
                what = f"the id {event['id']!r}, which is not among the {len(known)} rows"
                cure = "give the rows it was made for, or choose another path"
                raise CourseError(f"{name} has an answer for {what}; {cure}.")
        for key, what in WHOSE.items():
            if start.get(key) == header[key]:
                continue
            if key not in ("fields", "rows"):  # those are too long to show
                what += f" ({key} {start.get(key)!r}, not {header[key]!r})"
            cure = "choose another path, or go on with the same as before"
            raise CourseError(f"{name} was made for {what}; {cure}.")

    def add(self, *events: dict) -> None:
        """Append events; on a full disk what was there stays, and the next try may work."""
        if not self.path.is_file():
            raise self._not_stored("the file is gone")
        if self.path.stat().st_size != self.size:
            what = "was changed by another notebook; run the cell again to go on from there"
            raise CourseError(f"{self.path.name} {what}.")
        try:
            for event in events:
                append_entry(self.path, event, "The answer", len(self.events))
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())  # a power cut loses no answer either
        except (CourseError, OSError) as problem:
            os.truncate(self.path, self.size)  # half a line would be damage
            raise self._not_stored(getattr(problem.__context__, "strerror", problem)) from None
        self.size = self.path.stat().st_size
        self.events += events

    def _not_stored(self, reason: object) -> CourseError:
        what = f"This could not be stored in {self.path.name} ({reason})"
        cure = "Put that right and store it again"
        return CourseError(f"{what}; everything before it is kept. {cure}.")


def from_utf16(text: str, start: Any, end: Any) -> tuple[int, int]:
    """Code point offsets of a browser's UTF-16 offsets; CourseError outside the text's characters.

    An offset in the middle of a character is refused, too.
    """
    units = text.encode("utf-16-le")
    try:
        # True is an int for Python, and no offset
        if {type(start), type(end)} != {int} or not 0 <= start < end <= len(units) // 2:
            raise ValueError
        before, until = units[: 2 * start], units[: 2 * end]
        return len(before.decode("utf-16-le")), len(until.decode("utf-16-le"))
    except ValueError:
        what = f"The span {start} to {end} does not lie on characters of the message"
        raise CourseError(f"{what}; select it again.") from None


def to_utf16(text: str, *offsets: int) -> list[int]:
    """UTF-16 offsets, as a browser counts, of code point offsets."""
    return [len(text[:offset].encode("utf-16-le")) // 2 for offset in offsets]


def texts_to_label(pilot: Pilot, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """{id: text}; CourseError for no rows, and naming the first that cannot be labelled."""
    texts: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if pilot.text not in row or row.get("id") in (None, ""):
            missing = "id" if pilot.text in row else pilot.text
            has = f"Row {number} has no {missing!r}; its columns are {', '.join(map(str, row))}"
            raise CourseError(f"{has}, and labelling needs 'id' and {pilot.text!r}.")
        key, text = str(row["id"]), row[pilot.text]
        if key in texts:
            what = f"stands in two rows (the second is row {number}); give every row its own"
            raise CourseError(f"The id {key!r} {what}.")
        if not isinstance(text, str) or not text.strip():
            what = f"the column {pilot.text!r} is empty or not text; leave that row out"
            raise CourseError(f"Row {number} ({key}): {what}.")
        if re.search("[\ud800-\udfff]", text):
            what = "the text has half a character (a lone surrogate)"
            raise CourseError(f"Row {number} ({key}): {what}; replace it or leave the row out.")
        texts[key] = text
    if not texts:
        raise CourseError("There are no rows to label.")
    return texts


def static_table(
    pilot: Pilot, title: str, texts: Mapping[str, str], answered: Mapping[str, dict]
) -> str:
    """An HTML table of messages and answers so far; nothing in it is run or hidden."""
    lines = []
    for key, text in texts.items():
        cells = [_cell(text)]
        for name in pilot.fields:
            cells.append(_cell(answered[key]["record"][name]) if key in answered else "…")
        line = "</td><td>".join(cells)
        lines.append(f'<tr><td style="text-align:left">{line}</td></tr>')
    heads = "</th><th>".join(html.escape(visible(n)) for n in (pilot.text, *pilot.fields))
    note = f"In a running notebook this is a widget; here are the first {len(lines)} rows"
    body = "\n".join(lines)
    return (
        f"<p>{html.escape(title)}. {note} in its order.</p>\n"
        '<table class="tex2jax_ignore mathjax_ignore">'  # prices are no mathematics
        f"<thead><tr><th>{heads}</th></tr></thead>\n<tbody>{body}</tbody></table>"
    )


def _cell(value: str | None) -> str:
    if value is None:
        return "none"
    shown = visible(value)
    if len(shown) > 240:
        shown = shown[:240] + " …"
    return f"<bdi>{html.escape(shown)}</bdi>"

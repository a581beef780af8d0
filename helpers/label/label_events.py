"""The book of a labelling session: an append-only journal that survives a kill, offsets as browsers count them, a plain table."""

import html
import json
import os
import re
from contextlib import suppress
from pathlib import Path

from helpers import CourseError

HIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
START = b'{"event": "start", '


class Events:
    """An append-only JSONL file: a first line that says whose it is, then a line per event, on disk (fsync) when `add` returns.

    Half a last line, left by a kill, is swept. Raises CourseError when the file was made for something else than `header` and the
    row ids `known`, is damaged, or cannot be written.
    """

    def __init__(self, path, header, known):
        self.path, self.size, self.events = Path(path), 0, []
        name = self.path.name
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as file:
                file.seek(0)
                data = file.read()
                if data[: len(START)] != START[: len(data)]:
                    raise CourseError(
                        f"{name} is not a labelling journal; choose another path, that file is left as it is."
                    )
                self.size = data.rfind(b"\n") + 1
                file.truncate(self.size)
        except OSError as problem:
            raise CourseError(
                f"{name} cannot be written there ({problem.strerror}); choose another path."
            ) from None
        if not self.size:
            self.add({"event": "start", **header})
        for number, line in enumerate(data[: self.size].split(b"\n")[:-1], 1):
            try:
                self.events.append(json.loads(line))
                if (
                    self.events[-1]["event"] in ("answer", "skip")
                    and self.events[-1]["id"] not in known
                ):
                    raise CourseError(
                        f"{name} has an answer for the id {self.events[-1]['id']!r}, which is not among the {len(known)} "
                        "rows; give the rows it was made for, or choose another path."
                    )
            except (ValueError, KeyError, TypeError):
                raise CourseError(
                    f"{name} line {number} is damaged; put the file back from a copy, or delete that line alone and run "
                    "again."
                ) from None
        found = self.events.pop(0)
        for key, what in (
            ("fields", "other fields or values"),
            ("rows", "other rows or texts"),
            ("annotator", "another annotator"),
            ("seed", "another seed"),
            ("simulated", "answers of another kind"),
        ):
            if found.get(key) != header[key]:
                hint = (
                    ""
                    if key in ("fields", "rows")
                    else f" ({key} {found.get(key)!r}, not {header[key]!r})"
                )
                raise CourseError(
                    f"{name} was made for {what}{hint}; choose another path, or go on with the same as before."
                )

    def add(self, *events):
        """Append events. When the disk is full, what was there before stays whole and the next attempt may succeed."""
        data = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events).encode()
        try:
            with open(self.path, "r+b") as file:
                file.seek(self.size)
                if (
                    os.fstat(file.fileno()).st_size < self.size or b"\n" in file.read()
                ):  # half a line is what a full disk left
                    raise CourseError(
                        f"{self.path.name} was changed by another notebook; run the cell again to go on from there."
                    )
                file.seek(self.size)
                file.truncate()
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            with suppress(OSError):
                os.truncate(self.path, self.size)
            raise CourseError(
                f"This could not be stored in {self.path.name} ({problem.strerror}); everything before it is kept. Put "
                "that right and store it again."
            ) from None
        self.size += len(data)
        self.events += events


def from_utf16(text, start, end):
    """Code point offsets of a browser's UTF-16 offsets. Raises CourseError outside the text or inside a character."""
    units = text.encode("utf-16-le")
    try:
        if not all(type(i) is int for i in (start, end)) or not 0 <= start < end <= len(units) // 2:
            raise ValueError
        return tuple(len(units[: 2 * i].decode("utf-16-le")) for i in (start, end))
    except ValueError:
        raise CourseError(
            f"The span {start} to {end} does not lie on characters of the message; select it again."
        ) from None


def to_utf16(text, *offsets):
    """UTF-16 offsets, as a browser counts, of code point offsets."""
    return [len(text[:i].encode("utf-16-le")) // 2 for i in offsets]


def texts(pilot, rows):
    """{id: text} of rows that can be labelled. Raises CourseError for no rows, a missing column or id, and an id that stands twice."""
    found = {}
    for number, row in enumerate(rows, 1):
        if pilot.text not in row or row.get("id") in (None, ""):
            lacks = "id" if pilot.text in row else pilot.text
            raise CourseError(
                f"Row {number} has no {lacks!r}; its columns are {', '.join(map(str, row))}, and labelling needs 'id' and "
                f"{pilot.text!r}."
            )
        key, text = str(row["id"]), row[pilot.text]
        if key in found:
            raise CourseError(
                f"The id {key!r} stands in two rows (the second is row {number}); give every row its own."
            )
        if not isinstance(text, str) or not text.strip():
            raise CourseError(
                f"Row {number} ({key}): the column {pilot.text!r} is empty or not text; leave that row out."
            )
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise CourseError(
                f"Row {number} ({key}): the text has half a character (a lone surrogate); replace it or leave the row out."
            )
        found[key] = text
    if not found:
        raise CourseError("There are no rows to label.")
    for name in pilot.labels:
        if not isinstance(pilot.fields[name].values, list):
            raise CourseError(
                f"The values of {name} are still to be sampled; call rows.load(pilot) first."
            )
    return found


def table(pilot, title, texts, records):
    """An HTML table of messages and their records (None: not labelled yet), cut short, nothing of it run or hidden."""

    def cell(value):
        if value is None:
            return "none"
        shown = HIDDEN.sub(lambda found: f"[U+{ord(found.group()):04X}]", value)
        return f"<bdi>{html.escape(shown if len(shown) <= 240 else shown[:240] + ' …')}</bdi>"

    lines = []
    for i, text in texts.items():
        values = [cell(records[i][name]) if records[i] else "…" for name in pilot.fields]
        lines.append(
            f'<tr><td style="text-align:left">{cell(text)}</td>'
            + "".join(f"<td>{value}</td>" for value in values)
            + "</tr>"
        )
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in (pilot.text, *pilot.fields))
    return (
        f"<p>{html.escape(title)}. In a running notebook this is a widget; here are the first {len(lines)} rows in its order.</p>\n"
        f"<table><thead><tr>{heads}</tr></thead>\n<tbody>" + "\n".join(lines) + "</tbody></table>"
    )

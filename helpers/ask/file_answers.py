"""A file of messages answered: one line for each row, in their order, whatever a kill does.

Rows are read and written in chunks, so memory does not grow with the file. A finished chunk is on
disk and in a ledger beside it; what a kill leaves behind the last one is cut off and read again.
"""

import contextlib
import csv
import io
import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from xml.sax.saxutils import escape

import xlsxwriter
from xlsxwriter.exceptions import XlsxWriterException

from helpers import CourseError
from helpers.core.files import FORMULA, append_entry, fingerprint, locked, read_entries, sha256
from helpers.core.incoming import DAMAGED, LINES, Arrival, Incoming
from helpers.core.pilot import Pilot
from helpers.core.progress import progress
from helpers.core.text import cleaned

CHUNK = 128  # rows; a kill loses the work on so many at most
LONGEST = 10_000  # characters of a message that are read
SHORTENED = f"only the first {LONGEST:,} characters were read"
SHEET_ROWS = 1_048_575  # that a sheet holds below its header
CELL_FULL = "a text was cut here: a cell holds 32,767 characters"
SAME_DATE = datetime(2000, 1, 1)  # of every workbook, so that equal rows give equal bytes


class ReaderGoneError(CourseError):
    """What answers is gone: the file stops, and no row of it is to blame."""


@dataclass(frozen=True)
class Answer:
    """What is made of one message: {field: value}, {field: 0 to 1 or None}, {field: ways}.

    `check`: should a person look? None where no system decides it.
    """

    record: dict[str, str | None]
    confidence: dict[str, float | None]
    read_by: dict[str, str]
    check: bool | None = None
    note: str = ""


class Reader(Protocol):
    """What answers messages; `identity` names everything its answers are made from."""

    @property
    def pilot(self) -> Pilot:
        """The pilot whose fields are read."""

    @property
    def identity(self) -> str:
        """Another model, rule or setting has another identity."""

    def answers(self, messages: Sequence[str]) -> list[Answer]:
        """One Answer for each message."""


@dataclass(frozen=True)
class Tally:
    """What came of a file: its `rows`, those a person should look at, those nobody could read."""

    rows: int = 0
    check: int = 0
    unread: int = 0

    def __str__(self) -> str:
        if not self.rows:
            return "The file has no rows."
        looked = f"a person should look at {self.check:,} ({self.check / self.rows:.0%})"
        return f"{self.rows:,} rows: {looked}; {self.unread:,} could not be read, each says why."


def shortened(text: str) -> tuple[str, str]:
    """(what a reader gets of a message, what to say about it or "")."""
    text = cleaned(text)
    return text[:LONGEST], SHORTENED if len(text) > LONGEST else ""


def answers_to(reader: Reader, texts: Sequence[str]) -> list[Answer]:
    """One Answer for each text. Equal texts are asked once.

    A text that breaks the reader gets an empty Answer that says why; where all of several do, the
    reader is broken, and its error is raised.
    """
    heads = [shortened(text) for text in texts]
    unique = list(dict.fromkeys(head for head, _ in heads))
    told = _told(reader, unique) if unique else []
    broken = [one for one in told if isinstance(one, Exception)]
    if len(broken) == len(told) > 1:
        raise broken[0]
    answer_of = dict(zip(unique, told))
    answers = []
    for head, note in heads:
        one = answer_of[head]
        if isinstance(one, Exception):
            why = str(one) if isinstance(one, CourseError) else type(one).__name__
            one = Answer({}, {}, {}, True, f"could not be read: {why}")
        elif note:  # nobody knows what stands in the rest
            one = replace(one, check=True, note=_joined(one.note, note))
        answers.append(one)
    return answers


def _told(reader: Reader, texts: Sequence[str]) -> list[Answer | Exception]:
    """As `reader.answers`, by halves where it breaks, down to the texts that do it."""
    try:
        return list(reader.answers(texts))
    except ReaderGoneError:
        raise
    except Exception as problem:
        # a Ctrl-C that somebody has put into words counts answers which nobody keeps here
        if isinstance(problem.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        if len(texts) == 1:
            return [problem]
    half = len(texts) // 2
    return [*_told(reader, texts[:half]), *_told(reader, texts[half:])]


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def answer_file(
    source: str | Path,
    out: str | Path,
    reader: Reader,
    *,
    text: str | None = None,
    fresh: bool = False,
    say: Callable[[str], None] = print,
) -> Tally:
    """Answer every row of `source` into `out`; both are CSV, XLSX or JSONL, by their endings.

    `text`: the column of the message, that of the pilot when left out. The same call goes on after
    a kill; `fresh` begins from nothing and takes the place of an `out` that is there. Raises
    CourseError for files that cannot be read or written; what was finished is kept.
    """
    mail = Incoming.look(source, text or reader.pilot.text)
    out = checked_out(source, out)
    for note in mail.notes:
        say(note)
    lock = out.with_name(f".{out.name}.lock")
    try:
        with locked(lock, lambda: say(f"Another run writes {out.name}; this one waits for it.")):
            return _answer(mail, out, reader, fresh, say)
    finally:
        with contextlib.suppress(OSError):  # Windows keeps what the waiting one has open
            lock.unlink()


def checked_out(source: str | Path, out: str | Path) -> Path:
    """The path of the output; CourseError where nothing could be written there."""
    source, out = Path(source), Path(out)
    if out.exists() and out.samefile(source) or out.resolve() == source.resolve():
        raise CourseError(f"{out.name} is the file that is read; give the output another name.")
    if out.suffix.lower() not in (".csv", ".xlsx", *LINES):
        raise CourseError(f"The output {out.name} must end in .csv, .xlsx or .jsonl.")
    if not out.resolve().parent.is_dir():
        raise CourseError(f"There is no folder {out.parent} for {out.name}; make it first.")
    return out


def _answer(
    mail: Incoming, out: Path, reader: Reader, fresh: bool, say: Callable[[str], None]
) -> Tally:
    header, content = _header(reader.pilot, mail.column), sha256(mail.path)
    kind = out.suffix.lower()
    if kind == ".xlsx" and mail.number > SHEET_ROWS:
        what = f"{mail.path.name} has {mail.number:,} rows and a sheet holds {SHEET_ROWS:,}"
        raise CourseError(f"{what}; let the output end in .csv.")
    made_from = fingerprint(content, header, kind, CHUNK, reader.identity)
    part = _Part(out, made_from, fresh, say)
    if kind == ".csv" and not part.started:
        part.add("\ufeff" + _csv([header]), part.tally)  # the mark makes Excel read UTF-8
    rows = itertools.islice(mail.rows(), part.tally.rows, None)
    with progress(None, f"answering {mail.path.name}", mail.number) as bar:
        bar.n = bar.initial = part.tally.rows
        while chunk := list(itertools.islice(rows, CHUNK)):
            lines, tally = _lines(chunk, reader, part.tally)
            part.add(_csv(lines) if kind == ".csv" else _jsonl(header, lines), tally)
            bar.update(len(chunk))
    if part.tally.rows != mail.number or sha256(mail.path) != content:
        part.drop()
        raise CourseError(f"{mail.path.name} was changed while it was read; run it again.")
    part.finish(header)
    return part.tally


def _header(pilot: Pilot, text: str) -> list[str]:
    """The columns: row, id, the message, each field, how sure, who read it, check, note."""
    taken = {text, *pilot.fields}

    def free(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    sure = [free(f"{name} confidence") for name in pilot.fields]
    ways = [free(f"{name} by") for name in pilot.fields]
    first = [free("row"), free("id"), text, *pilot.fields]
    return [*first, *sure, *ways, free("check"), free("note")]


def _lines(chunk: Sequence[Arrival], reader: Reader, before: Tally) -> tuple[list[list], Tally]:
    """(the cells of each row of a chunk, the tally with it)."""
    readable = [row.text for row in chunk if not row.problem]
    answer_of = dict(zip(readable, answers_to(reader, readable)))
    lines, check, unread = [], 0, 0
    for row in chunk:
        one = Answer({}, {}, {}, True, row.problem)
        if not row.problem:
            one = answer_of[row.text]
        # without a system nobody knows which are right; and a replaced letter may matter
        looked = one.check is not False or row.note == DAMAGED
        check, unread = check + looked, unread + (not one.record)
        lines.append(_cells(row, one, looked, reader.pilot))
    return lines, Tally(before.rows + len(chunk), before.check + check, before.unread + unread)


def _cells(row: Arrival, one: Answer, looked: bool, pilot: Pilot) -> list:
    fields = list(pilot.fields)
    sure: list[float | None] = []
    for name in fields:
        chance = one.confidence.get(name)
        sure.append(None if chance is None else round(float(chance), 3))
    values = [one.record.get(name) for name in fields]
    ways = [one.read_by.get(name) for name in fields]
    note = _joined(row.note, one.note)
    head = [row.number, row.id, row.text]
    return [*head, *values, *sure, *ways, "yes" if looked else "no", note]


def _csv(lines: Sequence[Sequence]) -> str:
    """Lines of CSV, with an apostrophe before what a spreadsheet would run: as files.write_csv."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for cells in lines:
        defused = []
        for cell in cells:
            formula = isinstance(cell, str) and FORMULA.match(cell)
            defused.append(f"'{cell}" if formula else cell)
        writer.writerow(defused)
    return text.getvalue()


def _jsonl(header: Sequence[str], lines: Sequence[Sequence]) -> str:
    rows = [json.dumps(dict(zip(header, cells)), ensure_ascii=False) for cells in lines]
    return "".join(f"{row}\n" for row in rows)


def _write_sheet(path: Path, header: Sequence[str], lines: Path) -> None:
    """The JSONL file `lines` as a workbook of one sheet: a text is a text, whatever it begins with.

    Raises OSError or XlsxWriterException where it cannot be written.
    """
    with xlsxwriter.Workbook(path, {"constant_memory": True}) as book:
        book.set_properties({"created": SAME_DATE})
        sheet = book.add_worksheet()
        sheet.freeze_panes(1, 0)
        _write_row(sheet, 0, header)
        with open(lines, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                _write_row(sheet, number, list(json.loads(line).values()))


def _write_row(sheet: Any, number: int, cells: Sequence[str | float | None]) -> None:
    """Write the cells of a row; the last, its note, says where another was too long."""
    *first, note = cells
    whole = [_write_cell(sheet, number, column, cell) for column, cell in enumerate(first)]
    if not all(whole):
        note = _joined(str(note or ""), CELL_FULL)
    _write_cell(sheet, number, len(first), note)


def _write_cell(sheet: Any, row: int, column: int, cell: str | float | None) -> bool:
    """False where a text was longer than a cell."""
    if cell is None or cell == "":
        return True
    if not isinstance(cell, str):
        sheet.write_number(row, column, cell)
        return True
    if cell.startswith("<r>") and cell.endswith("</r>"):  # XlsxWriter takes that for its own XML
        cell = f'<r><t xml:space="preserve">{escape(cell)}</t></r>'
    return sheet.write_string(row, column, cell) == 0


@dataclass
class _Part:
    """The finished chunks of an output, and the ledger that says how far they go."""

    out: Path
    made_from: str
    fresh: bool
    say: Callable[[str], None]
    tally: Tally = field(init=False, default_factory=Tally)
    started: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.path = self.out.with_name(f"{self.out.name}.part")
        self.ledger = self.out.with_name(f"{self.out.name}.part.jsonl")
        entries = [] if self.fresh else read_entries(self.ledger)
        if entries and entries[0].get("made_from") != self.made_from:
            self.say("The messages or the system have changed since the last start: begun anew.")
            entries = []
        if not entries or not self.path.is_file():
            self.drop()
        else:
            self._go_on(entries[1:])
        if self.out.exists() and not self.started and not self.fresh:
            cure = "move it, name another output, or make it anew with --fresh (fresh=True)"
            raise CourseError(f"{self.out.name} is there already; {cure}.")
        if not self.started:
            append_entry(self.ledger, {"made_from": self.made_from}, f"{self.out.name}.part", 0)

    def _go_on(self, entries: Sequence[dict]) -> None:
        """Cut off what stands behind the last whole chunk."""
        size = self.path.stat().st_size
        whole = [entry for entry in entries if entry["bytes"] <= size]
        if not whole:
            self.drop()
            return
        os.truncate(self.path, whole[-1]["bytes"])
        self.tally, self.started = Tally(**whole[-1]["tally"]), True
        if self.tally.rows:
            self.say(f"Going on after row {self.tally.rows:,} of the last start.")

    def add(self, text: str, tally: Tally) -> None:
        """Append a chunk, and only then say so in the ledger."""
        try:
            with open(self.path, "ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
        except OSError as problem:
            what = f"{self.path.name} could not be written ({problem.strerror})"
            cure = "free some space and run the same command again"
            raise CourseError(f"{what}; {self.tally.rows:,} rows are kept: {cure}.") from None
        entry = {"bytes": size, "tally": vars(tally)}
        append_entry(self.ledger, entry, f"Rows of {self.out.name}", self.tally.rows)
        self.tally = tally

    def finish(self, header: Sequence[str]) -> None:
        """Put the whole output in its place."""
        ready = self.path
        if not ready.is_file():  # no row, and lines have no header
            ready.touch()
        try:
            if self.out.suffix.lower() == ".xlsx":
                ready = self.out.with_name(f"{self.out.name}.part.xlsx")
                _write_sheet(ready, header, self.path)
            os.replace(ready, self.out)
        except (OSError, XlsxWriterException) as problem:
            why = problem.strerror if isinstance(problem, OSError) else problem
            what = f"{self.out.name} could not be put in place ({why})"
            cure = "close it where it is open, or free some space, and run the same command again"
            raise CourseError(f"{what}; {cure}.") from None
        self.drop()

    def drop(self) -> None:
        """Take away what is there of this output."""
        self.path.unlink(missing_ok=True)
        self.ledger.unlink(missing_ok=True)

"""Tomorrow's file: every row of a CSV, XLSX or JSONL file, one after the other.

`rows` refuses a file with a mistake. This gives every row, and one that cannot be read says why.
"""

import codecs
import contextlib
import csv
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openpyxl

from helpers import CourseError
from helpers.core.encodings import NAMES, told_encoding, utf_16
from helpers.core.files import FORMULA, WORKBOOKS, each_key_once
from helpers.core.text import CONTROL, HIDDEN, cleaned, did_you_mean, normalised

SAMPLE = 4_000_000  # bytes from whose letters an encoding is told
LONGEST_CELL = 10_000_000  # characters, as files.py has it
TABLES, LINES = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson")
ABOVE = ("", "sep=", "sep=,", "sep=;", "sep=\t")  # what may stand above a header
EMPTY = "the message is empty"
DAMAGED = "letters that are not UTF-8 were replaced"
CONTROLS = "control characters were replaced by spaces"
# how a workbook writes a character that XML does not hold, and the mark of such an escape itself
ESCAPED = re.compile("_x(00[01][0-9A-F]|FFF[EF]|005F)_", re.IGNORECASE)


@dataclass(frozen=True)
class Arrival:
    """A row as it came. `number`: the row of the spreadsheet, or the line of a JSONL file.

    `problem`: why nothing can be read from it, or "". `note`: what was changed in its text.
    """

    number: int
    id: str
    text: str
    problem: str = ""
    note: str = ""
    has_column: bool = True


@dataclass(frozen=True)
class Incoming:
    """A file of messages that was looked through once; make one with `Incoming.look(path, column)`.

    `number` of its rows; `notes` on how it was read.
    """

    path: Path
    column: str
    encoding: str = "utf-8-sig"
    damaged: bool = False  # some of its bytes are no letters
    marked: bool = False  # begins with the mark of Excel and of files.write_csv
    number: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def look(cls, path: str | Path, column: str) -> "Incoming":
        """Look through a file before anything is asked of it.

        Raises CourseError: no such file or kind, no such column, a quote that never closes, a
        broken workbook.
        """
        path = Path(path)
        _refuse_kind(path)
        found = cls(path, column)
        if path.suffix.lower() == ".xlsx":
            found = replace(found, notes=other_sheets(path))
        else:
            found = found._with_encoding()
        number, with_column = 0, False
        for row in found.rows():
            number, with_column = number + 1, with_column or row.has_column
        if number and not with_column:
            what = f"No line of {path.name} is a JSON object with the key {column!r}"
            raise CourseError(f"{what}; name the right one with --text.")
        return replace(found, number=number)

    def rows(self) -> Iterator[Arrival]:
        """Every row in its order, read as it is needed."""
        kind = self.path.suffix.lower()
        if kind in LINES:
            yield from self._from_lines()
        elif kind == ".xlsx":
            yield from self._from_table(sheet_rows(self.path))
        else:
            yield from self._from_table(self._records())

    def _with_encoding(self) -> "Incoming":
        encoding, damaged = "utf-8-sig", False
        with open(self.path, "rb") as file:
            start = file.read(SAMPLE)
        if not start.strip():
            raise CourseError(f"{self.path.name} is empty.")
        if start.startswith(WORKBOOKS):
            what = "is an Excel workbook under another name; in Excel choose Save as, CSV UTF-8"
            raise CourseError(f"{self.path.name} {what}.")
        told = utf_16(start)
        if told is None and not _is_utf_8(self.path):
            whole = start if len(start) < SAMPLE else start[: start.rfind(b"\n") + 1]
            told = told_encoding(whole)
            damaged = told is None
        notes: tuple[str, ...] = ()
        if told:
            encoding = told
            notes = (f"{self.path.name} is not UTF-8 and was read as {NAMES[told]}.",)
        if damaged:
            what = f"{self.path.name} is not UTF-8 throughout"
            notes = (f"{what}: where a letter was replaced, a person should look.",)
        marked = start.startswith(codecs.BOM_UTF8)
        return replace(self, encoding=encoding, damaged=damaged, marked=marked, notes=notes)

    def _open(self, newline: str) -> Any:
        return open(self.path, encoding=self.encoding, errors="replace", newline=newline)

    def _records(self) -> Iterator[list[str]]:
        """The cells of a CSV file, record by record; CourseError names the line of a mistake."""
        csv.field_size_limit(LONGEST_CELL)
        with self._open("") as file:
            first = next((line for line in file if line.strip("\ufeff \r\n")), "")
        # comma, semicolon or tab, whichever is most frequent outside quotes
        outside = "".join(first.split('"')[::2])
        line = 1
        with self._open("") as file:
            reader = csv.reader(file, delimiter=max(",;\t", key=outside.count), strict=True)
            try:
                for cells in reader:
                    line = reader.line_num + 1
                    yield self._plain(cells)
            except csv.Error as problem:
                what = f"a quote opens here and does not end as it should ({problem})"
                cure = "write a quote inside a text twice"
                raise CourseError(f"{self.path.name} line {line}: {what}; {cure}.") from None

    def _plain(self, cells: list[str]) -> list[str]:
        """Without the apostrophes that write_csv puts before formulas."""
        if not self.marked:
            return cells
        return [c[1:] if c.startswith("'") and FORMULA.match(c) else c for c in cells]

    def _from_table(self, records: Iterable[Sequence[Any]]) -> Iterator[Arrival]:
        header: list[str] | None = None
        for number, cells in enumerate(records, 1):
            if header is None:
                # a mark that UTF-16 leaves in front
                words = [str(cell or "").strip("\ufeff \t\r\n") for cell in cells]
                if "".join(words) not in ABOVE:
                    header = self._header(words)
            elif len(cells):  # an empty line is no row
                yield self._row_of_cells(number, list(cells), header)
        if header is None:
            raise CourseError(f"{self.path.name} is empty.")

    def _header(self, names: list[str]) -> list[str]:
        name = self.path.name
        if self.column not in names:
            what = f"{name} has no column {self.column!r}{did_you_mean(self.column, names)}"
            raise CourseError(f"{what} Name the right one with --text.")
        for column in (self.column, "id"):
            if names.count(column) > 1:
                raise CourseError(f"{name}: the column {column!r} stands there twice; rename one.")
        return names

    def _row_of_cells(self, number: int, cells: list[Any], header: list[str]) -> Arrival:
        if len(cells) != len(header):
            shown = cleaned(", ".join("" if cell is None else str(cell) for cell in cells))
            what = f"cells: {len(cells)} instead of {len(header)}"
            return Arrival(number, str(number), shown, what)
        row = dict(zip(header, cells))
        return self._row(number, row.get("id"), row[self.column])

    def _from_lines(self) -> Iterator[Arrival]:
        with self._open("\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip("\ufeff \t\r\n"):
                    yield self._row_of_line(number, line)

    def _row_of_line(self, number: int, line: str) -> Arrival:
        own, shown = str(number), cleaned(line.rstrip("\r\n"))
        try:
            row = json.loads(line.lstrip("\ufeff"), object_pairs_hook=each_key_once)
        except (ValueError, RecursionError):
            return Arrival(number, own, shown, "not JSON", has_column=False)
        if not isinstance(row, dict):
            return Arrival(number, own, shown, "not a JSON object", has_column=False)
        if self.column not in row:
            return Arrival(number, own, shown, f"no key {self.column!r}", has_column=False)
        return self._row(number, row.get("id"), row[self.column])

    def _row(self, number: int, own: Any, value: Any) -> Arrival:
        known = str(number)
        if own is not None and str(own).strip():
            known = cleaned(str(own))
        if value is None or value == "":
            return Arrival(number, known, "", EMPTY)
        if not isinstance(value, str):
            kind = "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"
            shown = cleaned(json.dumps(value, ensure_ascii=False, default=str))
            return Arrival(number, known, shown, f"not text but {kind}")
        text = cleaned(value)
        if not HIDDEN.sub("", text).strip():
            return Arrival(number, known, text, EMPTY)
        note = ""
        if self.damaged and "\ufffd" in value:
            note = DAMAGED
        elif CONTROL.search(normalised(value)):
            note = CONTROLS
        return Arrival(number, known, text, note=note)


def _refuse_kind(path: Path) -> None:
    """CourseError for what is no file, or of a kind that is not read."""
    if not path.is_file():
        raise CourseError(f"There is no file {path.name} in {path.parent.name or path.parent}/.")
    if path.suffix.lower() not in (*TABLES, *LINES, ".xlsx"):
        kinds = ", ".join((*TABLES, ".xlsx", *LINES))
        raise CourseError(f"{path.name} is of no kind that is read here ({kinds}).")


def _is_utf_8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as file:
        try:
            while piece := file.read(SAMPLE):
                decoder.decode(piece)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def sheet_rows(path: Path) -> Iterator[list[Any]]:
    """The rows of the first sheet of a workbook, as long as its header; formulas as last computed.

    Raises CourseError for what is no workbook.
    """
    width = 0
    with _book(path) as book:
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # some programs write down fewer rows than there are
        for values in sheet.iter_rows(values_only=True):
            cells = [_unescaped(value) if isinstance(value, str) else value for value in values]
            while cells and cells[-1] is None:
                cells.pop()
            # a sheet does not store the empty cells at the end of a row
            width = width or len(cells)
            yield cells + [None] * (width - len(cells)) if cells else []


def other_sheets(path: Path) -> tuple[str, ...]:
    """A note where a workbook has more sheets than the one that is read."""
    with _book(path) as book:
        names = book.sheetnames
    if len(names) < 2:
        return ()
    return (f"{path.name} has {len(names)} sheets; only the first, {names[0]!r}, is read.",)


@contextlib.contextmanager
def _book(path: Path) -> Iterator[Any]:
    """A workbook that is open to be read; whatever is wrong with it ends in one CourseError."""
    # on styles and extensions, which nobody here reads
    warnings.filterwarnings("ignore", module="openpyxl")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        with contextlib.closing(book):
            yield book
    except Exception:  # a broken zip file has many ways to say so
        cure = "open it in Excel and choose Save as, CSV UTF-8"
        raise CourseError(f"{path.name} cannot be read as a workbook; {cure}.") from None


def _unescaped(text: str) -> str:
    return ESCAPED.sub(lambda code: chr(int(code[1], 16)), text)

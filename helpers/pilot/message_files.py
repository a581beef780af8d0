"""A file of messages as a table of texts, whatever it was exported from."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openpyxl

from helpers import CourseError
from helpers.core.files import each_key_once, numbered_rows
from helpers.core.incoming import other_sheets, sheet_rows
from helpers.core.text import CONTROL, cleaned, normalised
from helpers.pilot import file_kinds
from helpers.pilot.headers import header_is_data
from helpers.pilot.mailboxes import mail_rows

NAMES = {
    file_kinds.TABLE: "a table (CSV or TSV)",
    file_kinds.WORKBOOK: "an Excel workbook",
    file_kinds.LINES: "JSON lines",
    file_kinds.JSON: "JSON",
    file_kinds.MAILBOX: "a mailbox (mbox)",
    file_kinds.MAIL: "a mail (.eml)",
    file_kinds.MAIL_FOLDER: "a folder of mails",
}
Numbered = list[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class MessageTable:
    """A file of messages: `rows` hold a text (or "") for each of the `columns`.

    `kind`: what it was, in words. `notes`: what was changed or should be known. `numbers`: for each
    row the row of the spreadsheet, the line, or the number of the mail. `name`: of the file.
    """

    rows: list[dict[str, str]]
    columns: list[str]
    kind: str
    notes: list[str] = field(default_factory=list)
    name: str = ""
    numbers: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.kind}, {len(self.rows):,} rows"]
        lines += [f"columns: {', '.join(self.columns)}", *self.notes]
        return "\n".join(lines)


def read_messages(path: str | Path, named: Sequence[str] = ()) -> MessageTable:
    """Read CSV, TSV, XLSX, JSON, JSON lines, mbox, or a folder of .eml files.

    `named`: columns that somebody named; where the first row has one of them, it is a header.
    Raises CourseError in one sentence for what cannot be read: kind, encoding, quotes, ragged rows.
    """
    path = Path(path).expanduser()
    kind = file_kinds.kind_of(path)
    notes: list[str] = []
    if kind in (file_kinds.MAILBOX, file_kinds.MAIL, file_kinds.MAIL_FOLDER):
        numbered: Numbered = list(mail_rows(path, notes))
    elif kind == file_kinds.WORKBOOK:
        numbered = _from_workbook(path, notes)
    elif kind == file_kinds.JSON:
        numbered = _from_json(path, notes)
    else:
        numbered = _from_text(path, kind, notes)
    if not numbered:
        raise CourseError(f"{path.name} has a header but no rows.")
    if kind in (file_kinds.TABLE, file_kinds.WORKBOOK):
        numbered = _with_a_header(path.name, numbered, named, notes)
    return _as_table(path.name, NAMES[kind], numbered, notes)


def _as_table(name: str, kind: str, numbered: Numbered, notes: list[str]) -> MessageTable:
    """Every cell a cleaned text, every row with every column; empty rows and columns go."""
    flat = [(number, _flattened(row)) for number, row in numbered]
    columns = list(dict.fromkeys(column for _, row in flat for column in row))
    rows, numbers, controls = [], [], 0
    for number, row in flat:
        if any(value.strip() for value in row.values()):
            controls += any(CONTROL.search(normalised(value)) for value in row.values())
            rows.append({column: cleaned(row.get(column, "")) for column in columns})
            numbers.append(number)
    if controls:
        notes.append(f"{name}: control characters in {controls} row(s) were replaced by spaces.")
    if not rows:
        raise CourseError(f"{name} has {len(flat)} row(s), and every cell is empty.")
    nameless = [c for c in columns if c.startswith("column ") and not any(r[c] for r in rows)]
    columns = [column for column in columns if column not in nameless]
    rows = [{column: row[column] for column in columns} for row in rows]
    return MessageTable(rows, columns, kind, notes, name, numbers)


def _flattened(row: dict[str, Any], above: str = "") -> dict[str, str]:
    """Nested objects as columns `outer.inner`, lists as `a; b`, everything else as text."""
    flat: dict[str, str] = {}
    for key, value in row.items():
        name = cleaned(f"{above}{key}").strip("\ufeff \t\n")
        if isinstance(value, dict) and value:
            flat |= _flattened(value, f"{name}.")
        else:
            flat[name or "column"] = _as_text(value)
    return flat


def _as_text(value: Any) -> str:
    if value is None or value == {}:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not any(isinstance(each, dict | list) for each in value):
        return "; ".join(map(_as_text, value))
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return str(value.date()) if midnight else value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _with_a_header(
    name: str, numbered: Numbered, named: Sequence[str], notes: list[str]
) -> Numbered:
    """The same rows; where the header is itself a message, it is the first of them."""
    header = list(numbered[0][1])
    plain = [column.lstrip("\ufeff").strip(' "') if column[:1] == "\ufeff" else column
             for column in header]  # fmt: skip
    if plain != header:  # a second mark of UTF-8 in front
        numbered = [(number, dict(zip(plain, row.values()))) for number, row in numbered]
    columns = [[_as_text(row[column]) for _, row in numbered] for column in plain]
    if set(named) & set(plain) or not header_is_data(plain, columns):
        return numbered
    new = [f"column {place}" for place in range(1, len(plain) + 1)]
    notes.append(
        f"{name} has no header: its first row looks like data, and was read as a row. The columns "
        f"are called {new[0]} to {new[-1]}. If it is a header, name one of its columns with --text."
    )
    first = dict(zip(new, plain))
    return [(1, first), *((number, dict(zip(new, row.values()))) for number, row in numbered)]


def _from_text(path: Path, kind: str, notes: list[str]) -> Numbered:
    if kind == file_kinds.TABLE:
        _refuse_other_separators(path)
    try:
        return numbered_rows(path, notes)
    except UnicodeDecodeError:  # UTF-16 whose last letter is half a letter
        what = "is cut off in the middle of a letter, or damaged"
        raise CourseError(f"{path.name} {what}; export it again as 'CSV UTF-8'.") from None


def _refuse_other_separators(path: Path) -> None:
    with open(path, "rb") as file:
        first = next((line for line in file if line.strip()), b"")
    if (b"|" in first or b"^" in first) and not any(mark in first for mark in (b",", b";", b"\t")):
        what = "seems to separate its columns by | or ^"
        raise CourseError(f"{path.name} {what}; save it with commas, semicolons or tabs.")


def _from_workbook(path: Path, notes: list[str]) -> Numbered:
    """The rows of the first sheet. Raises CourseError for a column twice, and for a longer row."""
    notes += other_sheets(path)
    header: list[str] = []
    numbered: Numbered = []
    for number, cells in enumerate(sheet_rows(path), 1):
        if not header:
            words = ["" if cell is None else _as_text(cell).strip() for cell in cells]
            header = [word or f"column {place}" for place, word in enumerate(words, 1)]
            twice = next((word for word in header if header.count(word) > 1), None)
            if twice:
                raise CourseError(f"{path.name}: the column {twice!r} stands there twice.")
        elif len(cells) > len(header):
            what = f"row {number} has {len(cells)} cells and the header {len(header)}"
            cure = "take out what stands above the header, and give every column a name"
            raise CourseError(f"{path.name}: {what}; {cure}.")
        elif any(cell is not None for cell in cells):
            numbered.append((number, dict(zip(header, cells))))
    if not header:
        raise CourseError(f"{path.name}: the first sheet is empty.")
    lost = _uncomputed_formulas(path)
    if lost:
        what = "formula(s) have no stored result and were read as empty"
        notes.append(f"{path.name}: {lost} {what}; open it in Excel and save it once.")
    return numbered


def _uncomputed_formulas(path: Path) -> int:
    """Cells of the first sheet with a formula whose result no program wrote down."""
    lost = 0
    book = openpyxl.load_workbook(path, read_only=True)
    try:
        with_formulas = book.worksheets[0]
        with_formulas.reset_dimensions()
        for cells, values in zip(with_formulas.iter_rows(), sheet_rows(path)):
            values = [*values, *[None] * len(cells)]
            lost += sum(c.data_type == "f" and value is None for c, value in zip(cells, values))
    finally:
        book.close()
    return lost


def _from_json(path: Path, notes: list[str]) -> Numbered:
    """A list of objects, an object with one such list in it, or one object on each line."""
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=each_key_once)
    except UnicodeDecodeError:
        raise CourseError(f"{path.name} is not UTF-8, as JSON must be; save it as UTF-8.") from None
    except RecursionError:
        raise CourseError(f"{path.name} is nested too deeply to be a table.") from None
    except ValueError as problem:
        lines = path.read_bytes().decode("utf-8-sig", errors="replace").split("\n")
        if (
            sum(line.lstrip().startswith("{") for line in lines) > 1
            and lines[0].rstrip()[-1:] == "}"
        ):
            what = "has the ending .json, but holds an object on each line"
            raise CourseError(f"{path.name} {what}; rename it to {path.stem}.jsonl.") from None
        raise CourseError(f"{path.name} is not JSON: {problem}.") from None
    if isinstance(content, dict):
        lists = {key: value for key, value in content.items() if isinstance(value, list)}
        if len(lists) != 1:
            what = f"holds one object with {len(lists)} lists in it"
            raise CourseError(f"{path.name} {what}; it should be a list of objects, one a message.")
        [(key, content)] = lists.items()
        notes.append(f"{path.name}: its list {key!r} was read.")
    if not isinstance(content, list) or not content:
        raise CourseError(f"{path.name} should be a list of objects, one a message.")
    if all(isinstance(item, str) for item in content):
        return [(number, {"message": item}) for number, item in enumerate(content, 1)]
    for number, item in enumerate(content, 1):
        if not isinstance(item, dict):
            what = f"item {number} of the list is no object with the columns as keys"
            raise CourseError(f"{path.name}: {what}.")
    return list(enumerate(content, 1))

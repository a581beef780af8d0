"""The rows of a new pilot: labels in one spelling, copied words as the message has them."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from helpers.core.pilot import FieldSpec
from helpers.core.text import HIDDEN
from helpers.pilot.columns import Column, as_in_text, plain_value
from helpers.pilot.message_files import MessageTable
from helpers.pilot.roles import Roles

WHY = " why"  # the key of why a row is put aside; no column begins so
EMPTY, NOT_IN_TEXT, UNLABELLED = "empty", "not_in_text", "unlabelled"
Row = dict[str, Any]


def mended_rows(table: MessageTable, roles: Roles, notes: list[str]) -> list[Row]:
    """Rows with the pilot's own names, in the order of the file; WHY says why one cannot be used.

    `notes` learns of every kind of change: one spelling for a label, `1.0` as 1, copied words in
    the case that the message has.
    """
    labels = {column: _labels(table, roles, column, notes) for column in roles.labels}
    rows = []
    cased: Counter[str] = Counter()
    for place, (number, cells) in enumerate(zip(table.numbers, table.rows)):
        row: Row = {"id": cells[roles.id].strip() if roles.id else str(number), WHY: ""}
        row[roles.names[roles.text]] = cells[roles.text]
        if not HIDDEN.sub("", cells[roles.text]).strip():
            row[WHY] = EMPTY
        for column in roles.labels:
            row[roles.names[column]] = labels[column][place]
        for column in (*roles.spans, *roles.patterns):
            value = cells[column].strip()
            found = as_in_text(value, cells[roles.text])
            cased[column] += bool(found) and found != value
            row[roles.names[column]] = value if found is None else found
            if found is None or _unmatched(roles, column, found, cells[roles.text]):
                row[WHY] = row[WHY] or NOT_IN_TEXT
        first = roles.labels[:1]
        if first and not row[roles.names[first[0]]]:
            row[WHY] = row[WHY] or UNLABELLED
        for column in filter(None, (roles.group, roles.date, *roles.ignored)):
            row[roles.names[column]] = cells[column]
        rows.append(row)
    for column, number in cased.items():
        if number:
            what = f"{number} value(s) were written as the message has them (capitals, spaces)"
            notes.append(f"{column}: {what}.")
    return rows


def _unmatched(roles: Roles, column: str, value: str, text: str) -> bool:
    regex = roles.patterns.get(column)
    if not regex or not value:
        return False
    return value not in FieldSpec(type="pattern", regex=regex).matches(text)


def _labels(table: MessageTable, roles: Roles, column: str, notes: list[str]) -> list[str]:
    """One label a row, or "": one spelling each, none where a cell holds several."""
    parts = [
        [" ".join(part.split()) for part in cell] for cell in Column.of(column, table.rows).parts()
    ]
    singles = [each[0] if len(each) == 1 else "" for each in parts]
    if any(value.endswith(".0") for value in singles):
        singles = _without_point(singles, column, notes)
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for value in filter(None, singles):
        spellings[plain_value(value)][value] += 1
    chosen = {}
    for plain, counts in spellings.items():
        chosen[plain] = counts.most_common(1)[0][0]
        others = [repr(value[:40]) for value in counts if value != chosen[plain]]
        if others:
            what = f"{', '.join(others)} was taken as {chosen[plain][:40]!r}"
            notes.append(f"{column}: {what}; they differ in capitals or spaces only.")
    _say_zeros(column, list(chosen.values()), notes)
    return [chosen[plain_value(value)] if value else "" for value in singles]


def _without_point(values: Sequence[str], column: str, notes: list[str]) -> list[str]:
    """A table of numbers makes 1.0 of 1: where all such values end in .0, they are whole."""
    numbers = [value for value in values if re.fullmatch(r"\d+\.\d+", value)]
    if not numbers or not all(value.endswith(".0") for value in numbers):
        return list(values)
    notes.append(
        f"{column}: {len(numbers)} label(s) such as {numbers[0]} were read as whole numbers."
    )
    return [re.sub(r"^(\d+)\.0$", r"\1", value) for value in values]


def _say_zeros(column: str, values: Sequence[str], notes: list[str]) -> None:
    for value in values:
        short = value.lstrip("0")
        if value != short and value.isdecimal() and short in values:
            what = f"{value!r} and {short!r} are two labels here"
            cure = "a spreadsheet makes the second of the first; if they are one, mend the file"
            notes.append(f"{column}: {what}; {cure}.")

"""What the values of a column share: a date, a form such as PO-4711, a name."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from pydantic import ValidationError

from helpers.core.pilot import TAKEN, FieldSpec, Pilot, regex_problem

TIME = re.compile(r"[T ,]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?\s*([ap]\.?m\.?)?", re.I)
YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
JAPANESE = re.compile(r"(\d{4})年(\d{1,2})月(\d{1,2})日")
YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})")


@dataclass(frozen=True)
class ReadDates:
    """`values`: for each cell `2026-03-04T09:12:00`, or None. `how`: what was assumed, in words."""

    values: list[str | None]
    how: str


def read_dates(cells: Sequence[str]) -> ReadDates:
    """Dates: 2026-03-04, 4.3.2026, 04/03/2026, 2026年3月4日, or as in a mail; a time may follow.

    3/4/2026 is a day and a month in either order: other cells decide, else the day is first.
    """
    plain = [unicodedata.normalize("NFKC", cell).strip() for cell in cells]
    day_first, month_first = 0, 0
    for cell in plain:
        match = YEAR_LAST.match(cell)
        if match and match[2] != ".":  # with points the day stands first everywhere
            day_first += int(match[1]) > 12
            month_first += int(match[3]) > 12
    slashed = any((match := YEAR_LAST.match(cell)) and match[2] != "." for cell in plain)
    how = ""
    if slashed and day_first and month_first:
        how = "some cells have the month first and some the day; each was read as it can be"
    elif slashed and month_first:
        how = "read as month/day/year"
    elif slashed and day_first:
        how = "read as day/month/year"
    elif slashed:
        how = "day/month/year was assumed: no cell tells it from month/day/year"
    months = month_first > day_first
    return ReadDates([_moment(cell, months) for cell in plain], how)


def _moment(cell: str, month_first: bool) -> str | None:
    for form in (YEAR_FIRST, JAPANESE, YEAR_LAST):
        match = form.match(cell)
        if match:
            break
    else:
        return _of_a_mail(cell)
    numbers = [int(part) for part in match.groups() if part.isdigit()]
    if form is YEAR_LAST:
        one, two, year = numbers
        swapped = match[2] != "." and (month_first or two > 12) and one <= 12
        day, month = (two, one) if swapped else (one, two)
        year += 2000 if year < 70 else 1900 if year < 100 else 0
    else:
        year, month, day = numbers
    rest = cell[match.end() :]
    time = TIME.match(rest)
    if rest and not time:
        return None
    hour, minute, second = (int(part or 0) for part in time.groups()[:3]) if time else (0, 0, 0)
    if time and time[4]:
        hour = hour % 12 + 12 * (time[4][0] in "pP")
    try:
        return datetime(year, month, day, hour, minute, second).isoformat()
    except ValueError:
        return None


def _of_a_mail(cell: str) -> str | None:
    if not re.search(r"\d{4}.*\d\d:\d\d", cell) or len(cell) > 50:
        return None
    try:
        return parsedate_to_datetime(cell).replace(tzinfo=None).isoformat()
    except (ValueError, TypeError, IndexError):
        return None


# Patterns --------------------------------------------------------------------------------------

PART = re.compile(r"\d+|[A-Z]+|[a-z]+|.", re.DOTALL)
CLASSES = (
    (r"\d", re.compile(r"\d+")),
    ("[A-Z]", re.compile("[A-Z]+")),
    ("[a-z]", re.compile("[a-z]+")),
)
FEWEST_VALUES = 3


def shared_form(values: Collection[str], texts: Sequence[str]) -> str:
    r"""A regex such as `PO-\d{4}` that all of these values match as a whole, or "".

    It is made of digits, letters and what stands in every value. Three digits or more, or a letter
    or sign, must make it more than any number. `texts`: it is tried on the longest of them.
    """
    parts = [PART.findall(value) for value in dict.fromkeys(values)]
    if len(parts) < FEWEST_VALUES or len({len(each) for each in parts}) > 1 or len(parts[0]) > 12:
        return ""
    pieces = []
    for column in zip(*parts):
        piece = _piece(column)
        if not piece:
            return ""
        pieces.append(piece)
    regex = "".join(pieces)
    digits = sum(min(map(len, column)) for column in zip(*parts) if column[0].isdecimal())
    fixed = any(not piece.startswith(r"\d") for piece in pieces)
    if not digits or not (fixed or digits > 2):
        return ""
    longest = tuple(sorted(texts, key=len)[-50:])
    return "" if regex_problem(regex, longest, tuple(values)[:10]) else regex


def _piece(column: Sequence[str]) -> str:
    """The regex of one part of all values, or "" where it is of two kinds."""
    lengths = sorted({len(part) for part in column})
    many = f"{{{lengths[0]}}}" if len(lengths) == 1 else f"{{{lengths[0]},{lengths[-1]}}}"
    if len(set(column)) == 1 and not column[0].isdecimal():
        return re.escape(column[0]).replace(r"\-", "-")
    for letters, form in CLASSES:
        if all(form.fullmatch(part) for part in column):
            return letters + ("" if many == "{1}" else many)
    return ""


def fits(regex: str, values: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether each value is one of the matches that the pattern finds in its text."""
    spec = FieldSpec(type="pattern", regex=regex)
    return all(value in spec.matches(text) for value, text in zip(values, texts))


# Names -----------------------------------------------------------------------------------------


def is_field_name(name: str, text: str = "") -> bool:
    """Whether pilot.yaml takes a field of this name beside the text column `text`."""
    fields = {name: {"type": "span"}}
    try:
        Pilot.model_validate({"name": "x", "text": text or " ", "fields": fields})
    except ValidationError:
        return False
    return True


def field_name(column: str, taken: Collection[str]) -> str:
    """A name for this column that pilot.yaml takes and that is not among `taken`.

    'Order No.' becomes order_no; `id` and the other names of the course get a suffix.
    """
    name = unicodedata.normalize("NFKC", column).strip()
    if not is_field_name(name) and name not in TAKEN:
        name = re.sub(r"\W+", "_", name.lower()).strip("_-")[:40] or "field"
        if not is_field_name(name) and name not in TAKEN:
            name = f"field_{name}"
    if name in TAKEN:
        name = f"{name}_given"
    if not is_field_name(name):
        name = "field"
    base, number = name, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name

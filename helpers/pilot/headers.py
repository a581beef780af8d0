"""Is the first row of a table a header, or a message already?"""

import re
from collections import Counter
from collections.abc import Sequence
from statistics import median

from helpers.core.text import is_wide, tokens
from helpers.pilot.value_forms import read_dates

NUMBER = re.compile(r"[-+]?\d[\d.,]*")


def header_is_data(header: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Whether the first row looks like those below it. `columns`: their cells, one list a column.

    Numbers, dates and repeated values count first: a header stands out from them, a row does not.
    Only where there are none, a long sentence above long sentences makes it a message.
    """
    votes = [_vote(name, [cell for cell in cells if cell]) for name, cells in zip(header, columns)]
    sure = sum(vote for vote in votes if abs(vote) > 1)
    return sum(votes) > 0 if sure == 0 else sure > 0


def _vote(name: str, cells: list[str]) -> int:
    """2: surely a value of this column, -2: surely its name; 1 and -1: rather; 0: unknown."""
    if not cells or name.startswith("column "):
        return 0
    for is_one in (_is_number, _is_date, _is_address):
        if sum(map(is_one, cells)) > 0.9 * len(cells):
            return 2 if is_one(name) else -2
    counts = Counter(cells)
    if len(counts) <= len(cells) / 3 and len(cells) >= 6:
        return 2 if counts[name] > 1 else -2
    if median(map(_words, cells)) < 5:
        return 0
    return 1 if _words(name) >= 5 else -1


def _words(text: str) -> float:
    """Words, or what would be words where they are not spaced."""
    found = tokens(text)
    return len(found) / 2.5 if is_wide(found) else len(found)


def _is_number(cell: str) -> bool:
    return bool(NUMBER.fullmatch(cell.strip()))


def _is_date(cell: str) -> bool:
    return read_dates([cell]).values[0] is not None


def _is_address(cell: str) -> bool:
    return bool(re.fullmatch(r"\S+@\S+\.\S+", cell.strip()))

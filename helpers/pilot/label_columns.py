"""Can a column be a label: few values, each often, one in each cell?"""

from collections import Counter

from helpers.pilot import columns
from helpers.pilot.columns import LONG_LABEL, MOST_CLASSES, Column, plain_value

MANY, OFTEN = 30, 20  # more values than that, each less often: names of somebody


def label_problem(column: Column) -> str:
    """Why this column can be no label, or "".

    A label has two to MOST_CLASSES values, at most a third as many as rows, and one in most cells.
    """
    number, rows = len(_values(column)), len(column.filled)
    if not number:
        return "it is empty"
    if number == 1:
        return f"it has only the value {column.filled[0].strip()[:40]!r}, and a label needs two"
    if number > MOST_CLASSES or number > rows / 3:
        most = f"at most a third as many as rows, and never more than {MOST_CLASSES}"
        return f"it has {number:,} different values in {rows:,} rows, and a label has {most}"
    single = [parts[0] for parts in column.parts() if len(parts) == 1]
    if len(single) < rows / 2 or len(set(single)) < 2:
        what = f"{rows - len(single):,} of its {rows:,} cells hold several labels"
        return f"{what}; keep one in each cell, the one that says what to do"
    return ""


def looks_like_label(column: Column) -> bool:
    """Whether to propose a column, which can be a label: by its name, or by few short values."""
    if column.length > LONG_LABEL or column.is_called(columns.NOT_READ):
        return False
    if column.is_called(columns.LABEL_WORDS):
        return True
    is_sparse = len(column.filled) < len(column.cells) / 2 or column.name.casefold() == "tags"
    if is_sparse or column.is_called(columns.GROUP_WORDS):
        return False
    number = len(_values(column))
    return number <= MANY or len(column.filled) / number >= OFTEN


def label_words(column: Column) -> str:
    """What a label column holds, in words."""
    several = sum(len(parts) > 1 for parts in column.parts())
    more = f"; {several:,} cells hold several and count as unlabelled" if several else ""
    return f"a label: {len(_values(column))} values in {len(column.filled):,} rows{more}"


def _values(column: Column) -> Counter[str]:
    return Counter(plain_value(part) for parts in column.parts() for part in parts)

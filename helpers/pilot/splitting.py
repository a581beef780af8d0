"""Training and test rows from one file: nothing on both sides, nothing lost without a word."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from helpers import CourseError
from helpers.core.rows import FEWEST
from helpers.core.text import same_message
from helpers.pilot import checks
from helpers.pilot.checks import Findings
from helpers.pilot.mending import EMPTY, NOT_IN_TEXT, UNLABELLED, WHY, Row
from helpers.pilot.message_files import MessageTable
from helpers.pilot.roles import Roles
from helpers.pilot.value_forms import read_dates

WANTED, WANTED_OF_MANY, MANY = 200, 300, 1_000  # test rows, and from how many rows on
MOST_TRAIN = 1_500  # more than a chapter can use in minutes
MOST_SHARE = 0.4  # of the rows, for the test
ASIDE = {  # file -> what its rows are
    "unlabelled": "have no label, or several, and wait to be labelled",
    "contradictory": "hold a message that also stands there with another label",
    "rare": f"are of a class with fewer than {checks.FEWEST} rows",
    "not_in_text": "have a value that does not stand in the message as it should",
    "spare": "are not used: more than a chapter can use in minutes, or of a group that is tested",
}
Units = list[list[int]]  # places of rows that stay together


@dataclass(frozen=True)
class Parts:
    """`rows`: {train, test and the names in ASIDE: rows}; `notes`: sentences on how and why.

    Only rows without a text are left out of all of them; they are counted in `notes`.
    """

    rows: dict[str, list[Row]]
    notes: list[str] = field(default_factory=list)


def split(
    table: MessageTable,
    roles: Roles,
    findings: Findings,
    *,
    test_rows: int = 0,
    keep_rare: bool = False,
    seed: int = 0,
) -> Parts:
    """Divide the rows of `findings`; `test_rows` 0 means 200 of them, 300 of many, 40 % at most.

    Equal messages and the rows of a group stay on one side. With dates the newest are the test,
    else each class gives its share. Raises CourseError where too few rows are left, or a group is
    too large to be kept on one side.
    """
    rows, text = findings.rows, roles.names[roles.text]
    fields = [roles.names[column] for column in roles.labels]
    notes: list[str] = []
    aside = _aside(findings, fields, keep_rare)
    taken = {place for places in aside.values() for place in places}
    usable = [p for p in range(len(rows)) if p not in taken and rows[p][WHY] != EMPTY]
    _check_number(table, usable, aside, rows)
    for name in fields:
        _check_classes(table, name, [rows[place][name] for place in usable], " usable")
    units = _units(rows, usable, text, roles)
    size = _test_size(len(usable), test_rows)
    drawn = _by_date(rows, units, roles, size, notes) if roles.date else None
    if drawn and fields and not _has_two(rows, usable, drawn, fields[0]):
        notes[-1:] = ["By date only one class would be left to train; drawn by class instead."]
        drawn = None
    if not drawn:
        classes = [row[fields[0]] if fields else "" for row in rows]
        drawn = _by_class(units, classes, size, seed), set()
        notes.append(f"The test rows were drawn by class (seed {seed}).")
    tested, older = drawn
    taken = tested | older
    train = [place for place in usable if place not in taken]
    _check_sizes(table, units, train, tested, roles)
    for name in fields:
        _check_classes(table, name, [rows[place][name] for place in train], " training")
    train, spare = _capped(rows, train, fields, seed)
    places = {"train": train, "test": sorted(tested), **aside, "spare": sorted([*spare, *older])}
    parts = {name: [rows[place] for place in some] for name, some in places.items()}
    return Parts(parts, [*_counted(parts, rows), *notes])


def _aside(findings: Findings, fields: Sequence[str], keep_rare: bool) -> dict[str, list[int]]:
    """Places of rows that are not trained or tested on, by the file that they go to."""
    aside: dict[str, list[int]] = {"unlabelled": [], "contradictory": [], "not_in_text": []}
    against = set(chain.from_iterable(findings.contradictory))
    usable = []
    for place, row in enumerate(findings.rows):
        if row[WHY] == UNLABELLED:
            aside["unlabelled"].append(place)
        elif place in against:
            aside["contradictory"].append(place)
        elif row[WHY] == NOT_IN_TEXT:
            aside["not_in_text"].append(place)
        elif row[WHY] != EMPTY:
            usable.append(place)
    aside["rare"] = [] if keep_rare else _rare(findings.rows, usable, fields)
    return aside


def _rare(rows: Sequence[Row], usable: Sequence[int], fields: Sequence[str]) -> list[int]:
    """Places of rows of small classes; one that goes may make a class of another label small."""
    rare: list[int] = []
    while True:
        left = sorted(set(usable) - set(rare))
        found = []
        for name in fields:
            counts = Counter(rows[place][name] for place in left)
            # an empty cell of a second label is no class
            found += [p for p in left if rows[p][name] and counts[rows[p][name]] < checks.FEWEST]
        if not found:
            return sorted(rare)
        rare += sorted(set(found))


def _check_number(
    table: MessageTable, usable: Sequence, aside: Mapping[str, Sequence], rows: Sequence
) -> None:
    least = FEWEST["train"] + FEWEST["test"]
    if len(usable) >= least:
        return
    why = [f"{len(places)} {ASIDE[name]}" for name, places in aside.items() if places]
    empty = sum(row[WHY] == EMPTY for row in rows)
    why += [f"{empty} have no text"] if empty else []
    because = f" ({'; '.join(why)})" if why else ""
    what = f"{table.name} has {len(rows)} rows, of which {len(usable)} can be used{because}"
    raise CourseError(f"{what}; at least {least} are needed, and an honest test wants 200.")


def _check_classes(table: MessageTable, name: str, values: Sequence[str], which: str) -> None:
    counts = Counter(filter(None, values))
    if len(counts) < 2:
        left = f"only {next(iter(counts))[:40]!r}" if counts else "no value"
        what = f"{table.name}: of the label {name!r} {left} is left in {len(values)}{which} rows"
        raise CourseError(
            f"{what}; a label needs two classes with {checks.FEWEST} different messages each."
        )


def _units(rows: Sequence[Row], usable: Sequence[int], text: str, roles: Roles) -> Units:
    """Rows of one message, or of one group, in one unit; all may chain.

    Further groups tie, too, unless they chain more than half of the rows together.
    """
    first = [roles.names[roles.group]] if roles.group else []
    more = [roles.names[column] for column in roles.more_groups]
    units = _tied(rows, usable, text, [*first, *more])
    if more and max(map(len, units)) > len(usable) / 2:
        units = _tied(rows, usable, text, first)
    return units


def _tied(rows: Sequence[Row], usable: Sequence[int], text: str, groups: Sequence[str]) -> Units:
    above: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while above.setdefault(key, key) != key:
            key = above[key]
        return key

    keys = {}
    for place in usable:
        keys[place] = ("message", same_message(rows[place][text]))
        for name in groups:
            if group := rows[place][name].strip():
                above[root(keys[place])] = root((name, group))
    together = defaultdict(list)
    for place, key in keys.items():
        together[root(key)].append(place)
    return list(together.values())


def _test_size(number: int, wanted: int) -> int:
    most = math.floor(MOST_SHARE * number)
    if wanted:
        if wanted > number - FEWEST["train"] or wanted < FEWEST["test"]:
            what = f"{wanted} test rows of {number} usable ones cannot be"
            raise CourseError(f"{what}; take {FEWEST['test']} to {number - FEWEST['train']}.")
        return wanted
    return max(FEWEST["test"], min(WANTED_OF_MANY if number >= MANY else WANTED, most))


def _by_date(
    rows: Sequence[Row], units: Units, roles: Roles, size: int, notes: list[str]
) -> tuple[set[int], set[int]] | None:
    """(the newest rows, older rows of their units); None where dates cannot divide these rows.

    The older rows are neither trained nor tested on: nothing that is trained on is newer than the
    test, or of a group that is tested.
    """
    dates = read_dates([row[roles.names[roles.date]] for row in rows]).values
    order = sorted((p for unit in units for p in unit), key=lambda p: dates[p] or "", reverse=True)
    dated = [place for place in order if dates[place]]
    if len(dated) < len(order) / 2:
        notes.append("Too few rows have a date to take the newest for the test.")
        return None
    tested = set(dated[:size])
    older = {p for unit in units if tested & set(unit) for p in unit if p not in tested}
    if len(order) - len(tested) - len(older) < (len(order) - len(tested)) / 2:
        notes.append("The newest rows belong to most of the groups, so dates divide nothing here.")
        return None
    undated = len(order) - len(dated)
    if undated:
        notes.append(f"{undated} row(s) have no date, so they are not in the test.")
    notes.append(f"The test rows are the newest, from {str(dates[dated[:size][-1]])[:10]} on.")
    return tested, older


def _has_two(
    rows: Sequence[Row], usable: Sequence[int], drawn: tuple[set[int], set[int]], name: str
) -> bool:
    """Whether two classes are left to train on."""
    taken = drawn[0] | drawn[1]
    return len({rows[place][name] for place in usable if place not in taken}) > 1


def _by_class(units: Units, classes: Sequence[str], size: int, seed: int) -> set[int]:
    """Units drawn so that each class has its share of `size` test rows."""
    order = list(units)
    random.Random(seed).shuffle(order)
    counts = Counter(classes[place] for unit in units for place in unit)
    want = {name: size * count / counts.total() for name, count in counts.items()}
    have: Counter[str] = Counter()
    tested: set[int] = set()
    # by what is missing, and then the rest in any order: shares are seldom whole numbers
    for slack in (0.0, 0.5, 1.0, math.inf):
        for unit in order:
            here = Counter(classes[place] for place in unit)
            fits = all(have[name] + n <= want[name] + slack + n / 4 for name, n in here.items())
            if unit[0] not in tested and fits and len(tested) + len(unit) <= size:
                tested |= set(unit)
                have += here
    return tested


def _check_sizes(
    table: MessageTable, units: Units, train: Sequence, tested: set[int], roles: Roles
) -> None:
    if len(tested) >= FEWEST["test"] and len(train) >= FEWEST["train"]:
        return
    largest, rows = max(map(len, units)), sum(map(len, units))
    if len(units) == 1 and not roles.group:
        raise CourseError(f"{table.name}: all {rows} usable rows have the same message.")
    of = f"one {roles.group!r}" if roles.group else "one message"
    what = f"{largest} of {rows} usable rows belong to {of}, and such rows must stay together"
    cure = "name another column with --group, or get more rows"
    raise CourseError(f"{table.name} cannot be divided: {what}; {cure}.")


def _capped(
    rows: Sequence[Row], train: Sequence[int], fields: Sequence[str], seed: int
) -> tuple[list[int], list[int]]:
    """(about MOST_TRAIN places, each class with its share; the others)."""
    if len(train) <= MOST_TRAIN:
        return list(train), []
    of_class = defaultdict(list)
    for place in train:
        of_class[rows[place][fields[0]] if fields else ""].append(place)
    draw, kept = random.Random(seed), set()
    for places in of_class.values():
        number = max(checks.FEWEST, round(MOST_TRAIN * len(places) / len(train)))
        kept |= set(draw.sample(places, min(number, len(places))))
    return [p for p in train if p in kept], [p for p in train if p not in kept]


def _counted(parts: Mapping[str, Sequence], rows: Sequence[Row]) -> list[str]:
    """A sentence for the two splits, and one for each part that was put aside."""
    used = f"{len(parts['train']):,} rows to train and {len(parts['test']):,} to test"
    lines = [f"{used}, of {len(rows):,}."]
    for name, what in ASIDE.items():
        if parts[name]:
            lines.append(f"{name}.csv: {len(parts[name]):,} row(s) {what}.")
    empty = sum(row[WHY] == EMPTY for row in rows)
    if empty:
        lines.append(f"{empty:,} row(s) without a text were left out.")
    return lines

"""Which column is what: the message, labels, words copied from it, dates, groups; each with why."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from helpers import CourseError
from helpers.core.pilot import TAKEN
from helpers.core.text import did_you_mean, narrow
from helpers.pilot import columns
from helpers.pilot.columns import LONG_LABEL, Column
from helpers.pilot.label_columns import label_problem, label_words, looks_like_label
from helpers.pilot.message_files import MessageTable
from helpers.pilot.value_forms import field_name, fits, read_dates, shared_form

NEARLY_ALL = 0.95  # of the values, for a column that was not named
ENOUGH_IN_TEXT = 0.5  # of a span that was named


@dataclass(frozen=True)
class Choices:
    """What somebody named: columns by their names in the file; empty means: propose it."""

    text: str = ""
    labels: tuple[str, ...] = ()
    spans: tuple[str, ...] = ()
    group: str = ""
    date: str = ""
    drop: tuple[str, ...] = ()
    values: tuple[str, ...] = ()  # of a label that no column holds yet

    def named(self) -> list[str]:
        """Every column that was named."""
        single = [self.text, self.group, self.date]
        return [*filter(None, single), *self.labels, *self.spans, *self.drop]


@dataclass(frozen=True, repr=False)
class Roles:
    """What each column is for; prints as a line a column.

    `labels`, `spans`: columns; `patterns`: {column: regex}; `date`, `group`, `id`: a column or "";
    `ignored`: kept beside the rows, read by no model; `dropped`: left out. `why`: {column:
    sentence}. `names`: {column: its name in the pilot}. `more_groups`: of the ignored ones, those
    whose rows belong together, too, such as a thread beside a sender.
    """

    text: str
    labels: list[str] = field(default_factory=list)
    spans: list[str] = field(default_factory=list)
    patterns: dict[str, str] = field(default_factory=dict)
    date: str = ""
    group: str = ""
    id: str = ""
    ignored: list[str] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    more_groups: list[str] = field(default_factory=list)

    def fields(self) -> list[str]:
        """The columns that the model must return, labels first."""
        return [*self.labels, *self.spans, *self.patterns]

    def lines(self) -> list[str]:
        """A line for each column: what it is, and why."""
        found = []
        for column, why in self.why.items():
            new = self.names.get(column, column)
            renamed = f", called {new}" if new != column else ""
            found.append(f"{column}: {why}{renamed}")
        return found

    def __str__(self) -> str:
        return narrow(*self.lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in self.lines())
        return f"<ul>{items}</ul>"


class _Proposal:
    """The columns that have no role yet, and what was found so far."""

    def __init__(self, table: MessageTable, choices: Choices) -> None:
        self.table, self.choices = table, choices
        self.open = {name: Column.of(name, table.rows) for name in table.columns}
        self.why: dict[str, str] = {}
        self.texts: list[str] = []

    def take(self, name: str, why: str) -> Column:
        self.why[name] = why
        return self.open.pop(name)

    def not_named(self) -> Iterable[Column]:
        """The columns without a role that nobody named for one."""
        named = self.choices.named()
        return [column for name, column in self.open.items() if name not in named]


def propose(table: MessageTable, choices: Choices | None = None) -> Roles:
    """The role of every column, from its values and its name; what `choices` name comes first.

    Raises CourseError: a named column that is not there or has two roles, no column that holds
    messages, a label or span that cannot be one.
    """
    choices = choices or Choices()
    _check_names(table, choices)
    found = _Proposal(table, choices)
    for name in choices.drop:
        found.take(name, "left out, as you said")
    text = _text(found)
    found.texts = [row[text] for row in table.rows]
    date = _date(found)
    spans, patterns = _copied(found)
    key = _id(found)
    labels = _labels(found)
    group = _group(found)
    more = _more_groups(found) if group and not choices.group else []
    ignored = list(found.open)
    for name in ignored:
        filled = len(found.open[name].filled)
        what = "kept beside the rows, read by no model" if filled else "empty"
        found.why.setdefault(name, what)
    ordered = {name: found.why[name] for name in table.columns}
    roles = Roles(text, labels, spans, patterns, date, group, key, ignored, ordered)
    names = _names(roles)
    return replace(roles, names=names, dropped=list(choices.drop), more_groups=more)


def _check_names(table: MessageTable, choices: Choices) -> None:
    named = choices.named()
    for name in named:
        if name not in table.columns:
            hint = did_you_mean(name, table.columns)
            raise CourseError(f"{table.name} has no column {name!r}{hint}")
        if named.count(name) > 1:
            what = "was named for two things; a column can be one"
            raise CourseError(f"The column {name!r} {what}.")


def _text(found: _Proposal) -> str:
    """The column of the messages: long and mostly different ones."""
    if found.choices.text:
        column = found.take(found.choices.text, "the message, as you said")
        if not column.filled:
            raise CourseError(f"The column {column.name!r} is empty in every row.")
        return column.name

    def score(column: Column) -> float:
        different = len(set(column.filled)) / max(1, len(column.cells))
        called = 1.5 if column.is_called(columns.TEXT_WORDS) else 1.0
        return min(column.length, 2000) * (0.05 + different) * called

    candidates = [column for column in found.not_named() if not column.is_dated()]
    best = max(candidates, key=score, default=None)
    if best is None or best.length < 6 or score(best) < 1:
        names = ", ".join(found.table.columns)
        what = "has no column that looks like messages"
        raise CourseError(f"{found.table.name} {what}; name it with --text. There are {names}.")
    different = len(set(best.filled))
    why = f"the message: {different:,} different texts, usually {best.length:,.0f} characters"
    return found.take(best.name, why).name


def _date(found: _Proposal) -> str:
    name = found.choices.date
    if name and not found.open[name].is_dated():
        what = "are no dates that can be read"
        raise CourseError(f"Most values of {name!r} {what}; write them as 2026-03-04.")
    dated = [column for column in found.not_named() if column.is_dated() and len(column.counts) > 1]
    if not name and dated:
        # most rows, then the first
        name = max(dated, key=lambda column: len(column.filled)).name
    if not name:
        return ""
    how = read_dates(found.open[name].filled).how
    found.take(name, f"the date{': ' if how else ''}{how}")
    return name


def _copied(found: _Proposal) -> tuple[list[str], dict[str, str]]:
    """Columns whose values stand in the message: spans, and patterns where they share a form."""
    spans, patterns = [], {}
    for name in found.choices.spans:
        column = found.open[name]
        share = len(column.copies(found.texts)) / max(1, len(column.filled))
        if share < ENOUGH_IN_TEXT:
            what = f"only {share:.0%} of the values of {name!r} stand in the message as they are"
            raise CourseError(f"{what}; a span is copied from it. Use --label, or mend the column.")
    # rows that wait for their labels wait for copied words, too
    proposed = [] if found.choices.values else list(found.not_named())
    for column in [found.open[name] for name in found.choices.spans] + proposed:
        named = column.name in found.choices.spans
        if not named and not _is_copied(column, found.texts):
            continue
        standing = column.copies(found.texts)
        values = [value for value, _ in standing]
        regex = shared_form(values, found.texts)
        filled = f"{len(column.filled):,} of {len(column.cells):,} rows have one"
        if regex and fits(regex, values, [text for _, text in standing]):
            patterns[column.name] = regex
            found.take(column.name, f"a pattern, copied from the message as {regex}; {filled}")
        else:
            spans.append(column.name)
            found.take(column.name, f"words copied from the message; {filled}")
    return spans, patterns


def _is_copied(column: Column, texts: Sequence[str]) -> bool:
    if len(column.filled) < 3 or len(column.counts) < 2 or column.length < 2:
        return False
    if column.length > LONG_LABEL or column.is_called(columns.NOT_READ):
        return False
    if column.name.casefold() == "id" and column.is_unique:
        return False
    pairs = [(cell.strip(), text) for cell, text in zip(column.cells, texts) if cell.strip()]
    if sum(text.startswith(f"{cell}\n") for cell, text in pairs) > len(pairs) / 2:
        return False  # the subject, as it stands above a mail
    return column.standing_in(texts) >= NEARLY_ALL


def _id(found: _Proposal) -> str:
    for column in found.not_named():
        exactly = column.name.casefold() == "id"
        if column.is_unique and column.length <= 40 and column.is_called(columns.ID_WORDS):
            found.take(column.name, "the row's id: every row has its own")
            return column.name
        if exactly:
            found.why[column.name] = "no id, since rows share one; kept beside the rows"
    return ""


def _labels(found: _Proposal) -> list[str]:
    """The label columns, the likeliest first. CourseError for a named one that cannot be one."""
    named = [found.open[name] for name in found.choices.labels]
    for column in named:
        problem = label_problem(column)
        if problem:
            raise CourseError(f"The column {column.name!r} can be no label: {problem}.")
    proposed = []
    if not named and not found.choices.values:
        proposed = [column for column in found.not_named() if looks_like_label(column)]
        proposed.sort(key=lambda column: not column.is_called(columns.LABEL_WORDS))
    labels = []
    for column in named + proposed:
        problem = label_problem(column)
        if not problem:
            labels.append(found.take(column.name, label_words(column)).name)
        elif column.is_called(columns.LABEL_WORDS):
            found.why[column.name] = f"no label: {problem}"
    return labels


def _group(found: _Proposal) -> str:
    """The column whose rows must stay together: a thread, a customer, a sender."""
    name = found.choices.group
    if name:
        if len(found.open[name].counts) < 2:
            what = "is the same in all rows, so no test set can be kept apart from the rest"
            raise CourseError(f"The column {name!r} {what}; leave out --group.")
        found.take(name, "the group: its rows stay together, as you said")
        return name
    for called in (True, False):
        for column in found.not_named():
            if found.why.get(column.name, "").startswith("no label"):
                continue
            if column.is_called(columns.GROUP_WORDS) is called and _groups(column, called):
                number = len(column.counts)
                found.take(column.name, f"the group: {number:,} values; rows of one stay together")
                return column.name
    return ""


def _more_groups(found: _Proposal) -> list[str]:
    """Further columns that are called like a group; they stay beside the rows."""
    more = []
    for column in found.not_named():
        said = found.why.get(column.name, "")
        if not said and column.is_called(columns.GROUP_WORDS) and _groups(column, True):
            found.why[column.name] = "rows of one stay together, too; read by no model"
            more.append(column.name)
    return more


def _groups(column: Column, called: bool) -> bool:
    number, filled = len(column.counts), len(column.filled)
    if number < 2 or filled < len(column.cells) / 2 or column.is_unique:
        return False
    often = filled / number
    shared = sum(count for count in column.counts.values() if count > 1)
    if called:
        return shared > 0
    return 2 <= often <= 20 and shared >= filled / 2 and number > 10 and column.length <= LONG_LABEL


def _names(roles: Roles) -> dict[str, str]:
    """{column: its name in the pilot}: fields and the rest, none twice, none that is taken."""
    names: dict[str, str] = {}
    if roles.id:
        names[roles.id] = "id"
    text = roles.text if roles.text not in TAKEN else "message"
    names[roles.text] = text
    for column in roles.fields():
        names[column] = field_name(column, [*names.values()])
    for column in filter(None, (roles.group, roles.date, *roles.ignored)):
        keep = column if column == "tags" else None
        names[column] = keep or _beside(column, [*names.values()])
    return names


def _beside(column: str, taken: Sequence[str]) -> str:
    """A column that no field is made of keeps its name, but for one that the course itself uses."""
    renamed = field_name(column, taken)
    return column if column not in taken and not renamed.endswith("_given") else renamed

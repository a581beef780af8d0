"""From a file of messages to a pilot's folder, in one step."""

import argparse
import html
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from helpers import CourseError
from helpers.core.files import write_text
from helpers.core.pilot import Pilot
from helpers.core.rows import FEWEST
from helpers.core.text import narrow, visible
from helpers.measure.pages import render
from helpers.pilot import folder as folders
from helpers.pilot.approval import approval_page, to_approve
from helpers.pilot.checks import Findings, examine
from helpers.pilot.file_kinds import READ
from helpers.pilot.mending import EMPTY, WHY
from helpers.pilot.message_files import MessageTable, read_messages
from helpers.pilot.pilot_yaml import WAITING, pilot_yaml, waiting_yaml
from helpers.pilot.roles import Choices, Roles, propose
from helpers.pilot.splitting import Parts, split
from helpers.pilot.to_label import next_to_label


@dataclass(frozen=True, repr=False)
class NewPilot:
    """A pilot's new folder and what was found on the way; prints as a plain page.

    `parts`: {split: rows}; `sections`: {heading: lines} of the page and of FOUND.md.
    """

    folder: Path
    pilot: Pilot
    roles: Roles
    findings: Findings
    parts: Parts
    sections: dict[str, list[str]]

    def __str__(self) -> str:
        lines = [f"New pilot {self.pilot.name}"]
        for head, some in self.sections.items():
            lines += ["", head, *(f"- {visible(line)}" for line in some)]
        return narrow(*lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        page = f"<h3>New pilot {html.escape(self.pilot.name)}</h3>"
        for head, some in self.sections.items():
            items = "".join(f"<li>{html.escape(visible(line))}</li>" for line in some)
            page += f"<p><b>{html.escape(head)}</b></p><ul>{items}</ul>"
        return page


def new_pilot(
    folder: str | Path,
    source: str | Path,
    *,
    text: str = "",
    label: Sequence[str] = (),
    span: Sequence[str] = (),
    group: str = "",
    date: str = "",
    drop: Sequence[str] = (),
    values: Sequence[str] = (),
    language: str = "",
    test_rows: int = 0,
    keep_rare: bool = False,
    fresh: bool = False,
) -> NewPilot:
    """Make the folder of a pilot from a file of messages; columns that are not named are proposed.

    `values`: the label that people are to give, where no column holds one. Raises CourseError in
    one sentence: the file, a column, too few rows, the place; then nothing is written.
    """
    folder = Path(folder).expanduser()
    if folder.name in ("", "..", "."):
        folder = folder.resolve()
    folders.check_place(folder, fresh, Path(source).expanduser())
    choices = Choices(
        text, _listed(label), _listed(span), group, date, _listed(drop), _label_values(values)
    )
    if choices.values and choices.labels:
        raise CourseError(
            "Give either a column with --label or the values of a new label, not both."
        )
    table = read_messages(source, choices.named())
    least = sum(FEWEST.values())
    if len(table.rows) < least and not choices.values:
        what = f"{table.name} has {len(table.rows)} row(s); at least {least} are needed"
        raise CourseError(f"{what}, and an honest test wants 200.")
    roles = propose(table, choices)
    if not roles.fields() and not choices.values:
        raise CourseError(_no_label(table, roles))
    findings = examine(table, roles, language)
    if choices.values:
        return _waiting(folder, table, roles, findings, choices)
    parts = split(table, roles, findings, test_rows=test_rows, keep_rare=keep_rare)
    return _labelled(folder, table, roles, findings, parts)


def _listed(names: Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _label_values(values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        values = values.split(",")
    kept = tuple(dict.fromkeys(" ".join(value.split()) for value in values if value.strip()))
    if len(kept) == 1:
        raise CourseError(f"A label needs two values or more, not {kept[0]!r} alone.")
    return kept


def _no_label(table: MessageTable, roles: Roles) -> str:
    because = []
    for column, why in roles.why.items():
        if why.startswith("no label: "):
            because.append(f"{column}: {why.removeprefix('no label: ')}")
    what = f"{table.name} has no column that looks like a label"
    what += f" ({'; '.join(because)})" if because else ""
    cure = "name one with --label, or give the values that people should label with: --values a,b,c"
    return f"{what}; {cure}."


def _labelled(
    folder: Path, table: MessageTable, roles: Roles, findings: Findings, parts: Parts
) -> NewPilot:
    """The folder of a pilot that can be trained and tested."""
    train, test = parts.rows["train"], parts.rows["test"]
    yaml = pilot_yaml(folder.name, table.name, findings.language, roles, [*train, *test])
    with folders.placed(folder) as half:
        pilot = folders.checked_pilot(half, table.name, yaml)
        folders.write_rows(half, parts.rows)
        data = folders.checked_rows(pilot, table.name)
        waiting, spare = parts.rows["unlabelled"], len(parts.rows["spare"])
        after = next_to_label(pilot, list(data.train), len(test), waiting, spare)
        folders.write_sample(half, pilot, after.sample)
        approve = to_approve(pilot, list(data.train), list(data.test))
        for form in ("html", "md"):
            write_text(half / f"approve.{form}", approval_page(pilot, approve, len(test), form))
        steps = [
            "Read pilot.yaml: each line with a comment is a choice that was made for you.",
            "Read approve.html, or let somebody read it who knows the messages.",
            *after.notes,
        ]
        # that formulas were made text for spreadsheets is our own doing
        noted = [note for note in data.notes if "formula" not in note]
        divided = [*parts.notes, *noted]
        sections = _sections(table, roles, findings, divided, steps)
        _write_found(half, table, sections)
    return NewPilot(folder, _moved(pilot, folder), roles, findings, parts, sections)


def _waiting(
    folder: Path, table: MessageTable, roles: Roles, findings: Findings, choices: Choices
) -> NewPilot:
    """The folder of a pilot whose rows people have to label first."""
    text = roles.names[roles.text]
    rows = [row for row in findings.rows if row[WHY] != EMPTY]
    yaml = waiting_yaml(folder.name, table.name, findings.language, text, choices.values)
    with folders.placed(folder) as half:
        pilot = folders.checked_pilot(half, table.name, yaml)
        after = next_to_label(pilot, [], 0, rows)
        if not after.sample:
            raise CourseError(f"{table.name} has no message with a text to label.")
        parts = Parts({"unlabelled": rows}, [f"unlabelled.csv: {len(rows):,} row(s) to label."])
        folders.write_rows(half, parts.rows)
        folders.write_sample(half, pilot, after.sample)
        steps = [
            *after.notes,
            f"In a notebook: from helpers.pilot.to_label import open_labelling; "
            f"open_labelling({folder.name!r}).",
            f"Then export the labels as a CSV file and make the pilot from that, with "
            f"--label {WAITING}.",
        ]
        sections = _sections(table, roles, findings, parts.notes, steps)
        _write_found(half, table, sections)
    return NewPilot(folder, _moved(pilot, folder), roles, findings, parts, sections)


def _moved(pilot: Pilot, folder: Path) -> Pilot:
    """The same pilot where its files now are."""
    return pilot.model_copy(update={"folder": folder})


def _sections(
    table: MessageTable,
    roles: Roles,
    findings: Findings,
    divided: Sequence[str],
    steps: Sequence[str],
) -> dict[str, list[str]]:
    found = [*table.notes, *findings.lines()]
    return {
        "Which column is what": roles.lines(),
        "What stands in it": list(dict.fromkeys(found)),
        "How it was divided": list(divided),
        "What to do next": list(steps),
    }


def _write_found(half: Path, table: MessageTable, sections: dict[str, list[str]]) -> None:
    page = render(
        "found.md",
        source=table.name,
        kind=table.kind,
        day=f"{datetime.now():%Y-%m-%d}",
        sections=sections,
    )
    write_text(half / "FOUND.md", page)


# The command -----------------------------------------------------------------------------------


def new_command(arguments: Sequence[str]) -> int:
    """Make a pilot's folder from a file of messages; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.pilot new",
        description="Make a pilot's folder from a file of messages.",
        epilog="Columns that are not named are proposed; a second try needs --fresh.",
    )
    add = parser.add_argument
    add("folder", help="the new folder; its name is the pilot's name")
    add("--from", dest="source", required=True, metavar="FILE", help=READ)
    add("--text", default="", metavar="COLUMN", help="the message")
    add(
        "--label",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN",
        help="one of a few values",
    )
    add(
        "--span",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN",
        help="copied from the text",
    )
    add("--group", default="", metavar="COLUMN", help="rows that stay together: thread, customer")
    add("--date", default="", metavar="COLUMN", help="the newest rows become the test")
    add("--drop", nargs="+", action="extend", default=[], metavar="COLUMN", help="leave these out")
    add(
        "--values", default="", metavar="a,b,c", help="the label to give, where no column holds one"
    )
    add("--language", default="", metavar="CODE", help="such as en, de, ja; left out: it is told")
    add("--test-rows", type=int, default=0, metavar="NUMBER", help="left out: 200, 40 %% at most")
    add("--keep-rare", action="store_true", help="keep classes with fewer than five rows")
    add("--fresh", action="store_true", help="replace a pilot of this name")
    options = vars(parser.parse_args(arguments))
    folder, source = options.pop("folder"), options.pop("source")
    try:
        print(new_pilot(folder, source, **options))
    except CourseError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0

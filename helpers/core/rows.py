"""The rows of a pilot: read, checked against pilot.yaml, each mistake named with its row."""

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from datasets import Dataset

from helpers import CourseError
from helpers.core import public_sets
from helpers.core.files import FORMULA, numbered_rows
from helpers.core.pilot import FieldSpec, Pilot, regex_problem
from helpers.core.runtime import Profile
from helpers.core.text import CONTROL, did_you_mean, same_message

BESIDE = " metadata"  # the key of the other columns until a split is whole; no column begins so
NEW_FILES = ("new.csv", "new.jsonl")
NEW_READINGS = "new_readings.jsonl"  # in chapter 08: what models read in these, the one time
FEWEST = {"train": 10, "test": 5}  # below, nothing can be trained or counted


@dataclass
class Rows:
    """Three datasets (`ood` may be None), and `notes`: what was changed or should be known.

    `metadata`: {split: [{column: text} for each row]}, the columns that pilot.yaml does not name.
    They are for grouping only, and no part of the rows: no prompt, filter or export holds them.
    """

    train: Dataset
    test: Dataset
    ood: Dataset | None = None
    notes: list[str] = field(default_factory=list)
    metadata: dict[str, list[dict[str, str]]] = field(default_factory=dict)


def load(pilot: Pilot, profile: Profile | None = None) -> Rows:
    """Read and check the rows of a pilot and, where a profile caps them, sample them (seed 0).

    Raises CourseError naming file, row and what to do, for up to five mistakes at once.
    """
    notes: list[str] = []
    if pilot.source:
        tables = public_sets.drawn_rows(pilot, pilot.source)
    else:
        tables = _from_files(pilot, notes)
    _check_sizes(tables, notes)
    tables["train"] = _without_leaks(pilot, tables, notes)
    if profile:
        for split in tables:
            tables[split] = _capped(pilot, tables[split], split, profile, notes)
    _check_classes(pilot, tables["train"], notes)
    metadata, datasets = {}, {}
    for split, rows in tables.items():
        metadata[split] = [row.pop(BESIDE, {}) for row in rows]
        datasets[split] = Dataset.from_list(rows)
    names = dict.fromkeys(name for each in metadata.values() for row in each for name in row)
    if names:
        what = f"columns that pilot.yaml does not name: {', '.join(names)}"
        notes.append(f"{what}; kept for grouping messages, read by no model and no filter.")
    return Rows(datasets["train"], datasets["test"], datasets.get("ood"), notes, metadata)


def load_new(pilot: Pilot) -> Dataset | None:
    """The rows of new.csv or new.jsonl, or None: kept for one look, read by no study.

    Raises CourseError as `load` does, and where a text of theirs stands in another file.
    """
    paths = [pilot.folder / name for name in NEW_FILES if (pilot.folder / name).is_file()]
    if pilot.source or not paths:
        return None
    notes: list[str] = []
    rows = _checked(pilot, paths[0], "test", notes)
    known: dict[str, str] = {}
    for split, table in _from_files(pilot, notes).items():
        for row in table:
            known[same_message(row[pilot.text])] = split
    for row in rows:
        place = known.get(same_message(row[pilot.text]))
        if place:
            where = f"{paths[0].name} row {row['id']!r} also stands in the {place} rows"
            raise CourseError(f"{where}, so it is not new; take it out of one of the two.")
        row.pop(BESIDE, None)
    return Dataset.from_list(rows)


def read(path: Path) -> list[dict]:
    """The rows of a CSV or JSONL file in UTF-8."""
    return [row for _, row in numbered_rows(path)]


def spread(rows: Sequence[dict], labels: Sequence[str], number: int, seed: int = 0) -> list[dict]:
    """`number` rows drawn so that the values of the first label take turns, sorted file or not."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    if labels:
        turns: dict[str, list] = {}  # {value: its rows}
        for row in order:
            turns.setdefault(row[labels[0]], []).append(row)
        order = [row for turn in zip_longest(*turns.values()) for row in turn if row is not None]
    return order[:number]


def _from_files(pilot: Pilot, notes: list[str]) -> dict[str, list[dict]]:
    tables = {}
    for split in ("train", "test", "ood"):
        folder, named = pilot.folder, getattr(pilot, split)
        names = [named] if named else [f"{split}.csv", f"{split}.jsonl"]
        paths = [folder / name for name in names if (folder / name).is_file()]
        if len(paths) > 1:
            both = f"{folder.name}/ has both {names[0]} and {names[1]}"
            raise CourseError(f"{both}; say in pilot.yaml which is '{split}'.")
        if paths:
            tables[split] = _checked(pilot, paths[0], split, notes)
        elif named or split != "ood":
            missing = f"There is no {' or '.join(names)} in {folder.name}/"
            cure = "save the rows there as CSV UTF-8, not as an Excel workbook"
            raise CourseError(f"{missing}; {cure}.")
    return tables


def _checked(pilot: Pilot, path: Path, split: str, notes: list[str]) -> list[dict]:
    """Rows with the columns id, text, the fields and tags; CourseError lists what is wrong."""
    rows, name = numbered_rows(path, notes), path.name
    _check_columns(pilot, rows, name, split)
    _try_regexes(pilot, [row for _, row in rows])
    mistakes, clean, controls, formulas, spaces = [], [], 0, 0, 0
    row_of_id: dict[str, int] = {}
    row_or_line = "row" if path.suffix == ".csv" else "line"
    _number_rows_without_id(rows)
    for number, row in rows:
        new, changed, trimmed = _cleaned(pilot, row)
        clean.append(new)
        problems = _problems(pilot, new, split)
        first = row_of_id.setdefault(new["id"], number)
        if first != number:
            problems.append(f"the id {new['id']!r} stands in {row_or_line} {first} already.")
        mistakes += [f"{name} {row_or_line} {number}: {problem}" for problem in problems]
        controls, spaces = controls + changed, spaces + trimmed
        formulas += bool(FORMULA.match(str(new[pilot.text])))
    if len(mistakes) > 5:  # five are enough to see what kind of mistake it is
        mistakes[5:] = [f"And {len(mistakes) - 5} more."]
    if mistakes:
        raise CourseError(" ".join(mistakes))
    if controls:
        notes.append(f"{name}: control characters in {controls} row(s) were replaced by spaces.")
    if spaces:
        notes.append(f"{name}: spaces around the values of {spaces} row(s) were taken off.")
    if formulas:
        what = f"{formulas} text(s) start like a spreadsheet formula"
        notes.append(f"{name}: {what}; kept as text, and defused in every CSV we write.")
    return clean


def _check_columns(pilot: Pilot, rows: list[tuple[int, dict]], name: str, split: str) -> None:
    if not rows:
        raise CourseError(f"{name} has a header but no rows.")
    columns = dict.fromkeys(column for _, row in rows for column in row)  # JSONL leaves some out
    for wanted in (pilot.text, *pilot.fields):
        unlabelled = split == "ood" and not columns.keys() & pilot.fields.keys()
        if wanted not in columns and not (unlabelled and wanted in pilot.fields):
            what = f"{name} has no column {wanted!r}{did_you_mean(wanted, columns)}"
            cure = f"{', '.join(columns)}: rename the column, or change pilot.yaml"
            raise CourseError(f"{what} Its columns are {cure}.")


def _try_regexes(pilot: Pilot, rows: list[dict]) -> None:
    """CourseError where a regex takes too long on the longest of these texts."""
    texts = sorted((str(row.get(pilot.text)) for row in rows), key=len)[-1000:]
    for name, spec in pilot.fields.items():
        if spec.type == "pattern":
            values = dict.fromkeys(str(row.get(name) or "") for row in rows)
            problem = regex_problem(spec.regex, tuple(texts), tuple(values)[:10])
            if problem:
                raise CourseError(f"pilot.yaml: {name}: {problem}.")


def _number_rows_without_id(rows: list[tuple[int, dict]]) -> None:
    """A row without an id gets its number, or `row 7` where another row has that as its id."""
    taken = {str(row.get("id")) for _, row in rows}
    for number, row in rows:
        if row.get("id") is None or not str(row["id"]).strip():
            row["id"] = f"row {number}" if str(number) in taken else str(number)


def _cleaned(pilot: Pilot, row: dict) -> tuple[dict, bool, bool]:
    """The row as everything else sees it; were control characters, or spaces, taken out?"""
    row, changed, trimmed = dict(row), False, False
    for name, value in row.items():
        if isinstance(value, str) and CONTROL.search(value):
            row[name], changed = CONTROL.sub(" ", value), True
    new: dict[str, Any] = {"id": str(row["id"])}
    for name in (pilot.text, *pilot.fields):
        value = row.get(name)
        if name != pilot.text and isinstance(value, str) and value not in pilot.fields[name].values:
            trimmed = trimmed or value != value.strip()
            value = value.strip()
        new[name] = None if value == "" else value
    new["tags"] = _as_text(row.get("tags"))
    for name, value in row.items():
        if name not in new and value not in (None, ""):
            new.setdefault(BESIDE, {})[name] = CONTROL.sub(" ", _as_text(value))
    return new, changed, trimmed


def _as_text(value: Any) -> str:
    """What JSONL may hold in a column that nobody checks, as one type."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _problems(pilot: Pilot, row: dict, split: str) -> list[str]:
    text = row[pilot.text]
    if not isinstance(text, str) or not text.strip():
        return [f"the column {pilot.text!r} is empty or not text."]
    if split == "ood" and all(row[name] is None for name in pilot.fields):
        return []  # rows outside the pilot's subject may have no labels at all
    problems = [wrong_value(name, spec, row[name], text) for name, spec in pilot.fields.items()]
    return list(filter(None, problems))


def wrong_value(name: str, spec: FieldSpec, value: Any, text: str) -> str | None:
    """What is wrong with the value of field `name` in a row with this text, or None."""
    if value is None:
        if spec.optional:
            return None
        return f"{name} is empty, and pilot.yaml does not say 'optional: true'."
    if not isinstance(value, str):
        return f"{name} is {value!r}, which is not text."
    if spec.type == "label":
        if value in spec.values:
            return None
        hint = did_you_mean(value, spec.values)
        for known in spec.values:
            # a spreadsheet turns 01 into 1, a table of numbers makes 1.0 of it
            if known.lstrip("0") == value.removesuffix(".0"):
                hint = f"; did you mean {known!r}?"
            if value.startswith(f"{known} #"):
                hint = f"; for YAML a # begins a comment: write {value!r} in quotes in pilot.yaml."
        return f"{name} is {value!r}, which is not among the values{hint}"
    if spec.type == "pattern" and value not in spec.matches(text):
        if not re.fullmatch(spec.regex, value):
            return f"{name} is {value!r}, which does not match {spec.regex}."
        if value in text:
            found = ", ".join(map(repr, spec.matches(text)[:3])) or "nothing"
            return f"{name} is {value!r}, but {spec.regex} finds {found} in the text."
    if value not in text:
        cure = "copy it exactly or leave it empty"
        return f"{name} is {value!r}, which does not stand in the text; {cure}."
    if spec.cuts_words(value, text):
        cure = "copy whole words, or take 'whole_words' out of pilot.yaml"
        return f"{name} is {value!r}, which cuts a word or starts with a mark; {cure}."
    return None


def _check_sizes(tables: Mapping[str, list], notes: list[str]) -> None:
    for split, fewest in FEWEST.items():
        number = len(tables[split])
        if number < fewest:
            wants = f"at least {fewest} are needed, and an honest test wants 200"
            raise CourseError(f"{split} has {number} rows; {wants}.")
    if len(tables["test"]) < 50:
        notes.append(f"test has only {len(tables['test'])} rows: the intervals will be wide.")


def _without_leaks(pilot: Pilot, tables: Mapping[str, list], notes: list[str]) -> list[dict]:
    """The training rows that do not stand in the test set: those would inflate the score."""
    # both sides folded: a capital letter does not make another message
    tested = {same_message(row[pilot.text]) for row in tables["test"]}
    kept = [row for row in tables["train"] if same_message(row[pilot.text]) not in tested]
    leaks = len(tables["train"]) - len(kept)
    if leaks:
        where = "also stand in the test set and were left out of training"
        notes.append(f"{leaks} training row(s) {where}.")
    if len(kept) < FEWEST["train"]:
        almost = "Almost every training row also stands in the test set"
        raise CourseError(f"{almost}; give that rows of its own.")
    return kept


def _capped(
    pilot: Pilot, rows: list[dict], split: str, profile: Profile, notes: list[str]
) -> list[dict]:
    """As many rows as the profile allows; the same rows every time.

    In training every value of every label keeps a row, where need be beyond that number.
    """
    most = getattr(profile, f"{split}_rows")
    if len(rows) <= most:
        return rows
    drawn = random.Random(0).sample(rows, most)
    of = f"of {len(rows):,} rows, drawn with seed 0"
    if split == "train" and pilot.labels:
        for name in pilot.labels:
            _keep_every_value(pilot, drawn, rows, name)
        of = f"{of}, with every label among them"
    notes.append(f"{split}: {len(drawn)} {of} (profile {profile.name}).")
    return drawn


def _keep_every_value(pilot: Pilot, drawn: list[dict], rows: list[dict], name: str) -> None:
    """A value that the draw missed takes the place of a row whose labels stand elsewhere, too."""
    counts = {label: Counter(row[label] for row in drawn) for label in pilot.labels}
    for row in rows:
        if row[name] in counts[name]:
            continue
        spare = []  # (how often its value stands there, place), of rows that may go
        for place, other in enumerate(drawn):
            if all(counts[label][other[label]] > 1 for label in pilot.labels):
                spare.append((-counts[name][other[name]], place))
        place = min(spare)[1] if spare else len(drawn)
        for label in pilot.labels:
            counts[label].update([row[label]])
            if spare:
                counts[label].subtract([drawn[place][label]])
        drawn[place : place + 1] = [row]


def _check_classes(pilot: Pilot, train: list[dict], notes: list[str]) -> None:
    for name in pilot.labels:
        seen = {row[name] for row in train}
        if len(seen) < 2:
            one = f"train has only one class for {name} ({next(iter(seen))!r})"
            raise CourseError(f"{one}; add rows of another label, or remove the field.")
        missing = [value for value in pilot.fields[name].values if value not in seen]
        if missing:
            lost = f"train has no row with {name} = {', '.join(map(repr, missing))}"
            notes.append(f"{lost}; no model can learn a label it never saw.")

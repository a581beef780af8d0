"""The rows of a pilot: CSV, JSONL or a public set, checked against pilot.yaml, each mistake named with its row."""

import csv
import difflib
import io
import json
import random
import re
from dataclasses import dataclass, field

from datasets import Dataset

from helpers import CourseError
from helpers.core import public_sets
from helpers.core.pilot import Sample

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")
FORMULA = ("=", "+", "-", "@")
FEWEST = {"train": 10, "test": 5}


@dataclass
class Rows:
    """`train`, `test` and `ood` (or None) as datasets.Dataset, and `notes`: what was changed or should be known."""

    train: Dataset
    test: Dataset
    ood: Dataset | None = None
    notes: list = field(default_factory=list)


def load(pilot, profile=None):
    """Read, check and, when a profile caps the number of rows, sample the rows of a pilot (seed 0).

    Raises CourseError naming file, row and what to do, for up to five mistakes at once.
    """
    notes = []
    if pilot.source:
        tables = _from_source(pilot)
    else:
        tables = {}
        for split in ("train", "test", "ood"):
            path = _file(pilot, split)
            if path is not None:
                tables[split] = _check(pilot, read(path), path.name, split, notes)
    for split, fewest in FEWEST.items():
        if len(tables[split]) < fewest:
            raise CourseError(
                f"{split} has {len(tables[split])} rows; at least {fewest} are needed, and an honest test wants 200."
            )
    if len(tables["test"]) < 50:
        notes.append(f"test has only {len(tables['test'])} rows: the intervals will be wide.")
    _drop_leaks(pilot, tables, notes)
    for name in pilot.labels:
        seen = {row[name] for row in tables["train"]}
        if len(seen) < 2:
            raise CourseError(
                f"train has only one class for {name} ({next(iter(seen))!r}); add rows of another label, or remove the field."
            )
        missing = [v for v in pilot.fields[name].values if v not in seen]
        if missing:
            notes.append(
                f"train has no row with {name} = {', '.join(map(repr, missing))}; no model can learn a label it never saw."
            )
    if profile:
        for split, most in (
            ("train", profile.train_rows),
            ("test", profile.test_rows),
            ("ood", profile.ood_rows),
        ):
            if split in tables and len(tables[split]) > most:
                notes.append(
                    f"{split}: {most} of {len(tables[split]):,} rows, drawn with seed 0 (profile {profile.name})."
                )
                tables[split] = random.Random(0).sample(tables[split], most)
    return Rows(
        *(Dataset.from_list(tables[s]) if s in tables else None for s in ("train", "test", "ood")),
        notes,
    )


def spread(rows, labels, number, seed=0):
    """`number` rows drawn with a seed so that the values of the first label field take turns; a sorted file does no harm."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    if labels:
        seen = {}
        turns = [seen.setdefault(row[labels[0]], []) for row in order]
        for row, turn in zip(order, turns):
            turn.append(row)
        order = [turn[i] for i in range(len(order)) for turn in seen.values() if i < len(turn)]
    return order[:number]


def _file(pilot, split):
    name = getattr(pilot, split)
    if name:
        path = pilot.folder / name
        if not path.is_file():
            raise CourseError(
                f"pilot.yaml says {split}: {name}, but there is no such file in {pilot.folder.name}/."
            )
        return path
    found = [
        pilot.folder / f"{split}{end}"
        for end in (".csv", ".jsonl")
        if (pilot.folder / f"{split}{end}").is_file()
    ]
    if len(found) > 1:
        raise CourseError(
            f"{pilot.folder.name}/ has both {found[0].name} and {found[1].name}; say in pilot.yaml which is '{split}'."
        )
    if not found and split != "ood":
        raise CourseError(
            f"There is no {split}.csv or {split}.jsonl in {pilot.folder.name}/; save the rows there as CSV UTF-8 (an Excel "
            "workbook is not read)."
        )
    return found[0] if found else None


def read(path):
    """List of dicts of a CSV or JSONL file in UTF-8, with or without a byte order mark."""
    data = path.read_bytes()
    if not data.strip():
        raise CourseError(f"{path.name} is empty.")
    if data[:4] == b"PK\x03\x04":
        raise CourseError(
            f"{path.name} is an Excel workbook under another name; in Excel choose Save as, CSV UTF-8."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        guess = _guess(data)
        raise CourseError(
            f"{path.name} is not UTF-8 (line {line}){guess}; save it as 'CSV UTF-8'."
        ) from None
    if path.suffix == ".jsonl":
        rows = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except ValueError as problem:
                    raise CourseError(
                        f"{path.name} line {number} is not JSON: {problem}."
                    ) from None
                if not isinstance(rows[-1], dict):
                    raise CourseError(
                        f"{path.name} line {number} is not a JSON object with the columns as keys."
                    )
        return rows
    header = text.split("\n", 1)[0]
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if mark in header and "," not in header:
            raise CourseError(
                f"{path.name} is separated by {name}; save it with commas between the columns."
            )
    csv.field_size_limit(10_000_000)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = list(reader)
    except csv.Error as problem:
        raise CourseError(
            f"{path.name} cannot be read as CSV near line {reader.line_num}: {problem}."
        ) from None
    for number, row in enumerate(rows, 2):
        if not any(row.values()):
            continue  # a line of empty cells, as Excel leaves them
        if None in row or any(v is None for v in row.values()):
            raise CourseError(
                f"{path.name} row {number} has {'more' if None in row else 'fewer'} cells than the header; "
                "a text with a comma or a line break needs quotes around it, and every quote its end."
            )
    return rows


def _guess(data):
    for encoding, name in (
        ("utf-16", "UTF-16"),
        ("cp932", "Shift-JIS"),
        ("cp1252", "Windows-1252"),
    ):
        if encoding == "utf-16" and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            continue
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "cp932" or re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", text):
            return f"; it looks like {name}"
    return ""


def _check(pilot, rows, name, split, notes):
    """Rows with exactly the columns id, text, the fields and tags; CourseError lists what is wrong."""
    if not rows:
        raise CourseError(f"{name} has a header but no rows.")
    columns = list(rows[0])
    for wanted in (pilot.text, *pilot.fields):
        if not any(wanted in row for row in rows[:50]):
            near = difflib.get_close_matches(wanted, columns, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise CourseError(
                f"{name} has no column {wanted!r}{hint}; its columns are {', '.join(map(str, columns))}. Rename the column, "
                "or change pilot.yaml."
            )
    wrong, clean, seen, controls, formulas = [], [], {}, 0, 0
    for number, row in enumerate(rows, 1 if name.endswith(".jsonl") else 2):
        if not any(row.values()):
            continue
        place = f"{name} row {number}"
        text = row.get(pilot.text)
        if not isinstance(text, str) or not text.strip():
            wrong.append(f"{place}: the column {pilot.text!r} is empty or not text.")
            continue
        if CONTROL.search(text):
            text, controls = CONTROL.sub(" ", text), controls + 1
        formulas += text.startswith(FORMULA)
        new = {"id": str(row.get("id") or number), pilot.text: text}
        if new["id"] in seen:
            wrong.append(f"{place}: the id {new['id']!r} stands in row {seen[new['id']]} already.")
        seen[new["id"]] = number
        unlabelled = split == "ood" and all(row.get(f) in (None, "") for f in pilot.fields)
        for field_name, spec in pilot.fields.items():
            value = row.get(field_name)
            value = None if value in (None, "") else value
            new[field_name] = value
            problem = None if unlabelled else wrong_value(field_name, spec, value, text)
            if problem:
                wrong.append(f"{place}: {problem}")
        new["tags"] = row.get("tags") or ""
        clean.append(new)
    if wrong:
        more = f" And {len(wrong) - 5} more." if len(wrong) > 5 else ""
        raise CourseError(" ".join(wrong[:5]) + more)
    if controls:
        notes.append(f"{name}: control characters in {controls} row(s) were replaced by spaces.")
    if formulas:
        notes.append(
            f"{name}: {formulas} text(s) start like a spreadsheet formula; kept as text, and defused in every CSV we write."
        )
    return clean


def wrong_value(name, spec, value, text):
    if value is None:
        return (
            None
            if spec.optional
            else f"{name} is empty, and pilot.yaml does not say 'optional: true'."
        )
    if not isinstance(value, str):
        return f"{name} is {value!r}, which is not text."
    if spec.type == "label" and value not in spec.values:
        near = difflib.get_close_matches(value, spec.values, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else f" ({', '.join(spec.values[:12])})"
        return f"{name} is {value!r}, which is not among the values{hint}."
    if spec.type == "pattern" and not re.fullmatch(spec.regex, value):
        return f"{name} is {value!r}, which does not match {spec.regex}."
    if spec.type != "label" and value not in text:
        return f"{name} is {value!r}, which does not stand in the text; copy it exactly or leave it empty."
    return None


def _drop_leaks(pilot, tables, notes):
    """Take training rows out that also stand in the test set: they would inflate the score, not the model."""
    squeeze = lambda text: " ".join(re.findall(r"\w+", text.lower()))  # noqa: E731
    held = {squeeze(row[pilot.text]) for row in tables["test"]}
    kept = [row for row in tables["train"] if squeeze(row[pilot.text]) not in held]
    if len(kept) < len(tables["train"]):
        notes.append(
            f"{len(tables['train']) - len(kept)} training row(s) also stand in the test set and were left out of training."
        )
        if len(kept) < FEWEST["train"]:
            raise CourseError(
                "Almost every training row also stands in the test set; give the test set rows of its own."
            )
        tables["train"] = kept


def _from_source(pilot):
    """Train, test and, where the set has one, out-of-scope rows of a public set with one label field."""
    source, fields = pilot.source, list(pilot.fields.items())
    if len(fields) != 1 or fields[0][1].type != "label":
        raise CourseError("A pilot with a 'source' has exactly one field, a label.")
    name, spec = fields[0]
    splits = public_sets.splits_of(source, pilot.text, name)
    if isinstance(spec.values, Sample):
        known = sorted({label for _, label in splits["train"]} - {"oos"})
        if spec.values.sample > len(known):
            raise CourseError(
                f"{source.dataset} has {len(known)} labels; pilot.yaml wants to sample {spec.values.sample}."
            )
        spec.values = sorted(random.Random(spec.values.seed).sample(known, spec.values.sample))
    draw, tables = random.Random(source.seed), {"train": [], "test": []}
    for value in spec.values:
        texts = [text for text, label in splits["train"] if label == value]
        if len(texts) < source.per_label:
            raise CourseError(
                f"{source.dataset} has {len(texts)} training rows for {value!r}; pilot.yaml asks for {source.per_label}."
            )
        tables["train"] += [(text, value) for text in draw.sample(texts, source.per_label)]
    pool = [pair for pair in splits["test"] if pair[1] in spec.values]
    tables["test"] = draw.sample(pool, min(source.test_rows, len(pool)))
    if splits.get("ood"):
        tables["ood"] = [
            (text, None) for text, _ in draw.sample(splits["ood"], min(60, len(splits["ood"])))
        ]
    draw.shuffle(tables["train"])
    return {
        split: [
            {"id": f"{split}-{i}", pilot.text: text, name: label, "tags": ""}
            for i, (text, label) in enumerate(pairs)
        ]
        for split, pairs in tables.items()
    }

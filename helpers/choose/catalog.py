"""The catalogue: models, data sets and licence profiles of data/catalog/, each fact with a source, a date and a confidence."""

import csv
import difflib
from functools import cache

import yaml

from helpers import ROOT, CourseError

FOLDER = ROOT / "data/catalog"
SURE = ("high", "medium", "low")
CONDITIONS = (
    "purpose",
    "commercial",
    "users_over",
    "revenue_over",
    "region",
    "multimodal",
    "base_not_under",
    "name_lacks",
)


def _sourced(rows, name, key):
    """Refuse a row that does not say where its facts come from, when they were read and how sure they are."""
    for row in rows:
        for need in ("source", "date", "confidence"):
            if not str(row.get(need) or "").strip():
                raise CourseError(
                    f"data/catalog/{name}: {row.get(key) or 'a row without a name'} has no {need}; "
                    "every fact needs a source, a date and a confidence (high, medium, low)."
                )
        if row["confidence"] not in SURE:
            raise CourseError(
                f"data/catalog/{name}: the confidence of {row[key]} is {row['confidence']!r}; it can be high, medium or low."
            )
    return rows


def _csv(name, key, folder):
    try:
        with open(folder / name, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except UnicodeDecodeError:
        raise CourseError(
            f"data/catalog/{name} is not UTF-8 text; save it again as UTF-8."
        ) from None
    wide = (
        next(
            (row[key] for row in rows if None in row or None in row.values() or not row.get(key)),
            None,
        )
        if rows and key in rows[0]
        else "?"
    )
    if wide is not None:
        raise CourseError(
            f"data/catalog/{name}: the row of {wide or 'nothing'} has more or fewer cells than the first line names, or the "
            f"column {key!r} is missing."
        )
    twice = next(
        (row[key] for i, row in enumerate(rows) if row[key] in [r[key] for r in rows[:i]]), None
    )
    if twice:
        raise CourseError(f"data/catalog/{name} has two rows for {twice}.")
    return _sourced(rows, name, key)


@cache
def models(folder=FOLDER):
    """Rows of models.csv: base models, teachers, cautionary tales and services. Empty cells are facts not seen in a source."""
    rows = _csv("models.csv", "hub_id", folder)
    for row in rows:
        for name in ("parameters", "layers", "hidden_size", "heads", "kv_heads", "vocab_size"):
            if row[name] and not row[name].isdigit():
                raise CourseError(
                    f"data/catalog/models.csv: {name} of {row['hub_id']} is {row[name]!r}; write the whole number or leave it empty."
                )
    return rows


@cache
def datasets(folder=FOLDER):
    """Rows of datasets.csv: id, licence, languages, note."""
    return _csv("datasets.csv", "id", folder)


@cache
def licences(folder=FOLDER):
    """{licence id: profile} from licences.yaml; a profile has a name, a class and rules with their clauses."""
    try:
        found = yaml.safe_load((folder / "licences.yaml").read_text(encoding="utf-8"))
    except yaml.YAMLError as problem:
        raise CourseError(
            f"data/catalog/licences.yaml is not valid YAML near line {problem.problem_mark.line + 1}."
        ) from None
    for name, profile in found.items():
        if not isinstance(profile, dict) or not isinstance(profile.get("rules"), list):
            raise CourseError(
                f"data/catalog/licences.yaml: {name} needs name, class, source, date, confidence and a list of rules."
            )
    _sourced([{"id": k, **v} for k, v in found.items()], "licences.yaml", "id")
    for name, profile in found.items():
        for rule in profile["rules"]:
            odd = set(rule.get("when", {})) - set(CONDITIONS)
            if (
                odd
                or not all(rule.get(k) for k in ("as", "clause", "says"))
                or rule.get("verdict") not in ("ok", "duty", "blocked", "unknown")
            ):
                raise CourseError(
                    f"data/catalog/licences.yaml: a rule of {name} lacks as, clause or says, or has an unknown verdict or "
                    f"condition: {rule}."
                )
    return found


def find(name):
    """The catalogue row of a model by hub id, short name, or an id that its maker's licence statement also covers; else None."""
    wanted = str(name).strip().lower()
    for row in models():
        if (
            wanted in (row["hub_id"].lower(), row["short"].lower(), *row["also"].lower().split())
            and wanted
        ):
            return row
    return None


def guess(name, known):
    """' (did you mean …?)' for a misspelt name, or nothing."""
    near = difflib.get_close_matches(str(name).lower(), list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""

"""The catalogue in data/catalog/: models, data sets and licences; every fact with its source."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from helpers import ROOT, CourseError
from helpers.core import rows
from helpers.core.files import read_yaml

FOLDER = ROOT / "data/catalog"
SURE = ("high", "medium", "low")  # read in the text itself, in one that quotes it, not read
WHOLE_NUMBERS = ("parameters", "layers", "hidden_size", "heads", "kv_heads", "vocab_size")
VERDICTS = ("ok", "duty", "blocked", "unknown")
# what a rule of licences.yaml may ask for under `when`; licensing._holds answers
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


def _check_sources(entries: Iterable[dict], file: str, key: str) -> None:
    """Refuse an entry that does not say where its facts come from, when, and how sure they are."""
    for entry in entries:
        for need in ("source", "date", "confidence"):
            if not str(entry.get(need) or "").strip():
                raise CourseError(
                    f"data/catalog/{file}: {entry[key]} has no {need}; "
                    "every fact needs a source, a date and a confidence (high, medium, low)."
                )
        if entry["confidence"] not in SURE:
            raise CourseError(
                f"data/catalog/{file}: the confidence of {entry[key]} is "
                f"{entry['confidence']!r}; it can be high, medium or low."
            )


def read_table(file: str, key: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """Rows of a CSV of the catalogue, each with its source; the column `key` names a row.

    Raises CourseError for a missing column, a name that stands twice, or a fact without a source.
    """
    table = rows.read(folder / file)
    seen = set()
    for row in table:
        if not row.get(key):
            raise CourseError(
                f"data/catalog/{file}: a row has no {key}, or the column {key!r} is missing."
            )
        if row[key] in seen:
            raise CourseError(f"data/catalog/{file} has two rows for {row[key]}.")
        seen.add(row[key])
    _check_sources(table, file, key)
    return table


@cache  # read once: the picker asks the gate about every row
def models(folder: Path = FOLDER) -> list[dict[str, str]]:
    """Base models, teachers, cautionary tales and services. An empty cell: not seen in a source."""
    table = read_table("models.csv", "hub_id", folder)
    for row in table:
        for column in WHOLE_NUMBERS:
            if row[column] and not row[column].isdigit():
                raise CourseError(
                    f"data/catalog/models.csv: {column} of {row['hub_id']} is {row[column]!r}; "
                    "write the whole number or leave it empty."
                )
    return table


@cache
def datasets(folder: Path = FOLDER) -> list[dict[str, str]]:
    """Rows of datasets.csv: id, licence, languages, note."""
    return read_table("datasets.csv", "id", folder)


@cache
def licences(folder: Path = FOLDER) -> dict[str, dict]:
    """{licence id: profile}; a profile has a name, a class, and rules with their clauses."""
    profiles = read_yaml(folder / "licences.yaml")
    for name, profile in profiles.items():
        if not isinstance(profile, dict) or not isinstance(profile.get("rules"), list):
            raise CourseError(
                f"data/catalog/licences.yaml: {name} needs name, class, source, date, "
                "confidence and a list of rules."
            )
        _check_sources([{"id": name, **profile}], "licences.yaml", "id")
        for rule in profile["rules"]:
            _check_rule(name, rule)
    return profiles


def _check_rule(licence: str, rule: dict) -> None:
    complete = rule.get("as") and rule.get("clause") and rule.get("says")
    unknown = set(rule.get("when", {})) - set(CONDITIONS)
    if not complete or unknown or rule.get("verdict") not in VERDICTS:
        raise CourseError(
            f"data/catalog/licences.yaml: a rule of {licence} lacks as, clause or says, "
            f"or has an unknown verdict or condition: {rule}."
        )


def exact_id(name: str, row: dict[str, str]) -> str:
    """The hub id that `name` means; a short name means the version tuned to follow instructions."""
    for other in row["also"].split():
        if str(name).strip().lower() in (row["short"], other.lower()):
            return other
    return row["hub_id"]


def find(name: str) -> dict[str, str] | None:
    """The row of a model by hub id, short name, or an id that the same licence statement covers."""
    wanted = str(name).strip().lower()
    if not wanted:  # an empty short name must not match
        return None
    for row in models():
        if wanted in (row["hub_id"].lower(), row["short"].lower(), *row["also"].lower().split()):
            return row
    return None

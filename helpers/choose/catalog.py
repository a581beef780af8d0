"""The catalogue in data/catalog/: models, data sets and licences; every fact with its source."""

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
CONDITIONS = {"purpose", "commercial", "users_over", "revenue_over", "region", "multimodal"}
CONDITIONS |= {"base_not_under", "name_lacks"}


def _check_source(file: str, name: str, entry: dict) -> None:
    """Refuse an entry that does not say where its facts come from, when, and how sure they are."""
    for need in ("source", "date", "confidence"):
        if not str(entry.get(need) or "").strip():
            cure = "every fact needs a source, a date and a confidence (high, medium, low)"
            raise CourseError(f"data/catalog/{file}: {name} has no {need}; {cure}.")
    if entry["confidence"] not in SURE:
        what = f"the confidence of {name} is {entry['confidence']!r}"
        raise CourseError(f"data/catalog/{file}: {what}; it can be high, medium or low.")


def read_table(file: str, key: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """Rows of a CSV of the catalogue, each with its source; the column `key` names a row.

    Raises CourseError for a missing column, a name that stands twice, or a fact without a source.
    """
    table, seen = rows.read(folder / file), set()
    for row in table:
        name = row.get(key)
        if not name:
            what = f"a row has no {key}, or the column {key!r} is missing"
            raise CourseError(f"data/catalog/{file}: {what}.")
        if name in seen:
            raise CourseError(f"data/catalog/{file} has two rows for {name}.")
        seen.add(name)
        _check_source(file, name, row)
    return table


@cache  # read once: the picker asks the gate about every row
def models(folder: Path = FOLDER) -> list[dict[str, str]]:
    """Base models, teachers, cautionary tales and services. An empty cell: not seen in a source."""
    table = read_table("models.csv", "hub_id", folder)
    for row in table:
        for column in WHOLE_NUMBERS:
            if row[column] and not row[column].isdigit():
                what = f"{column} of {row['hub_id']} is {row[column]!r}"
                cure = "write the whole number or leave it empty"
                raise CourseError(f"data/catalog/models.csv: {what}; {cure}.")
    return table


@cache
def licences(folder: Path = FOLDER) -> dict[str, dict]:
    """{licence id: profile}; a profile has a name, a class, and rules with their clauses."""
    profiles, place = read_yaml(folder / "licences.yaml"), "data/catalog/licences.yaml"
    for name, profile in profiles.items():
        if not isinstance(profile, dict) or not isinstance(profile.get("rules"), list):
            needs = "name, class, source, date, confidence and a list of rules"
            raise CourseError(f"{place}: {name} needs {needs}.")
        _check_source("licences.yaml", name, profile)
        for rule in profile["rules"]:
            complete = rule.get("as") and rule.get("clause") and rule.get("says")
            known = set(rule.get("when", {})) <= CONDITIONS and rule.get("verdict") in VERDICTS
            if not complete or not known:
                lacks = "lacks as, clause or says, or has an unknown verdict or condition"
                raise CourseError(f"{place}: a rule of {name} {lacks}: {rule}.")
    return profiles


def find(name: str) -> dict[str, str] | None:
    """The row of a model by its short name or any of its ids; `exact_id` is the one meant."""
    wanted = name.strip().lower()
    for row in models():
        names = [row["hub_id"], row["short"], *row["also"].split()]
        if wanted and wanted in map(str.lower, names):  # an empty short name must not match
            # a short name means the version tuned to follow instructions
            exact = [other for other in names[2:] if wanted in (row["short"], other.lower())]
            return {**row, "exact_id": [*exact, row["hub_id"]][0]}
    return None


def find_data_set(name: str) -> dict[str, str] | None:
    """The row of datasets.csv with this id; a licence's id stands for rows that are not listed."""
    for row in read_table("datasets.csv", "id"):
        if row["id"].lower() == name.lower():
            return {**row, "exact_id": name}
    unlisted = {"licence": name, "confidence": "high", "exact_id": name}
    return unlisted if name in licences() else None

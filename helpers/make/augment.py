"""Records drawn from the seeds for messages to come, and rows made without a teacher.

Every row says where it comes from: recipe, teacher, prompt_version, seed, parents, licence. Only
training rows may be seeds. The draws stand in a fixed order: a seed gives the same rows in every
version.
"""

import random
import string
from collections.abc import Mapping, Sequence

import rstr

from helpers import CourseError
from helpers.core.files import fingerprint
from helpers.core.pilot import FieldSpec, Pilot
from helpers.core.text import is_wide, tokens

Rows = Sequence[Mapping]
Spans = Mapping[str, Sequence[str]]  # {field: values beyond those of the seeds}
VERSION = 2  # of the course's prompts: raise it when one in templates/recipes.yaml changes


def new_value(field: FieldSpec, known: Sequence[str], draw: random.Random) -> str:
    """A new value of a copied field: a match of the pattern, or a span like the `known` ones.

    Such a span stands in no seed: words of one seed's span, codes of another, drawn anew.
    """
    if field.type == "pattern":
        return rstr.Rstr(draw).xeger(field.regex)
    words, other = draw.choice(known).split(), draw.choice(known).split()
    whole = " ".join(words)
    if is_wide(tokens(whole)):  # a script without spaces: nothing to recombine
        return _redrawn(whole, draw)
    source = words
    if draw.random() < 0.5:
        source = other
    # a word with a digit is a code: PX-12 is drawn anew, "pump" is not
    names = [word for word in source if not any(map(str.isdigit, word))]
    codes = [_redrawn(word, draw) for word in words if any(map(str.isdigit, word))]
    if names and draw.random() < 0.15:
        return " ".join([*names, *codes])
    return " ".join([*codes, *names]) or _redrawn(whole, draw)


def _redrawn(word: str, draw: random.Random) -> str:
    """The word with every digit and letter from A to Z drawn anew: PX-12 becomes QA-57."""
    redrawn = ""
    for character in word:
        if character.isdigit():
            character = draw.choice(string.digits)
        elif character.isupper():
            character = draw.choice(string.ascii_uppercase)
        elif character.islower():
            character = draw.choice(string.ascii_lowercase)
        redrawn += character
    return redrawn


def copied_fields(pilot: Pilot) -> list[str]:
    """Names of the fields that are copied from the message: spans and patterns."""
    return [name for name, field in pilot.fields.items() if field.type != "label"]


def copied_values(pilot: Pilot, row: Mapping) -> list[str]:
    """The spans and patterns of a row, without the empty ones."""
    return [row[name] for name in copied_fields(pilot) if row[name]]


def record_of(pilot: Pilot, row: Mapping) -> dict:
    """The fields of a row, and nothing else."""
    return {name: row[name] for name in pilot.fields}


def known_values(rows: Rows, name: str) -> list[str]:
    """The values of a field in these rows, without the empty ones."""
    return [row[name] for row in rows if row[name]]


def records(
    pilot: Pilot, seeds: Rows, number: int, seed: int = 0, spans: Spans | None = None
) -> list[dict]:
    """`number` records for messages to come.

    Labels take turns over the first field's values, other labels are drawn evenly. A span or
    pattern is left empty as often as in the seeds, else recombined from theirs (and from `spans`)
    or drawn. Raises CourseError when a label or a span has no example to learn its form from.
    """
    known = _examples(pilot, seeds, spans or {})
    draw, drawn = random.Random(seed), []
    for number_of_row in range(number):
        record: dict[str, str | None] = {}
        for name, field in pilot.fields.items():
            if field.type == "label" and name == pilot.labels[0]:
                record[name] = field.values[number_of_row % len(field.values)]
            elif field.type == "label":
                record[name] = draw.choice(field.values)
            elif field.optional and draw.random() < _share_empty(seeds, name):
                record[name] = None
            else:
                record[name] = new_value(field, known[name], draw)
        drawn.append(record)
    return drawn


def _examples(pilot: Pilot, seeds: Rows, spans: Spans) -> dict[str, list[str]]:
    """{field: values to learn from}; raises CourseError where one is missing."""
    known = {}
    for name, field in pilot.fields.items():
        known[name] = known_values(seeds, name) + list(spans.get(name, ()))
        if field.type == "span" and not known[name]:
            raise no_example(f"a value for {name}")
    for name in pilot.labels[:1]:
        for value in pilot.fields[name].values:
            if value not in known[name]:
                raise no_example(f"{name} = {value!r}")
    return known


def _share_empty(seeds: Rows, name: str) -> float:
    return sum(row[name] is None for row in seeds) / len(seeds)


def no_example(what: str) -> CourseError:
    """The error for a label or a span that no seed row has."""
    cure = "label at least one, so that there is an example"
    return CourseError(f"No seed row has {what}; {cure}.")


def substitute(
    pilot: Pilot, seeds: Rows, number: int, seed: int = 0, spans: Spans | None = None
) -> list[dict]:
    """Seed messages with other spans and patterns in the place of theirs.

    Nothing new is said; it teaches to copy, not to guess.
    """
    draw, rows = random.Random(seed), []
    fresh = records(pilot, seeds, number, seed, spans)
    # without a value to change a row would come back as it is
    changeable = [row for row in seeds if copied_values(pilot, row)] or list(seeds)
    for i in range(number):
        row = changeable[i % len(changeable)]
        text, record = row[pilot.text], record_of(pilot, row)
        for name in copied_fields(pilot):
            value = fresh[i][name]
            if not value:
                value = new_value(pilot.fields[name], known_values(changeable, name), draw)
            # drawn even where it is not used, so that the next rows are the same
            if row[name] and not _overlaps(pilot, record, name):
                text, record[name] = text.replace(row[name], value), value
        rows.append(augmented(pilot, "substitute", row, text, record, seed, i))
    return rows


def _overlaps(pilot: Pilot, record: Mapping, name: str) -> bool:
    """Does another field's value hold this one, or this one it? Then neither can be replaced."""
    for other in copied_fields(pilot):
        value, neighbour = record[name], record[other]
        if other != name and neighbour and (value in neighbour or neighbour in value):
            return True
    return False


# Where a row comes from ---------------------------------------------------------------------------


def augmented(
    pilot: Pilot, recipe: str, row: Mapping, text: str, record: Mapping, seed: int, number: int
) -> dict:
    """A row made of a seed row without a teacher."""
    source = plan(recipe, [row], record, {}, seed, number)
    columns = origin(source, "none", row.get("licence") or "as the seed row")
    name = f"{recipe}-{fingerprint(source, text)}"
    return {"id": name, pilot.text: text, **record, "tags": "", "explanation": "", **columns}


def plan(
    recipe: str, parents: Rows, record: Mapping | None, request: Mapping, seed: int, number: int
) -> dict:
    """One plan; its request gets a seed of its own."""
    # not the number alone: two recipes would send the same seeds
    own = int(fingerprint(recipe, seed, number), 16) % 2**31
    ids = [row["id"] for row in parents]
    return {"recipe": recipe, "parents": ids, "record": record, "request": {**request, "seed": own}}


def origin(source: Mapping, teacher: str, licence: str) -> dict:
    """The columns that say where a row comes from, out of its plan."""
    return {
        "recipe": source["recipe"],
        "teacher": teacher,
        "prompt_version": source.get("prompt_version", f"{source['recipe']}-{VERSION}"),
        "seed": source["request"]["seed"],
        "parents": source["parents"],
        "licence": licence,
    }

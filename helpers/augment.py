"""Records drawn from the seeds for messages to come, and rows made without a teacher, whose labels are exact.

Every row says where it comes from: recipe, teacher, prompt_version, seed, parents, licence. Only training rows may be seeds.
"""

import random
import string

import rstr

from helpers import CourseError
from helpers.runs import fingerprint

VERSION = {"lamini": "lamini-1", "evolve": "evolve-1", "explain": "explain-1", "attributes": "attributes-1", "substitute": "substitute-1",
           "phrases": "phrases-1"}


def new_span(spans, draw):
    """A span that stands in no seed: words of one seed's span with the codes of another, codes redrawn in their own shape."""
    def shaped(word):
        kinds = ((str.isdigit, string.digits), (str.isupper, string.ascii_uppercase), (str.islower, string.ascii_lowercase))
        return "".join(next((draw.choice(letters) for kind, letters in kinds if kind(c)), c) for c in word)

    has_code = lambda word: any(c.isdigit() for c in word)  # noqa: E731
    words, other = draw.choice(spans).split(), draw.choice(spans).split()
    names = [w for w in (other if draw.random() < 0.5 else words) if not has_code(w)]
    codes = [shaped(w) for w in words if has_code(w)]
    return " ".join([*names, *codes] if names and draw.random() < 0.15 else [*codes, *names]) or shaped(" ".join(words))


def records(pilot, seeds, number, seed=0, spans=None):
    """`number` records: labels take turns over the first field's values, other labels are drawn evenly; a span or pattern is left
    empty as often as in the seeds. Spans are recombined from the seeds' (and `spans`, {field: more of them}), patterns drawn.

    Raises CourseError when a label or a span has no example to learn its form from.
    """
    draw, made, known = random.Random(seed), [], {}
    for name, field in pilot.fields.items():
        known[name] = [row[name] for row in seeds if row[name]] + list((spans or {}).get(name, ()))
        if field.type == "span" and not known[name]:
            raise CourseError(f"No seed row has a value for {name}; label at least one, or hand in spans={{'{name}': [...]}}.")
    missing = [v for v in pilot.fields[pilot.labels[0]].values if v not in known[pilot.labels[0]]] if pilot.labels else []
    if missing:
        raise CourseError(f"No seed row has {pilot.labels[0]} = {missing[0]!r}; label at least one, so that the teacher has an example.")
    for i in range(number):
        record = {}
        for name, field in pilot.fields.items():
            empty = sum(row[name] is None for row in seeds) / len(seeds)
            if field.type == "label":
                record[name] = field.values[i % len(field.values)] if name == pilot.labels[0] else draw.choice(field.values)
            elif field.optional and draw.random() < empty:
                record[name] = None
            else:
                record[name] = new_span(known[name], draw) if field.type == "span" else rstr.Rstr(draw).xeger(field.regex)
        made.append(record)
    return made


def substitute(pilot, seeds, number, seed=0, spans=None):
    """Seed messages with other spans and patterns in the place of theirs. Nothing new is said; it teaches to copy, not to guess."""
    draw, made = random.Random(seed), []
    fresh = records(pilot, seeds, number, seed, spans)
    copied = [n for n, f in pilot.fields.items() if f.type != "label"]
    for i in range(number):
        row = seeds[i % len(seeds)]
        text, record = row[pilot.text], {n: row[n] for n in pilot.fields}
        for name in copied:
            new = fresh[i][name] or (new_span([r[name] for r in seeds if r[name]], draw) if pilot.fields[name].type == "span"
                                     else rstr.Rstr(draw).xeger(pilot.fields[name].regex))
            overlaps = any(o != name and record[o] and row[name] and (row[name] in record[o] or record[o] in row[name]) for o in copied)
            if row[name] and not overlaps:
                text, record[name] = text.replace(row[name], new), new
        made.append(augmented(pilot, "substitute", row, text, record, seed, i))
    return made


def phrases(pilot, seeds, number, field, words, neutral, seed=0):
    """Seed messages that get a phrase in front or behind, which decides a label field: `words` is {value: [phrases]}.

    Only seeds whose value is `neutral` take one. Give phrases that say nothing for the neutral value too (thanks, greetings, a date far
    off), or a student learns that any last sentence means something.
    """
    known = pilot.fields[field].values
    wrong = [value for value in [*words, neutral] if value not in known]
    if wrong:
        raise CourseError(f"phrases: {wrong[0]!r} is not among the values of {field} ({', '.join(known)}).")
    plain = [row for row in seeds if row[field] == neutral]
    if not plain:
        raise CourseError(f"No seed row has {field} = {neutral!r}, so none can take a phrase; label at least one.")
    draw, made, values = random.Random(seed), [], list(words)
    for i in range(number):
        row, value = draw.choice(plain), values[i % len(values)]
        phrase = draw.choice(words[value])
        text = f"{phrase} {row[pilot.text]}" if draw.random() < 0.35 else f"{row[pilot.text]} {phrase}"
        made.append(augmented(pilot, "phrases", row, text, {n: row[n] for n in pilot.fields} | {field: value}, seed, i))
    return made


def augmented(pilot, recipe, row, text, record, seed, number):
    """A row made of a seed row without a teacher."""
    made = plan(recipe, [row], record, {}, seed, number)
    where = origin(made, "none", row.get("licence") or "as the seed row")
    return {"id": f"{recipe}-{fingerprint(made, text)}", pilot.text: text, **record, "tags": "", "explanation": "", **where}


def plan(recipe, parents, record, request, seed, number):
    """One plan; every request has a seed of its own, made of the recipe, the run's seed and its number."""
    own = int(fingerprint(recipe, seed, number), 16) % 2**31
    return {"recipe": recipe, "parents": [row["id"] for row in parents], "record": record, "request": {**request, "seed": own}}


def origin(made, teacher, licence):
    """The columns that say where a row comes from, out of its plan."""
    return {"recipe": made["recipe"], "teacher": teacher, "prompt_version": VERSION[made["recipe"]], "seed": made["request"]["seed"],
            "parents": made["parents"], "licence": licence}

"""Records drawn from the seeds for messages to come, and rows made without a teacher, whose labels are exact.

Every row says where it comes from: recipe, teacher, prompt_version, seed, parents, licence. Only training rows may be seeds.
"""

import random
import re
import string
from pathlib import Path

import rstr
import yaml

from helpers import CourseError
from helpers.runs import fingerprint

VERSION = {"lamini": "lamini-1", "evolve": "evolve-1", "explain": "explain-1", "attributes": "attributes-1", "substitute": "substitute-1",
           "phrases": "phrases-1", "compose": "compose-1"}


def new_span(spans, draw):
    """A span that stands in no seed: words of one seed's span with the codes of another, codes redrawn in their own shape."""
    def shaped(word):
        kinds = ((str.isdigit, string.digits), (str.isupper, string.ascii_uppercase), (str.islower, string.ascii_lowercase))
        return "".join(next((draw.choice(letters) for kind, letters in kinds if kind(c)), c) for c in word)

    has_code = lambda word: any(c.isdigit() for c in word)
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


def phrase_book(pilot, path=None):
    """The pilot's phrases.yaml, checked: {spans, open, close, aside, request: {label: [...]}, urgency: {...}}, as `compose` takes it.

    `request` belongs to the pilot's first label field; every further label field has a part of its own name. Raises CourseError for
    a missing file, a part or a label without phrases, a value nobody knows, a slot that is no field.
    """
    path = Path(path or pilot.folder / "phrases.yaml")
    try:
        book = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(f"There is no phrase book {path.name} in the pilot's folder; data/inbox/phrases.yaml shows its form.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise CourseError(f"{path.name} cannot be read: {str(problem).splitlines()[0]}") from None
    slots = [n for n, f in pilot.fields.items() if f.type != "label"]
    for part, field in zip(("request", *pilot.labels[1:]), pilot.labels):
        known, given = pilot.fields[field].values, book.get(part) if isinstance(book, dict) else None
        if not isinstance(given, dict):
            raise CourseError(f"{path.name} has no part {part!r} with phrases for each value of {field}.")
        wrong = [value for value in given if value not in known] + [value for value in known if not given.get(value)]
        if wrong:
            raise CourseError(f"{path.name}, {part}: {wrong[0]!r} "
                              + ("has no phrases." if wrong[0] in known else f"is not among the values of {field} ({', '.join(known)})."))
        for phrase in (p for phrases_ in given.values() for p in phrases_):
            bad = [slot for slot in re.findall(r"{([^}]*)}", str(phrase)) if slot.removeprefix("other.") not in slots]
            if not isinstance(phrase, str) or bad:
                raise CourseError(f"{path.name}, {part}: {str(phrase)!r} is not a phrase whose slots are fields ({', '.join(slots)}).")
    return book


def compose(pilot, seeds, number, book, seed=0):
    """Messages put together from a phrase book: greeting, background, request, what decides the other labels, close.

    The record is exact by construction: only a request's own slots fill it. The first label takes turns, the others come as often as
    in the seeds. A fifth is written small, a tenth has a typing error.
    """
    draw, made, (first, *others) = random.Random(seed), [], pilot.labels
    fresh = zip(records(pilot, seeds, number, seed, book.get("spans")), records(pilot, seeds, number, seed + 1, book.get("spans")))
    spans = {n: [row[n] for row in seeds if row[n]] + (book.get("spans") or {}).get(n, []) for n in pilot.fields}
    new = lambda n: rstr.Rstr(draw).xeger(pilot.fields[n].regex) if pilot.fields[n].type == "pattern" else new_span(spans[n], draw)
    for i, (drawn, other) in enumerate(fresh):
        drawn |= {n: draw.choice(seeds)[n] for n in others}  # as often as in the seeds: drawn evenly, a student expects too many urgent ones
        request = draw.choice(book["request"][drawn[first]])
        cues = [draw.choice(book[n][drawn[n]]) for n in others]
        asides = [draw.choice(book["aside"])] if book.get("aside") and draw.random() < 0.25 else []
        middle = [request, *cues] if draw.random() < 0.75 else [*cues, request]
        pieces = [*asides, *middle] if draw.random() < 0.7 else [*middle, *asides]
        if draw.random() < 0.5:
            pieces = [draw.choice(book.get("open") or [""]), *pieces, "\n" + draw.choice(book.get("close") or [""])]
        small = draw.random() < 0.2
        if draw.random() < 0.1:
            pieces = [_typo(piece, draw) for piece in pieces]
        record, filled = {n: drawn[n] if f.type == "label" else None for n, f in pilot.fields.items()}, {}
        for slot in set(re.findall(r"{([^}]*)}", " ".join(pieces))):
            name = slot.removeprefix("other.")
            value = (other if slot != name else drawn)[name] or new(name)
            filled[slot] = value.lower() if small and pilot.fields[name].type == "span" else value
            if slot == name:
                record[name] = filled[slot]
        text = " ".join(p.lower() if small else p for p in pieces if p)
        text = re.sub(r" ?\n", "\n", re.sub(r"{([^}]*)}", lambda m, filled=filled: filled[m[1]], text)).strip()
        made.append(augmented(pilot, "compose", seeds[i % len(seeds)] | {"id": "phrase book", "licence": book.get("licence")}, text, record, seed, i))
    return made


def _typo(piece, draw):
    """Two letters of one word change places; slots stay as they are."""
    words = [w for w in re.findall(r"{[^}]*}|[^\W\d_]{5,}", piece) if not w.startswith("{")]
    if not words:
        return piece
    word = draw.choice(words)
    at = draw.randrange(1, len(word) - 2)
    return piece.replace(word, word[:at] + word[at + 1] + word[at] + word[at + 2:], 1)


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

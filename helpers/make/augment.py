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
from helpers.core.files import fingerprint
from helpers.core.text import is_wide, tokens

VERSION = {
    "lamini": "lamini-1",
    "evolve": "evolve-1",
    "explain": "explain-1",
    "attributes": "attributes-1",
    "substitute": "substitute-1",
    "phrases": "phrases-1",
    "compose": "compose-1",
}


def new_span(spans, draw):
    """A span that stands in no seed: words of one seed's span with the codes of another, codes redrawn in their own shape."""

    def shaped(word):
        kinds = (
            (str.isdigit, string.digits),
            (str.isupper, string.ascii_uppercase),
            (str.islower, string.ascii_lowercase),
        )
        return "".join(
            next((draw.choice(letters) for kind, letters in kinds if kind(c)), c) for c in word
        )

    has_code = lambda word: any(c.isdigit() for c in word)
    words, other = draw.choice(spans).split(), draw.choice(spans).split()
    if is_wide(
        tokens(" ".join(words))
    ):  # a script without spaces: nothing to recombine, codes are redrawn
        return shaped(" ".join(words))
    names = [w for w in (other if draw.random() < 0.5 else words) if not has_code(w)]
    codes = [shaped(w) for w in words if has_code(w)]
    return " ".join(
        [*names, *codes] if names and draw.random() < 0.15 else [*codes, *names]
    ) or shaped(" ".join(words))


def records(pilot, seeds, number, seed=0, spans=None):
    """`number` records: labels take turns over the first field's values, other labels are drawn evenly; a span or pattern is left
    empty as often as in the seeds. Spans are recombined from the seeds' (and `spans`, {field: more of them}), patterns drawn.

    Raises CourseError when a label or a span has no example to learn its form from.
    """
    draw, made, known = random.Random(seed), [], {}
    for name, field in pilot.fields.items():
        known[name] = [row[name] for row in seeds if row[name]] + list((spans or {}).get(name, ()))
        if field.type == "span" and not known[name]:
            raise CourseError(
                f"No seed row has a value for {name}; label at least one, or hand in spans={{'{name}': [...]}}."
            )
    missing = (
        [v for v in pilot.fields[pilot.labels[0]].values if v not in known[pilot.labels[0]]]
        if pilot.labels
        else []
    )
    if missing:
        raise CourseError(
            f"No seed row has {pilot.labels[0]} = {missing[0]!r}; label at least one, so that the teacher has an example."
        )
    for i in range(number):
        record = {}
        for name, field in pilot.fields.items():
            empty = sum(row[name] is None for row in seeds) / len(seeds)
            if field.type == "label":
                record[name] = (
                    field.values[i % len(field.values)]
                    if name == pilot.labels[0]
                    else draw.choice(field.values)
                )
            elif field.optional and draw.random() < empty:
                record[name] = None
            else:
                record[name] = (
                    new_span(known[name], draw)
                    if field.type == "span"
                    else rstr.Rstr(draw).xeger(field.regex)
                )
        made.append(record)
    return made


def substitute(pilot, seeds, number, seed=0, spans=None):
    """Seed messages with other spans and patterns in the place of theirs. Nothing new is said; it teaches to copy, not to guess."""
    draw, made = random.Random(seed), []
    fresh = records(pilot, seeds, number, seed, spans)
    copied = [n for n, f in pilot.fields.items() if f.type != "label"]
    seeds = [
        row for row in seeds if any(row[n] for n in copied)
    ] or seeds  # without a value to change a row would come back as it is
    for i in range(number):
        row = seeds[i % len(seeds)]
        text, record = row[pilot.text], {n: row[n] for n in pilot.fields}
        for name in copied:
            new = fresh[i][name] or (
                new_span([r[name] for r in seeds if r[name]], draw)
                if pilot.fields[name].type == "span"
                else rstr.Rstr(draw).xeger(pilot.fields[name].regex)
            )
            overlaps = any(
                o != name
                and record[o]
                and row[name]
                and (row[name] in record[o] or record[o] in row[name])
                for o in copied
            )
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
        raise CourseError(
            f"phrases: {wrong[0]!r} is not among the values of {field} ({', '.join(known)})."
        )
    plain = [row for row in seeds if row[field] == neutral]
    if not plain:
        raise CourseError(
            f"No seed row has {field} = {neutral!r}, so none can take a phrase; label at least one."
        )
    draw, made, values = random.Random(seed), [], list(words)
    for i in range(number):
        row, value = draw.choice(plain), values[i % len(values)]
        phrase = draw.choice(words[value])
        text = (
            f"{phrase} {row[pilot.text]}" if draw.random() < 0.35 else f"{row[pilot.text]} {phrase}"
        )
        made.append(
            augmented(
                pilot,
                "phrases",
                row,
                text,
                {n: row[n] for n in pilot.fields} | {field: value},
                seed,
                i,
            )
        )
    return made


def phrase_book(pilot, path=None):
    """The pilot's phrases.yaml, checked: {spans, open, close, aside, request: {label: [...]}, urgency: {...}}, as `compose` takes it.

    `request` belongs to the pilot's first label field; every further label field has a part of its own name. Raises CourseError with
    the part and the phrase for whatever `compose` could not use.
    """
    path = Path(path or pilot.folder / "phrases.yaml")
    try:
        book = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(
            f"There is no phrase book {path.name} in the pilot's folder; data/inbox/phrases.yaml shows its form."
        ) from None
    except UnicodeDecodeError:
        raise CourseError(f"{path.name} is not UTF-8; save it as UTF-8.") from None
    except yaml.YAMLError as problem:
        line = getattr(getattr(problem, "problem_mark", None), "line", None)
        raise CourseError(
            f"{path.name} cannot be read as YAML"
            + (f" (near line {line + 1})" if line is not None else "")
            + "; every phrase stands after '- ', in quotes when it holds a colon or begins with a brace."
        ) from None
    if not pilot.labels:
        raise CourseError(
            "A phrase book needs a label field: its requests are sorted by the values of the first one."
        )
    parts = {
        part: pilot.fields[field]
        for part, field in zip(("request", *pilot.labels[1:]), pilot.labels)
    }
    known = {*parts, "open", "close", "aside", "spans", "licence"}
    if not isinstance(book, dict) or set(book) - known:
        wrong = next(iter(set(book) - known)) if isinstance(book, dict) else path.name
        raise CourseError(
            f"{path.name}: {wrong!r} is not known; a phrase book has the parts {', '.join(sorted(known))}."
        )
    for part, spec in parts.items():
        given = book.get(part)
        if not isinstance(given, dict):
            raise CourseError(
                f"{path.name} has no part {part!r} with phrases for each of {', '.join(spec.values)}."
            )
        wrong = [value for value in given if value not in spec.values] + [
            value for value in spec.values if not given.get(value)
        ]
        if wrong:
            raise CourseError(
                f"{path.name}, {part}: {wrong[0]!r} "
                + (
                    "has no phrases."
                    if wrong[0] in spec.values
                    else f"is not among the values ({', '.join(spec.values)})."
                )
            )
    copied = [n for n, f in pilot.fields.items() if f.type != "label"]
    others = [f"other.{n}" for n in copied]
    lists = [(part, value, phrases_) for part in parts for value, phrases_ in book[part].items()]
    lists += [(part, None, book[part]) for part in ("open", "close", "aside") if part in book]
    for part, value, phrases_ in lists:
        allowed = copied + others if part == "request" else others
        where = f"{path.name}, {part}" + (f", {value}" if value else "")
        if not isinstance(phrases_, list):
            raise CourseError(
                f"{where}: {phrases_!r} is not a list of phrases; put each on a line of its own after '- '."
            )
        for phrase in phrases_:
            plain = (
                re.sub(r"{([^{}]*)}", lambda m, a=allowed: "" if m[1] in a else "{", phrase)
                if isinstance(phrase, str)
                else "{"
            )
            if "{" in plain or "}" in plain:
                raise CourseError(
                    f"{where}: {phrase!r} is not a phrase with the slots {', '.join(allowed) or 'none'}."
                )
    spans = book.get("spans") or {}
    for name, values in spans.items() if isinstance(spans, dict) else [("spans", None)]:
        if (
            name not in copied
            or not isinstance(values, list)
            or not all(isinstance(v, str) and v.strip() for v in values)
        ):
            raise CourseError(
                f"{path.name}, spans: {name!r} needs a list of texts, and must be one of {', '.join(copied) or 'no field'}."
            )
    return book


def compose(pilot, seeds, number, book, seed=0):
    """Messages put together from a phrase book: greeting, background, request, what decides the other labels, close.

    The record follows from the phrases: only a request's own slots fill it, so it is as right as the book. The first label takes
    turns, the others come as often as in the seeds. A fifth is written small, a tenth has a typing error (not in Japanese or Chinese).
    """
    draw, made, (first, *others) = random.Random(seed), [], pilot.labels
    fresh = zip(
        records(pilot, seeds, number, seed, book.get("spans")),
        records(pilot, seeds, number, seed + 1, book.get("spans")),
    )
    spans = {
        n: [row[n] for row in seeds if row[n]] + (book.get("spans") or {}).get(n, [])
        for n in pilot.fields
    }
    new = lambda n: (
        rstr.Rstr(draw).xeger(pilot.fields[n].regex)
        if pilot.fields[n].type == "pattern"
        else new_span(spans[n], draw)
    )
    wide = is_wide(tokens(" ".join(p for phrases_ in book["request"].values() for p in phrases_)))
    for i, (drawn, other) in enumerate(fresh):
        known = [n for n in others if any(row[n] for row in seeds)]
        drawn |= {
            n: draw.choice([row[n] for row in seeds if row[n]]) for n in known
        }  # drawn evenly, a student expects too many urgent ones
        request = draw.choice(book["request"][drawn[first]])
        cues = [draw.choice(book[n][drawn[n]]) for n in others]
        asides = [draw.choice(book["aside"])] if book.get("aside") and draw.random() < 0.25 else []
        middle = [request, *cues] if draw.random() < 0.75 else [*cues, request]
        pieces = [*asides, *middle] if draw.random() < 0.7 else [*middle, *asides]
        if draw.random() < 0.5:
            pieces = [
                draw.choice(book.get("open") or [""]),
                *pieces,
                "\n" + draw.choice(book.get("close") or [""]),
            ]
        small, slip = draw.random() < 0.2 and not wide, draw.random() < 0.1 and not wide
        record, filled = (
            {n: drawn[n] if f.type == "label" else None for n, f in pilot.fields.items()},
            {},
        )
        for slot in dict.fromkeys(
            re.findall(r"{([^}]*)}", " ".join(pieces))
        ):  # in the order they stand in, so that a seed repeats
            name = slot.removeprefix("other.")
            value = (other if slot != name else drawn)[name] or new(name)
            filled[slot] = value.lower() if small and pilot.fields[name].type == "span" else value
            if slot == name:
                record[name] = filled[slot]
        ready = []
        for piece in filter(None, pieces):
            parts = re.split(r"({[^}]*})", piece)  # every second part is a slot
            words = [part.lower() if small else part for part in parts[::2]]
            if slip:
                k = draw.randrange(len(words))
                words[k] = _typo(words[k], draw)
            slots = [filled[part[1:-1]] for part in parts[1::2]] + [""]
            ready.append("".join(a + b for a, b in zip(words, slots)))
        text = re.sub(r" ?\n", "\n", ("" if wide else " ").join(ready)).strip()
        parent = seeds[i % len(seeds)] | {"id": "phrase book", "licence": book.get("licence")}
        made.append(augmented(pilot, "compose", parent, text, record, seed, i))
    return made


def _typo(text, draw):
    """Two letters of one word change places."""
    words = list(re.finditer(r"[^\W\d_]{5,}", text))
    if not words:
        return text
    word = draw.choice(words)
    at = draw.randrange(word.start() + 1, word.end() - 2)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def augmented(pilot, recipe, row, text, record, seed, number):
    """A row made of a seed row without a teacher."""
    made = plan(recipe, [row], record, {}, seed, number)
    where = origin(made, "none", row.get("licence") or "as the seed row")
    return {
        "id": f"{recipe}-{fingerprint(made, text)}",
        pilot.text: text,
        **record,
        "tags": "",
        "explanation": "",
        **where,
    }


def plan(recipe, parents, record, request, seed, number):
    """One plan; every request has a seed of its own, made of the recipe, the run's seed and its number."""
    own = int(fingerprint(recipe, seed, number), 16) % 2**31
    return {
        "recipe": recipe,
        "parents": [row["id"] for row in parents],
        "record": record,
        "request": {**request, "seed": own},
    }


def origin(made, teacher, licence):
    """The columns that say where a row comes from, out of its plan."""
    return {
        "recipe": made["recipe"],
        "teacher": teacher,
        "prompt_version": VERSION[made["recipe"]],
        "seed": made["request"]["seed"],
        "parents": made["parents"],
        "licence": licence,
    }

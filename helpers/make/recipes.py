"""Four recipes that turn a few labelled rows into requests for a teacher, and its texts into rows.

A plan is a dict: recipe, parents (ids of the seed rows it shows), record (the fields to come, or
None), request (for `ask.engines`). Only training rows may be handed in as seeds. Every recipe takes
a `template`, its prompt with named slots; TEMPLATES holds the course's own.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence

from helpers import ROOT
from helpers.core.files import fingerprint, read_yaml
from helpers.core.pilot import Pilot
from helpers.core.text import tokens
from helpers.make import augment
from helpers.make.augment import Rows, copied_values, plan, record_of
from helpers.make.grammar import record_grammar

PROMPTS = read_yaml(ROOT / "helpers/templates/recipes.yaml")
TEMPLATES = PROMPTS["templates"]
REFUSAL = re.compile(r"\b(as an ai|i'?m sorry, but|i cannot|language model)|\[[a-z' ]+\]", re.I)
# whole words keep a grammar small; counted characters make its parser give up
WORD = r'word ::= [^ \n"{}\[\]<>]+' + "\n"


def about_and_language(pilot: Pilot) -> str:
    """The pilot's `about`, and the language to write in where that is not English."""
    code = re.split("[-_]", pilot.language.lower())[0]
    if code == "en":
        return pilot.about
    language = PROMPTS["languages"].get(code, pilot.language)
    return f"{pilot.about} All messages are written in {language}.".strip()


def lamini(
    pilot: Pilot, seeds: Rows, number: int, seed: int = 0, template: str = TEMPLATES["lamini"]
) -> list[dict]:
    """LaMini-style (Wu et al. 2023, arXiv 2304.14402): seeds of one kind, then one more of it.

    The kind is the value of the first label field. The record is known only so far; `rows_of` fills
    it in from the text. No plans for a pilot without a label field. Raises CourseError for a value
    that no seed has.
    """
    if not pilot.labels:
        return []
    draw, plans, first = random.Random(seed), [], pilot.labels[0]
    about = about_and_language(pilot)
    values = pilot.fields[first].values
    for i in range(number):
        value = values[i % len(values)]
        same = [row for row in seeds if row[first] == value]
        if not same:
            raise augment.no_example(f"{first} = {value!r}")
        parents = draw.sample(same, min(3, len(same)))
        # whose other labels are the guess for the new row
        lead = draw.choice(parents)
        record = {name: lead[name] for name in pilot.labels}
        examples = ""
        for row in parents:
            examples += f"- {_one_line(row[pilot.text])}\n"
        kind = value.replace("_", " ")
        prompt = template.format(about=about, field=first, value=kind, examples=examples)
        request = {"prompt": prompt, "stop": ["\n"], "max_tokens": 60, "temperature": 0.7}
        plans.append(plan("lamini", parents, record, request, seed, i))
    return _versioned(plans, template)


def evolve(
    pilot: Pilot, rows: Rows, number: int, seed: int = 0, template: str = TEMPLATES["evolve"]
) -> list[dict]:
    """Evol-Instruct (Xu et al. 2023, arXiv 2304.12244): a message is rewritten.

    Deeper (a detail, a reason) or broader (a new one of its kind). The record stays; `eliminated`
    names the rewrites that failed.
    """
    draw, plans = random.Random(seed), []
    system = f"You rewrite messages. {about_and_language(pilot)} Write the message only."
    for i in range(number):
        row = rows[i % len(rows)]
        change = PROMPTS["broader"]
        if draw.random() >= 0.3:  # three in ten are new messages
            change = draw.choice(PROMPTS["deeper"])
        kept = copied_values(pilot, row)
        if kept:
            change += f" Keep these words exactly: {', '.join(kept)}."
        user = template.format(message=_one_line(row[pilot.text]), change=change)
        chat = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        request = {"messages": chat, "max_tokens": 110, "temperature": 0.7}
        plans.append(plan("evolve", [row], record_of(pilot, row), request, seed, i))
    return _versioned(plans, template)


def eliminated(pilot: Pilot, one: Mapping, text: str | None, rows: Rows) -> str | None:
    """Why a rewrite is thrown away (Evol-Instruct's elimination), or None."""
    if not text or len(tokens(text)) < 3:
        return "empty"
    if _one_line(text).lower() == _one_line(_parent_text(pilot, one, rows)).lower():
        return "unchanged"
    if REFUSAL.search(text):
        return "refusal or placeholder"
    if "Keep these words" in text or text.startswith("Message:"):
        return "repeats the prompt"
    lost = []
    for name in augment.copied_fields(pilot):
        if one["record"][name] and one["record"][name] not in text:
            lost.append(name)
    return f"lost {', '.join(lost)}" if lost else None


def _parent_text(pilot: Pilot, one: Mapping, rows: Rows) -> str:
    return next(row[pilot.text] for row in rows if row["id"] == one["parents"][0])


def explain(
    pilot: Pilot, rows: Rows, seed: int = 0, shots: Rows = (), template: str = TEMPLATES["explain"]
) -> list[dict]:
    """Orca-style (Mukherjee et al. 2023, arXiv 2306.02707): the teacher labels `rows` and says why.

    The answer is held to one line of explanation and a record whose values stand in the message.
    """
    system = template.format(instruction=pilot.instruction())
    chat = [{"role": "system", "content": system}]
    for shot in shots:
        facts = []
        for name in pilot.fields:
            facts.append(f"{name.replace('_', ' ')} is {shot[name] or 'not given'}")
        answer = f"The message shows that {', '.join(facts)}.\n{pilot.answer(shot)}"
        chat.append({"role": "user", "content": _one_line(shot[pilot.text])})
        chat.append({"role": "assistant", "content": answer})
    plans = []
    for i, row in enumerate(rows):
        message = _one_line(row[pilot.text])
        record = record_grammar(pilot, message).replace("root ::=", "record ::=", 1)
        grammar = f'root ::= word (" " word){{3,30}} "\\n" record\n{WORD}{record}'
        request = {"max_tokens": 140, "temperature": 0.3, "grammar": grammar}
        request["messages"] = [*chat, {"role": "user", "content": message}]
        plans.append(plan("explain", [row, *shots], None, request, seed, i))
    return _versioned(plans, template)


def attributes(
    pilot: Pilot,
    seeds: Rows,
    number: int,
    seed: int = 0,
    force: bool = False,
    template: str = TEMPLATES["attributes"],
) -> list[dict]:
    """Attribute-first (AttrPrompt, Yu et al. 2023, arXiv 2306.15895).

    Choose the record, a tone and a length, then have the message written. force=True holds the
    message to a grammar in which every span and pattern of the record stands literally.
    """
    draw, plans = random.Random(seed), []
    for i, record in enumerate(augment.records(pilot, seeds, number, seed)):
        near = _nearest(pilot, seeds, record, draw)[:4]
        tone, length = draw.choice(PROMPTS["tones"]), draw.choice(list(PROMPTS["lengths"]))
        examples = ""
        for row in reversed(near):  # the nearest one last, where it weighs most
            examples += f"{_described(pilot, row)}\nMessage: {_one_line(row[pilot.text])}\n\n"
        asked, about = _described(pilot, record), about_and_language(pilot)
        prompt = template.format(
            about=about, examples=examples, record=asked, tone=tone, length=length
        )
        request = {"prompt": prompt, "stop": ["\n"], "max_tokens": PROMPTS["lengths"][length]}
        request["temperature"] = 0.7
        if force:
            values = copied_values(pilot, record)
            draw.shuffle(values)  # or the number would always stand behind the product
            request["grammar"] = _grammar_with(values)
        planned = plan("attributes", near, record, request, seed, i)
        plans.append(planned | {"tags": f"{tone}, {length}"})
    return _versioned(plans, template)


def _nearest(pilot: Pilot, seeds: Rows, record: Mapping, draw: random.Random) -> list[Mapping]:
    """Seeds with the most labels in common first, equals in a drawn order."""

    def distance(row: Mapping) -> tuple[int, float]:
        common = sum(row[name] == record[name] for name in pilot.labels)
        return -common, draw.random()

    return sorted(seeds, key=distance)


def _grammar_with(values: Sequence[str]) -> str:
    """A grammar of one line of words in which these values stand, in this order."""
    inner = ""
    for value in values:
        literal = json.dumps(" " + value, ensure_ascii=False)
        inner += f' {literal} [,.?!]? (" " word){{0,8}}'
    return f'root ::= (" " word){{2,9}}{inner} "\\n"\n{WORD}'


def _versioned(plans: list[dict], template: str) -> list[dict]:
    """The plans; those of another prompt than the course's say so, and their rows with them."""
    for one in plans:
        if template != TEMPLATES[one["recipe"]]:
            one["prompt_version"] = f"{one['recipe']}-{fingerprint(template)}"
    return plans


def first_prompt(plans: Sequence[Mapping]) -> str:
    """What the teacher will read first of these plans: a raw prompt, or the turns of a chat."""
    if not plans:
        return "No plans: this pilot has no label field."
    request = plans[0]["request"]
    if "prompt" in request:
        return request["prompt"]
    return "\n".join(f"[{turn['role']}] {turn['content']}" for turn in request["messages"])


def at_most(plans: Sequence[Mapping], max_tokens: int) -> list[dict]:
    """The same plans with answers of at most so many tokens: for a run that must be short."""
    shortened = []
    for one in plans:
        longest = min(one["request"]["max_tokens"], max_tokens)
        shortened.append({**one, "request": one["request"] | {"max_tokens": longest}})
    return shortened


# From texts to rows -------------------------------------------------------------------------------


def rows_of(
    pilot: Pilot, plans: Sequence[Mapping], texts: Sequence[str | None], teacher, seeds: Rows = ()
) -> list[dict]:
    """Raw rows of the plans that got a text, nothing filtered.

    Columns: id, text, fields, tags, explanation, and where they come from.
    """
    rows = []
    for one, text in zip(plans, texts, strict=True):
        if not text:
            continue
        record, explanation, source = one["record"], "", text
        if one["recipe"] == "explain":
            explanation, _, answer = text.rpartition("\n")
            try:
                record = json.loads(answer)
            except ValueError:
                continue  # cut off before the record was complete
            source = _parent_text(pilot, one, seeds)
        elif one["recipe"] == "lamini":
            record = _weak_record(pilot, text, record, seeds)
        row = {"id": f"{one['recipe']}-{fingerprint(one)}", pilot.text: source}
        row |= record_of(pilot, record)
        row |= {"tags": one.get("tags", ""), "explanation": explanation.strip()}
        rows.append(row | augment.origin(one, teacher.name, teacher.licence))
    return rows


def _weak_record(pilot: Pilot, text: str, labels: Mapping, seeds: Rows) -> dict:
    """Labels as guessed, patterns by their regex, a span when a seed's occurs (the longest)."""
    record = dict(labels)
    for name in augment.copied_fields(pilot):
        if pilot.fields[name].type == "pattern":
            match = re.search(pilot.fields[name].regex, text)
            record[name] = match.group(0) if match else None
        else:
            occurring = [value for value in augment.known_values(seeds, name) if value in text]
            record[name] = max(occurring, key=len, default=None)
    return record


def invented(pilot: Pilot, rows: Rows) -> list[bool]:
    """For each row: does its record hold a span or pattern that does not stand in its text?"""
    flags = []
    for row in rows:
        flags.append(any(value not in row[pilot.text] for value in copied_values(pilot, row)))
    return flags


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _described(pilot: Pilot, record: Mapping) -> str:
    values = [f"{name}: {record[name] or 'none'}".replace("_", " ") for name in pilot.fields]
    return "; ".join(values)

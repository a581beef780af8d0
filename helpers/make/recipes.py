"""Four recipes that turn a few labelled rows into requests for a teacher, and its texts into rows.

A plan is a dict: recipe, parents (ids of the seed rows it shows), record (the fields to come, or
None), request (for `ask.engines`). Only training rows may be handed in as seeds. Every recipe takes
a `template`, its prompt with named slots; TEMPLATES holds the course's own.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence

from helpers.core.files import fingerprint
from helpers.core.pilot import Pilot
from helpers.core.text import tokens
from helpers.make.augment import (
    Rows,
    Spans,
    copied_fields,
    copied_values,
    no_example,
    origin,
    plan,
    record_of,
    records,
)
from helpers.make.grammar import record_grammar

TEMPLATES = {
    "lamini": "{about}\nMessages, {field}: {value}\n{examples}-",
    "evolve": "Message: {message}\n\n{change}",
    "explain": "{instruction}\nFirst explain in one sentence how you decide, then give the object "
    "on a new line.",
    "attributes": "{about}\n\n{examples}{record}; tone: {tone}; length: {length}\nMessage:",
}
TONES = ("polite", "curt", "friendly", "annoyed", "formal", "hurried")
LENGTHS = {  # and the tokens it may take
    "one short sentence": 40,
    "one or two sentences": 60,
    "three or four sentences": 110,
}
DEEPER = (
    "Add one concrete detail that such a customer would mention.",
    "Add the reason why the customer asks.",
    "Make it a little longer and more complicated.",
    "Write it as somebody who is in a hurry and makes small mistakes.",
)
BROADER = "Write a new message about something else that asks for the same kind of thing."
REFUSAL = re.compile(r"\b(as an ai|i'?m sorry, but|i cannot|language model)|\[[a-z' ]+\]", re.I)
# whole words keep a grammar small; counted characters make its parser give up
WORD = r'word ::= [^ \n"{}\[\]<>]+' + "\n"


def lamini(
    pilot: Pilot,
    seeds: Rows,
    number: int,
    seed: int = 0,
    shown: int = 3,
    template: str = TEMPLATES["lamini"],
) -> list[dict]:
    """LaMini-style (Wu et al. 2023, arXiv 2304.14402): seeds of one kind, then one more of it.

    The kind is the value of the first label field. The record is known only so far; `weak_record`
    fills it in from the text. No plans for a pilot without a label field. Raises CourseError for a
    value that no seed has.
    """
    if not pilot.labels:
        return []
    draw, plans, first = random.Random(seed), [], pilot.labels[0]
    values = pilot.fields[first].values
    for i in range(number):
        value = values[i % len(values)]
        same = [row for row in seeds if row[first] == value]
        if not same:
            raise no_example(first, value)
        examples = draw.sample(same, min(shown, len(same)))
        lead = draw.choice(examples)  # whose other labels are the guess for the new row
        record = {name: lead[name] for name in pilot.labels} | {first: value}
        shots = ""
        for row in examples:
            shots += f"- {_one_line(row[pilot.text])}\n"
        prompt = template.format(
            about=pilot.about,
            field=first,
            value=value.replace("_", " "),
            examples=shots,
        )
        request = {"prompt": prompt, "stop": ["\n"], "max_tokens": 60, "temperature": 0.7}
        plans.append(_plan("lamini", examples, record, request, seed, i, template))
    return plans


def evolve(
    pilot: Pilot, rows: Rows, number: int, seed: int = 0, template: str = TEMPLATES["evolve"]
) -> list[dict]:
    """Evol-Instruct (Xu et al. 2023, arXiv 2304.12244): a message is rewritten.

    Deeper (a detail, a reason) or broader (a new one of its kind). The record stays; `eliminated`
    names the rewrites that failed.
    """
    draw, plans = random.Random(seed), []
    system = f"You rewrite messages. {pilot.about} Write the message only."
    for i in range(number):
        row = rows[i % len(rows)]
        change = BROADER
        if draw.random() >= 0.3:  # three in ten are new messages
            change = draw.choice(DEEPER)
        kept = copied_values(pilot, row)
        if kept:
            change += f" Keep these words exactly: {', '.join(kept)}."
        user = template.format(message=_one_line(row[pilot.text]), change=change)
        chat = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        request = {"messages": chat, "max_tokens": 110, "temperature": 0.7}
        plans.append(_plan("evolve", [row], record_of(pilot, row), request, seed, i, template))
    return plans


def eliminated(pilot: Pilot, one: Mapping, text: str | None, rows: Rows) -> str | None:
    """Why a rewrite is thrown away (Evol-Instruct's elimination), or None."""
    parent = next(row for row in rows if row["id"] == one["parents"][0])
    if not text or len(tokens(text)) < 3:
        return "empty"
    if _one_line(text).lower() == _one_line(parent[pilot.text]).lower():
        return "unchanged"
    if REFUSAL.search(text):
        return "refusal or placeholder"
    if "Keep these words" in text or text.startswith("Message:"):
        return "repeats the prompt"
    lost = []
    for name in copied_fields(pilot):
        if one["record"][name] and one["record"][name] not in text:
            lost.append(name)
    return f"lost {', '.join(lost)}" if lost else None


def explain(
    pilot: Pilot,
    rows: Rows,
    seed: int = 0,
    shots: Rows = (),
    template: str = TEMPLATES["explain"],
) -> list[dict]:
    """Orca-style (Mukherjee et al. 2023, arXiv 2306.02707): the teacher labels `rows` and says why.

    The answer is held to one line of explanation and a record whose values stand in the message.
    """
    system = template.format(instruction=pilot.instruction())
    chat = [{"role": "system", "content": system}]
    for shot in shots:
        answer = f"{_because(pilot, shot)}\n{pilot.answer(shot)}"
        chat.append({"role": "user", "content": _one_line(shot[pilot.text])})
        chat.append({"role": "assistant", "content": answer})
    plans = []
    for i, row in enumerate(rows):
        message = _one_line(row[pilot.text])
        record = record_grammar(pilot, message).replace("root ::=", "record ::=", 1)
        request = {
            "messages": [*chat, {"role": "user", "content": message}],
            "grammar": f'root ::= word (" " word){{3,30}} "\\n" record\n{WORD}{record}',
            "max_tokens": 140,
            "temperature": 0.3,
        }
        plans.append(_plan("explain", [row, *shots], None, request, seed, i, template))
    return plans


def attributes(
    pilot: Pilot,
    seeds: Rows,
    number: int,
    seed: int = 0,
    force: bool = False,
    spans: Spans | None = None,
    shown: int = 4,
    template: str = TEMPLATES["attributes"],
) -> list[dict]:
    """Attribute-first (AttrPrompt, Yu et al. 2023, arXiv 2306.15895).

    Choose the record, a tone and a length, then have the message written. force=True holds the
    message to a grammar in which every span and pattern of the record stands literally.
    """
    draw, plans = random.Random(seed), []
    for i, record in enumerate(records(pilot, seeds, number, seed, spans)):
        near = _nearest(pilot, seeds, record, draw)[:shown]
        tone, length = draw.choice(TONES), draw.choice(list(LENGTHS))
        examples = ""
        for row in reversed(near):  # the nearest one last, where it weighs most
            examples += f"{_described(pilot, row)}\nMessage: {_one_line(row[pilot.text])}\n\n"
        prompt = template.format(
            about=pilot.about,
            examples=examples,
            record=_described(pilot, record),
            tone=tone,
            length=length,
        )
        request = {"prompt": prompt, "stop": ["\n"], "max_tokens": LENGTHS[length]}
        request["temperature"] = 0.7
        if force:
            values = copied_values(pilot, record)
            draw.shuffle(values)  # or the number would always stand behind the product
            request["grammar"] = _grammar_with(values)
        planned = _plan("attributes", near, record, request, seed, i, template)
        plans.append(planned | {"tags": f"{tone}, {length}"})
    return plans


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


def _plan(
    recipe: str,
    parents: Rows,
    record: Mapping | None,
    request: Mapping,
    seed: int,
    number: int,
    template: str,
) -> dict:
    planned = plan(recipe, parents, record, request, seed, number)
    if (
        template != TEMPLATES[recipe]
    ):  # the rows must not say that they come from the course's prompt
        planned["prompt_version"] = f"{recipe}-{fingerprint(template)}"
    return planned


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
            source = next(row[pilot.text] for row in seeds if row["id"] == one["parents"][0])
        elif one["recipe"] == "lamini":
            record = weak_record(pilot, text, record, seeds)
        row = {"id": f"{one['recipe']}-{fingerprint(one)}", pilot.text: source}
        row |= record_of(pilot, record)
        row |= {"tags": one.get("tags", ""), "explanation": explanation.strip()}
        rows.append(row | origin(one, teacher.name, teacher.licence))
    return rows


def weak_record(pilot: Pilot, text: str, labels: Mapping, seeds: Rows) -> dict:
    """A record for a text whose labels are guessed from its examples.

    Patterns by their regex, a span when a seed's span occurs (the longest).
    """
    record = {}
    for name, field in pilot.fields.items():
        if field.type == "label":
            record[name] = labels[name]
        elif field.type == "pattern":
            match = re.search(field.regex, text)
            record[name] = match.group(0) if match else None
        else:
            occurring = [row[name] for row in seeds if row[name] and row[name] in text]
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
    values = []
    for name in pilot.fields:
        value = record[name] or "none"
        values.append(f"{name.replace('_', ' ')}: {value.replace('_', ' ')}")
    return "; ".join(values)


def _because(pilot: Pilot, row: Mapping) -> str:
    values = []
    for name in pilot.fields:
        values.append(f"{name.replace('_', ' ')} is {row[name] or 'not given'}")
    return f"The message shows that {', '.join(values)}."

"""Four recipes that turn a few labelled rows into requests for a teacher, and its texts into rows.

A plan is a dict: recipe, parents (ids of the seed rows it shows), record (the fields to come, or
None), request (for `ask.engines`). Only training rows may be handed in as seeds. Every recipe takes
a `template`, its prompt with named slots; TEMPLATES holds the course's own.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from itertools import islice, permutations

from helpers import ROOT
from helpers.core.files import fingerprint, read_yaml
from helpers.core.pilot import Pilot
from helpers.core.text import is_wide, tokens
from helpers.make import augment
from helpers.make.augment import Rows, copied_values, plan, record_of
from helpers.make.grammar import record_grammar

PROMPTS = read_yaml(ROOT / "helpers/templates/recipes.yaml")
Template = Mapping[str, str]  # a recipe's prompt: system, ask and, where it shows seeds, example
TEMPLATES: dict[str, Template] = PROMPTS["templates"]
REFUSAL = re.compile(r"\b(as an ai|i'?m sorry, but|i cannot|language model)|\[[a-z' ]+\]", re.I)
# the 50 likeliest tokens: to sort a large vocabulary for top_p takes longer than the model itself
WARM = {"temperature": 0.5, "top_k": 50, "top_p": 1.0}
LONGEST_SHOWN = 1000  # characters of a seed message that a prompt shows
# a word of a message: one mark may end it (without that a teacher that has nothing more to say goes
# on with obj.obj.obj); in a script without spaces a word is a character
WORD = r'word ::= [^ \n"{}\[\]<>.,:;?!]+ [.,:;?!]?'
LETTER = r'word ::= [^ \n"{}\[\]<>]'


def about_and_language(pilot: Pilot) -> str:
    """The pilot's `about`, and the language to write in where that is not English."""
    if not (language := _language(pilot)):
        return pilot.about
    return f"{pilot.about} All messages are written in {language}.".strip()


def _language(pilot: Pilot) -> str:
    """The name of the pilot's language as a teacher reads it; empty for English."""
    code = re.split("[-_]", pilot.language.lower())[0]
    return "" if code == "en" else PROMPTS["languages"].get(code, pilot.language)


def _chat(
    pilot: Pilot, template: Template, examples: Sequence[tuple[dict, Mapping]] = (), **slots: str
) -> list[dict]:
    """The turns of a request: system, (what was asked for, the seed's message), ..., ask."""
    language = _language(pilot)
    slots["about"] = about_and_language(pilot)
    # said once more at the end: after English examples of a format a small model forgets it
    slots["language"] = f" Write in {language}." if language else ""
    chat = [{"role": "system", "content": template["system"].format(**slots)}]
    for shown, row in examples:
        chat.append({"role": "user", "content": template["example"].format(**slots | shown)})
        chat.append({"role": "assistant", "content": _shown(row[pilot.text])})
    return [*chat, {"role": "user", "content": template["ask"].format(**slots)}]


def lamini(
    pilot: Pilot, seeds: Rows, number: int, seed: int = 0, template: Template = TEMPLATES["lamini"]
) -> list[dict]:
    """LaMini-style (Wu et al. 2023, arXiv 2304.14402): seeds of one kind, then one more of it.

    The kind is what the labels of a drawn seed say; the shown ones share as many as they can. Spans
    and patterns are read from the text by `rows_of`. No plans for a pilot without a label field.
    Raises CourseError for a value of the first label field that no seed has.
    """
    if not pilot.labels:
        return []
    draw, plans, first = random.Random(seed), [], pilot.labels[0]
    values = pilot.fields[first].values
    for i in range(number):
        value = values[i % len(values)]
        same = [row for row in seeds if row[first] == value]
        if not same:
            raise augment.no_example(f"{first} = {value!r}")
        lead = draw.choice(same)
        record = {name: lead[name] for name in pilot.labels}
        others = [
            (_unlike(pilot, row, lead), draw.random(), row) for row in same if row is not lead
        ]
        others.sort(key=lambda one: one[:2])
        parents = [row for _, _, row in others[:2]] + [lead]
        examples = [({"kind": _kind(pilot, row)}, row) for row in parents]
        chat = _chat(pilot, template, examples, kind=_kind(pilot, lead))
        request = {"messages": chat, "max_tokens": _tokens(pilot, 110)}
        plans.append(plan("lamini", parents, record, request | WARM, seed, i))
    return _versioned(plans, template)


def _unlike(pilot: Pilot, row: Mapping, other: Mapping) -> int:
    """How many label fields differ."""
    return sum(row[name] != other[name] for name in pilot.labels)


def _kind(pilot: Pilot, record: Mapping) -> str:
    """intent: order status; urgency: high"""
    return "; ".join(_said(pilot, record, name) for name in pilot.labels)


def _said(pilot: Pilot, record: Mapping, name: str) -> str:
    """A field as a prompt says it: a label without underscores, a copied value in quotes."""
    value, said = record[name], "not mentioned"
    if value:
        label = pilot.fields[name].type == "label"
        said = value.replace("_", " ") if label else f'"{value}"'
    return f"{name.replace('_', ' ')}: {said}"


def evolve(
    pilot: Pilot, rows: Rows, number: int, seed: int = 0, template: Template = TEMPLATES["evolve"]
) -> list[dict]:
    """Evol-Instruct (Xu et al. 2023, arXiv 2304.12244): a message is rewritten.

    Deeper (a detail, a reason) or broader (a new one of its kind). The record stays; `eliminated`
    names the rewrites that failed.
    """
    draw, plans = random.Random(seed), []
    for i in range(number):
        row = rows[i % len(rows)]
        change = PROMPTS["broader"]
        if draw.random() >= 0.3:  # three in ten are new messages
            change = draw.choice(PROMPTS["deeper"])
        kept = copied_values(pilot, row)
        if kept:
            change += f" Keep these words exactly: {', '.join(kept)}."
        chat = _chat(pilot, template, message=_shown(row[pilot.text]), change=change)
        request = {"messages": chat, "max_tokens": _tokens(pilot, 110)}
        plans.append(plan("evolve", [row], record_of(pilot, row), request | WARM, seed, i))
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
    pilot: Pilot,
    rows: Rows,
    seed: int = 0,
    shots: Rows = (),
    template: Template = TEMPLATES["explain"],
) -> list[dict]:
    """Orca-style (Mukherjee et al. 2023, arXiv 2306.02707): the teacher labels `rows` and says why.

    The answer is held to one line of explanation and a record whose values stand in the message.
    """
    slots = {"instruction": pilot.instruction()}
    chat = [{"role": "system", "content": template["system"].format(**slots)}]
    for shot in shots:
        facts = []
        for name in pilot.fields:
            facts.append(f"{name.replace('_', ' ')} is {shot[name] or 'not given'}")
        answer = f"The message shows that {', '.join(facts)}.\n{pilot.answer(shot)}"
        chat.append({"role": "user", "content": _shown(shot[pilot.text])})
        chat.append({"role": "assistant", "content": answer})
    plans = []
    for i, row in enumerate(rows):
        message = _shown(row[pilot.text])
        record = record_grammar(pilot, message).replace("root ::=", "record ::=", 1)
        grammar = f'root ::= word (" " word){{3,30}} "\\n" record\n{WORD}\n{record}'
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
    template: Template = TEMPLATES["attributes"],
) -> list[dict]:
    """Attribute-first (AttrPrompt, Yu et al. 2023, arXiv 2306.15895).

    Choose the record, a tone and a length, then have the message written. force=True holds the
    message to a grammar in which every span and pattern of the record stands literally.
    """
    draw, plans = random.Random(seed), []
    for i, record in enumerate(augment.records(pilot, seeds, number, seed)):
        record |= _filled_as_a_seed(pilot, seeds, record, draw)
        near = _nearest(pilot, seeds, record, draw)[:3]
        tone, length = draw.choice(PROMPTS["tones"]), draw.choice(list(PROMPTS["lengths"]))
        # the nearest one last, where it weighs most
        examples = [(_facts(pilot, row), row) for row in reversed(near)]
        asked = _facts(pilot, record) | {"tone": tone, "length": length}
        chat = _chat(pilot, template, examples, **asked)
        most = _tokens(pilot, PROMPTS["lengths"][length])
        request = {"messages": chat, "max_tokens": most}
        if force and (values := copied_values(pilot, record)):
            wide = is_wide(tokens(" ".join(row[pilot.text] for row in near)))
            request["grammar"] = _grammar_with(values, wide)
        planned = plan("attributes", near, record, request | WARM, seed, i)
        plans.append(planned | {"tags": f"{tone}, {length}"})
    return _versioned(plans, template)


def _filled_as_a_seed(
    pilot: Pilot, seeds: Rows, record: Mapping, draw: random.Random
) -> dict[str, str | None]:
    """The record's copied fields, filled where those of a drawn seed of its first label are.

    Drawn each by itself they would ask for messages that nobody writes.
    """
    same = [row for row in seeds if all(row[name] == record[name] for name in pilot.labels[:1])]
    like, fields = draw.choice(same), {}
    for name in augment.copied_fields(pilot):
        value = record[name]
        if like[name] and not value:
            known = augment.known_values(seeds, name)
            value = augment.new_value(pilot.fields[name], known, draw)
        fields[name] = value if like[name] else None
    return fields


def _nearest(pilot: Pilot, seeds: Rows, record: Mapping, draw: random.Random) -> list[Mapping]:
    """Seeds of the same first label first, then those with most in common, equals as drawn.

    In common: equal labels, and (twice as much) fields that are empty or filled in both.
    """

    def distance(row: Mapping) -> tuple[bool, int, float]:
        other = any(row[name] != record[name] for name in pilot.labels[:1])
        common = -_unlike(pilot, row, record)
        for name in augment.copied_fields(pilot):
            common += 2 * (bool(row[name]) == bool(record[name]))
        return other, -common, draw.random()

    return sorted(seeds, key=distance)


def _grammar_with(values: Sequence[str], wide: bool) -> str:
    """A grammar of one line in which these values stand, in any order.

    `wide`: in a script without spaces, where letters take the place of words.
    """
    # so many at most, or a value would never come
    before, space, after = "(word{0,40})", " ", " word{0,80}"
    rules = LETTER
    if not wide:
        before, space, after, rules = '(word " "){0,12}', ' " " ', ' (" " word){0,24}', WORD
    for number, value in enumerate(values):
        # the mark belongs to the rule: the longer of two readings wins, and a word may have one
        mark = "" if wide else " [.,:;?!]?"
        rules += f"\nvalue{number} ::= {json.dumps(value, ensure_ascii=False)}{mark}"
    names = [f"value{number}{after}" for number in range(len(values))]
    orders = [f"{before} {space.join(order)}" for order in islice(permutations(names), 6)]
    return f"root ::= {' | '.join(orders)}\n{rules}\n"


def _tokens(pilot: Pilot, most: int) -> int:
    """Tokens for a message that takes `most` in English: other languages take up to twice that."""
    return 2 * most if _language(pilot) else most


def _versioned(plans: list[dict], template: Template) -> list[dict]:
    """The plans; those of another prompt than the course's say so, and their rows with them."""
    for one in plans:
        if template != TEMPLATES[one["recipe"]]:
            one["prompt_version"] = f"{one['recipe']}-{fingerprint(template)}"
    return plans


def first_prompt(plans: Sequence[Mapping]) -> str:
    """What the teacher will read first of these plans: the turns of a chat, one a line."""
    if not plans:
        return "No plans: this pilot has no label field."
    turns = plans[0]["request"]["messages"]
    return "\n".join(f"[{turn['role']}] {turn['content']}" for turn in turns)


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


def _shown(text: str) -> str:
    """A seed's message as a prompt shows it: on one line, and not longer than a prompt bears."""
    return _one_line(text)[:LONGEST_SHOWN]


def _facts(pilot: Pilot, record: Mapping) -> dict[str, str]:
    """The slots `record` and `names` of a prompt.

    intent: quote; product: "pump PX-12"; order id: not mentioned / It names "pump PX-12".
    """
    facts = [_said(pilot, record, name) for name in pilot.fields]
    values = " and ".join(f'"{value}"' for value in copied_values(pilot, record))
    # said twice: a small model drops what it is told once
    return {"record": "; ".join(facts), "names": f" It names {values}." if values else ""}

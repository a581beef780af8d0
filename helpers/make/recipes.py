"""Four recipes that turn a few labelled rows into requests for a teacher, and its texts into rows that say where they come from.

A plan is a dict: recipe, parents (ids of the seed rows it shows), record (the fields to come, or None), request (for `engines`).
Only training rows may be handed in as seeds.
"""

import json
import random
import re

from helpers import CourseError
from helpers.core.files import fingerprint
from helpers.core.text import tokens
from helpers.make.augment import origin, plan, records

TONES = ("polite", "curt", "friendly", "annoyed", "formal", "hurried")
LENGTHS = {
    "one short sentence": 40,
    "one or two sentences": 60,
    "three or four sentences": 110,
}  # and the tokens it may take
DEEPER = (
    "Add one concrete detail that such a customer would mention.",
    "Add the reason why the customer asks.",
    "Make it a little longer and more complicated.",
    "Write it as somebody who is in a hurry and makes small mistakes.",
)
BROADER = "Write a new message about something else that asks for the same kind of thing."
REFUSAL = re.compile(r"\b(as an ai|i'?m sorry, but|i cannot|language model)|\[[a-z' ]+\]", re.I)
WORD = (
    r'word ::= [^ \n"{}\[\]<>]+' + "\n"
)  # whole words keep a grammar small; counted characters make its parser give up


def lamini(pilot, seeds, number, seed=0, shown=3):
    """LaMini-style (Wu et al. 2023, arXiv 2304.14402): a few sampled seeds of one kind, then one more of it.

    The kind is the value of the first label field. The record is known only so far: `weak_record` fills it in from the text.
    """
    draw, plans, first = random.Random(seed), [], pilot.labels[0]
    for i in range(number):
        value = pilot.fields[first].values[i % len(pilot.fields[first].values)]
        same = [row for row in seeds if row[first] == value]
        if not same:
            raise CourseError(
                f"No seed row has {first} = {value!r}; label at least one, so that the teacher has an example."
            )
        examples = draw.sample(same, min(shown, len(same)))
        lead = draw.choice(examples)
        prompt = (
            f"{pilot.about}\nMessages, {first}: {value.replace('_', ' ')}\n"
            + _bullets(pilot, examples)
            + "-"
        )
        plans.append(
            plan(
                "lamini",
                examples,
                {n: lead[n] if n != first else value for n in pilot.labels},
                {"prompt": prompt, "stop": ["\n"], "max_tokens": 60, "temperature": 0.7},
                seed,
                i,
            )
        )
    return plans


def evolve(pilot, rows, number, seed=0):
    """Evol-Instruct (Xu et al. 2023, arXiv 2304.12244): a message is rewritten deeper (a detail, a reason) or broader (a new one of its
    kind). The record stays; `eliminated` names the rewrites that failed.
    """
    draw, plans = random.Random(seed), []
    for i in range(number):
        row = rows[i % len(rows)]
        broad = draw.random() < 0.3
        keep = [row[n] for n, f in pilot.fields.items() if f.type != "label" and row[n]]
        user = f"Message: {_flat(row[pilot.text])}\n\n{BROADER if broad else draw.choice(DEEPER)}"
        user += f" Keep these words exactly: {', '.join(keep)}." if keep else ""
        plans.append(
            plan(
                "evolve",
                [row],
                {n: row[n] for n in pilot.fields},
                {
                    "messages": [
                        {
                            "role": "system",
                            "content": f"You rewrite messages. {pilot.about} Write the message only.",
                        },
                        {"role": "user", "content": user},
                    ],
                    "max_tokens": 110,
                    "temperature": 0.7,
                },
                seed,
                i,
            )
        )
    return plans


def eliminated(pilot, one, text, rows):
    """Why a rewrite is thrown away (Evol-Instruct's elimination), or None."""
    parent = next(row for row in rows if row["id"] == one["parents"][0])
    if not text or len(tokens(text)) < 3:
        return "empty"
    if _flat(text).lower() == _flat(parent[pilot.text]).lower():
        return "unchanged"
    if REFUSAL.search(text):
        return "refusal or placeholder"
    if "Keep these words" in text or text.startswith("Message:"):
        return "repeats the prompt"
    lost = [
        n
        for n, f in pilot.fields.items()
        if f.type != "label" and one["record"][n] and one["record"][n] not in text
    ]
    return f"lost {', '.join(lost)}" if lost else None


def explain(pilot, rows, seed=0, shots=()):
    """Orca-style (Mukherjee et al. 2023, arXiv 2306.02707): the system prompt asks for an explained answer; the teacher labels `rows`.

    The answer is held to one line of explanation and a record whose values stand in the message.
    """
    system = (
        pilot.instruction()
        + "\nFirst explain in one sentence how you decide, then give the object on a new line."
    )
    plans = []
    for i, row in enumerate(rows):
        chat = pilot.chat(_flat(row[pilot.text]), ())
        examples = [
            m
            for s in shots
            for m in (
                {"role": "user", "content": _flat(s[pilot.text])},
                {"role": "assistant", "content": f"{_because(pilot, s)}\n{pilot.answer(s)}"},
            )
        ]
        record = pilot.grammar(_flat(row[pilot.text])).replace("root ::=", "record ::=", 1)
        grammar = f'root ::= word (" " word){{3,30}} "\\n" record\n{WORD}' + record
        plans.append(
            plan(
                "explain",
                [row, *shots],
                None,
                {
                    "messages": [{"role": "system", "content": system}, *examples, chat[-1]],
                    "grammar": grammar,
                    "max_tokens": 140,
                    "temperature": 0.3,
                },
                seed,
                i,
            )
        )
    return plans


def attributes(pilot, seeds, number, seed=0, force=False, spans=None, shown=4):
    """Attribute-first (AttrPrompt, Yu et al. 2023, arXiv 2306.15895): choose the record, tone and length, then have it written.

    force=True holds the message to a grammar in which every span and pattern of the record stands literally.
    """
    draw, plans = random.Random(seed), []
    for i, record in enumerate(records(pilot, seeds, number, seed, spans)):
        near = sorted(
            seeds, key=lambda row: (-sum(row[n] == record[n] for n in pilot.labels), draw.random())
        )[:shown]
        tone, size = draw.choice(TONES), draw.choice(list(LENGTHS))
        shots = "".join(
            f"{_described(pilot, row)}\nMessage: {_flat(row[pilot.text])}\n\n"
            for row in reversed(near)
        )
        request = {
            "prompt": f"{pilot.about}\n\n{shots}{_described(pilot, record)}; tone: {tone}; length: {size}\nMessage:",
            "stop": ["\n"],
            "max_tokens": LENGTHS[size],
            "temperature": 0.7,
        }
        if force:
            values = [record[n] for n, f in pilot.fields.items() if f.type != "label" and record[n]]
            draw.shuffle(values)
            inner = "".join(
                f' {json.dumps(" " + v, ensure_ascii=False)} [,.?!]? (" " word){{0,8}}'
                for v in values
            )
            request["grammar"] = f'root ::= (" " word){{2,9}}{inner} "\\n"\n{WORD}'
        plans.append(
            plan("attributes", near, record, request, seed, i) | {"tags": f"{tone}, {size}"}
        )
    return plans


# From texts to rows ----------------------------------------------------------------------------------------


def rows_of(pilot, plans, texts, teacher, seeds=()):
    """Raw rows of the plans that got a text, nothing filtered: id, text, fields, tags, explanation, and where they come from."""
    made = []
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
        made.append(
            {
                "id": f"{one['recipe']}-{fingerprint(one)}",
                pilot.text: source,
                **{n: record[n] for n in pilot.fields},
                "tags": one.get("tags", ""),
                "explanation": explanation.strip(),
                **origin(one, teacher.name, teacher.licence),
            }
        )
    return made


def weak_record(pilot, text, labels, seeds):
    """A record for a text whose labels are guessed from its examples: patterns by their regex, spans when a seed's span occurs."""
    record = {}
    for name, field in pilot.fields.items():
        if field.type == "label":
            record[name] = labels[name]
        elif field.type == "pattern":
            found = re.search(field.regex, text)
            record[name] = found.group(0) if found else None
        else:
            record[name] = max(
                (row[name] for row in seeds if row[name] and row[name] in text),
                key=len,
                default=None,
            )
    return record


def _flat(text):
    return " ".join(text.split())


def _bullets(pilot, rows):
    return "".join(f"- {_flat(row[pilot.text])}\n" for row in rows)


def _described(pilot, record):
    return "; ".join(
        f"{name.replace('_', ' ')}: {(record[name] or 'none').replace('_', ' ')}"
        for name in pilot.fields
    )


def _because(pilot, row):
    return (
        "The message shows that "
        + ", ".join(
            f"{name.replace('_', ' ')} is {row[name] or 'not given'}" for name in pilot.fields
        )
        + "."
    )

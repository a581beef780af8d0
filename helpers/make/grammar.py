"""The grammar (GBNF, as llama.cpp reads it) of the records that a message allows."""

import json
import re

from helpers.core.pilot import FieldSpec, Pilot

NO_COPY = r'"\"" [^"\\\n]+ "\""'  # any text in quotes, without an escape


def record_grammar(pilot: Pilot, text: str) -> str:
    """Labels come from `values`, a pattern is a match in the text, a span a run of its words.

    Where a pilot says `copies = False`, patterns and spans are any text.
    """
    # the keys come in a fixed order, so that a record has one way to be written
    root, rules, before = "root ::=", "", "{"
    for number, (name, field) in enumerate(pilot.fields.items()):
        root += f" {_literal(before + json.dumps(name) + ': ')} f{number}"
        before = ", "
        choices = _choices(field, text, pilot.copies)
        if field.optional or not choices:  # nothing to copy: null is the only true answer
            choices.append('"null"')
        # before the first field that needs them: stored requests hold this very text
        if pilot.copies and field.type == "span" and "\nspan " not in rules:
            rules += _span_rules(text)
        rules += f"\nf{number} ::= " + " | ".join(choices)
    return root + ' "}"' + rules + "\n"


def _choices(field: FieldSpec, text: str, copies: bool) -> list[str]:
    """The alternatives of one field's rule; none when the text has nothing to copy."""
    if field.type == "label":
        return [_literal(_quoted(value)) for value in field.values]
    if not copies:
        return [NO_COPY]
    if field.type == "span":
        return [r'"\"" span "\""'] if re.search(r"\w", text) else []
    # each match once, in the order of the text
    matches = dict.fromkeys(match.group(0) for match in re.finditer(field.regex, text))
    return [_literal(_quoted(value)) for value in matches if value]


def _span_rules(text: str) -> str:
    """Every run of words as nested rules: a start w0 may go on with c1, that with c2, and so on."""
    # a piece is a word or one mark, with the white space before it
    pieces = re.findall(r"(\s*)(\w+|[^\w\s])", text)
    rules, starts = "", []
    for number, (space, word) in enumerate(pieces):
        tail = f" c{number + 1}?" if number + 1 < len(pieces) else ""
        rules += f"\nw{number} ::= {_literal(_quoted(word)[1:-1])}{tail}"
        if number:
            rules += f"\nc{number} ::= {_literal(_quoted(space + word)[1:-1])}{tail}"
        if re.match(r"\w", word):
            starts.append(f"w{number}")
    return f"\nspan ::= {' | '.join(starts)}{rules}" if starts else ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _literal(text: str) -> str:
    """A text as GBNF writes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

"""The grammar (GBNF, as llama.cpp reads it) of the records that a message allows."""

import json
import re

from llguidance.gbnf_to_lark import gbnf_to_lark

from helpers.core.pilot import FieldSpec, Pilot

LONGEST_IN_WORDS = 4000  # characters; the nested rules of a longer message take seconds to read
COPY = "\n# copy: "  # before the text that the last rules are about
IN_WORDS, ANYWHERE = r'"\"" span "\""', r'"\"" copy "\""'
NO_COPY = r'"\"" [^"\\\n]+ "\""'  # any text in quotes, without an escape


def record_grammar(pilot: Pilot, text: str) -> str:
    """Labels come from `values`, a pattern is a match in the text, a span any piece of it.

    A span of `whole_words` is a run of words. Where a pilot says `copies = False`, patterns and
    spans are any text.
    """
    # the keys come in a fixed order, so that a record has one way to be written
    root, rules, before, copied = "root ::=", "", "{", ""
    for number, (name, field) in enumerate(pilot.fields.items()):
        root += f" {_literal(before + _quoted(name) + ': ')} f{number}"
        before = ", "
        choices = _choices(field, text, pilot.copies)
        if field.optional or not choices:  # nothing to copy: null is the only true answer
            choices.append('"null"')
        # before the first field that needs them: stored requests hold this very text
        if IN_WORDS in choices and "\nspan " not in rules:
            rules += _span_rules(text)
        if ANYWHERE in choices:
            copied = COPY + _quoted(text) + _copy_rules(text)
        rules += f"\nf{number} ::= " + " | ".join(choices)
    return root + ' "}"' + rules + copied + "\n"


def lark_grammar(gbnf: str) -> str:
    """A grammar as llguidance reads it, which has a rule of its own for every piece of a text."""
    rest, copies, rules = gbnf.partition(COPY)
    if not copies:
        return gbnf_to_lark(gbnf)
    text = json.loads(rules.split("\n", 1)[0])
    pieces = [_quoted(character)[1:-1] for character in text]
    native = json.dumps({"substring_chunks": pieces}, ensure_ascii=False)
    lark = gbnf_to_lark(rest + '\ncopy ::= "?"\n')  # held open for the rule that GBNF lacks
    return lark.replace('COPY: "?"', f"COPY: PIECE & /(?s:.+)/\nPIECE: %regex {native}")


def _choices(field: FieldSpec, text: str, copies: bool) -> list[str]:
    """The alternatives of one field's rule; none when the text has nothing to copy."""
    if field.type == "label":
        return [_literal(_quoted(value)) for value in field.values]
    if not copies:
        return [NO_COPY]
    if field.type == "pattern":
        return [_literal(_quoted(value)) for value in field.matches(text)]
    if field.whole_words and len(text) <= LONGEST_IN_WORDS:
        return [IN_WORDS] if re.search(r"\w", text) else []
    return [ANYWHERE] if text else []


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
    return f"\nspan ::= {' | '.join(starts)}{rules}"


def _copy_rules(text: str) -> str:
    """Every piece of a text, from any character to any other, as rules: one for each state.

    There is one way only to read a piece, so a server follows them as fast in a long text.
    """
    rules = ""
    for number, after in enumerate(_suffix_automaton(text)):
        ways = []
        for character, state in after.items():
            ways.append(f"{_literal(_quoted(character)[1:-1])} s{state}")
        allowed = f"({' | '.join(ways)})?" if ways else '""'  # a piece may end at every state
        rules += f"\ns{number} ::= {allowed}" if number else f"\ncopy ::= {' | '.join(ways)}"
    return rules


def _suffix_automaton(text: str) -> list[dict[str, int]]:
    """What reads every piece of a text: {character: next state} for each of its states.

    Built character by character (Blumer et al. 1985, doi.org/10.1016/0304-3975(85)90157-4).
    """
    after: list[dict[str, int]] = [{}]
    shorter, length = [-1], [0]  # the state of its longest suffix elsewhere; its longest piece
    last = 0
    for character in text:
        state, last = last, len(after)
        after.append({})
        shorter.append(0)
        length.append(length[state] + 1)
        while state >= 0 and character not in after[state]:
            after[state][character] = last
            state = shorter[state]
        if state < 0:
            continue
        reached = after[state][character]
        if length[state] + 1 < length[reached]:  # reached by longer pieces too: those stay apart
            split = len(after)
            after.append(dict(after[reached]))
            shorter.append(shorter[reached])
            length.append(length[state] + 1)
            shorter[reached] = split
            while state >= 0 and after[state].get(character) == reached:
                after[state][character] = split
                state = shorter[state]
            reached = split
        shorter[last] = reached
    return after


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _literal(text: str) -> str:
    """A text as GBNF writes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

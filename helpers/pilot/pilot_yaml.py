"""The pilot.yaml of a new pilot: few lines, a comment on each, every value safely quoted."""

import json
import re
from collections import Counter
from collections.abc import Sequence

import yaml

from helpers.core.pilot import FieldSpec
from helpers.core.text import words_are_spaced
from helpers.pilot.mending import Row
from helpers.pilot.roles import Roles

PLAIN = re.compile(r"[^\W\d_][\w-]*(?: [\w-]+)*")
WIDTH = 96
WAITING = "topic"  # the label of a file that has none yet


def yaml_scalar(value: str) -> str:
    """A text as YAML that reads back as the same text: yes, 01, `#x` and `: ` get quotes."""
    if PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    try:
        if yaml.safe_load(quoted) == value:
            return quoted
    except yaml.YAMLError:  # a character that YAML does not take as it stands
        pass
    return json.dumps(value)


def pilot_yaml(name: str, source: str, language: str, roles: Roles, rows: Sequence[Row]) -> str:
    """The content of pilot.yaml for these `rows`, the labelled ones of training and test."""
    text = roles.names[roles.text]
    lines = _head(name, source, language, text)
    for column in roles.labels:
        field, values = roles.names[column], [row[roles.names[column]] for row in rows]
        counts = Counter(filter(None, values))
        ordered = [value for value, _ in counts.most_common()]
        lines += _label(field, ordered, optional=len(list(filter(None, values))) < len(values))
    for column in (*roles.spans, *roles.patterns):
        field = roles.names[column]
        lines += _copied(field, roles.patterns.get(column, ""), text, rows, language)
    return "\n".join([*lines, *_tail(language)]) + "\n"


def waiting_yaml(name: str, source: str, language: str, text: str, values: Sequence[str]) -> str:
    """The same for rows that nobody has labelled: one label with these values."""
    lines = _head(name, source, language, text)
    return "\n".join([*lines, *_label(WAITING, values, optional=False), *_tail(language)]) + "\n"


def _line(words: str, comment: str) -> str:
    return f"{words:32}  # {comment}"


def _head(name: str, source: str, language: str, text: str) -> list[str]:
    shown = " ".join(source.split())[:60]
    return [
        f"# Made from {shown}. Look at each line with a comment, and change what is not right.",
        _line(f"name: {yaml_scalar(name)}", "names the folder of its results"),
        _line(f"language: {yaml_scalar(language)}", "of most messages"),
        _line(f"text: {yaml_scalar(text)}", "the column to read"),
        _line("fields:", "what the model must return"),
    ]


def _tail(language: str) -> list[str]:
    base = "or the name, hub id or folder of a larger model"
    if language != "en":
        base = "made for English: a larger model reads other languages better"
    return [_line("base_model: embedded", base)]


def _label(field: str, values: Sequence[str], optional: bool) -> list[str]:
    lines = [
        _line(f"  {yaml_scalar(field)}:", f"a label of {len(values)} values, commonest first"),
        "    type: label",
    ]
    listed = ", ".join(map(yaml_scalar, values))
    if len(listed) <= WIDTH - 13:
        lines.append(f"    values: [{listed}]")
    else:
        lines += ["    values:", *(f"      - {yaml_scalar(value)}" for value in values)]
    return [*lines, _line("    optional: true", "some rows have none")] if optional else lines


def _copied(field: str, regex: str, text: str, rows: Sequence[Row], language: str) -> list[str]:
    """A span or a pattern."""
    kind = "pattern" if regex else "span"
    what = "copied from the message, of this form" if regex else "words copied from the message"
    lines = [_line(f"  {yaml_scalar(field)}:", what), f"    type: {kind}"]
    if regex:
        single = regex.replace("'", "''")
        lines.append(f"    regex: '{single}'")
    lines.append(_line("    optional: true", "empty where the message has none"))
    if not regex and _are_whole_words(field, text, rows, language):
        lines.append(_line("    whole_words: true", "never half of a word"))
    return lines


def _are_whole_words(field: str, text: str, rows: Sequence[Row], language: str) -> bool:
    if not words_are_spaced(language, [row[text] for row in rows[:200]]):
        return False
    spec = FieldSpec(type="span", whole_words=True)
    return not any(spec.cuts_words(row[field], row[text]) for row in rows if row[field])

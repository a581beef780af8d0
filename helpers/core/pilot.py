"""One folder is one pilot: what to read, what to return, how it is asked and how the answer is held to its form."""

import difflib
import json
import re
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from helpers import CourseError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,59}")


class Sample(BaseModel):
    """`values: {sample: 10, seed: 0}`: draw that many labels of a public set at random, before any score is known."""

    model_config = ConfigDict(extra="forbid")
    sample: int = Field(ge=2)
    seed: int = 0


class FieldSpec(BaseModel):
    """One field of the record: a label from a list, a span copied from the text, or a pattern found in it."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["label", "span", "pattern"]
    values: list[str] | Sample | None = None
    regex: str | None = None
    optional: bool = False
    about: str = ""

    @field_validator("values", mode="before")
    @classmethod
    def text_values(cls, values):
        if values is not None and not isinstance(values, (list, dict, Sample)):
            raise ValueError("'values' must be a list, for example [order, complaint]")
        if isinstance(values, list):
            odd = [v for v in values if not isinstance(v, str)]
            if odd:  # YAML reads a bare yes, no or 1 as something else than text
                raise ValueError(
                    f'{odd[0]!r} is not text; put every value in quotes, for example ["1", "2"]'
                )
        return values

    @model_validator(mode="after")
    def complete(self):
        if self.type == "label":
            if self.values is None:
                raise ValueError("a label field needs 'values', the list of allowed labels")
            if isinstance(self.values, list):
                if len(self.values) < 2:
                    raise ValueError("a label field needs at least two different 'values'")
                twice = [v for v in self.values if self.values.count(v) > 1]
                if twice:
                    raise ValueError(f"the value {twice[0]!r} is listed twice")
        if self.type != "label" and self.values is not None:
            raise ValueError(f"'values' belongs to label fields, this one is a {self.type}")
        if self.type == "pattern":
            if not self.regex:
                raise ValueError("a pattern field needs 'regex'")
            try:
                re.compile(self.regex)
            except re.error as problem:
                raise ValueError(f"the regex does not compile ({problem})") from None
        return self


class Source(BaseModel):
    """A public data set instead of files: a local copy where there is one, else the hub id."""

    model_config = ConfigDict(extra="forbid")
    dataset: str
    config: str | None = None
    per_label: int = Field(default=6, ge=1)
    test_rows: int = Field(default=300, ge=1)
    seed: int = 0


class Pilot(BaseModel):
    """A validated `pilot.yaml`. Make one with `Pilot.load(folder)`."""

    model_config = ConfigDict(extra="forbid")
    name: str
    language: str = "en"
    text: str
    fields: dict[str, FieldSpec] = Field(min_length=1)
    success: Literal["exact"] = "exact"
    base_model: str = "embedded"
    teacher: str | dict = "embedded"
    train: str | None = None
    test: str | None = None
    ood: str | None = None
    source: Source | None = None
    about: str = ""
    folder: Path = Field(default=Path("."), exclude=True)

    @field_validator("name")
    @classmethod
    def folder_name(cls, name):
        if not NAME.fullmatch(name):
            raise ValueError("use letters, digits, - and _ only: it names the folder under runs/")
        return name

    @model_validator(mode="after")
    def consistent(self):
        for name, field in self.fields.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"the field name {name!r} may have letters, digits, - and _ only")
            if name in (self.text, "id", "tags"):
                raise ValueError(
                    f"the field name {name!r} is taken: it is the text column, or id or tags; rename the field"
                )
            if isinstance(field.values, Sample) and self.source is None:
                raise ValueError(
                    f"field {name!r} samples its values, which needs a 'source' to sample from"
                )
        return self

    @classmethod
    def load(cls, folder):
        """Read and check `folder/pilot.yaml`.

        Raises CourseError with one sentence per mistake: what is wrong, where, what to do.
        """
        folder = Path(folder)
        path = folder / "pilot.yaml"
        if not path.is_file():
            raise CourseError(
                f"There is no pilot.yaml in {folder.name or folder}/; a pilot is a folder with a "
                "pilot.yaml and its rows (data/inbox is an example to copy)."
            )
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError:
            raise CourseError(f"{path.name} is not UTF-8 text; save it again as UTF-8.") from None
        except yaml.YAMLError as problem:
            line = getattr(getattr(problem, "problem_mark", None), "line", -1) + 1
            text = path.read_text(encoding="utf-8-sig")
            if "\t" in text:
                number = text[: text.index("\t")].count("\n") + 1
                raise CourseError(
                    f"pilot.yaml line {number} has a tab; YAML wants spaces."
                ) from None
            if re.search("[：，　]", text):
                number = text[: re.search("[：，　]", text).start()].count("\n") + 1
                raise CourseError(
                    f"pilot.yaml line {number} has a full-width colon, comma or space; use the half-width one."
                ) from None
            raise CourseError(
                f"pilot.yaml is not valid YAML near line {line}: {getattr(problem, 'problem', problem)}."
            ) from None
        if not isinstance(raw, dict):
            raise CourseError("pilot.yaml is empty or not a list of 'key: value' lines.")
        try:
            pilot = cls.model_validate(raw)
        except ValidationError as problem:
            found = problem.errors()
            typos = [e for e in found if e["type"] == "extra_forbidden"]
            if typos:  # a misspelt key is also a missing key: say it once
                found = typos + [
                    e for e in found if e["type"] not in ("extra_forbidden", "missing")
                ]
            raise CourseError(" ".join(dict.fromkeys(_sentence(e, raw) for e in found))) from None
        pilot.folder = folder
        return pilot

    # How the model is asked -------------------------------------------------------------------------------

    @property
    def labels(self):
        """Names of the label fields."""
        return [name for name, field in self.fields.items() if field.type == "label"]

    def instruction(self, full=True):
        """The system message. Full: every field explained, for an untuned model. Short: tuning teaches the rest."""
        if not full:
            return f"Return {', '.join(self.fields)} of the message as one JSON object."
        lines = [
            f"Read the message and answer with one JSON object with the keys {', '.join(self.fields)}.",
            self.about,
        ]
        for name, field in self.fields.items():
            what = {
                "label": f"one of {', '.join(field.values)}"
                if isinstance(field.values, list)
                else "a label",
                "span": "words copied from the message",
                "pattern": f"copied from the message, matching {field.regex}",
            }[field.type]
            lines.append(
                f"{name}: {what}{' or null' if field.optional else ''}. {field.about}".strip()
            )
        return "\n".join(line for line in lines if line)

    def answer(self, row):
        """The record of a labelled row as the JSON text the model must return."""
        return json.dumps({name: row[name] for name in self.fields}, ensure_ascii=False)

    def chat(self, text, shots=(), full=True):
        """Messages in the chat format: the instruction, worked examples (rows), the text to read."""
        messages = [{"role": "system", "content": self.instruction(full)}]
        for row in shots:
            messages += [
                {"role": "user", "content": row[self.text]},
                {"role": "assistant", "content": self.answer(row)},
            ]
        return messages + [{"role": "user", "content": text}]

    # How the answer is held to its form ---------------------------------------------------------------------

    def grammar(self, text, copy=True):
        """A GBNF grammar for the answers that this text allows; llama.cpp takes it as it is.

        Labels come from `values`. With copy=True a pattern can only be a match that stands in the text and a span
        only a run of its words; with copy=False a span is any string and a pattern any string of its characters.
        """
        rules, parts = [], []
        for number, (name, field) in enumerate(self.fields.items()):
            parts.append(
                _literal(("{" if number == 0 else ", ") + json.dumps(name) + ": ") + f" f{number}"
            )
            if field.type == "label":
                choices = [
                    _literal(json.dumps(value, ensure_ascii=False)) for value in field.values
                ]
            elif not copy:
                choices = [r'"\"" [^"\\\n]+ "\""']
            elif field.type == "pattern":
                found = dict.fromkeys(
                    m.group(0) for m in re.finditer(field.regex, text) if m.group(0)
                )
                choices = [_literal(json.dumps(value, ensure_ascii=False)) for value in found]
            else:
                rules += (
                    [] if any(rule.startswith("span ") for rule in rules) else _span_rules(text)
                )
                choices = [r'"\"" span "\""'] if re.search(r"\w", text) else []
            if field.optional or not choices:  # nothing to copy: null is the only true answer
                choices.append('"null"')
            rules.append(f"f{number} ::= " + " | ".join(choices))
        return "\n".join(["root ::= " + " ".join(parts) + ' "}"', *rules]) + "\n"


def _span_rules(text):
    """Every run of words of the text, as nested rules: a start w0 may go on with c1, that with c2, and so on."""
    pieces = [(m.group(1), m.group(2)) for m in re.finditer(r"(\s*)(\w+|[^\w\s])", text)]
    rules, last = [], len(pieces) - 1
    for i, (space, word) in enumerate(pieces):
        tail = f" c{i + 1}?" if i < last else ""
        rules.append(f"w{i} ::= {_literal(json.dumps(word, ensure_ascii=False)[1:-1])}{tail}")
        if i:
            rules.append(
                f"c{i} ::= {_literal(json.dumps(space + word, ensure_ascii=False)[1:-1])}{tail}"
            )
    starts = [f"w{i}" for i, (_, word) in enumerate(pieces) if re.match(r"\w", word)]
    return [f"span ::= {' | '.join(starts)}", *rules] if starts else []


def _literal(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _sentence(error, raw):
    """One plain sentence for one pydantic error, with the nearest allowed key for a misspelt one."""
    place = [str(part) for part in error["loc"]]
    where = " > ".join(part for part in place if part not in ("list[str]", "Sample")) or "the file"
    if error["type"] == "extra_forbidden":
        model = {0: Pilot, 2: FieldSpec}.get(
            len(place) - 1, Source if place[0] == "source" else FieldSpec
        )
        known = [key for key in model.model_fields if key != "folder"]
        near = difflib.get_close_matches(place[-1], known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}."
        return f"pilot.yaml: unknown key {place[-1]!r}{' in ' + ' > '.join(place[:-1]) if place[:-1] else ''}; {hint}"
    if error["type"] == "missing":
        return f"pilot.yaml: the key {where!r} is missing."
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        near = difflib.get_close_matches(
            error["input"], re.findall(r"'(\w+)'", error["ctx"]["expected"]), 1
        )
        hint = f"did you mean {near[0]!r}?" if near else f"it can be {error['ctx']['expected']}."
        return f"pilot.yaml: {where} is {error['input']!r}; {hint}"
    if error["type"] in ("dict_type", "model_type", "model_attributes_type"):
        return f"pilot.yaml: {where} must be 'key: value' lines, without a dash in front."
    text = error["msg"].removeprefix("Value error, ")
    return f"pilot.yaml: {where}: {text}."

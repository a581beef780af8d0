"""One folder is one pilot: what to read, what to return, how it is asked."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from helpers import CourseError
from helpers.core.files import read_yaml
from helpers.core.text import CONTROL, pydantic_sentences

# columns that the course itself writes beside a record
TAKEN = ("id", "tags", "annotator", "simulated", "recipe", "teacher", "licence")


REGEX_SECONDS = 5  # for all texts of a trial; a sound regex needs a few hundredths
TRIAL = """
import json, re, sys
regex, texts = json.load(sys.stdin)
for text in texts:
    for match in re.finditer(regex, text):
        pass
"""


@lru_cache(maxsize=32)
def regex_problem(regex: str, texts: tuple[str, ...] = (), values: tuple[str, ...] = ()) -> str:
    """What is wrong with a regex that takes too long, or "": tried in a process of its own.

    On these texts, and on texts that lead a slow one astray: the characters of the regex and of
    the values, each a thousand times, and an end that does not match.
    """
    hard = []
    start = re.match(r"[\w #-]*", regex)[0]  # type: ignore[index]
    for unit in {"a", "0", " ", "-", "a ", "a-", "あ", *re.findall(r"\w+", regex)}:
        hard += [unit * (1000 // len(unit)) + "!", start + unit * (1000 // len(unit)) + "!"]
    for value in values:
        for place in range(1, min(len(value), 20) + 1):
            hard.append(value[:place] + value[place - 1] * 1000 + "!")
    # nothing of this machine's settings is read: it starts in a hundredth of a second
    command = [sys.executable, "-I", "-S", "-c", TRIAL]
    content = json.dumps([regex, [*dict.fromkeys(hard), *texts]])
    try:
        subprocess.run(command, input=content.encode(), timeout=REGEX_SECONDS)
    except subprocess.TimeoutExpired:
        cure = r"a repeat inside a repeat, as in (\w+ ?)*, tries every split: write one repeat"
        return f"the regex {regex} runs for more than {REGEX_SECONDS} seconds; {cure}"
    return ""


def _is_name(name: str) -> bool:
    """Whether a name can stand in file names and tables: letters of any script first."""
    # an identifier of Python: letters with their marks, digits, _
    return len(name) < 61 and name[:1] != "_" and name.replace("-", "_").isidentifier()


class FieldSpec(BaseModel):
    """One field of the record: a label of a list, a span copied from the text, or a pattern."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["label", "span", "pattern"]
    values: list[str] = []  # of a label
    regex: str = ""
    optional: bool = False
    # of a span: it starts with a word and cuts none; not in what names recorded answers
    whole_words: bool = Field(default=False, exclude=True)
    about: str = ""

    @field_validator("values", mode="before")
    @classmethod
    def _texts(cls, values: Any) -> Any:
        if not isinstance(values, list):
            raise ValueError("'values' must be a list, for example [order, complaint]")
        for value in values:
            if not isinstance(value, str):  # YAML reads a bare yes, no or 1 as something else
                example = 'for example ["1", "2"]'
                raise ValueError(f"{value!r} is not text; put every value in quotes, {example}")
        return values

    @model_validator(mode="after")
    def _complete(self) -> "FieldSpec":
        if self.type != "label" and self.values:
            raise ValueError(f"'values' belongs to label fields, this one is a {self.type}")
        if self.type != "span" and self.whole_words:
            raise ValueError(f"'whole_words' belongs to span fields, this one is a {self.type}")
        if self.type == "label":
            self._check_values()
        if self.type == "pattern":
            self._check_regex()
        return self

    def matches(self, text: str) -> list[str]:
        """What a pattern finds in a text, each once, in order: the only values it can have."""
        found = [match.group() for match in re.finditer(self.regex, text)]
        return [value for value in dict.fromkeys(found) if value]

    def cuts_words(self, value: str, text: str) -> bool:
        """Whether a span of `whole_words` begins or ends inside a word, wherever it stands."""
        if not self.whole_words:
            return False
        if not re.fullmatch(r"\w(.*\S)?", value, re.DOTALL):
            return True
        end = r"(?!\w)" if re.match(r"\w", value[-1]) else ""
        return not re.search(rf"(?<!\w){re.escape(value)}{end}", text)

    def _check_values(self) -> None:
        if len(self.values) < 2:
            raise ValueError("a label field needs 'values', at least two different ones")
        for value in self.values:
            if self.values.count(value) > 1:
                raise ValueError(f"the value {value!r} is listed twice")

    def _check_regex(self) -> None:
        if not self.regex:
            raise ValueError("a pattern field needs 'regex'")
        if CONTROL.search(self.regex):  # in double quotes YAML turns \b into a backspace
            raise ValueError("the regex holds a control character; write it in single quotes")
        try:
            re.compile(self.regex)
        except re.error as problem:
            raise ValueError(f"the regex does not compile ({problem})") from None
        if regex_problem(self.regex):
            raise ValueError(regex_problem(self.regex))


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
    success: Literal["exact"] = "exact"  # every field right
    base_model: str = "embedded"
    teacher: str | dict = "embedded"
    train: str | None = None
    test: str | None = None
    ood: str | None = None
    source: Source | None = None
    about: str = ""
    copies: ClassVar[bool] = True  # a pattern or span of an answer must stand in the text
    folder: Path = Field(default=Path("."), exclude=True)  # where pilot.yaml lies

    @field_validator("name")
    @classmethod
    def _folder_name(cls, name: str) -> str:
        if not _is_name(name):
            raise ValueError("use letters, digits, - and _ only: it names the folder under runs/")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> "Pilot":
        for name in self.fields:
            if not _is_name(name):
                raise ValueError(f"the field name {name!r} may have letters, digits, - and _ only")
            if name == self.text or name in TAKEN:
                taken = f"is taken: it is the text column, or one of {', '.join(TAKEN)}"
                raise ValueError(f"the field name {name!r} {taken}; rename the field")
        if self.source and (len(self.fields) != 1 or not self.labels):
            raise ValueError("a pilot with a 'source' has exactly one field, a label")
        return self

    @classmethod
    def load(cls, folder: str | Path) -> "Pilot":
        """Read and check `folder/pilot.yaml`. Raises CourseError, one sentence per mistake."""
        folder = Path(folder)
        if not (folder / "pilot.yaml").is_file():
            what = "a pilot is a folder with a pilot.yaml and its rows"
            where = f"There is no pilot.yaml in {folder.name or folder}/"
            raise CourseError(f"{where}; {what} (data/inbox is an example to copy).")
        content = read_yaml(folder / "pilot.yaml")
        if not isinstance(content, dict):
            raise CourseError("pilot.yaml is empty or not a list of 'key: value' lines.")
        try:
            pilot = cls.model_validate(content)
        except ValidationError as problem:
            known = {**cls.model_fields, **FieldSpec.model_fields, **Source.model_fields}
            known.pop("folder")
            raise CourseError(pydantic_sentences(problem, "pilot.yaml", known)) from None
        pilot.folder = folder
        return pilot

    @property
    def labels(self) -> list[str]:
        """Names of the label fields."""
        return [name for name, field in self.fields.items() if field.type == "label"]

    def instruction(self, full: bool = True) -> str:
        """The system message. Full: for an untuned model. Short: tuning teaches the rest."""
        keys = ", ".join(self.fields)
        if not full:
            return f"Return {keys} of the message as one JSON object."
        task = f"Read the message and answer with one JSON object with the keys {keys}."
        lines = [task, self.about]
        for name, field in self.fields.items():
            asked_for = {
                "label": f"one of {', '.join(field.values)}",
                "span": "words copied from the message",
                "pattern": f"copied from the message, matching {field.regex}",
            }[field.type]
            empty = " or null" if field.optional else ""
            lines.append(f"{name}: {asked_for}{empty}. {field.about}".strip())
        return "\n".join(filter(None, lines))

    def answer(self, row: Mapping[str, Any]) -> str:
        """The record of a labelled row as the JSON text the model must return."""
        return json.dumps({name: row[name] for name in self.fields}, ensure_ascii=False)

    def chat(self, text: str, shots: Iterable[Mapping] = (), full: bool = True) -> list[dict]:
        """Messages in the chat format: the instruction, worked examples (rows), the text."""
        messages = [{"role": "system", "content": self.instruction(full)}]
        for row in shots:  # worked examples look like earlier turns of the same talk
            messages.append({"role": "user", "content": row[self.text]})
            messages.append({"role": "assistant", "content": self.answer(row)})
        return [*messages, {"role": "user", "content": text}]

"""Files that survive a kill: whole writes, one reader of YAML and one of CSV, and the one Journal of slow work."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from helpers import CourseError

FORMULA = ("=", "+", "-", "@", "\t")  # a spreadsheet would run a cell that begins with one of these


def write_text(path: str | Path, text: str) -> None:
    """Write a file in one step: a kill or a full disk leaves the old file, never half a new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8", newline="")
        os.replace(part, path)
    except OSError as problem:
        part.unlink(missing_ok=True)
        raise CourseError(
            f"{path.name} could not be written ({problem.strerror}); "
            "what was there before is untouched."
        ) from None


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as UTF-8 CSV; a cell that a spreadsheet would run gets an apostrophe in front."""
    rows, out = list(rows), io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _as_text(value) for name, value in row.items()})
    write_text(path, "\ufeff" + out.getvalue())  # the mark makes Excel read UTF-8


def _as_text(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*things: Any) -> str:
    """Twelve hex digits over settings, rows or hashes: the same things give the same name."""
    content = json.dumps(things, sort_keys=True, default=str).encode()
    return hashlib.sha256(content).hexdigest()[:12]


# Reading what a reader wrote ------------------------------------------------------------------


def read_utf8(path: Path, cure: str = "save it again as UTF-8") -> str:
    """The text of a UTF-8 file, with or without a byte order mark; raises CourseError with the line."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise CourseError(
            f"{path.name} is not UTF-8 (line {line}){_encoding_guess(data)}; {cure}."
        ) from None


def _encoding_guess(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    if best is None:
        return ""
    names = {"cp932": "Shift-JIS", "shift_jis": "Shift-JIS", "utf_16": "UTF-16"}
    return f", it looks like {names.get(best.encoding, best.encoding)}"


class _OnceLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *name`, which YAML merges itself
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises CourseError with the line: bad encoding, a tab, a full-width
    mark, a repeated key, or anything that is not YAML.
    """
    text = read_utf8(path)
    try:
        return yaml.load(text, Loader=_OnceLoader)
    except yaml.YAMLError as problem:
        raise CourseError(_yaml_sentence(path.name, text, problem)) from None


def _yaml_sentence(name: str, text: str, problem: yaml.YAMLError) -> str:
    mark = getattr(problem, "problem_mark", None)
    line = mark.line + 1 if mark else 1
    words = getattr(problem, "problem", None) or str(problem)
    if "stands there twice" in words:
        return f"{name} line {line}: {words}; keep one of them."
    wrong = {"\t": "a tab; YAML wants spaces"}
    wrong |= dict.fromkeys("：，　", "a full-width colon, comma or space; use the half-width one")
    for number, content in enumerate(text.split("\n"), 1):
        for character, what in wrong.items():
            if character in content and number <= line + 1:
                return f"{name} line {number} has {what}."
    return f"{name} is not valid YAML near line {line}: {words}."


# The one Journal ------------------------------------------------------------------------------


def read_entries(path: str | Path) -> list[dict]:
    """Entries of a JSONL file that grows line by line; what a kill left of a last line is cut off."""
    path = Path(path)
    if not path.is_file():
        return []
    entries, whole = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        entry = _entry(line)
        if entry is None:  # the line that a kill cut short
            break
        entries.append(entry)
        whole += len(line)
    if path.stat().st_size > whole:
        with open(path, "r+b") as file:
            file.truncate(whole)
    return entries


def _entry(line: bytes) -> dict | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def append_entry(path: str | Path, entry: Mapping[str, Any], what: str, kept: int) -> None:
    """Add one line; raises CourseError when it cannot be written: `what` it was, how many are `kept`."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write((json.dumps(entry, ensure_ascii=False) + "\n").encode())
    except OSError as problem:
        raise CourseError(
            f"{what} could not be written ({problem.strerror}); {kept} are kept. Free some space "
            "and run the cell again: it goes on where it stopped."
        ) from None


class Journal:
    """Results of slow work in a JSONL file that is appended to as they arrive: `entries` {key: value}.

    A key is made of everything its value was made from (`fingerprint(...)`), never of a row's number
    or id. `seconds` adds up the working time over every start. `what` names the entries in errors.
    """

    def __init__(self, path: str | Path, what: str = "Answers") -> None:
        self.path, self.what = Path(path), what
        self.entries: dict[str, Any] = {}
        self.seconds = 0.0
        for line in read_entries(self.path):
            self.entries.update(line["entries"])
            self.seconds += line["seconds"]

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys without an entry, each once, in order."""
        return [key for key in dict.fromkeys(keys) if key not in self.entries]

    def add(self, entries: Mapping[str, Any], seconds: float = 0.0) -> None:
        """Append {key: value} and the seconds they took. Raises CourseError when the disk is full."""
        seconds = round(seconds, 3)
        line = {"entries": dict(entries), "seconds": seconds}
        append_entry(self.path, line, self.what, len(self.entries))
        self.entries.update(entries)
        self.seconds += seconds

    def of(self, keys: Sequence[str]) -> list:
        """The values of these keys, in their order."""
        return [self.entries[key] for key in keys]

"""Files that survive a kill, one reader of YAML, CSV and JSONL, and the Journal of slow work."""

import csv
import hashlib
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from helpers import CourseError
from helpers.core.encodings import NAMES, told_encoding, utf_16
from helpers.core.text import CONTROL, normalised

# a spreadsheet runs a cell that begins like this; behind apostrophes it is text
FORMULA = re.compile(r"'*(\s*[-=+@＝＋－＠]|[\t\r\n])")
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how .xlsx (a zip file) and .xls begin


def write_text(path: str | Path, text: str) -> None:
    """Write a file in one step: a kill or a full disk leaves the old file, never half a new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # beside it, since a rename works on one disk only; two processes have one each
    half = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        half.write_text(text, encoding="utf-8", newline="")
        os.replace(half, path)
    except OSError as problem:
        half.unlink(missing_ok=True)
        kept = "what was there before is untouched"
        why = problem.strerror
        raise CourseError(f"{path.name} could not be written ({why}); {kept}.") from None


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as UTF-8 CSV; a cell that a spreadsheet would run gets an apostrophe in front.

    `numbered_rows` takes it off again.
    """
    rows, out = list(rows), io.StringIO(newline="")
    if rows:
        writer = csv.writer(out)
        for row in [{name: name for name in rows[0]}, *rows]:
            cells = [row.get(name) for name in rows[0]]
            for place, cell in enumerate(cells):
                if isinstance(cell, str) and FORMULA.match(cell):
                    cells[place] = f"'{cell}"
            writer.writerow(cells)
    write_text(path, "\ufeff" + out.getvalue())  # the mark makes Excel read UTF-8


@contextmanager
def locked(path: str | Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a file for this process alone, made where it is missing; freed when the process ends.

    Waits for another process that holds it; `waiting` is called once before.
    """
    with open(path, "ab") as file:
        try:
            _lock(file, wait=False)
        except BlockingIOError:
            if waiting:
                waiting()
            _lock(file, wait=True)
        except OSError:
            pass  # a network disk without locks: as good as it gets there
        yield


def _lock(file: IO, wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        while True:
            file.seek(0x7FFFFFFF)  # a byte that no file has: only the lock needs it
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError:
                if not wait:
                    raise BlockingIOError from None
                time.sleep(0.1)
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*things: Any) -> str:
    """Twelve hex digits over settings, rows or hashes: the same things give the same name."""
    # sorted keys: the order in which settings were written does not matter
    content = json.dumps(things, sort_keys=True, default=str).encode()
    return hashlib.sha256(content).hexdigest()[:12]


# Reading what a reader wrote ------------------------------------------------------------------


def _read_text(
    path: Path, cure: str = "save it again as UTF-8", notes: list[str] | None = None
) -> str:
    """The text of a file; with `notes`, encodings that can be told for certain are read, too."""
    data = path.read_bytes()
    if data.startswith(WORKBOOKS):
        what = "is an Excel workbook under another name; in Excel choose Save as, CSV UTF-8"
        raise CourseError(f"{path.name} {what}.")
    try:
        text = data.decode("utf-8-sig")  # -sig: Excel puts a mark in front
        encoding = utf_16(data) if "\0" in text else None  # without a mark
    except UnicodeDecodeError as problem:
        line, encoding = data[: problem.start].count(b"\n") + 1, told_encoding(data)
        if not encoding or notes is None:
            guess = f", it looks like {NAMES[encoding]}" if encoding else ""
            raise CourseError(f"{path.name} is not UTF-8 (line {line}){guess}; {cure}.") from None
    if encoding:
        try:
            text = data.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError:
            what = f"{path.name} looks like {NAMES[encoding]} and ends within a letter"
            raise CourseError(f"{what}; {cure}.") from None
        if notes is not None:
            words = re.findall(r"\w*[^\W\x00-\x7f]\w*", text)
            shown = f", for example {', '.join(word[:20] for word in words[:3])}" if words else ""
            notes.append(f"{path.name} is not UTF-8 and was read as {NAMES[encoding]}{shown}.")
    return normalised(text)


class _OnceLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *name`, which YAML merges itself
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                twice = f"the key {key!r} stands there twice"
                raise yaml.MarkedYAMLError(problem=twice, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; CourseError names the line of a mistake."""
    text = _read_text(path)
    control = CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        raise CourseError(f"{path.name} line {line} has a control character; delete it.")
    try:
        return yaml.load(text, Loader=_OnceLoader)
    except yaml.YAMLError as problem:
        mark, words = getattr(problem, "problem_mark", None), getattr(problem, "problem", problem)
    line = mark.line + 1 if mark else 1
    if "stands there twice" in str(words):
        raise CourseError(f"{path.name} line {line}: {words}; keep one of them.")
    wrong = {"\t": "a tab; YAML wants spaces"}
    wrong |= dict.fromkeys("：，　", "a full-width colon, comma or space; use the half-width one")
    for number, content in enumerate(text.split("\n")[: line + 1], 1):  # noticed a line later
        for character, what in wrong.items():
            if character in content:
                raise CourseError(f"{path.name} line {number} has {what}.")
    cure = "a value with a mark such as ? : # [ in it needs quotes around it"
    raise CourseError(f"{path.name} is not valid YAML near line {line}: {words}; {cure}.")


def numbered_rows(path: Path, notes: list[str] | None = None) -> list[tuple[int, dict[str, Any]]]:
    """(number, row) of a CSV or JSONL file: the row in a spreadsheet, the line of a JSONL file.

    `notes` learns of unusual separators; CourseError names the line or row of a mistake.
    """
    text = _read_text(path, "save it as 'CSV UTF-8'", notes)
    if not text.strip():
        raise CourseError(f"{path.name} is empty.")
    if path.suffix.lower() in (".jsonl", ".ndjson"):  # every other name is taken for CSV
        return _jsonl_rows(path.name, text)
    first_line = text.strip("\n").split("\n", 1)[0]
    # comma, semicolon or tab, whichever is most frequent outside quotes; a comma wins a tie
    outside = "".join(first_line.split('"')[::2])
    separator = max(",;\t", key=outside.count)
    if separator != "," and notes is not None:
        what = {";": "semicolons", "\t": "tabs"}[separator]
        notes.append(f"{path.name}: the columns are separated by {what}, and were read so.")
    records = _csv_records(path.name, text, separator)
    # the header: what stands above it are empty lines and Excel's own `sep=;`
    above = ("", "sep=", "sep=,", "sep=;", "sep=\t")
    top = next((i for i, cells in enumerate(records) if "".join(cells) not in above), None)
    if top is None:
        raise CourseError(f"{path.name} is empty.")
    header, *records = records[top:]
    header = [name.strip() or f"column {number}" for number, name in enumerate(header, 1)]
    if path.read_bytes().startswith(b"\xef\xbb\xbf"):  # the mark of Excel and of write_csv
        header, *records = _without_apostrophes([header, *records], path.name, notes)
    for name in header:
        if header.count(name) > 1:
            twice = f"the column {name!r} stands there twice; rename one"
            raise CourseError(f"{path.name} line {top + 1}: {twice}.")
    rows = []
    for number, record in enumerate(records, top + 2):
        if not any(record):  # an empty line, or one of empty cells, as Excel leaves them
            continue
        if len(record) != len(header):
            what = "more" if len(record) > len(header) else "fewer"
            cure = "a text with a comma or a line break needs quotes around it, every quote its end"
            raise CourseError(f"{path.name} row {number} has {what} cells than the header; {cure}.")
        rows.append((number, dict(zip(header, record, strict=True))))
    return rows


def _csv_records(name: str, text: str, separator: str) -> list[list[str]]:
    csv.field_size_limit(10_000_000)  # a long message is no mistake
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    records, line = [], 1
    try:
        for record in reader:
            records.append(record)
            line = reader.line_num + 1  # csv itself names the line where it gave up
    except csv.Error as problem:
        what = f"a quote opens here and does not end as it should ({problem})"
        cure = "write a quote inside a text twice"
        raise CourseError(f"{name} line {line}: {what}; {cure}.") from None
    return records


def _without_apostrophes(
    table: list[list[str]], name: str, notes: list[str] | None
) -> list[list[str]]:
    """The cells as they were before `write_csv` made text of their formulas."""
    found = 0
    for cells in table:
        for place, cell in enumerate(cells):
            if cell.startswith("'") and FORMULA.match(cell):
                cells[place] = cell[1:]
                found += 1
    if found and notes is not None:
        what = f"{found} cell(s) begin with an apostrophe before a sign such as = or -"
        notes.append(f"{name}: {what}, which makes text of a formula; it was taken off.")
    return table


def _jsonl_rows(name: str, text: str) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=each_key_once)
        except ValueError as problem:
            raise CourseError(f"{name} line {number} is not JSON: {problem}.") from None
        if not isinstance(row, dict):
            what = "is not a JSON object with the columns as keys"
            raise CourseError(f"{name} line {number} {what}.")
        rows.append((number, row))
    return rows


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object for object_pairs_hook, texts normalised; ValueError for a repeated key."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} stands there twice")
        # JSON escapes can hide what is normalised here
        content[key] = normalised(value) if isinstance(value, str) else value
    return content


def read_entries(path: str | Path) -> list[dict]:
    """Entries of a JSONL file that grows line by line; a line cut by a kill leaves the file."""
    path = Path(path)
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    if lines and not lines[-1].endswith(b"\n"):
        with locked(path):  # another process may be about to write the rest of it
            lines = path.read_bytes().splitlines(keepends=True)
            if not lines[-1].endswith(b"\n"):
                os.truncate(path, path.stat().st_size - len(lines.pop()))
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(json.loads(line))
        except ValueError:  # a full disk cut a line, and the next one was written behind it
            cure = "take that line out; what it held is made again"
            raise CourseError(f"{path.name} line {number} is damaged; {cure}.") from None
    return entries


def append_entry(path: str | Path, entry: Mapping[str, Any], what: str, kept: int) -> None:
    """Add one line. Raises CourseError where it cannot: `what` it was, how many are `kept`."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path), open(path, "ab") as file:
            file.write((json.dumps(entry, ensure_ascii=False) + "\n").encode())
    except OSError as problem:
        cure = "Free some space and run the cell again: it goes on where it stopped."
        why = f"could not be written ({problem.strerror})"
        raise CourseError(f"{what} {why}; {kept} are kept. {cure}") from None


class Journal:
    """Results of slow work, appended to a JSONL file as they arrive: `entries` {key: value}.

    A key is the fingerprint of all that its value was made from, never a row's number.
    """

    def __init__(self, path: str | Path, what: str = "Answers") -> None:
        self.path, self.what = Path(path), what  # what the entries are, for errors
        self.entries: dict[str, Any] = {}
        self.seconds = 0.0  # of all starts together
        for line in read_entries(self.path):
            if "entries" not in line:
                raise CourseError(f"{self.path} was written by an older version; delete it.")
            self.entries.update(line["entries"])
            self.seconds += line["seconds"]

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys without an entry, each once, in order."""
        return [key for key in dict.fromkeys(keys) if key not in self.entries]

    def add(self, entries: Mapping[str, Any], seconds: float = 0.0) -> None:
        """Append {key: value} and the seconds they took. Raises CourseError on a full disk."""
        seconds = round(seconds, 3)
        line = {"entries": dict(entries), "seconds": seconds}
        append_entry(self.path, line, self.what, len(self.entries))
        self.entries.update(entries)
        self.seconds += seconds

    def of(self, keys: Sequence[str]) -> list:
        """The values of these keys, in their order."""
        return [self.entries[key] for key in keys]

"""The files of a log: whole lines only, whatever kills, fills the disk or moves a file away."""

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from helpers import CourseError

KEY = "key"
# shadow-2026-11-28.jsonl, then shadow-2026-11-28.1.jsonl; a last number is that of logrotate
NAME = re.compile(r"shadow-(\d{4}-\d\d-\d\d)(?:\.(\d+))?\.jsonl(?:\.\d+)?")
MESSAGE = re.compile(rb'"course\.message": "([0-9a-f]{24})"')  # inside a text a quote is escaped
SYNC_LINES = 128  # that are forced onto the disk together


class JsonLines(SpanExporter):
    """Appends each span as one line, in files that end with a day (UTC) or at `file_bytes`.

    The first problem stops it and is kept in `problem`, since OpenTelemetry only logs it: nothing
    may stand behind a line that is missing. `lines`: how many it has written.
    """

    def __init__(self, folder: Path, file_bytes: int) -> None:
        self.folder, self.file_bytes = folder, file_bytes
        self.problem: OSError | None = None
        self.lines = self._waiting = 0
        self._file: int | None = None
        self._path = Path()
        places = [_place(path) for path in log_files(folder)]
        self._day, self._number = places[-1] if places else ("", 0)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write each span: its line is whole, or not there."""
        for span in spans:
            if self.problem:
                return SpanExportResult.FAILURE
            line = json.dumps(json.loads(span.to_json(indent=None)), ensure_ascii=False) + "\n"
            day = datetime.fromtimestamp((span.end_time or 0) / 1e9, UTC).date().isoformat()
            try:
                self._append(line.encode("utf-8", "replace"), day)
            except OSError as problem:
                self.problem = problem
        return SpanExportResult.FAILURE if self.problem else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Force what was written onto the disk."""
        try:
            self._close()
        except OSError as problem:
            self.problem = self.problem or problem

    def _append(self, line: bytes, day: str) -> None:
        file = self._file_for(len(line), day)
        size, written = os.fstat(file).st_size, 0
        try:
            while written < len(line):
                written += os.write(file, line[written:])
        except OSError:
            with contextlib.suppress(OSError):  # else the next start cuts it off
                os.ftruncate(file, size)
            raise
        self.lines, self._waiting = self.lines + 1, self._waiting + 1
        if self._waiting >= SYNC_LINES:
            os.fsync(file)
            self._waiting = 0

    def _file_for(self, room: int, day: str) -> int:
        """The open file that has room for so many bytes; never one of a day before the last."""
        if day > self._day:
            self._close()
            self._day, self._number = day, 0
        if self._file is not None and not _is_at(self._file, self._path):
            self._close()  # somebody has moved it, or taken it away
        file = self._opened()
        while os.fstat(file).st_size and os.fstat(file).st_size + room > self.file_bytes:
            self._close()
            self._number += 1
            file = self._opened()
        return file

    def _opened(self) -> int:
        if self._file is None:
            number = f".{self._number}" if self._number else ""
            self._path = self.folder / f"shadow-{self._day}{number}.jsonl"
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._file = os.open(self._path, flags, 0o600)
        return self._file

    def _close(self) -> None:
        file, self._file, self._waiting = self._file, None, 0
        if file is None:
            return
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def log_files(folder: Path) -> list[Path]:
    """The files of a log, oldest first. Raises CourseError for a stranger among them."""
    paths = list(folder.glob("shadow-*.jsonl*"))
    for path in paths:
        if not NAME.fullmatch(path.name):
            what = f"{path.name} in the log {folder.name}/ cannot be read"
            raise CourseError(f"{what}; unpack it there, or move it out of that folder.")
    return sorted(paths, key=_place)


def _place(path: Path) -> tuple[str, int]:
    match = NAME.fullmatch(path.name)
    return (match[1], int(match[2] or 0)) if match else ("", 0)


def cut_half_line(path: Path) -> None:
    """Cut off what a kill or a power cut left of a last line: that message is read again."""
    data = path.read_bytes()
    end = len(data)
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if data[end - 1 : end] == b"\n" and _is_json(data[start:end]):
            break
        end = start
    if end < len(data):
        os.truncate(path, end)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def whole_lines(folder: Path, needle: bytes = b"") -> Iterator[tuple[Path, int, bytes]]:
    """(file, number, line) of every whole line of a log in which `needle` stands."""
    for path in log_files(folder):
        data = path.read_bytes()
        if needle not in data:
            continue
        for number, line in enumerate(data.split(b"\n")[:-1], 1):  # behind the last a half one
            if needle in line:
                yield path, number, line


def known_messages(folder: Path) -> set[str]:
    """The keyed hashes of all messages in a log."""
    known: set[str] = set()
    for path in log_files(folder):
        known.update(found.decode() for found in MESSAGE.findall(path.read_bytes()))
    return known


# The key of the hashes -------------------------------------------------------------------------


def own_key(folder: Path, make: bool = True) -> bytes:
    """The key of a log, 32 bytes that only the owner of the file `key` reads; made where missing.

    Raises CourseError for a damaged one, and where lines stand without their key.
    """
    path = folder / KEY
    if not path.exists():
        if not make or any(found.stat().st_size for found in log_files(folder)):
            cure = "bring that file back, or name another folder"
            raise CourseError(f"The log {folder.name}/ has lost its file {KEY!r}; {cure}.")
        _make_key(path)
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{64}", text):
        cure = "bring back a copy, or name another folder"
        raise CourseError(f"The file {KEY!r} of the log {folder.name}/ is damaged; {cure}.")
    if os.name == "posix" and path.stat().st_mode & 0o077:  # a copy has lost its mode
        path.chmod(0o600)
    return bytes.fromhex(text)


def _make_key(path: Path) -> None:
    half = path.with_name(f".{path.name}.{os.getpid()}.part")
    half.unlink(missing_ok=True)
    file = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(file, secrets.token_hex(32).encode())
        os.fsync(file)
    finally:
        os.close(file)
    os.replace(half, path)


def keyed_digest(key: bytes, *things: Any) -> str:
    """24 hex digits (HMAC of SHA-256) that stand for these things under this key alone."""
    text = json.dumps(things, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hmac.new(key, text, hashlib.sha256).hexdigest()[:24]

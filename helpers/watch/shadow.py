"""The shadow run: a file of messages is answered, logged and shown to nobody; verdicts follow.

The same call goes on after a kill. Each message is in the log once for what answers it: also where
tomorrow's file holds today's messages again. It is the same message by its id and its text; in a
file without ids, by the file's name, its row and its text.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as names

from helpers import CourseError
from helpers.ask.file_answers import CHUNK, Answer, Reader, answers_to
from helpers.core.files import append_entry, read_entries, sha256
from helpers.core.incoming import DAMAGED, Arrival, Incoming
from helpers.core.progress import progress
from helpers.core.text import tokens as text_tokens
from helpers.watch.log_rows import VERDICTS, found_line
from helpers.watch.log_rows import read_log as read_log  # so chapters need one import
from helpers.watch.log_rows import weeks as weeks
from helpers.watch.shadow_log import (
    NUMBER,
    LogWriter,
    ShadowLog,
    answer_attributes,
    text_attributes,
)

Measure = Callable[[str], float]
CountTokens = Callable[[str, Answer], tuple[int, int]]
MEASURES: Mapping[str, Measure] = {"characters": len}


def unknown_share(texts: Sequence[str]) -> Measure:
    """A measure to watch: the share of a message's tokens that stand in none of these texts.

    `texts`: the messages of the training rows.
    """
    known = {token for text in texts for token in text_tokens(text)}

    def share_of(text: str) -> float:
        found = text_tokens(text)
        return sum(token not in known for token in found) / max(1, len(found))

    return share_of


@dataclass(frozen=True)
class ShadowTally:
    """What came of a shadow run: messages `written` now, and those in the log `before`.

    Of the new ones: those a person would check, those that nobody could read.
    """

    written: int = 0
    before: int = 0
    person: int = 0
    unread: int = 0

    def __str__(self) -> str:
        words = f"{self.written:,} messages answered and logged"
        if self.before:
            words += f", {self.before:,} were in the log already"
        if not self.written:
            return f"{words}."
        share = self.person / self.written
        words += f"; a person would check {self.person:,} ({share:.0%})"
        return f"{words}, nobody could read {self.unread:,}."


def shadow_run(
    source: str | Path,
    log: ShadowLog,
    reader: Reader,
    *,
    text: str | None = None,
    measures: Mapping[str, Measure] = MEASURES,
    tokens: CountTokens | None = None,
    chunk: int = CHUNK,
    say: Callable[[str], None] = print,
) -> ShadowTally:
    """Answer every message of `source` into `log`; the answers are shown to nobody.

    `text`: the column of the message, that of the pilot when left out. `measures`: numbers of a
    message to watch, such as its characters. `tokens`: (input, output) tokens of an answer, where
    somebody counts them. `chunk`: messages answered together, which a kill loses at most; 1 to see
    how long a single one takes. Raises CourseError for files that cannot be read or written, and
    for one that was changed while it was read; what is logged stays.
    """
    mail = Incoming.look(source, text or reader.pilot.text)
    for note in mail.notes:
        say(note)
    content = sha256(mail.path)
    with log.writing(say) as writer:
        run = _ShadowRun(writer, reader, content[:12], dict(measures), tokens)
        with progress(None, f"answering {mail.path.name}", mail.number) as bar:
            fresh = run.new_rows(mail)
            while some := list(itertools.islice(fresh, max(1, chunk))):
                run.answer(some)
                bar.update(len(some))
    if sha256(mail.path) != content:
        what = f"{mail.path.name} was changed while it was read"
        raise CourseError(f"{what}; run it again, which adds what is new.")
    return run.tally


@dataclass
class _ShadowRun:
    """One run over one file."""

    writer: LogWriter
    reader: Reader
    source: str
    measures: dict[str, Measure]
    tokens: CountTokens | None
    tally: ShadowTally = ShadowTally()

    def new_rows(self, mail: Incoming) -> Iterator[tuple[int, Arrival, str]]:
        """(position in the file, row, its keyed hash) of what the log does not hold."""
        seen: Counter[str] = Counter()
        by = [self.reader.identity, sorted(self.writer.log.by.attributes().items())]
        for position, row in enumerate(mail.rows()):
            place = mail.path.name if row.id == str(row.number) else ""
            same = self.writer.digest(row.id, place, row.text, row.problem, by)
            seen[same] += 1  # a file may hold the very same row twice
            digest = self.writer.digest(same, seen[same])
            if digest in self.writer.known:
                self.tally = _plus(self.tally, before=1)
            else:
                yield position, row, digest

    def answer(self, some: Sequence[tuple[int, Arrival, str]]) -> None:
        """Answer some rows together and log each."""
        clock = self.writer.log.clock
        start = clock()
        readable = [row.text for _, row, _ in some if not row.problem]
        answer_of = dict(zip(readable, answers_to(self.reader, readable)))
        end = clock()
        for position, row, digest in some:
            one = Answer({}, {}, {}, True) if row.problem else answer_of[row.text]
            # as in an answered file: without a system nobody knows which are right
            person = one.check is not False or row.note == DAMAGED
            attributes = {
                "course.message": digest,
                "course.id": self.writer.digest("id", row.id),
                "course.source": self.source,
                "course.position": position,
                "course.row": row.number,
                "course.together": len(some),
                "course.route": "person" if person else "nobody",
                **self._of_answer(row, one),
            }
            self.writer.write(attributes, start, end)
            self.tally = _plus(self.tally, written=1, person=person, unread=not one.record)

    def _of_answer(self, row: Arrival, one: Answer) -> dict[str, Any]:
        found = answer_attributes(self.reader.pilot, one)
        if not one.record:
            found["course.why"] = row.problem or "the reader could not read it"
        if row.problem:
            return found
        for name, measure in self.measures.items():
            found[NUMBER + name] = float(measure(row.text))
        if self.tokens:
            counts = self.tokens(row.text, one)
            usage = (names.GEN_AI_USAGE_INPUT_TOKENS, names.GEN_AI_USAGE_OUTPUT_TOKENS)
            found |= dict(zip(usage, map(int, counts), strict=True))
        return found | (text_attributes(row.text, one) if self.writer.log.with_text else {})


def _plus(tally: ShadowTally, **more: int) -> ShadowTally:
    counts = vars(tally) | {name: getattr(tally, name) + count for name, count in more.items()}
    return ShadowTally(**counts)


def enter_verdict(
    log: ShadowLog | str | Path, known_as: str, right: bool | Mapping[str, bool], by: str
) -> None:
    """Append a person's verdict on one answer to verdicts.jsonl; the last one on it counts.

    `known_as`: the message's own id, or its 'message' in read_log where an id stands for several
    answers. `right`: of the whole record, or {field: bool}. `by`: who says so, a name or a role.
    Raises CourseError for an id that is unknown or stands for several answers, or another field.
    """
    folder = log.path if isinstance(log, ShadowLog) else Path(log)
    attributes = found_line(folder, str(known_as))
    judged: Any = bool(right) if isinstance(right, bool) else dict(right or {})
    if isinstance(judged, dict):
        fields = attributes["course.fields"]
        if not judged or set(judged) - set(fields) or not _are_bools(judged):
            raise CourseError(f"Say True or False, or of fields among {', '.join(fields)}.")
    if not by.strip():
        raise CourseError("Say who gives this verdict: by='a name or a role'.")
    kept = len(read_entries(folder / VERDICTS))  # reading cuts off half a line of a kill
    entry = {
        "message": attributes["course.message"],
        "right": judged,
        "by": by.strip(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    append_entry(folder / VERDICTS, entry, "The verdict", kept)


def _are_bools(judged: Mapping[str, Any]) -> bool:
    return all(isinstance(value, bool) for value in judged.values())

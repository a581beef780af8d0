"""The log of a system at work: OpenTelemetry spans, one JSON line each, and no message text.

A line is the library's own JSON of a span. Its names are those of OpenTelemetry's conventions for
generative AI (gen_ai.*) and, under course.*, what they have no name for.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as names
from opentelemetry.trace import SpanKind

from helpers import CourseError, __version__
from helpers.ask.file_answers import Answer
from helpers.core.files import locked
from helpers.core.pilot import Pilot
from helpers.watch.span_files import (
    JsonLines,
    cut_half_line,
    keyed_digest,
    known_messages,
    log_files,
    own_key,
)

LOCK = ".lock"
FILE_BYTES = 20_000_000
NOT_LISTED = "(not in the list)"  # instead of a label that pilot.yaml does not have
LABEL, SURE, NUMBER = "course.label.", "course.confidence.", "course.number."


@dataclass(frozen=True)
class AnsweredBy:
    """What answers, as the log names it. `adapter`: its SHA-256; `prompt`: the prompt's version.

    `provider`: one of OpenTelemetry's names, or your own. `response_model`: what a server says it
    was, where it says so.
    """

    model: str
    provider: str = "local"
    adapter: str = ""
    prompt: str = ""
    response_model: str = ""

    def attributes(self) -> dict[str, str]:
        """Its gen_ai.* and course.* attributes, without empty ones."""
        found = {
            names.GEN_AI_OPERATION_NAME: names.GenAiOperationNameValues.CHAT.value,
            names.GEN_AI_PROVIDER_NAME: self.provider,
            names.GEN_AI_REQUEST_MODEL: self.model,
            names.GEN_AI_RESPONSE_MODEL: self.response_model or self.model,
            "course.adapter": self.adapter,
            "course.prompt": self.prompt,
        }
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class ShadowLog:
    """A folder with a log: shadow-<day>.jsonl (then .1.jsonl, ...), and the key of its hashes.

    The labels of a record are logged, never a message or what was copied from it; an id becomes a
    keyed hash, and whoever has the file `key` can join ids and try out guesses. `with_text` logs
    message and record, too: then the log is personal data. A new file begins each day (UTC) and at
    `file_bytes`; a file that is moved out of the folder is forgotten. `clock`: nanoseconds since
    1970.
    """

    folder: str | Path
    by: AnsweredBy
    with_text: bool = False
    file_bytes: int = FILE_BYTES
    clock: Callable[[], int] = time.time_ns

    @property
    def path(self) -> Path:
        """Its folder."""
        return Path(self.folder)

    @contextlib.contextmanager
    def writing(self, say: Callable[[str], None] = print) -> Iterator["LogWriter"]:
        """A LogWriter, for one process at a time: a second one says so and waits.

        Half a line that a kill left is cut off first. Raises CourseError where nothing can be
        written, and for lines that the disk did not take; those before stay.
        """
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            raise CourseError("OTEL_SDK_DISABLED switches the log off; unset it, and run again.")
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                wait = f"Another run writes the log {self.path.name}/; this one waits for it."
                stack.enter_context(locked(self.path / LOCK, lambda: say(wait)))
                for file in log_files(self.path):
                    cut_half_line(file)
                writer = LogWriter(self)
            except OSError as problem:
                what = f"The log {self.path.name}/ cannot be written ({problem.strerror})"
                cure = "free some space, or name a folder of your own"
                raise CourseError(f"{what}; {cure}.") from None
            try:
                yield writer
            finally:
                writer.provider.shutdown()
            writer.check()


class LogWriter:
    """Writes into a ShadowLog that is open; `known`: the messages that it held before."""

    def __init__(self, log: ShadowLog) -> None:
        self.log, self.key = log, own_key(log.path)
        self.known = known_messages(log.path)
        self.files = JsonLines(log.path, log.file_bytes)
        # what this machine's environment says must not thin out or shorten a log
        unset = SpanLimits.UNSET
        limits = SpanLimits(max_span_attributes=unset, max_span_attribute_length=unset)
        self.provider = TracerProvider(ALWAYS_ON, Resource.get_empty(), False, span_limits=limits)
        self.provider.add_span_processor(SimpleSpanProcessor(self.files))
        self.tracer = self.provider.get_tracer("helpers.watch", __version__)
        if not isinstance(self.tracer, Tracer):
            raise CourseError("OTEL_SDK_DISABLED switches the log off; unset it, and run again.")

    def digest(self, *things: Any) -> str:
        """What stands for these things in this log, and in no other: 24 hex digits."""
        return keyed_digest(self.key, *things)

    def write(self, attributes: Mapping[str, Any], start: int, end: int) -> None:
        """One line; `start` and `end` in nanoseconds. Raises CourseError where it is not whole."""
        named = {**self.log.by.attributes(), **attributes}
        title = f"{named[names.GEN_AI_OPERATION_NAME]} {named[names.GEN_AI_REQUEST_MODEL]}"
        before = self.files.lines
        span = self.tracer.start_span(
            title, kind=SpanKind.CLIENT, attributes=named, start_time=start
        )
        span.end(max(start, end))
        self.check()
        if self.files.lines != before + 1:
            raise CourseError("OpenTelemetry passed a span by; unset the OTEL_ variables you set.")

    def check(self) -> None:
        """Raises CourseError where a line could not be written."""
        if self.files.problem:
            why = self.files.problem.strerror
            what = f"The log {self.log.path.name}/ takes no more lines ({why})"
            cure = "free some space and run the same call again, which goes on there"
            raise CourseError(f"{what}; {self.files.lines:,} of this run are kept: {cure}.")


def answer_attributes(pilot: Pilot, answer: Answer) -> dict[str, Any]:
    """The course.* attributes of an Answer: closed labels and how sure; nothing that was copied.

    A label that pilot.yaml does not have might be copied, so it becomes '(not in the list)'; an
    empty one is "".
    """
    found: dict[str, Any] = {"course.fields": list(pilot.fields), "course.unread": False}
    if not answer.record:
        return found | {"course.unread": True}
    for name in pilot.labels:
        value = answer.record.get(name)
        listed = value in pilot.fields[name].values
        found[LABEL + name] = NOT_LISTED if value and not listed else value or ""
    for name in pilot.fields:
        sure = answer.confidence.get(name)
        if sure is not None and math.isfinite(sure):
            found[SURE + name] = round(float(sure), 6)
    return found


def text_attributes(text: str, answer: Answer) -> dict[str, str]:
    """Message and record by OpenTelemetry's names for content, which it leaves out by default."""
    said = {"role": "user", "parts": [{"type": "text", "content": text}]}
    record = json.dumps(answer.record, ensure_ascii=False)
    told = {"role": "assistant", "parts": [{"type": "text", "content": record}]}
    return {
        names.GEN_AI_INPUT_MESSAGES: json.dumps([said], ensure_ascii=False),
        names.GEN_AI_OUTPUT_MESSAGES: json.dumps([told], ensure_ascii=False),
    }

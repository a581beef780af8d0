"""The shadow run and its log: no message lost or twice, no text in it, whatever kills or fills."""

import csv
import errno
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from helpers import CourseError
from helpers.ask.file_answers import CHUNK, Answer, ReaderGoneError
from helpers.core.pilot import Pilot
from helpers.watch import log_rows, span_files, weekly
from helpers.watch.sampling import UNFINISHED
from helpers.watch.shadow import enter_verdict, read_log, shadow_run, unknown_share, weeks
from helpers.watch.shadow_log import NOT_LISTED, AnsweredBy, ShadowLog

DAY = 86_400 * 10**9
START = 1_790_000_000 * 10**9  # a Monday in September 2026
YAML = """
name: odd
text: message
fields:
  intent: {type: label, values: [order, quote, '<script>alert(1)</script>', 注文]}
  mood: {type: label, values: [good, bad], optional: true}
  品名: {type: span, optional: true}
"""
CANARY = "canary-7f3a-pump"

# in a process of its own too, so in words: a reader that copies, slowly where it is told to
STAND_IN = """
import os, signal, sys, time
from helpers.ask.file_answers import Answer
from helpers.core.pilot import Pilot
from helpers.watch.shadow import shadow_run
from helpers.watch.shadow_log import AnsweredBy, ShadowLog

class Copying:
    identity = "one"

    def __init__(self, pilot, seconds=0.0):
        self.pilot, self.seconds, self.asked = pilot, seconds, 0

    def answers(self, messages):
        time.sleep(self.seconds)
        self.asked += len(messages)
        told = []
        for text in messages:
            if "BREAK" in text:
                raise ValueError(text)
            words = text.split()
            record = {"intent": words[0], "mood": None, "品名": words[-1]}
            sure = {"intent": 0.5 + len(text) % 50 / 100, "mood": None, "品名": float("nan")}
            told.append(Answer(record, sure, {}, len(text) % 4 == 0))
        return told
"""
exec(STAND_IN)
Copying = globals()["Copying"]
BY = AnsweredBy("small", adapter="a" * 64, prompt="p1")


@pytest.fixture
def pilot(tmp_path):
    place = tmp_path / "odd"
    place.mkdir()
    (place / "pilot.yaml").write_text(YAML, encoding="utf-8")
    return Pilot.load(place)


def mail_of(tmp_path, texts, name="mail.csv", ids=True):
    path = tmp_path / name
    with open(path, "w", newline="", encoding="utf-8") as file:
        head = ["id", "message"] if ids else ["message"]
        rows = [[f"m{n}", text] if ids else [text] for n, text in enumerate(texts)]
        csv.writer(file).writerows([head, *rows])
    return path


def texts_of(number, words=("order", "quote", "注文")):
    return [f"{words[n % len(words)]} {'x' * (n % 9)} {CANARY}{n}" for n in range(number)]


def lines_in(folder):
    """The attributes of all lines, read without the course's own code."""
    found = []
    for path in sorted(Path(folder).glob("shadow-*")):
        data = path.read_bytes()
        assert not data or data.endswith(b"\n")
        found += [json.loads(line) for line in data.splitlines()]
    return found


def positions(folder):
    return sorted(line["attributes"]["course.position"] for line in lines_in(folder))


def clock_from(start, step=10**9):
    now = [start - step]

    def clock():
        now[0] += step
        return now[0]

    return clock


# The line --------------------------------------------------------------------------------------


def test_a_line_has_the_names_of_opentelemetry_and_no_text(pilot, tmp_path):
    log = ShadowLog(tmp_path / "log", BY, clock=clock_from(START))
    mail = mail_of(tmp_path, ["注文 です " + CANARY, CANARY + " is no label"])
    count = lambda text, answer: (len(text), 7)  # noqa: E731
    known = unknown_share(["注文 です"])
    measures = {"characters": len, "unknown": known}
    done = shadow_run(mail, log, Copying(pilot), tokens=count, measures=measures)
    assert str(done) == (
        "2 messages answered and logged; a person would check 1 (50%), nobody could read 0."
    )
    first, second = lines_in(tmp_path / "log")
    assert first["name"] == "chat small" and first["kind"] == "SpanKind.CLIENT"
    assert first["start_time"] == "2026-09-21T14:13:20.000000Z"
    assert first["end_time"] == "2026-09-21T14:13:21.000000Z"
    known_names = {value for name, value in vars(gen_ai_attributes).items() if name.isupper()}
    of_library = {name for name in first["attributes"] if not name.startswith("course.")}
    assert of_library <= known_names and len(of_library) == 6
    told = first["attributes"]
    assert told["gen_ai.operation.name"] == "chat" and told["gen_ai.provider.name"] == "local"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (22, 7)
    assert told["course.adapter"] == "a" * 64 and told["course.prompt"] == "p1"
    assert told["course.label.intent"] == "注文" and told["course.label.mood"] == ""
    assert told["course.route"] == "nobody" and told["course.confidence.intent"] == 0.72
    assert not any("品名" in name for name in told if name != "course.fields"), "a span is copied"
    assert told["course.number.characters"] == 22 and 0 < told["course.number.unknown"] < 1
    assert second["attributes"]["course.label.intent"] == NOT_LISTED
    [row, _] = read_log(log)
    assert row["label.intent"] == "注文" and row["label.mood"] is None and row["seconds"] == 0.5
    assert row["input_tokens"] == 22 and row["right"] is None and row["model"] == "small"


def test_no_byte_of_a_message_is_in_the_log_unless_it_is_asked_for(pilot, tmp_path):
    texts = [*texts_of(50), "", f"BREAK {CANARY}", f"{CANARY} {CANARY}", "order \ud83d"[:-1]]
    mail = mail_of(tmp_path, texts)
    with open(mail, "a", encoding="utf-8") as file:
        file.write(f"m99,{CANARY},three\n")
    log = ShadowLog(tmp_path / "log", BY)
    done = shadow_run(mail, log, Copying(pilot))
    assert done.written == 55 and done.unread == 3
    for path in (tmp_path / "log").iterdir():
        data = path.read_bytes()
        assert CANARY.encode() not in data and b"BREAK" not in data and b"m99" not in data
        assert b'"m1"' not in data, "an id is a keyed hash"
    unread = [row for row in read_log(log) if row["unread"]]
    assert [row["why"] for row in unread] == [
        "the message is empty",
        "the reader could not read it",
        "cells: 3 instead of 2",
    ]
    assert {row["route"] for row in unread} == {"person"}
    asked = ShadowLog(tmp_path / "asked", BY, with_text=True)
    shadow_run(mail, asked, Copying(pilot))
    row = read_log(asked)[0]
    assert row["text"] == texts[0] and row["record"]["品名"] == f"{CANARY}0"
    assert enter_verdict(asked, "m0", True, "desk") is None


@pytest.mark.skipif(os.name != "posix", reason="Windows has no modes")
def test_the_key_is_the_owners_alone_and_makes_other_hashes_in_another_log(pilot, tmp_path):
    mail, hashes = mail_of(tmp_path, ["order a"]), []
    for name in ("one", "two"):
        log = ShadowLog(tmp_path / name, BY)
        shadow_run(mail, log, Copying(pilot))
        assert stat.S_IMODE((tmp_path / name / "key").stat().st_mode) == 0o600
        hashes.append((read_log(log)[0]["id"], read_log(log)[0]["message"]))
    assert len({*hashes[0], *hashes[1]}) == 4
    key = tmp_path / "one" / "key"
    key.chmod(0o644)
    assert shadow_run(mail, ShadowLog(tmp_path / "one", BY), Copying(pilot)).before == 1
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.write_text("short")
    with pytest.raises(CourseError, match="'key' of the log one/ is damaged"):
        shadow_run(mail, ShadowLog(tmp_path / "one", BY), Copying(pilot))
    key.unlink()
    with pytest.raises(CourseError, match="has lost its file 'key'; bring that file back"):
        shadow_run(mail, ShadowLog(tmp_path / "one", BY), Copying(pilot))
    with pytest.raises(CourseError, match="has lost its file 'key'"):
        enter_verdict(tmp_path / "one", "m0", True, "desk")


def test_no_setting_of_the_machine_thins_out_the_log(pilot, tmp_path, monkeypatch):
    mail = mail_of(tmp_path, texts_of(5))
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"host={CANARY}")
    log = ShadowLog(tmp_path / "log", BY)
    assert shadow_run(mail, log, Copying(pilot)).written == len(read_log(log)) == 5
    assert read_log(log)[0]["adapter"] == "a" * 64
    assert CANARY not in json.dumps(lines_in(tmp_path / "log"))
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with pytest.raises(CourseError, match="OTEL_SDK_DISABLED switches the log off"):
        shadow_run(mail, ShadowLog(tmp_path / "other", BY), Copying(pilot))


# Kills -----------------------------------------------------------------------------------------

KILLED = (
    STAND_IN
    + """
reader = Copying(Pilot.load(sys.argv[1]), 0.02)
log = ShadowLog(sys.argv[3], AnsweredBy("small", adapter="a" * 64, prompt="p1"), file_bytes=900_000)
lines, write = int(sys.argv[4]), os.write

def half(file, data):
    global lines
    if b"course.message" in data:
        lines -= 1
        if lines == 0:
            write(file, data[:len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    return write(file, data)

if lines:
    os.write = half
shadow_run(sys.argv[2], log, reader)
"""
)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no kill -9")
def test_ten_thousand_messages_and_three_kills_lose_none_and_double_none(pilot, tmp_path):
    number = 10_000
    mail, folder = mail_of(tmp_path, texts_of(number)), tmp_path / "log"
    command = [sys.executable, "-c", KILLED, str(pilot.folder), str(mail), str(folder)]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    # twice in the middle of a line, once at any moment
    for lines in (1500, 0, 2000):
        process = subprocess.Popen([*command, str(lines)], **quiet)
        before = sum(1 for _ in span_files.whole_lines(folder)) if folder.is_dir() else 0
        while not lines and process.poll() is None:
            time.sleep(0.01)
            if sum(1 for _ in span_files.whole_lines(folder)) > before + 2500:
                process.kill()
        process.wait(timeout=300)
        assert process.returncode == -signal.SIGKILL, process.stderr.read().decode()
        if lines:
            newest = span_files.log_files(folder)[-1]
            assert not newest.read_bytes().endswith(b"\n"), "half a line is there"
    begun = time.process_time()
    log = ShadowLog(folder, BY, file_bytes=900_000)
    done = shadow_run(mail, log, Copying(pilot))
    assert time.process_time() - begun < 20, "well under a minute"
    assert done.before + done.written == number and done.before >= 5000
    assert positions(folder) == list(range(number))
    assert len({row["message"] for row in read_log(log)}) == number
    assert len(span_files.log_files(folder)) > 5, "and the files have turned meanwhile"
    reader = Copying(pilot)
    again = shadow_run(mail, log, reader)
    assert (again.written, again.before, reader.asked) == (0, number, 0)
    assert str(again) == "0 messages answered and logged, 10,000 were in the log already."


def test_what_a_power_cut_leaves_of_a_line_is_cut_off(pilot, tmp_path):
    mail, log = mail_of(tmp_path, texts_of(20)), ShadowLog(tmp_path / "log", BY)
    shadow_run(mail, log, Copying(pilot))
    [path] = span_files.log_files(log.path)
    whole = path.read_bytes()
    for tail in (b"\0" * 300, b'{"name": "chat', b"\0\0\n", "半".encode()[:-1]):
        path.write_bytes(whole + tail)
        assert shadow_run(mail, log, Copying(pilot)).before == 20
        assert path.read_bytes() == whole
    path.write_bytes(whole[:-100])
    assert len(read_log(log)) == 19, "who reads while another writes sees whole lines"
    assert shadow_run(mail, log, Copying(pilot)).written == 1
    assert positions(log.path) == list(range(20))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"{broken\n", *lines[3:]]))
    with pytest.raises(CourseError, match=r"line 4 is damaged; take that line out"):
        read_log(log)


class Stopping(Copying):
    """Breaks off after two chunks, in the way it is told."""

    problem = KeyboardInterrupt

    def answers(self, messages):
        if self.asked >= 2 * CHUNK:
            raise self.problem
        return super().answers(messages)


@pytest.mark.parametrize("problem", [KeyboardInterrupt, ReaderGoneError("The server is gone.")])
def test_what_was_answered_before_a_stop_is_kept(pilot, tmp_path, problem):
    mail, log = mail_of(tmp_path, texts_of(3 * CHUNK)), ShadowLog(tmp_path / "log", BY)
    reader = Stopping(pilot)
    reader.problem = problem
    with pytest.raises((KeyboardInterrupt, ReaderGoneError)):
        shadow_run(mail, log, reader)
    assert positions(log.path) == list(range(2 * CHUNK))
    assert shadow_run(mail, log, Copying(pilot)).written == CHUNK
    assert positions(log.path) == list(range(3 * CHUNK))


# What is the same message ----------------------------------------------------------------------


def test_a_file_that_has_grown_adds_what_is_new(pilot, tmp_path):
    texts, log = texts_of(30), ShadowLog(tmp_path / "log", BY)
    shadow_run(mail_of(tmp_path, texts[:20]), log, Copying(pilot))
    done = shadow_run(mail_of(tmp_path, texts), log, Copying(pilot))
    assert (done.written, done.before) == (10, 20) and len(read_log(log)) == 30
    # without ids a row is known by its place and its text; equal rows are two messages
    other = mail_of(tmp_path, ["order a", "order a", "order b"], "other.csv", ids=False)
    twice = mail_of(tmp_path, ["order x"] * 3, "twice.jsonl")
    twice.write_text('{"id": "t", "message": "order x"}\n' * 3, encoding="utf-8")
    third = mail_of(tmp_path, ["order a", "order c"], "third.csv", ids=False)
    for path in (other, twice, third, other, twice):
        shadow_run(path, log, Copying(pilot))
    assert len(read_log(log)) == 38


def test_another_reader_reads_them_all_again(pilot, tmp_path):
    mail, reader = mail_of(tmp_path, texts_of(10)), Copying(pilot)
    shadow_run(mail, ShadowLog(tmp_path / "log", BY), reader)
    newer = ShadowLog(tmp_path / "log", AnsweredBy("small", adapter="b" * 64, prompt="p1"))
    assert shadow_run(mail, newer, reader).written == 10
    reader.identity = "two"
    assert shadow_run(mail, newer, reader).written == 10
    assert len(read_log(newer)) == 30


def test_a_file_that_changes_while_it_is_read_is_said(pilot, tmp_path):
    mail, log = mail_of(tmp_path, texts_of(300)), ShadowLog(tmp_path / "log", BY)

    class Changing(Copying):
        def answers(self, messages):
            with open(mail, "a", encoding="utf-8") as file:
                file.write(f"late{self.asked},order {self.asked}\n")
            return super().answers(messages)

    with pytest.raises(CourseError, match=r"mail.csv was changed while it was read; run it again"):
        shadow_run(mail, log, Changing(pilot))
    shadow_run(mail, log, Copying(pilot))
    assert len({row["message"] for row in read_log(log)}) == len(read_log(log))
    assert {row["id"] for row in read_log(log)} >= {
        span_files.keyed_digest(span_files.own_key(log.path), "id", f"m{n}") for n in range(300)
    }


@pytest.mark.parametrize("rows", [0, 1])
def test_a_file_without_rows_and_one_of_a_single_row(pilot, tmp_path, rows):
    log = ShadowLog(tmp_path / "log", BY)
    done = shadow_run(mail_of(tmp_path, texts_of(rows)), log, Copying(pilot))
    assert done.written == rows and str(done).startswith(f"{rows} messages answered")
    if not rows:
        with pytest.raises(CourseError, match="There is no log in log/; a shadow run makes one"):
            read_log(log)
        with pytest.raises(CourseError, match="There is no log in log/"):
            enter_verdict(log, "m0", True, "desk")


# Disks and files -------------------------------------------------------------------------------


def test_where_nothing_can_be_written_one_sentence_says_so(pilot, tmp_path, monkeypatch):
    mail = mail_of(tmp_path, texts_of(5))
    (tmp_path / "file").write_text("no folder")
    reader = Copying(pilot)
    for folder in (tmp_path / "file", tmp_path / "file" / "log"):
        with pytest.raises(CourseError, match=r"The log \w+/ cannot be written \(.+\); free some"):
            shadow_run(mail, ShadowLog(folder, BY), reader)

    def refused(path, *args, **more):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(span_files.os, "open", refused)
    with pytest.raises(CourseError, match=r"cannot be written \(Permission denied\)"):
        shadow_run(mail, ShadowLog(tmp_path / "log", BY), reader)
    assert reader.asked == 0, "no message was asked for nothing"


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_disk_that_fills_up_in_the_middle_of_a_line(pilot, tmp_path):
    """A real short write: the system takes half a line, then no more."""
    import resource

    mail, log = mail_of(tmp_path, texts_of(100)), ShadowLog(tmp_path / "log", BY)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (20_000, 20_400, 45_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(CourseError) as caught:
                shadow_run(mail, log, Copying(pilot))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        words = (
            r"The log log/ takes no more lines \(.+\); \d+ of this run are kept: free some space.*"
        )
        assert re.fullmatch(words, str(caught.value))
        kept = positions(log.path)
        assert kept == list(range(len(kept))) and len(kept) > 10
    assert shadow_run(mail, log, Copying(pilot)).before == len(kept)
    assert positions(log.path) == list(range(100))


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_loses_nothing_that_was_kept(pilot, tmp_path, monkeypatch, call):
    mail, log = mail_of(tmp_path, texts_of(3 * CHUNK)), ShadowLog(tmp_path / "log", BY)
    real, calls = getattr(os, call), []

    def full(file, *data):
        calls.append(1)
        if len(calls) > {"write": 200, "fsync": 2}[call]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, *data)

    monkeypatch.setattr(span_files.os, call, full)
    with pytest.raises(CourseError, match=r"takes no more lines \(No space left on device\)"):
        shadow_run(mail, log, Copying(pilot))
    monkeypatch.undo()
    before = len(positions(log.path))
    assert before >= 128 and shadow_run(mail, log, Copying(pilot)).before == before
    assert positions(log.path) == list(range(3 * CHUNK))


def test_files_turn_by_size_and_by_day_and_keep_every_line(pilot, tmp_path):
    mail = mail_of(tmp_path, texts_of(300))
    log = ShadowLog(tmp_path / "log", BY, file_bytes=5000, clock=clock_from(START, DAY // 3))
    shadow_run(mail, log, Copying(pilot), chunk=40)
    names = [path.name for path in span_files.log_files(log.path)]
    assert names[:3] == [
        "shadow-2026-09-21.jsonl",
        "shadow-2026-09-21.1.jsonl",
        "shadow-2026-09-21.2.jsonl",
    ]
    assert "shadow-2026-09-23.jsonl" in names and len(names) > 40
    assert all(path.stat().st_size <= 5000 for path in span_files.log_files(log.path))
    assert positions(log.path) == list(range(300))
    assert [row["position"] for row in read_log(log)] == list(range(300)), "in the order of time"
    # a clock that goes back, and a line that is longer than a file: nothing is lost
    back = ShadowLog(log.path, BY, file_bytes=10, clock=clock_from(START))
    shadow_run(mail_of(tmp_path, texts_of(3), "more.csv", ids=False), back, Copying(pilot))
    assert len(read_log(log)) == 303
    assert span_files.log_files(log.path)[-1].name.startswith("shadow-2026-09-2")


def test_a_file_that_is_rotated_or_deleted_during_a_write(pilot, tmp_path):
    mail, log = mail_of(tmp_path, texts_of(6 * CHUNK)), ShadowLog(tmp_path / "log", BY)

    class Rotating(Copying):
        def answers(self, messages):
            found = span_files.log_files(log.path)
            if self.asked == 2 * CHUNK:  # as logrotate does
                found[0].rename(f"{found[0]}.1")
            if self.asked == 4 * CHUNK:
                found[-1].rename(f"{found[-1]}.2")
            return super().answers(messages)

    shadow_run(mail, log, Rotating(pilot))
    assert len(span_files.log_files(log.path)) == 3
    assert positions(log.path) == list(range(6 * CHUNK))
    assert shadow_run(mail, log, Copying(pilot)).written == 0
    span_files.log_files(log.path)[0].unlink()
    lost = 6 * CHUNK - len(positions(log.path))
    assert shadow_run(mail, log, Copying(pilot)).written == lost > 0
    (log.path / "shadow-2026-09-21.jsonl.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(CourseError, match="shadow-2026-09-21.jsonl.gz in the log log/ cannot be"):
        read_log(log)


def test_of_two_runs_on_one_log_the_second_waits_and_says_so(pilot, tmp_path):
    mail, log = mail_of(tmp_path, texts_of(300)), ShadowLog(tmp_path / "log", BY)
    said, tallies, inside = [], [], threading.Event()

    class Waiting(Copying):
        def answers(self, messages):
            inside.set()
            while not said:
                time.sleep(0.01)
            return super().answers(messages)

    def first():
        tallies.append(shadow_run(mail, log, Waiting(pilot)))

    one = threading.Thread(target=first)
    one.start()
    assert inside.wait(60)
    second = shadow_run(mail, log, Copying(pilot), say=said.append)
    one.join(60)
    assert said == ["Another run writes the log log/; this one waits for it."]
    assert tallies[0].written == 300 and (second.written, second.before) == (0, 300)
    assert positions(log.path) == list(range(300))


# Verdicts, weeks, the page ---------------------------------------------------------------------


def test_a_verdict_is_joined_by_the_id_and_the_last_one_counts(pilot, tmp_path):
    log = ShadowLog(tmp_path / "log", BY)
    shadow_run(mail_of(tmp_path, texts_of(10)), log, Copying(pilot))
    enter_verdict(log, "m1", False, "desk")
    enter_verdict(log.path, "m1", True, "the chief")
    enter_verdict(log, "m2", {"intent": False, "mood": True}, "desk")
    enter_verdict(log, "m3", {"intent": True}, "desk")
    enter_verdict(log, "m4", dict.fromkeys(("intent", "mood", "品名"), True), "desk")
    rows = read_log(log)
    assert [row["right"] for row in rows[:6]] == [None, True, False, None, True, None]
    assert rows[1]["checked_by"] == "the chief" and rows[2]["wrong_fields"] == ["intent"]
    with open(log.path / log_rows.VERDICTS, "ab") as file:
        file.write(b'{"message": "half')
    enter_verdict(log, rows[5]["message"], True, "desk")
    assert read_log(log)[5]["right"] is True
    assert b"m1" not in (log.path / log_rows.VERDICTS).read_bytes()
    shadow_run(
        mail_of(tmp_path, texts_of(10)), ShadowLog(log.path, AnsweredBy("new")), Copying(pilot)
    )
    refused = [
        (("m1", True, "desk"), "stands for 2 answers in the log; name one by its 'message'"),
        (("m77", True, "desk"), "has no message of that id"),
        ((rows[6]["message"], {"intnt": True}, "desk"), "fields among intent, mood, 品名"),
        ((rows[6]["message"], {}, "desk"), "Say True or False"),
        ((rows[6]["message"], {"intent": "yes"}, "desk"), "Say True or False"),
        ((rows[6]["message"], True, " "), "Say who gives this verdict"),
    ]
    for arguments, words in refused:
        with pytest.raises(CourseError, match=words):
            enter_verdict(log, *arguments)


@pytest.fixture
def two_weeks(pilot, tmp_path):
    """(log, its rows of a first week, of a second with more orders)."""
    clock = clock_from(START)
    log = ShadowLog(tmp_path / "log", BY, clock=clock)
    shadow_run(mail_of(tmp_path, texts_of(400), "a.csv"), log, Copying(pilot))
    later = ShadowLog(log.path, BY, clock=clock_from(START + 7 * DAY))
    words = ("order", "quote", "注文", "<script>alert(1)</script>")
    texts = [f"{text}b" for text in texts_of(200, words)]
    shadow_run(mail_of(tmp_path, texts, "b.csv"), later, Copying(pilot))
    found = weeks(log)
    assert {week: len(rows) for week, rows in found.items()} == {"2026-W39": 400, "2026-W40": 200}
    return log, *found.values()


def test_a_quiet_week_with_a_clean_sample_goes_on(two_weeks):
    log, first, _ = two_weeks
    things = ["label.intent", "confidence.intent"]
    report = weekly.week_report(log, first[::2], "2026-W39", highest_error=0.05, things=things)
    assert report.action == weekly.LOOK and report.verdict.next == UNFINISHED
    for row in report.to_check:
        enter_verdict(log, row["message"], True, "desk")
    done = weekly.week_report(log, first[::2], "2026-W39", highest_error=0.05, things=things)
    assert done.action == weekly.GOING_ON and done.verdict.holds and not done.to_check
    assert done.judged == done.verdict.n and done.changed == done.unread == 0
    page = done.markdown()
    assert page.startswith("# Week 2026-W39: go on") and "rollback" not in page
    assert "400 messages, answered by small aaaaaaaaaaaa." in page
    assert "| quote | 33.0% | 33.2% |" in page and "alarm is quiet, and the checked" in page
    # what somebody looked at unasked is no sample
    extra = next(
        row for row in first if row["message"] not in {r["message"] for r in report.to_check}
    )
    enter_verdict(log, extra["message"], False, "desk")
    same = weekly.week_report(log, first[::2], "2026-W39", highest_error=0.05, things=things)
    assert same.verdict == done.verdict and same.changed == 1


def test_a_moved_week_is_looked_at_and_a_wrong_one_rolled_back(two_weeks, tmp_path):
    log, first, second = two_weeks
    report = weekly.week_report(log, first, highest_error=0.05, things=["label.intent"])
    assert report.week == "2026-W40" and report.drift.rings and report.action == weekly.LOOK
    one, two, *rest = report.to_check
    enter_verdict(log, one["message"], {"intent": False}, "desk")
    for row in rest:
        enter_verdict(log, row["message"], True, "desk")
    enter_verdict(log, two["message"], True, "desk")
    again = weekly.week_report(log, first, highest_error=0.05, things=["label.intent"])
    assert again.verdict.next == "draw again" and again.action == weekly.LOOK
    asked = {row["message"] for row in report.to_check}
    assert again.to_check and not asked & {row["message"] for row in again.to_check}
    enter_verdict(log, again.to_check[0]["message"], False, "desk")
    wrong = weekly.week_report(log, first, highest_error=0.05, things=["label.intent"])
    assert wrong.action == weekly.ROLL_BACK and wrong.changed == 2
    page = weekly.write_weekly_page(wrong, tmp_path / "week.md").read_text(encoding="utf-8")
    command = "python -m helpers.ship.registry --folder registry rollback --reason"
    assert f'{command} "week 2026-W40: 2 of {wrong.verdict.n} checked answers were wrong"' in page
    with pytest.raises(
        CourseError, match="no messages of week 2020-W01; it has 2026-W39, 2026-W40"
    ):
        weekly.week_report(log, first, "2020-W01")
    with pytest.raises(CourseError, match="no such things to watch"):
        weekly.week_report(log, first, things=["label.nothing"])
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match="could not be written"):
        weekly.write_weekly_page(wrong, tmp_path / "file" / "week.md")


def test_no_label_breaks_the_page(pilot, tmp_path):
    by = AnsweredBy("<img src=x onerror=alert(1)>| `x`\n# head", adapter="*b*")
    log = ShadowLog(tmp_path / "log", by, clock=clock_from(START))
    words = ("<script>alert(1)</script>", "order", "a|b")
    shadow_run(mail_of(tmp_path, texts_of(120, words)), log, Copying(pilot))
    rows = read_log(log)
    for row in rows:  # as a log that somebody has written into
        row["route"] = row["route"].replace("person", "</table><b>person | x")
        row["label.<i>intent</i>"] = "[x](javascript:alert(1))"
    page = weekly.week_report(rows, rows[:60]).markdown()
    for bad in ("<script", "<img", "<b>", "<i>", "</table>", "](", "| x", "`x`", "\n# head"):
        assert bad not in page
    assert "&#60;script&#62;alert(1)&#60;/script&#62;" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {4}


def test_a_week_that_nobody_could_read_and_one_where_everybody_checks(pilot, tmp_path):
    log = ShadowLog(tmp_path / "log", BY, clock=clock_from(START))
    rows = [f"order {'x' * 4}" for _ in range(40)]
    shadow_run(mail_of(tmp_path, [text[:8] for text in rows]), log, Copying(pilot))
    all_checked = weekly.week_report(log, read_log(log))
    assert all_checked.routes == {"person": 40} and all_checked.verdict is None
    assert "there is nothing to sample" in all_checked.markdown()
    later = ShadowLog(log.path, BY, clock=clock_from(START + 7 * DAY))
    shadow_run(mail_of(tmp_path, [""] * 50, "b.csv"), later, Copying(pilot))
    unread = weekly.week_report(log, read_log(log))
    assert unread.action == weekly.LOOK and unread.unread == 50
    assert "100.0% of the messages could not be read" in " ".join(unread.why)
    assert "0 messages are too few" in unread.markdown()


def test_the_log_of_answers_has_no_answer_to_show(pilot, tmp_path, capsys):
    log = ShadowLog(tmp_path / "log", BY)
    shadow_run(mail_of(tmp_path, texts_of(40)), log, Copying(pilot))
    told = capsys.readouterr()
    assert CANARY not in told.out + told.err and "order" not in told.out
    assert isinstance(Copying(pilot).answers(["order a"])[0], Answer)

"""One client for any teacher: what fails, what it costs, what a kill leaves behind, and that no key ever leaks."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler

import pytest
from conftest import ROOT, listening

from helpers import CourseError
from helpers.ask import engines, teachers
from helpers.ask.teachers import Budget, Teacher
from helpers.core.files import Journal
from helpers.core.pilot import Pilot

KEY = "sk-fake-4f9a1c77"


@contextmanager
def server(behave):
    """A small HTTP server; `behave(number, request body)` returns (status, content type, body bytes, headers)."""
    seen = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen["all"] += 1
            seen[body.get("prompt")] += 1
            status, kind, data, headers = behave(seen["all"], body, self.headers)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            try:
                self.end_headers()
                self.wfile.write(data)
            except ConnectionError:  # the client was killed or lost its patience
                pass

        def log_message(self, *_):
            pass

    with listening(Handler) as address:
        yield address, seen


def completion(text, usage=True, **more):
    body = {
        "id": "x",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "text": text, "finish_reason": "stop"}],
    }
    body |= (
        {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
        if usage
        else {}
    )
    return 200, "application/json", json.dumps(body | more).encode(), {}


def echo(number, body, headers):
    return completion(f"answer to {body['prompt']} {body['seed']}")


def ask(number):
    return [{"prompt": f"p{i}", "seed": i, "max_tokens": 20} for i in range(number)]


def engine(address, **more):
    return engines.Server(
        Teacher(
            address=address,
            model="m",
            licence="MIT",
            **{"retries": 0, "parallel": 4, "timeout": 2} | more,
        )
    )


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "replies.jsonl")


def test_answers_come_in_the_order_of_the_requests_and_are_never_asked_for_twice(journal):
    def late(number, body, headers):
        time.sleep(0.02 * (int(body["seed"]) % 4))
        return echo(number, body, headers)

    with server(late) as (address, seen):
        found = teachers.collect(ask(12), engine(address), journal)
        assert found.texts == [f"answer to p{i} {i}" for i in range(12)] and seen["all"] == 12
        again = teachers.collect(ask(15), engine(address), Journal(journal.path))
        assert again.texts[:12] == found.texts and seen["all"] == 15
    assert (again.requests, again.tokens_in, again.tokens_out) == (
        15,
        150,
        75,
    ) and not again.estimated


def test_the_bill_counts_money_and_says_when_it_guesses(journal):
    with server(lambda n, b, h: completion("four words are here", usage=False)) as (address, _):
        found = teachers.collect(
            ask(3), engine(address, usd_per_million_in=1000, usd_per_million_out=2000), journal
        )
    assert found.estimated and "partly estimated" in str(found)
    assert (
        found.usd == pytest.approx((found.tokens_in * 1000 + found.tokens_out * 2000) / 1e6)
        and found.usd > 0
    )


def test_the_bill_is_of_what_was_asked_for_not_of_all_that_the_journal_holds(journal):
    with server(echo) as (address, _):
        teachers.collect(ask(12), engine(address), journal)
        journal.seconds = 120.0
        some = teachers.collect(ask(3), engine(address), journal)
        whole = teachers.collect(ask(12), engine(address), journal)
    assert (some.requests, some.tokens_in, some.tokens_out) == (3, 30, 15)
    assert some.seconds == pytest.approx(30.0) and whole.seconds == pytest.approx(120.0)


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_a_passing_error_is_tried_again(status, journal):
    with server(
        lambda n, b, h: (status, "text/plain", b"later", {}) if n <= 2 else echo(n, b, h)
    ) as (address, seen):
        found = teachers.collect(ask(1), engine(address, retries=3), journal)
    assert found.texts == ["answer to p0 0"] and seen["all"] == 3


def test_retry_after_is_respected(journal):
    with server(
        lambda n, b, h: (
            (429, "text/plain", b"", {"Retry-After": "1.5"}) if n == 1 else echo(n, b, h)
        )
    ) as (address, _):
        started = time.perf_counter()
        teachers.collect(ask(1), engine(address, retries=1), journal)
    assert time.perf_counter() - started >= 1.5


BROKEN = {
    "garbage": ((200, "application/json", b"%&$ no json", {}), "could not be read"),
    "half a JSON": ((200, "application/json", completion("x")[2][:60], {}), "could not be read"),
    "an HTML page": ((200, "text/html", b"<html>proxy login</html>", {}), "could not be read"),
    "no choices": (completion("x", choices=[]), "could not be read"),
    "null text": (completion(None), "could not be read"),
    "another shape": ((200, "application/json", b"[1, 2]", {}), "could not be read"),
    "status 500": ((500, "text/html", b"<html>oops</html>", {}), "status 500"),
    "status 400": ((400, "application/json", b"{}", {}), "status 400"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_recorded_with_its_reason_and_the_rest_is_kept(kind, journal):
    bad, reason = BROKEN[kind]
    broken = {"p2"}
    with server(lambda n, b, h: bad if b["prompt"] in broken else echo(n, b, h)) as (address, seen):
        found = teachers.collect(ask(6), engine(address, retries=1), journal)
        assert (
            found.texts[2] is None
            and reason in found.failed[2]
            and sum(t is not None for t in found.texts) == 5
        )
        assert seen["p2"] == (2 if kind == "status 500" else 1), (
            "only what may pass is tried again at once"
        )
        broken.clear()  # mended: only the failed one is asked again
        before = seen["all"]
        again = teachers.collect(ask(6), engine(address), Journal(journal.path))
        assert again.texts[2] == "answer to p2 2" and seen["all"] == before + 1


def test_a_server_that_is_down_or_slow_ends_in_one_sentence(journal):
    with pytest.raises(
        CourseError,
        match=r"failed 5 times in a row \(the server is not reachable\); 0 of 40 answers are kept",
    ):
        teachers.collect(ask(40), engine("http://127.0.0.1:9/v1"), journal, fails_in_a_row=5)

    def slow(number, body, headers):
        time.sleep(0 if int(body["seed"]) < 4 else 1)
        return echo(number, body, headers)

    with (
        server(slow) as (address, _),
        pytest.raises(CourseError, match=r"no answer within 0.3 s\); 4 of 40 answers are kept"),
    ):
        teachers.collect(
            ask(40), engine(address, timeout=0.3), Journal(journal.path), fails_in_a_row=5
        )
    assert sum(r["text"] is not None for r in Journal(journal.path).entries.values()) == 4


def test_a_teacher_that_fails_every_time_is_not_called_a_result(journal):
    with (
        server(lambda n, b, h: (500, "text/plain", b"", {})) as (address, _),
        pytest.raises(CourseError, match="no answer at all .the server answered with status 500"),
    ):
        teachers.collect(ask(3), engine(address), journal)


@pytest.mark.parametrize("limit", [Budget(requests=0), Budget(tokens=0), Budget(usd=0)])
def test_a_budget_of_zero_asks_nothing(limit, journal):
    with server(echo) as (address, seen):
        with pytest.raises(CourseError, match="nothing was asked"):
            teachers.collect(ask(3), engine(address), journal, limit)
        assert seen["all"] == 0


@pytest.mark.parametrize(
    "limit, most", [(Budget(requests=7), 7), (Budget(tokens=100), 6), (Budget(usd=0.1), 6)]
)
def test_a_budget_stops_the_run_and_keeps_what_is_done(limit, most, journal):
    priced = {"usd_per_million_in": 1000, "usd_per_million_out": 1000}
    with server(echo) as (address, seen):
        with pytest.raises(
            CourseError,
            match=r"budget of [\d.]+ \w+ allows no further request: \d of 40 answers are kept",
        ):
            teachers.collect(ask(40), engine(address, **priced), journal, limit)
        assert 1 <= seen["all"] <= most and len(Journal(journal.path).entries) == seen["all"]
        spent = seen["all"]
        with pytest.raises(CourseError, match="allows no further request"):
            again = Journal(journal.path)
            teachers.collect(ask(40), engine(address, **priced), again, limit)
        assert seen["all"] == spent, "the budget covers every start together"
        assert len(teachers.collect(ask(40), engine(address), Journal(journal.path)).texts) == 40


def test_a_refused_key_stops_at_once_and_stays_secret(journal, monkeypatch):
    monkeypatch.setenv("MY_TEST_KEY", KEY)
    said = io.StringIO()

    def leaky(number, body, headers):
        assert KEY in headers["Authorization"]
        if number <= 2:
            return completion(f"your header was {headers['Authorization']}")
        return (
            (401 if number > 8 else 500),
            "application/json",
            json.dumps({"error": {"message": f"bad key {KEY}"}}).encode(),
            {},
        )

    with server(leaky) as (address, _), redirect_stdout(said), redirect_stderr(said):
        one = engine(address, key_from="MY_TEST_KEY", parallel=1)
        with pytest.raises(CourseError, match="refused the key .status 401") as problem:
            teachers.collect(ask(40), one, journal)
    shown = f"{problem.value!r}{problem.getrepr(chain=True)}{one!r}{one.teacher!r}{said.getvalue()}{journal.path.read_text()}"
    assert KEY not in shown and KEY[:9] not in shown
    assert "[key]" in journal.path.read_text() and len(Journal(journal.path).entries) == 8


def test_an_answer_belongs_to_its_request_and_its_teacher(journal):
    with server(echo) as (address, seen):
        teachers.collect(ask(3), engine(address), journal)
        changed = [request | {"temperature": 0} for request in ask(3)]
        teachers.collect(changed, engine(address), journal)
        other = engines.Server(Teacher(address=address, model="other", licence="MIT"))
        teachers.collect(ask(3), other, journal)
        assert seen["all"] == 9
        teachers.collect(ask(3)[::-1], other, journal)
        assert seen["all"] == 9


WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
from helpers.ask import engines, teachers
from helpers.core.files import Journal
teacher = teachers.Teacher(address=sys.argv[2], model="m", licence="MIT", parallel=4)
requests = [{"prompt": f"p{i}", "seed": i, "max_tokens": 20} for i in range(60)]
found = teachers.collect(requests, engines.Server(teacher), Journal(sys.argv[3]))
print("\\n".join(found.texts))
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(ROOT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_killed_twice_the_rows_are_those_of_an_uninterrupted_run(tmp_path):
    def steady(number, body, headers):
        time.sleep(0.05)
        return echo(number, body, headers)

    with server(steady) as (address, seen):
        path = tmp_path / "killed.jsonl"
        stored = lambda: path.read_bytes().count(b'"reason"') if path.is_file() else 0  # noqa: E731
        for goal in (10, 30):
            process = start(address, path)
            while stored() < goal:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
            process.wait()
        kept = len(Journal(path).entries)
        assert 30 <= kept < 60
        before = seen["all"]
        rows, _ = start(address, path).communicate(timeout=120)
        assert seen["all"] - before == 60 - kept, "what was stored is not asked for again"
        whole, _ = start(address, tmp_path / "whole.jsonl").communicate(timeout=120)
    assert rows == whole and len(set(rows.splitlines())) == 60


def test_the_model_in_this_process_draws_the_same_texts_after_a_kill(tiny, tmp_path):
    """Batches depend on the requests alone; a run that lost its last batches makes them again, letter by letter."""
    requests = [
        {"prompt": f"Message {i}:", "seed": i, "max_tokens": 6, "stop": ["\n"]} for i in range(10)
    ]
    one = engines.Batches(Teacher(model=str(tiny), licence="MIT"), size=4)
    whole = teachers.collect(requests, one, Journal(tmp_path / "whole.jsonl"))
    journal = Journal(tmp_path / "cut.jsonl")
    teachers.collect(requests, one, journal)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + lines[1][:50])
    again = teachers.collect(requests, one, Journal(journal.path))
    assert (
        again.texts == whole.texts
        and len(set(whole.texts)) > 5
        and all("\n" not in t for t in whole.texts)
    )
    assert whole.tokens_out > 0 and not whole.estimated
    part = Journal(tmp_path / "part.jsonl")
    with pytest.raises(CourseError, match="6 of 10 answers are kept"):
        teachers.collect(requests, one, part, Budget(requests=6))


REAL = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from helpers.ask import engines, teachers
from helpers.core import rows, runtime
from helpers.make import recipes
from helpers.core.files import Journal
from helpers.core.pilot import Pilot
runtime.quiet()
pilot = Pilot.load(sys.argv[1] + "/data/inbox")
plans = recipes.attributes(pilot, list(rows.load(pilot).train), 16, 0)
for plan in plans:
    plan["request"]["max_tokens"] = 8
teacher = teachers.Teacher(licence="Apache-2.0")
engine = engines.Batches(teacher, size=2)
bill = teachers.collect([plan["request"] for plan in plans], engine, Journal(Path(sys.argv[2])))
print(json.dumps(recipes.rows_of(pilot, plans, bill.texts, teacher)))
"""


@pytest.mark.slow
def test_the_real_teacher_killed_twice_gives_the_rows_of_an_uninterrupted_run(embedded, tmp_path):
    def begin(path):
        return subprocess.Popen(
            [sys.executable, "-c", REAL, str(ROOT), str(path)], stdout=subprocess.PIPE, text=True
        )

    path = tmp_path / "killed.jsonl"
    stored = lambda: path.read_bytes().count(b'"reason"') if path.is_file() else 0  # noqa: E731
    for goal in (2, 8):
        process = begin(path)
        while stored() < goal:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        process.wait()
    kept = stored()
    assert 8 <= kept < 16, "killed in the middle"
    rows, _ = begin(path).communicate(timeout=300)
    whole, _ = begin(tmp_path / "whole.jsonl").communicate(timeout=300)
    assert rows == whole and len(rows) > 1000 and stored() == 16


def test_a_grammar_holds_some_rows_of_a_batch(tiny):
    one = engines.Batches(Teacher(model=str(tiny), licence="MIT"))
    found = one.answer(
        [
            {"prompt": "x", "seed": 0, "max_tokens": 20, "grammar": 'root ::= "yes" | "no"\n'},
            {"prompt": "y", "seed": 1, "max_tokens": 20},
        ]
    )
    assert found[0]["text"] in ("yes", "no") and len(found[1]["text"]) > 3


def pilot_with(teacher):
    fields = {"intent": {"type": "label", "values": ["a", "b"]}}
    return Pilot.model_validate(
        {"name": "x", "text": "message", "fields": fields, "teacher": teacher}
    )


@pytest.mark.parametrize(
    "said, sentence",
    [
        ("gpt", "teacher is 'embedded', or the lines"),
        ({"adress": "http://x/v1"}, "unknown key 'adress'; did you mean 'address'?"),
        ({"address": "x/v1", "model": "m"}, "must start with http"),
        ({"address": "http://me:secret@x/v1", "model": "m"}, "environment variable"),
        ({"address": "http://x/v1"}, "no model"),
        ({"api_key": KEY}, "a key never stands in a file"),
        (
            {"address": "http://x/v1", "model": "m", "key_from": KEY},
            "the NAME of an environment variable",
        ),
        ({"address": "http://x/v1", "model": "m", "parallel": 0}, "parallel"),
    ],
)
def test_a_mistake_in_pilot_yaml_is_one_sentence_without_the_secret(said, sentence):
    with pytest.raises(CourseError, match=re.escape(sentence)) as problem:
        teachers.of(pilot_with(said))
    assert KEY not in str(problem.getrepr()) and "secret" not in str(problem.value)


def test_a_hosted_api_gets_what_it_understands(journal):
    """A chat-only server gets one user message, no llama.cpp parameter and no empty stop list."""
    got = []

    def chat(number, body, headers):
        got.append(body)
        said = {"choices": [{"index": 0, "message": {"role": "assistant", "content": " one\ntwo"}}]}
        return 200, "application/json", json.dumps(said).encode(), {}

    requests = [
        {"prompt": "p", "seed": 1, "stop": ["\n"], "grammar": "root ::= [a-z]*"},
        {"prompt": "q", "seed": 2},
    ]
    with server(chat) as (address, _):
        found = teachers.collect(requests, engine(address, chat_only=True, parallel=1), journal)
        engine(address, gbnf=True, chat_only=True).answer(requests[:1])
    assert found.texts == ["one", "one\ntwo"] and got[0]["messages"] == [
        {"role": "user", "content": "p"}
    ]
    assert (
        "grammar" not in got[0]
        and "cache_prompt" not in got[0]
        and "stop" not in got[1]
        and got[2]["grammar"] == "root ::= [a-z]*"
    )


def test_a_missing_key_is_named_by_its_variable(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(CourseError, match="NO_SUCH_KEY"):
        engine("http://x/v1", key_from="NO_SUCH_KEY")


def test_the_licence_is_checked_before_anything_is_asked():
    with server(echo) as (address, seen):
        for licence, words in (("blocked", "does not allow"), ("unknown", "Nobody has said")):
            with (
                pytest.raises(CourseError, match=words),
                teachers.opened(
                    teachers.of(pilot_with({"address": address, "model": "m", "licence": licence}))
                ),
            ):
                raise AssertionError("opened")
        assert seen["all"] == 0
        with teachers.opened(
            teachers.of(
                pilot_with({"address": address, "model": "m", "accept_unknown_licence": True})
            )
        ) as one:
            assert one.teacher.name == "m"
    assert teachers.refuse_unlicensed_teacher(teachers.of(pilot_with("embedded"))) == "allowed"
    with pytest.raises(CourseError, match="does not allow"):
        teachers.refuse_unlicensed_teacher(
            Teacher(model="m", licence="MIT"), lambda teacher: "blocked"
        )


def test_the_embedded_server_answers_through_the_same_client(embedded, tmp_path):
    with teachers.opened(teachers.of(pilot_with({"address": "embedded", "parallel": 2}))) as one:
        found = teachers.collect(
            [
                {
                    "messages": [{"role": "user", "content": "Say yes or no."}],
                    "seed": i,
                    "max_tokens": 5,
                    "grammar": 'root ::= "yes" | "no"\n',
                }
                for i in range(2)
            ],
            one,
            Journal(tmp_path / "j.jsonl"),
        )
    assert set(found.texts) <= {"yes", "no"} and found.tokens_in > 10 and not found.estimated

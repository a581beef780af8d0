"""The labelling widget without a browser: the messages that its view sends, a journal that survives anything, agreement of two people."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import textwrap

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from statsmodels.stats.inter_rater import cohens_kappa

from helpers import CourseError
from helpers.core import rows
from helpers.core.pilot import Pilot
from helpers.label import annotators, label_events, labeler
from helpers.measure import agreement, scoring

GOOD = {"intent": "order", "product": None, "order_id": None}


@pytest.fixture
def pilot(folder):
    return Pilot.load(folder)


@pytest.fixture
def messages(pilot):
    return list(rows.load(pilot).train)


@pytest.fixture
def book(pilot, messages, tmp_path):
    return labeler.Labeler(pilot, messages, tmp_path / "book.jsonl")


def press(widget, kind="answer", choices=None, seconds=2.0, row=None):
    """What the view sends for one answer; returns the error that the view shows, or None."""
    content = {"kind": kind, "id": row or widget.view["id"]}
    if kind == "answer":
        content |= {"choices": choices or GOOD, "seconds": seconds}
    widget._handle_custom_msg(content, [])
    return widget.view["error"]


def again(widget, **more):
    plain = [{"id": i, widget.pilot.text: text} for i, text in widget.texts.items()]
    return labeler.Labeler(
        widget.pilot, plain, widget.path, annotator=widget.annotator, seed=widget.seed, **more
    )


def lines(widget):
    return [json.loads(line) for line in widget.path.read_text().splitlines()]


def test_every_answer_is_one_line_and_a_new_start_goes_on(book, messages):
    order = list(book.order)
    assert sorted(order) == sorted(row["id"] for row in messages) and order != [
        row["id"] for row in messages
    ]
    for _ in range(4):
        assert press(book) is None
    written = lines(book)
    assert [line["event"] for line in written] == ["start"] + 4 * ["answer"]
    assert [line["id"] for line in written[1:]] == order[:4]
    assert set(written[1]) == {
        "event",
        "id",
        "record",
        "at",
        "seconds",
        "annotator",
        "time",
        "simulated",
    }
    assert (
        written[1]["simulated"] is False
        and written[1]["annotator"] == "a"
        and written[1]["seconds"] == 2.0
    )
    assert book.view["done"] == 4 and book.view["per_minute"] == 30.0
    later = again(book)
    assert (
        later.order == order
        and later.view["id"] == order[4]
        and list(later.labels()["id"]) == sorted(order[:4], key=list(book.texts).index)
    )
    reversed_rows = [{"id": i, "message": text} for i, text in reversed(book.texts.items())]
    assert labeler.Labeler(book.pilot, reversed_rows, book.path).order == order
    while later.view["id"]:
        press(later)
    assert later.view["done"] == 12 and len(lines(later)) == 13
    with pytest.raises(CourseError, match="Every row is labelled"):
        later.answer(GOOD)


def test_undo_goes_back_many_steps_and_over_a_restart_and_deletes_nothing(book):
    for label in ("order", "quote", "order"):
        press(book, choices={**GOOD, "intent": label})
    first, second, third = book.order[:3]
    assert (
        press(book, "undo") is None
        and book.view["id"] == third
        and book.view["before"]["intent"] == "order"
    )
    later = again(book)
    assert later.view["id"] == third and later.view["before"] == book.view["before"]
    press(later, "undo")
    assert later.view["id"] == second and later.view["before"]["intent"] == "quote"
    press(later, choices={**GOOD, "intent": "order"})
    assert later.view["id"] == third and later.view["before"] == {}
    assert [line["event"] for line in lines(later)[1:]] == ["answer"] * 3 + ["undo"] * 2 + [
        "answer"
    ]
    assert {row["id"]: row["intent"] for row in later.labels()} == {first: "order", second: "order"}
    press(later, "undo"), press(later, "undo")
    assert (
        press(later, "undo") == "There is nothing to undo."
        and later.view["id"] == first
        and len(later.labels()) == 0
    )


def test_a_skipped_row_comes_back_after_all_others(book):
    first, second = book.order[:2]
    press(book, "skip"), press(book, "skip")
    assert book.view["skipped"] == 2 and len(book.labels()) == 0
    press(book, "undo")
    assert book.view["id"] == second and book.view["skipped"] == 1
    for _ in range(11):
        press(book)
    assert again(book).view["id"] == first and first not in book.labels()["id"]
    press(book, "skip")
    assert book.view["id"] == first
    press(book)
    assert book.view["id"] is None and book.view["skipped"] == 0 and len(book.labels()) == 12


def test_a_kill_at_any_byte_loses_at_most_the_answer_in_flight(book):
    for _ in range(3):
        press(book)
    whole = book.path.read_bytes()
    ends = [number + 1 for number, byte in enumerate(whole) if byte == 10]
    near_ends = {end + step for end in ends for step in (-2, -1, 0, 1)}
    for cut in sorted(near_ends | set(range(0, len(whole), 61)) | {0, len(whole)}):
        cut = min(cut, len(whole))
        book.path.write_bytes(whole[:cut])
        stored = max(0, whole[:cut].count(b"\n") - 1)
        later = again(book)
        assert (
            list(later.answered) == book.order[:stored] and later.view["id"] == book.order[stored]
        ), cut
        if cut % 5 == 0:
            assert press(later) is None and len(again(book).answered) == stored + 1


def test_kill_minus_nine_in_mid_labelling(pilot, folder, tmp_path):
    script = textwrap.dedent(f"""
        import json, sys
        sys.path.insert(0, {str(ROOT)!r})
        from helpers.label import labeler
        from helpers.core.pilot import Pilot
        rows = [{{"id": str(i), "message": "where is it " + "x" * 3000}} for i in range(100000)]
        book = labeler.Labeler(Pilot.load({str(folder)!r}), rows[:3000], {str(tmp_path / "killed.jsonl")!r})
        while book.view["id"]:
            now = book.view["id"]
            book._handle_custom_msg({{"kind": "answer", "id": now, "seconds": 1, "choices": {GOOD!r}}}, [])
            print(now, flush=True)
        """)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    reported = [child.stdout.readline().strip() for _ in range(25)]
    child.send_signal(signal.SIGKILL)
    reported += child.stdout.read().split()
    assert child.wait() == -signal.SIGKILL and reported[0] != ""
    plain = [{"id": str(i), "message": "where is it " + "x" * 3000} for i in range(3000)]
    later = labeler.Labeler(pilot, plain, tmp_path / "killed.jsonl")
    assert later.order[: len(reported)] == reported
    assert (
        len(later.answered) - len(reported) in (0, 1)
        and later.view["id"] == later.order[len(later.answered)]
    )


def test_a_full_disk_keeps_what_is_stored_and_the_next_try_works(book):
    press(book)
    kept, (soft, hard) = book.path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (len(kept) + 40, hard)
        )  # the system takes 40 bytes and then refuses
        error = press(book)
        with pytest.raises(CourseError, match="could not be stored"):
            book.answer(GOOD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (
        "could not be stored in book.jsonl" in error
        and "everything before it is kept" in error
        and error.count(". ") == 1
    )
    assert (
        book.path.read_bytes() == kept
        and book.view["id"] == book.order[1]
        and len(book.labels()) == 1
    )
    assert (
        press(book) is None
        and book.path.read_bytes().startswith(kept)
        and len(again(book).answered) == 2
    )


def test_a_journal_that_cannot_be_or_is_no_longer_there(book, pilot, messages, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "book.jsonl", tmp_path):
        with pytest.raises(CourseError, match="cannot be written there"):
            labeler.Labeler(pilot, messages, place)
    press(book)
    other = again(book)
    press(other)
    assert "changed by another notebook" in press(book) and len(lines(book)) == 3
    book.path.unlink()
    assert "could not be stored" in press(other) and len(other.labels()) == 2


def test_a_journal_of_something_else_is_refused_and_left_alone(
    book, pilot, messages, tmp_path, folder
):
    press(book)
    before = book.path.read_bytes()

    def refused(match, with_pilot=pilot, with_rows=messages, **more):
        with pytest.raises(CourseError, match=match) as caught:
            labeler.Labeler(with_pilot, with_rows, book.path, **more)
        assert book.path.read_bytes() == before and str(caught.value).count(". ") == 0

    refused(
        "other rows or texts", with_rows=[row for row in messages if row["id"] != book.order[5]]
    )
    refused(
        "other rows or texts",
        with_rows=[{**row, "message": row["message"] + "!"} for row in messages],
    )
    refused(
        f"answer for the id '{book.order[0]}'",
        with_rows=[row for row in messages if row["id"] != book.order[0]],
    )
    refused("another annotator .*'a', not 'b'", annotator="b")
    refused("another seed", seed=1)
    with pytest.raises(CourseError, match="answers of another kind"):
        labeler.simulate(pilot, messages, book.path, annotator="a")
    other = pilot.model_copy(deep=True)
    other.fields["intent"].values.append("complaint")
    refused("other fields or values", with_pilot=other)
    with pytest.raises(CourseError, match="not a labelling journal"):
        labeler.Labeler(pilot, messages, folder / "train.csv")
    (tmp_path / "short").write_text('{"ev')
    labeler.Labeler(pilot, messages, tmp_path / "short")
    (tmp_path / "note.txt").write_text("half a line")
    with pytest.raises(CourseError, match="not a labelling journal"):
        labeler.Labeler(pilot, messages, tmp_path / "note.txt")
    assert (tmp_path / "note.txt").read_text() == "half a line"
    book.path.write_bytes(
        before.replace(b'"record"', b'"rec\x00rd"') + b'{"event": "skip", "id": "train-0"}\n'
    )
    with pytest.raises(CourseError, match="line 2 is damaged"):
        labeler.Labeler(pilot, messages, book.path)


TRICKY = [
    "\U0001f6a8\U0001f6a8 Where is the 油圧ポンプ \U0001f469‍\U0001f527 of PO-1234?",
    "至急！ポンプ「HP-40」が届きません。",
    "plain pump",
    "<script>alert(1)</script> <b>pump</b> & **bold**",
    "a\u202egnp.exe\u202c pump\u0301",
    "x" * 20_000 + " 泵 \U0001f600 end",
]


@pytest.mark.parametrize("text", TRICKY, ids=range(len(TRICKY)))
def test_spans_are_counted_as_a_browser_counts_and_stored_as_python_does(pilot, tmp_path, text):
    book = labeler.Labeler(pilot, [{"id": "1", "message": text}], tmp_path / "b.jsonl")
    draw = random.Random(0)
    for _ in range(8):
        start = draw.randrange(max(0, len(text) - 30), len(text))
        end = draw.randrange(start, len(text)) + 1
        if not text[start:end].strip():
            continue
        units = text.encode("utf-16-le")
        browser = {
            "start": len(text[:start].encode("utf-16-le")) // 2,
            "end": len(text[:end].encode("utf-16-le")) // 2,
        }
        assert (
            units[2 * browser["start"] : 2 * browser["end"]].decode("utf-16-le") == text[start:end]
        )
        assert press(book, choices={**GOOD, "product": browser}) is None
        assert book.labels()[0]["product"] == text[start:end] and lines(book)[-1]["at"] == {
            "product": [start, end]
        }
        press(book, "undo")
        assert book.view["before"]["product"] == browser


def test_a_span_inside_a_character_or_outside_the_text_is_refused(pilot, tmp_path):
    book = labeler.Labeler(pilot, [{"id": "1", "message": "\U0001f6a8 pump"}], tmp_path / "b.jsonl")
    for start, end in (
        (1, 4),
        (0, 1),
        (3, 3),
        (4, 2),
        (0, 99),
        (-1, 3),
        ("0", 3),
        (None, None),
        (True, 2),
        (0.0, 2),
    ):
        error = press(book, choices={**GOOD, "product": {"start": start, "end": end}})
        assert "does not lie on characters" in error, (start, end)
    assert "blank" in press(book, choices={**GOOD, "product": {"start": 2, "end": 3}})
    assert len(lines(book)) == 1 and book.view["done"] == 0
    assert label_events.to_utf16("\U0001f6a8a", 0, 1, 2) == [0, 2, 3]


def test_what_rows_load_would_refuse_is_refused_at_once(book, pilot):
    for choices, match in (
        ({**GOOD, "intent": "oder"}, "not among the values; did you mean 'order'"),
        ({**GOOD, "intent": None}, "is empty"),
        ({**GOOD, "product": "never said"}, "does not stand in the text"),
        ({**GOOD, "order_id": "PO-1"}, "does not match"),
        ({"intent": "order"}, "exactly the fields intent, product, order_id"),
        ({**GOOD, "product": 5}, "not text"),
        ("no", "exactly"),
    ):
        error = press(book, choices=choices)
        assert error and re.search(match, error), error
    for seconds in (float("nan"), float("inf"), -3, None, "2"):
        assert press(book, seconds=seconds) is None and lines(book)[-1]["seconds"] == 0.0
    assert "another view" in press(book, row="train-99") and len(book.answered) == 5
    book._handle_custom_msg({"kind": "nothing", "id": book.view["id"]}, [])
    assert len(book.answered) == 5


def test_patterns_come_with_their_matches(pilot, tmp_path):
    text = "\U0001f6a8 PO-1234 and PO-9999, again PO-1234"
    book = labeler.Labeler(pilot, [{"id": "1", "message": text}], tmp_path / "b.jsonl")
    assert book.view["matches"] == {"order_id": [["PO-1234", 3, 10], ["PO-9999", 15, 22]]}
    assert press(book, choices={**GOOD, "order_id": "PO-9999"}) is None


def test_no_label_reaches_the_browser(pilot, messages, tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_QUIET")
    marked = [{**row, "intent": "GOLD"} for row in messages]
    book = labeler.Labeler(pilot, marked, tmp_path / "b.jsonl")
    sent = []
    monkeypatch.setattr(
        type(book), "_send", lambda self, message, buffers=None: sent.append(message)
    )
    press(book), press(book, "undo"), press(book)
    state = json.dumps(book.get_state())
    copy = json.dumps(book.blind_copy(3).get_state())
    assert len(sent) == 3 and book.view["text"] in json.loads(state)["view"]["text"]
    assert "GOLD" not in json.dumps([sent, book._repr_mimebundle_()[0]]) + state + copy


def test_a_blind_copy_is_a_random_part_with_a_journal_of_its_own(book, pilot):
    for _ in range(6):
        press(book)
    second = book.blind_copy(6)
    assert set(second.order) == set(book.order[:6]) and second.order != book.order[:6]
    assert (
        second.path.name == "book-b.jsonl"
        and len(second.answered) == 0
        and second.view["before"] == {}
    )
    assert '"order"' not in second.path.read_text().split('"fields"')[0] and len(lines(second)) == 1
    press(second)
    assert book.blind_copy(6).view["done"] == 1, "the same call goes on"
    for size in (0, 13, 1.5, -1, True, "half", None):
        with pytest.raises(CourseError, match="1 to 12"):
            book.blind_copy(size)
    with pytest.raises(CourseError, match="another name"):
        book.blind_copy(3, annotator="a")
    with pytest.raises(CourseError, match="letters, digits"):
        book.blind_copy(3, annotator="../x")


def labelled(pilot, messages, who, values):
    return [{**row, "intent": value, "annotator": who} for row, value in zip(messages, values)]


def test_kappa_is_statsmodels_and_the_textbooks(pilot):
    first, second = (
        ["yes"] * 25 + ["no"] * 25,
        ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15,
    )
    found = agreement.kappa(first, second)
    assert (
        found.observed.value == 0.7
        and found.kappa == pytest.approx(0.4)
        and found.n == 50
        and found.note == ""
    )
    draw = np.random.default_rng(3)
    for size in (20, 80):
        a, b = draw.integers(0, 4, size), draw.integers(0, 4, size)
        b = np.where(draw.random(size) < 0.6, a, b)
        found = agreement.kappa([str(x) for x in a], [str(x) for x in b])
        table = [[int(((a == i) & (b == j)).sum()) for j in range(4)] for i in range(4)]
        assert (
            found.kappa == pytest.approx(cohens_kappa(table).kappa)
            and found.low < found.kappa < found.high <= 1
        )
        assert ("too few" in found.note) == (size < 50)
    same = agreement.kappa(["a"] * 30 + ["b"] * 30, ["a"] * 30 + ["b"] * 30)
    assert same.kappa == 1 and same.low < 0.95, (
        "no disagreement in 60 rows does not prove that there is none"
    )
    alone = agreement.kappa(["a"] * 60, ["a"] * 60)
    assert alone.kappa is None and "always said 'a'" in str(alone) and "nan" not in str(alone)


@pytest.mark.filterwarnings("ignore:invalid value")  # the usual interval, when nobody disagrees
@pytest.mark.parametrize(
    "right, rows_, least, usual_below", [(0.99, 40, 0.92, 0.70), (0.8, 200, 0.92, 1.0)]
)
def test_the_interval_covers_where_the_usual_one_does_not(right, rows_, least, usual_below):
    """Pairs of annotators who are right with a known probability: how often the interval holds the true kappa."""
    draw, shares = np.random.default_rng(0), np.array([0.15, 0.75, 0.10])
    chances = np.full((3, 3), (1 - right) / 2) + np.eye(3) * (right - (1 - right) / 2)
    joint = (chances.T * shares) @ chances
    expected = joint.sum(0) @ joint.sum(1)
    true = (np.trace(joint) - expected) / (1 - expected)
    held = usual = 0
    for _ in range(600):
        table = draw.multinomial(rows_, joint.ravel()).reshape(3, 3)
        pairs = [(str(i), str(j)) for i in range(3) for j in range(3) for _ in range(table[i, j])]
        found = agreement.kappa(*zip(*pairs))
        held += found.low <= true <= found.high
        reference = cohens_kappa(table)
        usual += reference.kappa_low <= true <= reference.kappa_upp
    assert least <= held / 600 <= 1 and usual / 600 < usual_below


def test_agreement_field_by_field(book, pilot):
    second = book.blind_copy(8)
    for widget, label in ((book, "order"), (second, "quote")):
        while widget.view["id"] and widget.view["done"] < 10:
            text = widget.view["text"]
            spans = {"product": "pump" if "pump" in text and widget is book else None}
            press(
                widget,
                choices={
                    **GOOD,
                    **spans,
                    "intent": label
                    if text.endswith("3?")
                    else "order"
                    if "pump" in text
                    else "quote",
                },
            )
    found = annotators.between_annotators(book, second, pilot)
    assert set(found) == {"intent", "product", "order_id", "exact record"}
    mine, theirs = ({row["id"]: row for row in side.labels()} for side in (book, second))
    for name in pilot.fields:
        assert (
            found[name].observed.value
            == np.mean([mine[i][name] == theirs[i][name] for i in theirs])
            and found[name].n == 8
        )
    assert (
        found["intent"].kappa is not None
        and found["product"].kappa is None
        and "too few" in str(found["product"])
    )


def test_agreement_needs_two_people_and_the_same_rows(book, pilot, messages, tmp_path):
    with pytest.raises(CourseError, match="first annotator has not labelled"):
        annotators.between_annotators(book, book.blind_copy(3), pilot)
    press(book)
    with pytest.raises(CourseError, match="second annotator has not labelled"):
        annotators.between_annotators(book, book.blind_copy(3), pilot)
    with pytest.raises(CourseError, match="needs two annotators"):
        annotators.between_annotators(book, again(book), pilot)
    other = labeler.Labeler(
        pilot,
        [{"id": f"z{i}", "message": "pump"} for i in range(3)],
        tmp_path / "z.jsonl",
        annotator="b",
    )
    press(other)
    with pytest.raises(CourseError, match="different rows"):
        annotators.between_annotators(book, other, pilot)
    overlap = labeler.Labeler(
        pilot,
        [*messages[:6], {"id": "new", "message": "pump"}],
        tmp_path / "o.jsonl",
        annotator="b",
    )
    press(overlap)
    with pytest.raises(CourseError, match="different rows"):
        annotators.between_annotators(book, overlap, pilot)
    far = labeler.Labeler(
        pilot,
        [row for row in messages if row["id"] != book.order[0]],
        tmp_path / "f.jsonl",
        annotator="b",
    )
    press(far)
    with pytest.raises(CourseError, match="No row is labelled by both"):
        annotators.between_annotators(book, far, pilot)
    with pytest.raises(CourseError, match="not 2 and 1"):
        agreement.kappa(["a", "b"], ["a"])


NASTY = [
    '=HYPERLINK("http://x","y") pump',
    "+49 30 123 pump, PO-1234",
    "-40 °C grease",
    "@all pump",
    'a, "b"\nc\r\nd pump',
    "ポンプ \U0001f6a8 pump",
    "<script>pump</script>",
    "\u202epump",
    "' pump",
    "pump;pump\tpump",
    "plain pump",
    "one more pump",
]


@pytest.mark.parametrize("end", ["csv", "jsonl"])
def test_an_export_loads_as_it_was_labelled(pilot, folder, tmp_path, end):
    book = labeler.Labeler(
        pilot,
        [{"id": f"n-{i}", "message": text} for i, text in enumerate(NASTY)],
        tmp_path / "b.jsonl",
    )
    with pytest.raises(CourseError, match="Nothing is labelled yet"):
        book.export(tmp_path / "x.csv")
    while book.view["id"]:
        text = book.view["text"]
        at = text.find("pump")
        span = {
            "start": at + (len(text[:at].encode("utf-16-le")) // 2 - at),
            "end": len(text[: at + 4].encode("utf-16-le")) // 2,
        }
        press(
            book,
            choices={
                "intent": "quote" if book.view["done"] % 2 else "order",
                "product": span if at >= 0 else None,
                "order_id": "PO-1234" if "PO-" in text else None,
            },
        )
    (folder / "train.csv").unlink()
    book.export(folder / f"train.{end}")
    loaded, made = list(rows.load(pilot).train), list(book.labels())
    assert len(loaded) == len(made) == 12
    for got, row in zip(loaded, made):
        assert got["message"] == row["message"].replace("\r", "")
        assert {name: got[name] for name in ("id", *pilot.fields)} == {
            name: row[name] for name in ("id", *pilot.fields)
        }
    assert "simulated" in (folder / f"train.{end}").read_text(encoding="utf-8-sig").splitlines()[0]
    with pytest.raises(CourseError, match=r"\.csv or \.jsonl"):
        book.export(tmp_path / "x.xlsx")


def test_a_value_that_is_a_formula_is_text_in_a_csv_and_itself_again_when_read(pilot, tmp_path):
    book = labeler.Labeler(pilot, [{"id": "1", "message": "grease -40 C"}], tmp_path / "b.jsonl")
    press(book, choices={**GOOD, "product": {"start": 7, "end": 10}})
    assert ",'-40," in book.export(tmp_path / "x.csv").read_text(encoding="utf-8-sig")
    assert rows.read(tmp_path / "x.csv")[0]["product"] == "-40"
    assert json.loads(book.export(tmp_path / "x.jsonl").read_text())["product"] == "-40"


def test_simulated_answers_say_so_everywhere(pilot, messages, tmp_path):
    made = labeler.simulate(pilot, messages, tmp_path / "s.jsonl", error_rate=0.3, annotator="sim")
    written = lines(made)
    assert (
        len(written) == 13
        and all(line["simulated"] for line in written)
        and made.view["id"] is None
    )
    assert (
        set(made.labels()["simulated"]) == {True}
        and "nobody labelled these" in repr(made)
        and "simulated" in made.static()
    )
    assert (
        press(made) and "holds simulated answers" in press(made, "undo") and lines(made) == written
    )
    exported = made.export(tmp_path / "s.csv").read_text(encoding="utf-8-sig").splitlines()
    assert exported[0].endswith("annotator,simulated") and all(
        line.endswith("sim,True") for line in exported[1:] if line.startswith("train")
    )
    records = [line["record"] for line in written[1:]]
    made.path.write_bytes(
        b"".join(made.path.read_bytes().splitlines(keepends=True)[:5]) + b'{"event": "ans'
    )
    assert [
        line["record"]
        for line in lines(
            labeler.simulate(pilot, messages, made.path, error_rate=0.3, annotator="sim")
        )[1:]
    ] == records
    with pytest.raises(CourseError, match="answers of another kind"):
        labeler.Labeler(pilot, messages, made.path, annotator="sim")
    with pytest.raises(CourseError, match="between 0 and 1"):
        labeler.simulate(pilot, messages, tmp_path / "t.jsonl", error_rate=30)
    with pytest.raises(CourseError, match="from labelled rows only"):
        labeler.simulate(pilot, [{**messages[0], "intent": None}], tmp_path / "u.jsonl")


def test_simulated_errors_come_as_often_as_asked(tmp_path):
    pilot = Pilot.load(ROOT / "data/inbox")
    test = list(rows.load(pilot).test)
    made = labeler.simulate(pilot, test, tmp_path / "s.jsonl", error_rate=0.2)
    right = scoring.score(
        pilot, test, [{name: row[name] for name in pilot.fields} for row in made.labels()]
    ).right
    for name in pilot.labels:
        assert right[name].mean() == pytest.approx(0.8, abs=0.09), name
    exact = labeler.simulate(pilot, test, tmp_path / "e.jsonl", error_rate=0.0, annotator="sim2")
    assert scoring.score(
        pilot, test, [{name: row[name] for name in pilot.fields} for row in exact.labels()]
    ).exact.all()
    found = annotators.between_annotators(exact, made, pilot)
    assert found["intent"].low < 0.85 and found["intent"].observed.value == right["intent"].mean()
    for row in made.labels():
        assert all(
            rows.wrong_value(name, spec, row[name], row["message"]) is None
            for name, spec in pilot.fields.items()
        )


def test_bad_rows_are_named(pilot, messages, tmp_path):
    for bad, match in (
        ([], "no rows to label"),
        ([messages[0], messages[0]], "'train-0' stands in two rows .the second is row 2"),
        ([{"id": "1", "mesage": "x"}], "no 'message'; its columns are id, mesage"),
        ([{"message": "x"}], "no 'id'"),
        ([{"id": "1", "message": "  "}], "empty or not text"),
        ([{"id": "1", "message": None}], "empty or not text"),
        ([{"id": "1", "message": "a\ud83d"}], "half a character"),
    ):
        with pytest.raises(CourseError, match=match) as caught:
            labeler.Labeler(pilot, bad, tmp_path / "b.jsonl")
        assert "\n" not in str(caught.value) and not (tmp_path / "b.jsonl").exists()


def test_the_view_is_shipped_needs_no_network_and_makes_no_html():
    script = (ROOT / "helpers/label/labeler.js").read_text()
    assert (
        "export default { render }" in script
        and (ROOT / "helpers/label/labeler.css").stat().st_size > 1000
    )
    for banned in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "http:",
        "https:",
        "import ",
        "eval(",
    ):
        assert banned not in script, banned
    assert "url(" not in (ROOT / "helpers/label/labeler.css").read_text()


def test_a_recorded_notebook_keeps_a_table_and_no_widget_state(folder, tmp_path):
    """The way `make course` runs it: nbclient, then a page by nbconvert; the same notebook, saved by a person, also gives the table."""
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    code = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from helpers.label import labeler
        from helpers.core.pilot import Pilot
        rows = [{{"id": "1", "message": "<script>alert(1)</script> pump"}}, {{"id": "2", "message": "\\u202eevil **b**"}}]
        book = labeler.Labeler(Pilot.load({str(folder)!r}), rows, {str(tmp_path / "n.jsonl")!r})
        book.answer({{"intent": "order", "product": "pump" if book.current == "1" else None, "order_id": None}})
        """)
    cells = [nbformat.v4.new_code_cell(code), nbformat.v4.new_code_cell("book")]
    for quiet in (True, False):
        (tmp_path / "n.jsonl").unlink(missing_ok=True)
        notebook = nbformat.v4.new_notebook(cells=[nbformat.from_dict(cell) for cell in cells])
        environment = {k: v for k, v in os.environ.items() if k != "COURSE_QUIET"} | (
            {"COURSE_QUIET": "1"} if quiet else {}
        )
        NotebookClient(
            notebook, timeout=120, kernel_name="python3", store_widget_state=quiet
        ).execute(env=environment)
        bundle = notebook.cells[1].outputs[0].data
        assert (
            "application/vnd.jupyter.widget-view+json" in bundle
        ) != quiet and "widgets" not in notebook.metadata
        page, _ = HTMLExporter().from_notebook_node(notebook)
        table = page[page.index("Labeler: 1 of 2") :]
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in table and "<script>alert(1)" not in page
        assert (
            "[U+202E]evil **b**" in table
            and "<th>intent</th>" in table
            and "widget-view+json" not in table
        )

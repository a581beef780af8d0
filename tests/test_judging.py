"""A judge is accepted when it is shown to agree with people, and refused otherwise: coins, favourite places, a love of length."""

import contextlib
import json

import numpy as np
import pytest

from helpers import CourseError
from helpers.ask.engines import reply
from helpers.ask.teachers import Teacher
from helpers.core.pilot import Pilot
from helpers.measure import judging

SWAP = np.array([0, 1])


def judge(kind, seed, n=60, skill=0.9):
    """Simulated verdicts on n pairs, as the Calibration of a judge of this kind."""
    draw = np.random.default_rng(seed)
    better, longer = draw.integers(0, 2, n), draw.integers(0, 2, n)
    reads = np.where(draw.random((n, 2)) < skill, better[:, None], 1 - better[:, None]) ^ SWAP
    if kind == "longer and often right":
        longer = np.where(draw.random(n) < 0.8, better, 1 - better)
    places = {
        "good": reads,
        "coin": draw.integers(0, 2, (n, 2)),
        "first place": np.zeros((n, 2), int),
        "half the time the first place": np.where(draw.random((n, 2)) < 0.5, 0, reads),
        "half the time the second place": np.where(draw.random((n, 2)) < 0.5, 1, reads),
        "one coin for both orders": np.repeat(draw.integers(0, 2, (n, 1)), 2, 1) ^ SWAP,
        "longer and often right": np.repeat(longer[:, None], 2, 1) ^ SWAP,
        "often silent": np.where(draw.random((n, 2)) < 0.3, -1, reads),
    }[kind]
    return judging.calibrate(places, better, longer)


def test_a_good_judge_is_accepted_nearly_always():
    found = [judge("good", seed) for seed in range(200)]
    assert np.mean([not c.reasons for c in found]) > 0.9
    assert "accepted" in str(next(c for c in found if not c.reasons))


@pytest.mark.parametrize(
    "kind, why",
    [
        ("coin", "not shown to agree"),
        ("first place", "the place decides"),
        ("half the time the first place", "the place decides"),
        ("half the time the second place", "the place decides"),
        ("one coin for both orders", "not shown to agree"),
        ("longer and often right", "length"),
        ("often silent", "name neither record or both"),
    ],
)
def test_a_bad_judge_is_refused(kind, why):
    found = [judge(kind, seed) for seed in range(200)]
    assert np.mean([bool(c.reasons) for c in found]) > 0.99
    assert any(why in " ".join(c.reasons) for c in found) and all(
        "REFUSED" in str(c) for c in found if c.reasons
    )


def test_few_pairs_accept_nobody():
    perfect = np.repeat(np.array([[0], [1]] * 10), 2, 1) ^ SWAP
    found = judging.calibrate(perfect, [0, 1] * 10, [0, 0, 1, 1] * 5)
    assert (
        found.agrees.value == 1
        and found.reasons[0] == "only 20 pairs, 30 are the least to accept a judge"
    )
    with pytest.raises(CourseError, match="label more rows"):
        judging.calibrate(np.zeros((1, 2)), [0], [0])
    with pytest.raises(CourseError, match="Every pair needs two verdicts"):
        judging.calibrate(np.zeros((5, 2)), [0] * 4, [0] * 5)


def test_the_figures_of_a_calibration_by_hand():
    better, longer = [0] * 20 + [1] * 20, [0] * 10 + [1] * 20 + [0] * 10
    chosen = np.array(
        [[0, 0]] * 15 + [[0, 1]] * 5 + [[1, 1]] * 20
    )  # items; five pairs change their winner
    found = judging.calibrate(chosen ^ SWAP, better, longer)
    assert found.survives.value == 35 / 40 and found.agrees.value == 75 / 80
    assert found.balanced.value == pytest.approx(
        (1 + 35 / 40) / 2
    )  # the five stand where the shorter one is better
    assert found.first.value == pytest.approx((2 * 5 + 35) / 80)
    assert found.kappa.kappa == pytest.approx(1.0)  # of the first order alone
    everyone_unread = judging.calibrate(np.full((40, 2), -1), better, longer)
    assert (
        everyone_unread.reasons and everyone_unread.first is None and everyone_unread.unread == 1.0
    )


@pytest.mark.parametrize(
    "text, place",
    [
        ("A", 0),
        (" B\n", 1),
        ("A.", 0),
        ("The better record is B", 1),
        ("A or B", -1),
        ("", -1),
        (None, -1),
        ("a", -1),
        ("BAD", -1),
        ("ＡＢ", -1),
        ("B" * 100_000, -1),
    ],
)
def test_what_a_judge_says_is_read_or_not(text, place):
    assert judging.read_pairs([text, "A"]).tolist() == [[place, 0]]


@pytest.fixture
def pilot(folder):
    return Pilot.load(folder)


ROW = {
    "id": "1",
    "message": "pump, PO-1000",
    "intent": "order",
    "product": "pump",
    "order_id": "PO-1000",
}


def record(**change):
    return {"intent": "order", "product": "pump", "order_id": "PO-1000", **change}


def test_closer_counts_equal_fields_and_the_form(pilot):
    assert judging.closer(pilot, ROW, record(), record(intent="quote")) == 0
    assert (
        judging.closer(pilot, ROW, record(product=None, order_id=None), record(intent="quote")) == 1
    )
    assert judging.closer(pilot, ROW, record(intent="quote"), record(product=None)) is None
    assert (
        judging.closer(pilot, ROW, None, record(intent="quote", product=None, order_id=None)) == 1
    )
    assert judging.closer(pilot, ROW, record(note="x"), record(intent="quote")) == 1


def test_pairs_have_a_drawn_order_no_ties_and_two_requests_each(pilot):
    rows = [{**ROW, "id": str(i)} for i in range(200)]
    one, other = [record()] * 200, [record(intent="quote")] * 199 + [record()]
    made = judging.pairs(pilot, rows, rows, one, other)
    assert len(made) == 199 and 60 < sum(p["better"] for p in made) < 140
    assert all(p["records"][p["better"]] == record() and p["longer"] == -1 for p in made)
    asked = judging.pair_requests(pilot, made[:1])
    a, b = (json.dumps(r) for r in made[0]["records"])
    said = [r["messages"][-1]["content"] for r in asked]
    assert said[0].index(a) < said[0].index(b) and said[1].index(b) < said[1].index(a)
    assert (
        "pump, PO-1000" in said[0] and asked[0]["temperature"] == 0 and "A" in asked[0]["grammar"]
    )
    assert judging.pairs(pilot, rows, rows[:10], one, other)[-1]["id"] == "9", (
        "rows that nobody labelled make no pair"
    )


class Always:
    """An engine that always says the same, one request at a time."""

    parallel = 1

    def __init__(self, word):
        self.teacher, self.identity = Teacher(licence="own"), word
        self.word, self.asked = word, 0

    def units(self, requests):
        return ([r] for r in requests)

    def answer(self, requests):
        self.asked += 1
        return [reply(self.word)]


def test_a_judge_of_any_engine_is_asked_once_and_refused_by_measurement(
    pilot, tmp_path, monkeypatch
):
    rows = [{**ROW, "id": str(i), "message": f"pump {i}, PO-1000"} for i in range(40)]
    made = judging.pairs(pilot, rows, rows, [record()] * 40, [record(intent="quote")] * 40)
    engine, journal = Always("A"), tmp_path / "judge.jsonl"
    monkeypatch.setattr(judging.teachers, "opened", lambda *_: contextlib.nullcontext(engine))
    requests = judging.pair_requests(pilot, made)
    texts = judging.ask_judge(engine.teacher, requests, journal)
    assert engine.asked == 80 and judging.ask_judge(engine.teacher, requests, journal) == texts
    assert engine.asked == 80, "nothing is asked twice"
    found = judging.calibrate(
        judging.read_pairs(texts), [p["better"] for p in made], [p["longer"] for p in made]
    )
    assert found.reasons and found.first.value == 1.0 and found.survives.value == 0.0


def test_a_judge_that_filters_or_is_judged_is_named():
    found = judging.same_model(
        "m", ("the filter", "m"), ("the model judged", "other"), ("nothing", None)
    )
    assert found == ["the judge is the same model as the filter (m)"]


def test_skill_is_sensitivity_and_specificity():
    right, wrong = judging.skill(
        [1, 1, 1, 0, 0, 1, -1], [True, True, True, True, False, False, False]
    )
    assert (right.value, right.n) == (0.75, 4) and (wrong.value, wrong.n) == (
        pytest.approx(1 / 3),
        3,
    )
    with pytest.raises(CourseError, match="called all of these records right"):
        judging.skill([1, 0], [True, True])


class Alphabet(Always):
    """An engine that says B and A in turns."""

    def answer(self, requests):
        self.word = "AB"[self.asked % 2 == 0]
        return super().answer(requests)


def test_a_larger_judge_is_recorded_asked_where_it_is_or_left_out(pilot, tmp_path, monkeypatch):
    from helpers.choose import gguf_parts
    from helpers.core import runs, runtime

    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    run = runs.Run(pilot, "08", runtime.detect("cpu"), 0)
    requests = [{"prompt": text, "seed": 0} for text in ("one", "two", "three")]
    at_hand, engine = [], Alphabet("")
    monkeypatch.setattr(gguf_parts, "is_fetched", lambda name, cache: name in at_hand)
    monkeypatch.setattr(judging.teachers, "opened", lambda *_: contextlib.nullcontext(engine))
    assert judging.larger_judge("a-larger-1.5b", requests, run) is None, "nothing is fetched"
    assert not engine.asked

    at_hand.append("a-larger-1.5b")
    told = judging.larger_judge("a-larger-1.5b", requests, run)
    assert told == ["B", "A", "B"] and engine.asked == 3
    page = json.loads(run.path("judge_a_larger_1_5b.json").read_text())
    assert page["given"] == told and page["judge"] == "a-larger-1.5b"

    at_hand.clear()  # the model is gone, its answers to these requests are not
    assert judging.larger_judge("a-larger-1.5b", requests, run) == told and engine.asked == 3
    assert judging.larger_judge("a-larger-1.5b", requests[:2], run) is None, "other questions"
    assert judging.larger_judge("another-0.5b", requests, run) is None, "another judge"
    run.path("judge_a_larger_1_5b.json").write_text("{")  # a file that somebody cut off
    assert judging.larger_judge("a-larger-1.5b", requests, run) is None
    assert judging.larger_judge("a-larger-1.5b", [], run) is None
    at_hand.append("a-larger-1.5b")
    smoke = runs.Run(pilot, "08", runtime.detect("smoke"), 0)
    assert judging.larger_judge("a-larger-1.5b", requests[:1], smoke) is None
    assert "not asked in smoke" in judging.why_not("a-larger-1.5b", smoke)

    # a part of the chapter finds what the chapter recorded, and its own
    part = runs.Run(pilot, "08b", runtime.detect("cpu"), 0)
    told = judging.larger_judge("a-larger-1.5b", requests, run)
    asked = engine.asked
    assert judging.larger_judge("a-larger-1.5b", requests, part) == told and engine.asked == asked
    own = judging.larger_judge("a-larger-1.5b", requests[1:], part)
    assert own and part.path("judge_a_larger_1_5b.json").is_file()
    at_hand.clear()
    assert judging.larger_judge("a-larger-1.5b", requests[1:], part) == own


def test_a_record_read_alone_has_no_place(pilot, tmp_path, monkeypatch, tiny):
    from helpers.choose import gguf_parts, models
    from helpers.core import runs, runtime

    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    run = runs.Run(pilot, "08", runtime.detect("cpu"), 0)
    rows = [{**ROW, "id": str(i), "message": f"pump {i}, PO-1000"} for i in range(3)]
    made = judging.pairs(pilot, rows, rows, [record()] * 3, [record(intent="quote")] * 3)
    turned = [{**pair, "records": pair["records"][::-1]} for pair in made]
    assert judging.read_alone("a-larger-1.5b", pilot, made, run) is None, "nothing is fetched"

    monkeypatch.setattr(gguf_parts, "is_fetched", lambda *_: True)
    monkeypatch.setattr(models, "resolve", lambda *_: models.Base("tiny", str(tiny), None, "own"))
    logs = judging.read_alone("a-larger-1.5b", pilot, made, run)
    assert np.shape(logs) == (3, 2) and np.max(logs) < 0
    other = judging.read_alone("a-larger-1.5b", pilot, turned, run)
    assert np.allclose(np.array(other)[:, ::-1], logs, atol=0.2), "each is read alone"
    monkeypatch.setattr(gguf_parts, "is_fetched", lambda *_: False)
    assert judging.read_alone("a-larger-1.5b", pilot, turned, run) == other, "kept"

    places = judging.places_of([[-1.0, -9.0], [-9.0, -1.0], [-2.0, -2.0]])
    assert places.tolist() == [[0, 1], [1, 0], [-1, -1]]
    found = judging.calibrate(places, [0, 1, 1], [-1, -1, -1])
    assert found.survives.value == pytest.approx(2 / 3) and found.first.value == 0.5
    assert judging.places_of([]).shape == (0, 2)

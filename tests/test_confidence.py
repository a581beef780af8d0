"""Confidence, thresholds and escalation by hand and by simulation; odd answers that must not crash or mislead; a tiny real model."""

import json

import numpy as np
import pytest

from helpers import CourseError
from helpers.ask import answers, likelihood
from helpers.core import rows
from helpers.core.pilot import Pilot
from helpers.measure import confidence, error_costs, scoring
from helpers.pay import error_prices

RIGHT = '{"intent": "order", "product": "pump", "order_id": "PO-1000"}'
ROW = {
    "id": "1",
    "message": "pump, PO-1000",
    "intent": "order",
    "product": "pump",
    "order_id": "PO-1000",
}
PLAIN = json.loads(RIGHT)
ODD = {  # name: an answer that is no exact record, whatever it looks like
    "text before": "Sure, here it is: " + RIGHT,
    "text after": RIGHT + " I hope this helps.",
    "fenced": f"```json\n{RIGHT}\n```",
    "two objects": RIGHT + RIGHT,
    "repeated key, right last": '{"intent": "quote", ' + RIGHT[1:],
    "repeated key, right first": RIGHT[:-1] + ', "intent": "quote"}',
    "repeated with the same value": RIGHT[:-1] + ', "intent": "order"}',
    "key in other case": RIGHT.replace("intent", "Intent"),
    "key with a space": RIGHT.replace('"intent"', '"intent "'),
    "escaped key twice": '{"\\u0069ntent": "quote", ' + RIGHT[1:],
    "number": RIGHT.replace('"PO-1000"', "1000"),
    "list": RIGHT.replace('"pump"', '["pump"]'),
    "true": RIGHT.replace('"pump"', "true"),
    "nested": f'{{"record": {RIGHT}}}',
    "nested field": RIGHT.replace('"order"', '{"value": "order"}'),
    "as a string": json.dumps(RIGHT),
    "in a list": f"[{RIGHT}]",
    "NaN": RIGHT.replace('"pump"', "NaN"),
    "Infinity": RIGHT.replace('"pump"', "-Infinity"),
    "single quotes": RIGHT.replace('"', "'"),
    "smart quotes": RIGHT.replace('"', "”"),
    "full-width letters": RIGHT.replace("PO-1000", "ＰＯ-1000"),
    "another hyphen": RIGHT.replace("PO-1000", "PO‑1000"),
    "Cyrillic o": RIGHT.replace('order"', 'оrder"'),
    "a combining mark": RIGHT.replace("pump", "pu\u0301mp"),
    "zero width": RIGHT.replace("pump", "pu\u200bmp"),
    "half a character": RIGHT.replace("pump", "\\ud83d"),
    "a lone surrogate": RIGHT.replace("pump", "\ud83d"),
    "a null byte": RIGHT + "\x00",
    "byte order mark": "\ufeff" + RIGHT,
    "trailing comma": RIGHT[:-1] + ",}",
    "a comment": RIGHT + " // ok",
    "the word null": RIGHT.replace('"pump"', '"null"'),
    "spaces in a value": RIGHT.replace('"pump"', '" pump "'),
    "right, then 100 kB": RIGHT + "x" * 100_000,
    "100 kB value": RIGHT.replace("pump", "pump" * 25_000),
    "100 kB of brackets": "[" * 100_000,
    "100 kB of objects": '{"a":' * 20_000,
    "100 kB of digits": '{"intent": ' + "9" * 100_000 + "}",
    "10,000 keys": json.dumps({**PLAIN, **{f"k{i}": i for i in range(10_000)}}),
    "100 kB of spaces": " " * 100_000,
    "nothing": "",
    "None": None,
    "a number": 7,
    "bytes": b"\xff\xfe",
    "a list of records": [PLAIN],
    "no key": "{}",
    "half": RIGHT[:30],
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer_is_wrong_and_never_a_crash(folder, name):
    pilot = Pilot.load(folder)
    found = scoring.score(pilot, [ROW, ROW], [ODD[name], RIGHT])
    assert found.exact.tolist() == [False, True], (
        "an odd answer counts as wrong and leaves the next one alone"
    )
    kinds = error_costs.error_kinds(pilot, ROW, found.records[0])
    assert kinds and set(kinds) <= set(error_prices.known_kinds(pilot))
    assert str(found).startswith("exact record")
    places = confidence.field_places(pilot, ODD[name]) if isinstance(ODD[name], str) else None
    assert places is None or all(
        json.loads(ODD[name][a:b]) == found.records[0][f] for f, (a, b) in places.items()
    )


@pytest.mark.parametrize(
    "answer",
    [
        RIGHT,
        "  " + RIGHT + "\n",
        RIGHT.replace(", ", ",\n "),
        RIGHT.replace("pump", "\\u0070ump"),
        PLAIN,
    ],
)
def test_the_same_record_written_otherwise_is_right(folder, answer):
    assert scoring.score(Pilot.load(folder), [ROW], [answer]).exact.all()


def test_a_value_that_a_grammar_could_not_give_is_no_invention_of_an_empty_field(folder):
    found = scoring.score(
        Pilot.load(folder), [{**ROW, "product": None}], [RIGHT.replace('"pump"', "null")]
    )
    assert found.exact[0] and not found.invented[0]


def test_where_the_values_of_an_answer_stand(folder):
    pilot = Pilot.load(folder)
    text = '{"intent": "order", "product": "öl, \\"A\\"", "order_id": null}'
    places = confidence.field_places(pilot, text)
    assert {f: text[a:b] for f, (a, b) in places.items()} == {
        "intent": '"order"',
        "product": '"öl, \\"A\\""',
        "order_id": "null",
    }
    assert confidence.field_places(pilot, RIGHT.replace(", ", ",")) is None, (
        "another form has no places"
    )


# Calibration, risk and coverage ------------------------------------------------------------------------------


def test_risk_and_coverage_by_hand():
    coverage, risk, level = confidence.risk_coverage(
        [0.9, 0.8, 0.8, 0.1], [True, True, False, False]
    )
    assert (
        coverage.tolist() == [0.25, 0.75, 1.0]
        and risk == pytest.approx([0, 1 / 3, 0.5])
        and level.tolist() == [0.9, 0.8, 0.1]
    )


def test_the_threshold_keeps_as_many_as_the_wish_allows():
    sure, right = [0.9, 0.8, 0.7, 0.6, 0.5], [True, True, False, True, False]
    assert confidence.threshold(sure, right, 1.0) == 0.8
    assert confidence.threshold(sure, right, 0.75) == 0.6
    assert confidence.threshold(sure, right, 0.1) == 0.5
    assert confidence.threshold(sure, [False] * 5, 0.5) is None
    coverage, share_right = confidence.kept(sure, right, 0.6)
    assert coverage.value == 0.8 and share_right.value == 0.75
    coverage, share_right = confidence.kept(sure, right, None)
    assert coverage.value == 0 and share_right is None


def test_a_threshold_flatters_the_rows_it_was_chosen_on():
    draw, chosen, others = np.random.default_rng(0), [], []
    for _ in range(400):  # a confidence that knows nothing
        sure, right = draw.random(60), draw.random(60) < 0.6
        first, second = confidence.halves(range(60), int(draw.integers(1e6)))
        level = confidence.threshold(sure[first], right[first], 0.75)
        if level is not None and (sure[second] >= level).any():
            chosen.append(confidence.kept(sure[first], right[first], level)[1].value)
            others.append(confidence.kept(sure[second], right[second], level)[1].value)
    assert np.mean(chosen) >= 0.75 and abs(np.mean(others) - 0.6) < 0.03


def test_calibration_mends_a_boaster_and_leaves_an_honest_one():
    draw = np.random.default_rng(0)
    honest = draw.beta(2, 2, 4000)
    right = draw.random(4000) < honest
    boast = honest**0.25
    before = confidence.calibration_error(boast, right)
    mended = confidence.calibrator(boast[:2000], right[:2000])(boast[2000:])
    assert before > 0.2 and confidence.calibration_error(mended, right[2000:]) < 0.06
    assert confidence.calibration_error(honest, right) < 0.03
    order = np.argsort(boast[2000:])
    assert (np.diff(mended[order]) >= -1e-12).all(), (
        "calibration changes the numbers, not the order"
    )
    bins = confidence.confidence_bins(honest, right)
    assert len(bins) == 5 and sum(correct.n for _, correct in bins) == 4000
    assert all(correct.low < mean < correct.high for mean, correct in bins)


def test_equal_confidences_share_a_bin():
    bins = confidence.confidence_bins([0.5] * 30, [True] * 10 + [False] * 20)
    assert [correct.n for _, correct in bins] == [30]


# Escalation --------------------------------------------------------------------------------------------------


def test_the_best_level_by_hand():
    assert confidence.best_level([0.9, 0.5, 0.1], [1, 1, 0], [0, 0, 1]) == 0.5
    assert confidence.best_level([0.9, 0.5, 0.1], [1, 1, 1], [0, 1, 1]) == 0.1, (
        "of equally good ones the one that keeps most"
    )
    assert confidence.best_level([0.9, 0.5], [0, 0], [1, 1]) == float("inf")


def test_halves_share_no_group():
    groups = [f"thread {i // 4}" for i in range(80)]
    choose, confirm = confidence.halves(groups, seed=1, groups=groups)
    assert (choose ^ confirm).all() and choose.sum() == 40
    assert not {g for g, c in zip(groups, choose) if c} & {g for g, c in zip(groups, confirm) if c}
    assert (confidence.halves(groups, seed=1)[0] == confidence.halves(groups, seed=1)[0]).all()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: confidence.risk_coverage([], []), "no rows"),
        (lambda: confidence.risk_coverage([0.1], [True, False]), "Every row needs"),
        (lambda: confidence.risk_coverage([float("nan")], [True]), "not a number"),
        (lambda: confidence.threshold([0.5], [True], 90), "0.9 for 90 %"),
        (lambda: confidence.calibrator([0.5, 0.6], [True, True]), "needs both kinds"),
        (lambda: confidence.halves([1]), "at least two rows"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(CourseError, match=words):
        call()


# A model's probabilities -------------------------------------------------------------------------------------


@pytest.fixture
def model(tiny):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny, dtype="float32").eval()


def test_confidence_of_answers_is_kept_and_multiplies_up(
    model, tokenizer, folder, tmp_path, monkeypatch
):
    pilot = Pilot.load(folder)
    data = rows.load(pilot).test.select(range(3))
    texts = [pilot.answer(row) for row in data]
    texts[2] = "not a record"
    asked = (model, tokenizer, pilot)
    sure = confidence.of_answers(*asked, data, texts, tmp_path / "confidence")
    assert sure[2] == {"intent": 0.0, "product": 0.0, "order_id": 0.0, "record": 0.0}
    ask = answers.prompt(pilot, tokenizer, data[0]["message"], full=False)
    logp, begins = likelihood.log_likelihoods(model, tokenizer, [ask], texts[:1])[0]
    place = confidence.field_places(pilot, texts[0])["intent"]
    ends = [*begins[1:], len(texts[0])]
    touched = [i for i, (a, b) in enumerate(zip(begins, ends)) if a < place[1] and b > place[0]]
    assert sure[0]["intent"] == pytest.approx(np.exp(logp[touched].sum()), abs=1e-6)
    assert 0 < len(touched) < logp.size

    def never(*_, **__):
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(confidence, "log_likelihoods", never)
    turned = data.select([2, 1, 0])
    again = confidence.of_answers(*asked, turned, texts[::-1], tmp_path / "confidence")
    assert again == sure[::-1], "found by prompt and answer, whatever the order of the rows"
    with pytest.raises(AssertionError, match="asked again"):
        confidence.of_answers(*asked, data, texts[::-1], tmp_path / "confidence")

"""The baselines: their published figures, folds without a leak, sentences for a bad rules.yaml."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from helpers import ROOT, CourseError
from helpers.core import rows
from helpers.core.pilot import Pilot
from helpers.core.text import same_message, words_are_spaced
from helpers.measure import baselines, scoring


def recorded(chapter):
    result = json.loads((ROOT / f"data/reference/results/{chapter}.json").read_text())
    return {figure["name"]: figure["value"] for figure in result["figures"]}


@pytest.mark.parametrize("name", ["majority", "rules", "tf_idf"])
def test_every_baseline_has_the_published_figures(name):
    pilot = Pilot.load(ROOT / "data/inbox")
    data = rows.load(pilot)
    way = getattr(baselines, name)
    train, test = list(data.train), list(data.test)
    scored = scoring.score(pilot, test, way(pilot, train, [row["message"] for row in test]))
    figures = recorded("00")
    assert scored.exact.mean() == pytest.approx(figures[f"exact.{name}"], abs=1e-5)
    for field, right in scored.right.items():
        figure = f"{field}.{pilot.fields[field].type}.{name}"
        assert right.mean() == pytest.approx(figures[figure], abs=1e-5)
    records = baselines.out_of_fold(pilot, train, way, baselines.folds(pilot, train, 5, 0))
    crossed = scoring.score(pilot, train, records).exact.mean()
    assert crossed == pytest.approx(recorded("02")[f"exact.{name}.cv"], abs=1e-5)


def test_rules_repeat_in_a_fresh_process():
    """Spans of equal length were once tried in set order, which differs between processes."""
    pilot = Pilot.load(ROOT / "data/inbox").model_copy(
        update={"text": "message", "folder": ROOT / "data/inbox"}
    )
    train = [dict.fromkeys(pilot.fields) | {"product": word} for word in "edcba"]
    assert baselines.rules(pilot, train, ["abcde"])[0]["product"] == "a"
    code = (
        "from helpers.measure.baselines import _spans_seen as seen;"
        "print(seen([{'f': 'word' + letter} for letter in 'edcbafgh'], 'f'))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": number},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in ("1", "2")
    }
    assert len(printed) == 1


def test_no_row_is_answered_by_a_way_that_saw_its_text(folder):
    pilot = Pilot.load(folder)
    train = list(rows.load(pilot).train)
    train += [
        {**row, "id": f"{row['id']}b", "message": row["message"].upper()} for row in train[:4]
    ]
    fold, asked = baselines.folds(pilot, train, 5), []

    def way(pilot, fit, texts):
        seen = {same_message(row["message"]) for row in fit}
        asked.extend(texts)
        return [{"leak": same_message(text) in seen, "text": text} for text in texts]

    records = baselines.out_of_fold(pilot, train, way, fold)
    assert not any(r["leak"] for r in records) and len(asked) == len(train) and len(set(fold)) == 5
    assert [r["text"] for r in records] == [row["message"] for row in train]
    with pytest.raises(CourseError, match="same text"):
        baselines.folds(pilot, train[:1] * 3)


def test_messages_that_differ_in_a_mark_are_different_messages(folder):
    pilot = Pilot.load(folder)
    first = dict(rows.load(pilot).train[0])
    pair = [{**first, "message": "C# help"}, {**first, "message": "C++ help"}]
    assert len(set(baselines.folds(pilot, pair, 2))) == 2


def test_a_field_with_one_class_in_training_keeps_it(folder):
    pilot = Pilot.load(folder)
    train = [row for row in rows.load(pilot).train if row["intent"] == "quote"]
    assert baselines.tf_idf(pilot, train, ["an order"])[0]["intent"] == "quote"
    text = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(text.replace(",order,", ",quote,"))
    with pytest.raises(CourseError, match="only one class for intent"):
        rows.load(pilot)


def test_no_baseline_needs_a_label_field(folder):
    pilot = Pilot.load(folder)
    plain = pilot.model_copy(
        update={"fields": {k: v for k, v in pilot.fields.items() if v.type != "label"}}
    )
    train = list(rows.load(pilot).train)
    for way in (baselines.majority, baselines.rules, baselines.tf_idf):
        assert set(way(plain, train, ["hello"])[0]) == set(plain.fields)
    assert len(np.unique(baselines.folds(plain, train))) == 5


@pytest.mark.parametrize(
    "text, words",
    [
        ("intent: {order: [pump", "not valid YAML"),
        ("- a\n", "needs 'field:'"),
        ("intnt: {order: [a]}", "did you mean 'intent'"),
        ("intent: {ordr: [a]}", "did you mean 'order'"),
        ("intent: {order: a}", "must be a list"),
        ("intent: {order: ['(']}", "does not compile"),
    ],
)
def test_bad_rules_are_one_sentence(folder, text, words):
    (folder / "rules.yaml").write_text(text)
    with pytest.raises(CourseError, match=words) as found:
        baselines.keywords(Pilot.load(folder))
    assert "\n" not in str(found.value)


def test_texts_without_gaps_are_read_by_characters(folder):
    pilot = Pilot.load(folder)
    japanese = [
        "注文番号PO-1234の件、納期を教えてください。",
        "経理の担当者はどなたですか。請求書4711について。",
    ]
    assert not words_are_spaced(pilot.language, japanese), (
        "the texts decide, whatever pilot.yaml says"
    )
    assert not words_are_spaced("ja-JP", ["hello there"])
    spaced = ["Where is pump number 3?", "한국어 문장은 띄어쓰기가 있습니다"]
    assert words_are_spaced("en", spaced) and words_are_spaced("en", ["ok"])

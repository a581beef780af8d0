"""The Japanese pilot: its rows, its cheap ways, records that can be written, figures as recorded."""

import json
import re
from collections import Counter

import pytest
from conftest import ROOT

from benchmarks import japanese
from helpers.agree.bar import Bar
from helpers.agree.wish import Wish
from helpers.ask import answers
from helpers.core import plots, rows, runtime
from helpers.core.pilot import Pilot
from helpers.keep import filters, pipeline
from helpers.make import phrase_book
from helpers.measure import baselines, intervals, scoring
from helpers.tune import examples, students

FOLDER = ROOT / "data/inbox_ja"
FIGURES = ROOT / "data/reference/results/everywhere.json"


@pytest.fixture(scope="module")
def pilot():
    return Pilot.load(FOLDER)


@pytest.fixture(scope="module")
def data(pilot):
    return rows.load(pilot, runtime.PROFILES["cpu"])


def test_every_row_is_there_and_every_value_can_be_learnt(pilot, data):
    assert [len(data.train), len(data.test), len(data.ood)] == [60, 100, 20]
    assert not any("left out" in note or "replaced" in note for note in data.notes)
    for name in pilot.labels:
        for split, fewest in ((data.train, 8), (data.test, 13)):
            counts = Counter(split[name])
            assert set(counts) == set(pilot.fields[name].values) and min(counts.values()) >= fewest
    tags = {tag for row in data.test for tag in row["tags"].split(";")}
    assert {"urgency_trap", "unrelated_order", "half_width", "full_width", "typos"} <= tags


def test_no_near_copies(pilot, data):
    def pieces(text):
        return {text[start : start + 3] for start in range(len(text) - 2)}

    texts = [*data.train[pilot.text], *data.test[pilot.text]]
    sets = [pieces(text) for text in texts]
    for place, one in enumerate(sets):
        for other in sets[:place]:
            assert len(one & other) / len(one | other) < 0.25


def test_every_record_can_be_written(pilot, data, tokenizer):
    """By the embedded model's tokenizer, which needs several tokens for one character."""
    for split in (data.train, data.test):
        for row in split:
            assert answers.accepts(pilot, tokenizer, row[pilot.text], pilot.answer(row)), row
    text = data.test[0][pilot.text]
    wrong = pilot.answer(data.test[0] | {"商品": "ここにない品"})
    assert not answers.accepts(pilot, tokenizer, text, wrong)


def test_no_answer_is_cut_off(pilot, data, tokenizer):
    """A record takes twice as many tokens as in English: 64 are not enough for a student."""
    train = list(data.train)
    job = students.StudentJob("ja", train, 0, 1, {"test": data.test})
    longest = max(len(tokenizer(pilot.answer(row)).input_ids) for row in data.test)
    assert longest > students.SETTINGS["max_new_tokens"]
    assert students._room_for_an_answer(pilot, tokenizer, job) > longest
    _, notes = examples.training_rows(pilot, train, tokenizer, 256)
    assert not notes, "no message is cut, even in the smallest profile"


def test_the_phrase_book_writes_japanese(pilot, data):
    book = phrase_book.read_phrase_book(pilot)
    for row in phrase_book.compose(pilot, list(data.train), 60, book):
        text = row[pilot.text]
        assert not re.search("[{}]|[。？！] ", text), "no slot left, no space between sentences"
        for name, spec in pilot.fields.items():
            assert rows.wrong_value(name, spec, row[name], text) is None


def test_a_bar_in_yen(pilot):
    wish = Wish.load(pilot)
    assert wish.costs.currency == "JPY" and wish.costs.of("緊急度.missed.急ぎ") > 5000
    here = runtime.PROFILES["smoke"]
    terms = wish.for_bar(pilot, "rules", 100)
    assert "10 points over rules on 100 rows" in str(Bar.freeze(pilot, here, **terms))


def pilot_row(text):
    record = {"用件": "請求", "緊急度": "通常", "商品": None, "注文番号": "KS-7777"}
    return {"id": "phone", "本文": text, "tags": ""} | record


def test_the_filters_know_right_rows_from_copies(pilot, data):
    """Right rows in Japanese are kept by all that look at the text; a test row in disguise is not."""
    right = [dict(row) for row in data.train]
    copied = dict(data.test[30]) | {"id": "copy"}
    copied[pilot.text] = "お世話になります。" + copied[pilot.text] + "よろしくお願いします。"
    phone = pilot_row("控えを失くしました。KS-7777の請求書を再送願います。電話は03-3123-4567です。")
    funnel = pipeline.curate(
        pilot, [*right, copied, phone], filters.standard(pilot, data.train, data.test, data.ood)
    )
    why = {row["id"]: row["rejected_by"] for row in funnel.rejected}
    assert why.pop("copy") == "decontaminate"
    assert set(why.values()) <= {"agreement", "near"}, "word counts disagree with some labels"
    texts = [row[pilot.text] for row in funnel.kept]
    assert len(texts) >= 54 and not any("3123-4567" in text for text in texts)
    assert any("控えを失くしました" in text for text in texts), "masked, not lost"


def test_figures_are_those_of_these_rows(pilot, data):
    """The recorded figures of the cheap ways come out again; those of a student are whole."""
    figures = {f["name"]: f for f in json.loads(FIGURES.read_text(encoding="utf-8"))["figures"]}
    for name, way in (("rules", baselines.rules), ("tf_idf", baselines.tf_idf)):
        records = way(pilot, list(data.train), data.test[pilot.text][:])
        right = japanese.of_score(scoring.score(pilot, data.test, records))
        for figure in japanese.figures_of(name, right, "again"):
            assert figures[figure["name"]]["value"] == pytest.approx(figure["value"]), figure
    for base in japanese.BASES:
        if f"japanese.exact.tuned_{base}" not in figures:
            continue  # this base has not been measured yet
        exact = figures[f"japanese.exact.tuned_{base}"]
        fields = [f"japanese.{field}.tuned_{base}" for field in japanese.NAMES.values()]
        assert exact["n"] == 100 and exact["low"] <= exact["value"] <= exact["high"]
        assert exact["value"] <= min(figures[field]["value"] for field in fields)


def test_pictures_have_the_letters(tmp_path, recwarn):
    """Where a font with Japanese letters is installed, no picture shows boxes."""
    if len(plots._fonts()) == 1:
        pytest.skip("no font here has Japanese letters")
    figure = plots.shares({"緊急度": intervals.share([True, False])}, "商品")
    figure.savefig(tmp_path / "picture.png")
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_the_readme_says_what_was_measured_of_a_larger_base_that_reads():
    content = json.loads((ROOT / "data/reference/results/robust.json").read_text("utf-8"))
    value = {figure["name"]: figure["value"] for figure in content["figures"]}
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    vectors, counted = (value[f"labels.request.{way}"] for way in ("embeddings", "tf_idf"))
    assert f"it finds {100 * vectors:.0f} % of the requests" in readme
    assert f"counted characters {100 * counted:.0f} %" in readme and vectors > counted + 0.1

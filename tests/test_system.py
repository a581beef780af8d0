"""The system of ways: what each is worth, whole labels of a model, rows read out of their fold."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers import ROOT
from helpers.ask import answers, likelihood
from helpers.core import rows
from helpers.core.pilot import Pilot
from helpers.measure import baselines, system

CLASSES = 3


def _table(truth, right, sure, seed=0):
    """Probabilities of a way that gives the right class to a share of rows."""
    chance = np.random.default_rng(seed)
    other = (truth + chance.integers(1, CLASSES, len(truth))) % CLASSES
    said = np.where(chance.random(len(truth)) < right, truth, other)
    table = np.full((len(truth), CLASSES), (1 - sure) / (CLASSES - 1))
    table[np.arange(len(truth)), said] = sure
    return table


def _share(table, truth):
    return (table.argmax(axis=1) == truth).mean()


def test_a_way_gets_the_weight_it_proves():
    truth = np.random.default_rng(1).integers(0, CLASSES, 600)
    tables = {
        "good": _table(truth, 0.95, 0.9, 2),
        "chance": _table(truth, 1 / 3, 0.9, 3),
        "boasting": _table(truth, 0.6, 0.999, 4),
    }
    weights = system.pool_weights(tables, truth)
    assert weights["good"] > 0.5
    assert weights.get("chance", 0) < 0.1 * weights["good"]
    assert weights.get("boasting", 0) < 0.5 * weights["good"], "sure and wrong: trusted little"
    pool = system.pooled({way: tables[way] for way in weights}, weights)
    assert np.allclose(pool.sum(axis=1), 1)
    assert _share(pool, truth) >= _share(tables["good"], truth)


def test_ways_that_err_on_other_rows_are_better_together():
    truth = np.random.default_rng(5).integers(0, CLASSES, 600)
    tables = {str(seed): _table(truth, 0.8, 0.7, seed) for seed in (6, 7, 8)}
    learnt = {way: table[:300] for way, table in tables.items()}
    weights = system.pool_weights(learnt, truth[:300])
    new = {way: table[300:] for way, table in tables.items()}
    best = max(_share(table, truth[300:]) for table in new.values())
    assert _share(system.pooled(new, weights), truth[300:]) > best + 0.05


def test_no_way_rules_a_label_out_alone():
    sure = np.array([[1.0, 0.0, 0.0]])
    other = np.array([[0.0, 0.5, 0.5]])
    pool = system.pooled({"a": sure, "b": other}, {"a": 1.0, "b": 1.0})
    assert np.isfinite(pool).all() and pool.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["inbox", "inbox_ja"])
def test_the_rules_are_sure_of_the_labels_that_they_give(name):
    # rules.yaml lists labels in an order of its own
    pilot = Pilot.load(ROOT / "data" / name)
    train = list(rows.load(pilot).train)
    texts = [row[pilot.text] for row in train]
    said = baselines.rules(pilot, train, texts)
    tests = baselines.keywords(pilot)
    tables = baselines.label_probabilities(pilot, train, texts, "rules")
    for field, table in tables.items():
        classes, same, hit = baselines.label_classes(pilot, field), 0, 0
        for text, record, shares in zip(texts, said, table):
            if any(test.search(text) for test in tests[field].values()):
                hit += 1
                same += classes[int(shares.argmax())] == record[field]
        assert hit > 10 and same >= 0.9 * hit, field


def _readings(pilot, train, fold):
    readings = {}
    for way in ("rules", "TF-IDF"):

        def read(learnt, asked, way=way):
            return system.cheap_reading(pilot, learnt, asked, way)

        readings[way] = system.out_of_fold_reading(pilot, train, fold, read)
    return readings


def test_each_field_by_the_ways_that_read_it(folder):
    pilot = Pilot.load(folder)
    train = list(rows.load(pilot).train)
    fold = baselines.folds(pilot, train, 3)
    readings = _readings(pilot, train, fold)
    spoilt = [dict(record, product="none of these") for record in readings["rules"].records]
    readings["rules"] = system.Reading(spoilt, readings["rules"].probabilities)
    chosen = system.choose_system(pilot, train, readings)
    assert chosen.weights["product"] == {"TF-IDF": 1.0}
    assert list(chosen.weights["order_id"].values()) == [1.0]
    records = chosen.records(readings)
    assert all(list(record) == list(pilot.fields) for record in records)
    assert sum(a["product"] == b["product"] for a, b in zip(records, train)) == len(train)


def test_a_row_is_read_by_what_learned_from_the_others(folder):
    pilot = Pilot.load(folder)
    train = list(rows.load(pilot).train)
    fold, asked_of = baselines.folds(pilot, train, 3), {}

    def read(learnt, asked):
        for text in asked:
            asked_of[text] = {row[pilot.text] for row in learnt}
        return system.cheap_reading(pilot, learnt, asked, "majority")

    reading = system.out_of_fold_reading(pilot, train, fold, read)
    assert len(asked_of) == len(train) == len(reading.records)
    assert all(text not in learnt for text, learnt in asked_of.items())
    assert np.allclose(reading.probabilities["intent"].sum(axis=1), 1)


def test_whole_labels_are_as_likely_as_read_one_by_one(tiny, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    prompts = ["one short\n", "a longer prompt about 東京\n", "x\n"]
    choices = [['"late", ', '"later", ', '"不明", '], ["a}", "b c d}", "<|im_end|>}"], ["1", "22"]]
    read = likelihood.choice_log_likelihoods(model, tokenizer, prompts, choices, 4)
    for prompt, texts, logs in zip(prompts, choices, read):
        pairs = likelihood.log_likelihoods(model, tokenizer, [prompt] * len(texts), texts)
        assert logs == pytest.approx([log_p.sum() for log_p, _ in pairs], abs=1e-4)


def test_a_models_labels_are_kept_and_follow_its_own_answer(folder, tiny, tokenizer, tmp_path):
    text = (folder / "pilot.yaml").read_text()
    text = text.replace(
        "order_id:", "mood: {type: label, values: [bad, good], optional: true}\n  order_id:"
    )
    (folder / "pilot.yaml").write_text(text)
    for split in ("train", "test"):
        path = folder / f"{split}.csv"
        lines = path.read_text().splitlines()
        path.write_text(
            "\n".join(
                [
                    lines[0] + ",mood",
                    *(line + (",good" if i % 2 else ",") for i, line in enumerate(lines[1:])),
                ]
            )
        )
    pilot = Pilot.load(folder)
    data = list(rows.load(pilot).test)[:3]
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    told = [pilot.answer({**data[0], "intent": "quote", "mood": None}) for _ in data]
    asked = (model, tokenizer, pilot, data, told, tmp_path / "labels")
    reading = system.model_reading(*asked)
    ask = answers.prompt(pilot, tokenizer, data[1][pilot.text], full=False, max_length=512)
    start = told[1][: told[1].index('"mood"')] + '"mood": '
    texts = [start + value + ", " for value in ('"bad"', '"good"', "null")]
    pairs = likelihood.log_likelihoods(model, tokenizer, [ask] * 3, texts)
    shares = np.exp([log_p.sum() for log_p, _ in pairs])
    assert reading.probabilities["mood"][1] == pytest.approx(shares / shares.sum(), abs=1e-4)
    for field in pilot.labels:
        classes = baselines.label_classes(pilot, field)
        for record, table in zip(reading.records, reading.probabilities[field]):
            assert record[field] == classes[int(table.argmax())]
    assert reading.records[0]["product"] == data[0]["product"], "what was copied stays"
    lines = (tmp_path.glob("labels-*.jsonl").__next__()).read_text().count("\n")
    again = system.model_reading(*asked)
    assert again.records == reading.records
    assert next(tmp_path.glob("labels-*.jsonl")).read_text().count("\n") == lines

"""Study 09 on stand-ins: what is combined and served, one part after the other, and its figures."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from helpers.core import rows, runtime
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.studies import serving_study, shipping_study, two_adapters_study

RECORDED = ROOT / "data/reference/inbox"


@pytest.mark.slow
def test_adapters_are_added_and_each_alone_is_what_it_was(embedded):
    """`cat` is the sum of both changes; `linear` adds A and B apart, which is another matrix."""
    run = Run(Pilot.load(ROOT / "data/inbox"), "studies/09", runtime.detect("smoke"))
    inbox, desk = RECORDED / "05/adapter", RECORDED / "06/player"
    name = "model.layers.3.mlp.up_proj.weight"
    base = load_file(f"{embedded.path}/model.safetensors")[name].float()
    change = {}
    for way in ("inbox", "desk", "cat", "linear"):
        model = two_adapters_study.combined(inbox, desk, way, run)
        change[way] = dict(model.named_parameters())[name].detach().float() - base
    both = change["inbox"] + change["desk"]
    assert (change["cat"] - both).norm() < 0.2 * both.norm()
    assert (change["linear"] - both).norm() > 0.3 * both.norm()


@contextmanager
def knowing(right: dict[str, str]):
    """A stand-in for a server: it knows the right answer to each message."""

    class Engine:
        def answer(self, requests):
            (request,) = requests
            return [{"text": right[request["messages"][-1]["content"]], "tokens_out": 20}]

    yield Engine()


def test_every_way_of_serving_answers_the_same_rows(folder, tmp_path, monkeypatch):
    pilot = Pilot.load(folder)
    data = rows.load(pilot)
    run = Run(pilot, "studies/09", runtime.detect("smoke"))
    right = {}
    for row in [*data.train, *data.test]:
        right[pilot.chat(row[pilot.text], full=False)[-1]["content"]] = pilot.answer(row)
    wrong = {**right, next(iter(right)): "{}"}
    wrong[pilot.chat(data.test[0][pilot.text], full=False)[-1]["content"]] = "{}"

    def served(way, *_):
        return knowing(wrong if way == "merged 4 bits" else right)

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(Run, "need", lambda *_: adapter)
    monkeypatch.setattr(serving_study, "served", served)
    monkeypatch.setattr(serving_study, "size_of", lambda *_: 7)
    monkeypatch.setattr(serving_study, "MINUTE", 0.05)
    texts = [pilot.answer(row) for row in data.test]
    own = {"right": [True] * len(texts), "texts": texts, "one_by_one": 2.0, "bytes": 9}
    monkeypatch.setattr(serving_study, "_transformers", lambda *_: own)
    cells = serving_study.measure_served(pilot, data, run, lambda said: None)
    assert [cell["arm"] for cell in cells] == ["transformers", *serving_study.SERVED]
    by_arm = {cell["arm"]: cell for cell in cells}
    assert all(by_arm["adapter"]["right"]) and np.mean(by_arm["merged 4 bits"]["right"]) < 1
    assert (
        set(by_arm["merged 8 bits"]["loads"]) == {"1", "4", "16"}
        and not by_arm["merged 4 bits"]["loads"]
    )
    monkeypatch.setattr(serving_study, "served", None)
    assert serving_study.measure_served(pilot, data, run, lambda said: None) == cells
    told = {figure.name: figure.value for figure in serving_study.served_figures(cells)}
    assert told["served.adapter.exact_difference"].difference == 0
    assert told["served.merged_4_bits.exact_difference"].only_b == 1
    many = by_arm["merged 8 bits"]["loads"]["16"]["per_second"]
    assert told["served.merged_8_bits.clients_16.speedup"] == many / 2.0
    assert told["served.adapter.speedup"] == by_arm["adapter"]["one_by_one"] / 2.0


def test_a_part_that_is_finished_is_not_measured_again(folder, monkeypatch):
    pilot = Pilot.load(folder)
    run = Run(pilot, "studies/09", runtime.detect("smoke"))
    asked = []
    for module in ("delta_study", "two_adapters_study", "serving_study"):
        for name in vars(getattr(shipping_study, module)):
            if name.startswith("measure_"):

                def make(*_, name=name):
                    asked.append(name)
                    return [{"arm": name}]

                monkeypatch.setattr(getattr(shipping_study, module), name, make)
    monkeypatch.setattr(shipping_study, "_keep_files", lambda *_: None)
    for _ in range(2):
        cells = shipping_study.ship_all(pilot, None, run)
        assert [cell["part"] for cell in cells] == list(shipping_study.PARTS)
    assert len(asked) == len(set(asked)) == len(shipping_study.PARTS)


def test_a_load_without_a_wrong_answer_says_how_many_there_may_be():
    cell = {"mended": True, "clients": 16, "seconds": 60.0, "requests": 300, "failed": {"x": 2}}
    cell |= {
        "telling": 300,
        "wrong_adapter": 0,
        "different": 4,
        "p50": 1.0,
        "p95": 2.0,
        "per_second": 5.0,
    }
    told = {figure.name: figure for figure in shipping_study._load_figures(cell)}
    assert told["load.mended.16.failed"].value == 2
    assert 0.009 < told["load.mended.16.wrong_adapter_at_most"].value < 0.011
    wrong = {f.name for f in shipping_study._load_figures({**cell, "wrong_adapter": 3})}
    assert "load.mended.16.wrong_adapter_at_most" not in wrong


def test_the_page_names_what_the_study_has():
    result = json.loads((ROOT / "data/reference/results/09_study.json").read_text())
    names = {figure["name"] for figure in result["figures"]}
    assert {"delta.mixed.bytes", "delta.1_bit_distilled.exact", "two.cat.desk"} <= names
    assert (
        len([name for name in names if name.startswith("delta.") and name.endswith(".bytes")]) > 7
    )
    assert torch.is_tensor(load_file(RECORDED / "09/matrix.safetensors")["delta"])

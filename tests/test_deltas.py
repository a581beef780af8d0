"""Deltas: what each way keeps of a matrix, files that know their base, and the study's first part."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from helpers import CourseError
from helpers.core import rows, runtime
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.ship import delta_files, deltas
from helpers.ship.delta_files import apply_delta, read_delta, write_delta
from helpers.ship.deltas import Dropped, LowRank, Mixed, Rounded, Signs, Ternary, Whole, delta_of
from helpers.ship.distil import distilled_signs
from helpers.studies import delta_study

WAYS = (
    Whole(),
    LowRank(4),
    Signs(),
    Rounded(4),
    Mixed(((2, 8), (6, 4), (20, 2))),
    Dropped(0.9),
    Ternary(0.1),
)


def kept(way, matrix: torch.Tensor) -> torch.Tensor:
    return way.unpack(way.pack(matrix), tuple(matrix.shape))


def error(way, matrix: torch.Tensor) -> float:
    return float((kept(way, matrix) - matrix).norm() / matrix.norm())


@pytest.fixture
def spectrum():
    """A matrix of 64 x 96 whose singular values fall like 1 / k."""
    torch.manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(64, 64))
    right, _ = torch.linalg.qr(torch.randn(96, 64))
    return left @ torch.diag(1 / torch.arange(1.0, 65)) @ right.T


def test_a_matrix_that_fits_a_way_comes_back(spectrum):
    thin = torch.randn(64, 4) @ torch.randn(4, 96)
    assert error(LowRank(4), thin) < 0.01 and error(LowRank(3), thin) > 0.1
    signs = torch.where(spectrum > 0, 0.25, -0.25)
    assert error(Signs(), signs) == 0
    few = torch.zeros(64, 96)
    few[3, 5], few[60, 95], few[0, 0] = 2.0, -2.0, 2.0
    assert error(Ternary(3 / 6144), few) == 0 and error(Ternary(1 / 6144), few) < 0.9
    assert error(Whole(), spectrum) < 0.004


def test_more_bytes_keep_more(spectrum):
    assert error(LowRank(16), spectrum) < error(LowRank(4), spectrum) < error(LowRank(1), spectrum)
    assert error(Rounded(8), spectrum) < 0.02 < error(Rounded(4), spectrum) < 0.15
    assert 0.2 < error(Rounded(2), spectrum) < error(Signs(), spectrum)
    best = error(LowRank(28), spectrum)
    mixed = Mixed(((2, 8), (6, 4), (20, 2)))
    assert best < error(mixed, spectrum) < error(LowRank(8), spectrum)
    sizes = {name: part.numel() for name, part in mixed.pack(spectrum).items()}
    assert sizes["left0"] == 2 * 64 and sizes["right1"] == 6 * 96 // 2
    assert sizes["right2"] == 20 * 96 // 4


def test_dropping_keeps_the_mean(spectrum):
    drawn = torch.stack([kept(Dropped(0.75, seed), spectrum) for seed in range(400)])
    assert (drawn == 0).float().mean() == pytest.approx(0.75, abs=0.01)
    away = (drawn.mean(0) - spectrum) / (spectrum.abs() * (3 / 400) ** 0.5)
    assert away.abs().median() < 1 and away.mean().abs() < 0.1


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_a_file_gives_back_what_a_way_keeps(way, spectrum, tmp_path):
    delta = {"a.q_proj.weight": spectrum, "norm.weight": torch.ones(64)}
    delta["model.embed_tokens.weight"] = torch.randn(30, 64)
    size = write_delta(tmp_path / "new/d.safetensors", delta, way, "0" * 64, False)
    back = read_delta(tmp_path / "new/d.safetensors", "0" * 64)
    assert torch.equal(back["a.q_proj.weight"], kept(way, spectrum))
    assert torch.equal(back["norm.weight"], torch.ones(64))
    assert set(back) == {"a.q_proj.weight", "norm.weight"}
    larger = write_delta(tmp_path / "new/d.safetensors", delta, way, "0" * 64, True)
    assert larger >= size + 2 * 30 * 64 - 8
    assert read_delta(tmp_path / "new/d.safetensors", "0" * 64).keys() == delta.keys()


def test_a_file_of_another_base_and_half_a_file_are_refused(spectrum, tmp_path, monkeypatch):
    path = tmp_path / "d.safetensors"
    write_delta(path, {"a": spectrum}, Signs(), "a" * 64, False)
    with pytest.raises(CourseError, match="belongs to a base with the hash aaaaaaaaaaaa, not bbbb"):
        read_delta(path, "b" * 64)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(delta_files, "save_file", full)
    with pytest.raises(CourseError, match="could not be written"):
        write_delta(path, {"a": spectrum}, Whole(), "a" * 64, False)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    path.write_bytes(before[:-7])
    with pytest.raises(CourseError, match="no delta that can be read"):
        read_delta(path, "a" * 64)
    with pytest.raises(CourseError, match="no delta that can be read"):
        read_delta(tmp_path / "missing.safetensors", "a" * 64)


def test_only_a_model_and_its_base_are_compared(spectrum):
    with pytest.raises(CourseError, match="Only one of the two models has b"):
        delta_of({"a": spectrum}, {"a": spectrum, "b": spectrum})
    with pytest.raises(CourseError, match="a has another shape"):
        delta_of({"a": spectrum}, {"a": spectrum.T})


@pytest.fixture(scope="module")
def two(tiny):
    """(a tiny base in float32, the same with every weight moved a little)."""
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    tuned = copy.deepcopy(base)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in tuned.parameters():
            weight += 0.02 * torch.randn_like(weight)
    return base, tuned


def test_a_whole_delta_gives_the_tuned_model(two):
    base, tuned = two
    delta = delta_of(dict(base.named_parameters()), dict(tuned.named_parameters()))
    model = copy.deepcopy(base)
    apply_delta(model, delta)
    for one, other in zip(model.parameters(), tuned.parameters()):
        assert torch.allclose(one, other, atol=1e-6)


def test_distilled_scales_come_nearer_to_the_tuned_model(two):
    base, tuned = two[0], copy.deepcopy(two[0])
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "mlp" in name:  # a change in one direction: its signs alone overshoot
                weight += 0.1 * torch.randn(len(weight), 1) @ torch.randn(1, weight.shape[1]) ** 3
    delta = delta_of(dict(base.named_parameters()), dict(tuned.named_parameters()))
    packs = np.random.default_rng(0).integers(5, 3000, (60, 24)).tolist()
    said: list[str] = []
    better = distilled_signs(base, tuned, delta, packs, said.append)

    def away(of):
        model = copy.deepcopy(base)
        apply_delta(model, of)
        ids = torch.tensor(packs[:10])
        with torch.inference_mode():
            return float((model(ids).logits - tuned(ids).logits).square().mean())

    signs = {}
    for name, change in delta.items():
        signs[name] = kept(Signs(), change) if deltas.is_matrix(name, change) else change
    assert away(better) < 0.95 * away(signs) and len(said) == 3
    name = "model.layers.0.mlp.up_proj.weight"
    assert len(better[name].abs().unique()) == 1 and not torch.equal(better[name], signs[name])
    assert torch.equal(better["model.norm.weight"], delta["model.norm.weight"])


def test_every_way_of_the_study_is_measured_once(folder, tiny, two, tmp_path, monkeypatch):
    path = folder / "pilot.yaml"
    path.write_text(path.read_text() + f"base_model: {json.dumps(str(tiny))}\n")
    pilot = Pilot.load(folder)
    run = Run(pilot, "studies/09", runtime.detect())
    base, tuned = two
    place = tmp_path / "full"
    place.mkdir()
    save_file(dict(tuned.named_parameters()), place / "model.safetensors")
    adapter = tmp_path / "adapter"
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=3, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(copy.deepcopy(base), config).save_pretrained(adapter)
    monkeypatch.setattr(delta_study, "full_tuned", lambda *_: place)
    monkeypatch.setattr(delta_study, "recipe_rows", lambda pilot, data, run: list(data.train))
    monkeypatch.setattr(Run, "need", lambda *_: adapter)
    monkeypatch.setattr(delta_study, "STEPS", 2)
    ways = {name: delta_study.PACKED[name] for name in ("whole", "1 bit", "dare 90")}
    monkeypatch.setattr(delta_study, "PACKED", ways | {"svd 4": (LowRank(4), False)})
    data = rows.load(pilot)
    data = replace(data, test=data.test.select(range(3)))
    said: list[str] = []
    cells = delta_study.measure_deltas(pilot, data, run, said.append)
    arms = ["base", "lora trained", *delta_study.PACKED, "1 bit, distilled", *delta_study.SQUEEZED]
    assert [cell["arm"] for cell in cells] == arms and len(said) == len(arms)
    by_arm = {cell["arm"]: cell for cell in cells}
    assert by_arm["1 bit"]["bytes"] < by_arm["dare 90"]["bytes"] < by_arm["whole"]["bytes"]
    assert by_arm["lora ternary 5"]["bytes"] < by_arm["lora trained"]["bytes"]
    assert by_arm["whole"]["error"] < 0.01 < by_arm["1 bit"]["error"] < 1
    assert len(by_arm["svd 4"]["right"]["general"]) == 40

    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(delta_study, "read_and_counted", never)
    assert delta_study.measure_deltas(pilot, data, run, said.append) == cells
    figures = {figure.name: figure for figure in delta_study.delta_figures(cells)}
    assert figures["delta.whole.exact_difference"].value.difference == 0
    assert figures["delta.1_bit.bytes"].value == by_arm["1 bit"]["bytes"]


def test_the_ways_are_all_that_there_are():
    assert set(deltas.WAYS.values()) == {type(way) for way in WAYS}
    used = [way for way, _ in delta_study.PACKED.values()] + [*delta_study.SQUEEZED.values()]
    assert {type(way) for way in used} == set(deltas.WAYS.values())

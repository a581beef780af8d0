"""Chapter 09: on a pilot of one's own; what its page says agrees with the study's files."""

import json

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from test_notebooks import label_pilot

from helpers import course
from helpers.choose import models
from helpers.ship import records
from helpers.ship.delta_files import read_delta

RECORDED = ROOT / "data/reference/inbox/09"


@pytest.mark.slow
def test_chapter_09_on_a_pilot_of_ones_own(tmp_path, tiny, capsys):
    """One label, a base of random weights without a GGUF file: what cannot be served is said."""
    place = label_pilot(tmp_path, tiny)
    for number in ("00", "05", "09"):
        assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", number]) == 0, (
            capsys.readouterr().err
        )
    folder = tmp_path / "runs/mine/smoke/09"
    result = json.loads((folder / "results.json").read_text())
    figures = {f["name"]: f["value"] for f in result["figures"]}
    assert figures["rollback.same_answers"] == 1 and figures["switch.peft_seconds"] > 0
    assert figures["adapter.small_bytes"] < figures["adapter.bytes"] / 2
    assert not [name for name in figures if name.startswith(("served", "load", "delta.live"))]
    notebook = nbformat.read(folder / "09_ship_the_difference.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = " ".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "no GGUF file, so llama.cpp cannot serve it" in printed
    assert "is not as it was pushed" in printed and "pickled weights run code" in printed
    assert (folder / "registry/promotions.json").is_file()


def test_the_small_delta_is_of_the_embedded_model_and_of_the_size_that_is_told():
    file = RECORDED / "dare_99.safetensors"
    delta = read_delta(file, records.weights_hash(models.resolve()))
    result = json.loads((ROOT / "data/reference/results/09_study.json").read_text())
    told = {figure["name"]: figure["value"] for figure in result["figures"]}
    assert file.stat().st_size == pytest.approx(told["delta.dare_99.bytes"], rel=0.001)
    kept = [
        float((change != 0).float().mean()) for name, change in delta.items() if change.ndim > 1
    ]
    assert len(kept) == 210 and np.mean(kept) == pytest.approx(0.01, rel=0.01)
    # the matrix that the page takes apart is the one whose hundredth is in that file
    matrix = load_file(RECORDED / "matrix.safetensors")["delta"].float()
    name = "model.layers.15.self_attn.o_proj.weight"
    left = delta[name][delta[name] != 0]
    assert torch.allclose(left, 100 * matrix[delta[name] != 0], rtol=0.02, atol=1e-4)

"""Chapter 05 on a pilot of one's own, with the course's study beside it."""

import json

import nbformat
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from test_notebooks import label_pilot

from helpers import course


def test_rows_are_never_fewer_than_none():
    notebook = nbformat.read(ROOT / "notebooks/05_qlora.ipynb", as_version=4)
    [cell] = [one for one in notebook.cells if one.id == "c05-148"]
    counted = cell.source.splitlines()[0]
    for rows, labelled, made in ((24, 16, 0), (607, 60, 487), (40, 16, 8)):
        names = {"recipe": [{}] * rows, "labelled": [{}] * labelled}
        exec(counted, names)
        assert names["made_number"] == made


@pytest.mark.slow
def test_chapter_05_on_a_pilot_of_ones_own(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "05"]) == 0, (
        capsys.readouterr().err
    )
    folder = tmp_path / "runs/mine/smoke/05"
    result = json.loads((folder / "results.json").read_text())
    figures = {f["name"]: f["value"] for f in result["figures"]}
    assert figures["resume.weight_difference"] == 0
    assert figures["merge.same_answers"] == 1 and figures["merge.logit_difference"] < 1e-2
    assert figures["guard.adapter_moved"] > figures["guard.adapter_moved_without"]
    assert figures["end_token.end_token_trained"] > figures["end_token.end_token_masked"]
    notebook = nbformat.read(folder / "05_qlora.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = [output.get("text", "") for cell in code for output in cell.outputs]
    outputs = " ".join(" ".join(printed).split())  # a long line is folded where it happens to be
    assert "Stopped at step 3 of 4: the checkpoint of step 2 is kept" in outputs
    assert "learning_rate was 0.001 and is 0.0005" in outputs
    assert "packs of 512, 96 steps" in outputs, "the course's own study is shown"
    pictures = {path.name for path in folder.glob("*.png")}
    own = {"0_block.png", "0_lora.png", "1_training_loss.png", "2_packs.png"}
    assert pictures <= own | {"3_before_and_after.png"}, "none of the study"
    assert "curated.jsonl is made by chapter 04" in outputs
    kept = [json.loads(line) for line in (folder / "readings.jsonl").read_text().splitlines()]
    ways = {one["way"] for line in kept for one in line["entries"].values()}
    assert ways == {"tuned"}, "what chapter 08 needs is kept"
    assert not any("study" in line for line in result["settings"]["lead"])
    stored = load_file(folder / "adapter/adapter_model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.float16}

"""Chapter 05a: on a pilot of one's own, its count of padding, its exercises."""

import json

import nbformat
import pytest
from conftest import ROOT
from test_notebooks import label_pilot

from helpers import course

CELLS = [
    cell.source
    for cell in nbformat.read(ROOT / "notebooks/05a_speed.ipynb", as_version=4).cells
    if cell.cell_type == "code"
]


def cell_with(piece):
    """What a cell of the notebook defines, by name."""
    space = {}
    exec(next(source for source in CELLS if piece in source), space)  # noqa: S102 - our own cell
    return space


@pytest.mark.slow
def test_chapter_05a_on_a_pilot_of_ones_own(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "05a"]) == 0, (
        capsys.readouterr().err
    )
    folder = tmp_path / "runs/mine/smoke/05a"
    result = json.loads((folder / "results.json").read_text())
    figures = {f["name"]: f["value"] for f in result["figures"]}
    assert result["chapter"] == "05a" and figures["training.speedup"] > 0
    assert figures["training.loss_difference"] < 0.05 * 12, "of a loss above ten"
    ends = [figures[f"training.tokens_per_second.{rung}"] for rung in ("fast", "default")]
    assert figures["training.speedup"] == pytest.approx(ends[0] / ends[1], rel=1e-4)
    for rung in ("guarded", "fast"):
        assert sum(name.startswith(f"training.step.{rung}.") for name in figures) == 5
    assert 0 <= figures["padding.to_longest"] < figures["padding.to_window"] < 1
    assert {path.name for path in folder.glob("*.png")} == {"1_padding.png", "2_speed.png"}
    assert not any(name.startswith("shape.") for name in figures), "smoke stays on the processor"
    lead = result["settings"]["lead"]
    assert lead[0].startswith(f"{figures['training.speedup']:.2f} times the useful tokens")


def test_what_chapter_05a_measures_was_measured_under_these_names_before():
    stored = [ROOT / f"data/reference/results/{number}.json" for number in ("05", "05a")]
    found = [json.loads(path.read_text()) for path in stored if path.is_file()]
    measured = {figure["name"] for result in found for figure in result["figures"]}
    code = "\n".join(CELLS)
    for name in ("training.speedup", "training.loss_difference", "training.speedup.float32"):
        assert f'run.figure("{name}"' in code and name in measured
    for begin in ("training.tokens_per_second.", "training.step."):
        assert f'run.figure(f"{begin}' in code and any(n.startswith(begin) for n in measured)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 60])
def test_padding_is_counted_as_a_tokenizer_pads(rows):
    sizes = [3 + 7 * row % 11 for row in range(rows)]
    padding = cell_with("def padding")["padding"]
    for width in (None, 20):
        tokens = []  # True for a token of a row, False for padding
        for first in range(0, rows, 8):
            batch = sizes[first : first + 8]
            for size in batch:
                tokens += [True] * size + [False] * ((width or max(batch)) - size)
        assert padding(sizes, width) == pytest.approx(tokens.count(False) / len(tokens))

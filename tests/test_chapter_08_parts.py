"""Chapters 08a and 08b: found by number, on a pilot of one's own, the recorded judge, exercises."""

import json

import nbformat
import pytest
from conftest import ROOT
from test_notebooks import label_pilot

from helpers import course, readme
from helpers.choose import gguf_parts
from helpers.core import rows, runs, runtime
from helpers.core.pilot import Pilot
from helpers.measure import intervals, judging, scoring

LARGER = "qwen2.5-coder-1.5b"
CELLS = [
    cell.source
    for name in ("08a_harness", "08b_judge")
    for cell in nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells
    if cell.cell_type == "code"
]


def test_a_part_of_a_chapter_has_a_number_of_its_own_and_comes_behind_it():
    numbers = [number for number, _ in course.chapters()]
    assert numbers == sorted(set(numbers))
    at = numbers.index("08")
    assert numbers[at : at + 3] == ["08", "08a", "08b"]
    table = readme.chapters_piece(course.chapters())
    assert "[08a · " in table and "(notebooks/08b_judge.ipynb)" in table


@pytest.mark.slow
def test_chapters_08a_and_08b_on_a_pilot_of_ones_own(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    figures = {}
    for chapter in ("00", "08a", "08b"):
        options = ["--pilot", str(place), "--profile", "smoke", "--only", chapter]
        assert course.main(options) == 0, capsys.readouterr().err
        result = json.loads((tmp_path / f"runs/mine/smoke/{chapter}/results.json").read_text())
        assert result["chapter"] == chapter
        figures |= {figure["name"]: figure["value"] for figure in result["figures"]}
    assert {
        "lm_eval.acc.base",
        "lm_eval.acc.tuned",
        "lm_eval.written",
        "lm_eval.stderr.tuned",
        "lm_eval.tuned_minus_base",
        "forgetting.general",
        "forgetting.general.base",
        "judge.claimed.simulated",
    } <= set(figures)
    assert abs(figures["lm_eval.difference_to_ours"]) < 0.2
    assert figures.get("judge.refused.embedded", 1) == 1, "too few pairs to accept anybody"


def test_chapter_08b_finds_what_chapter_08_recorded_of_the_larger_model(monkeypatch):
    monkeypatch.setattr(gguf_parts, "is_fetched", lambda *_: False)
    pilot = Pilot.load(ROOT / "data/inbox")
    run = runs.Run(pilot, "08b", runtime.detect("cpu"), 0)
    test = list(rows.load(pilot).test)
    texts = [row[pilot.text] for row in test]
    tuned, few_shot = (
        scoring.score(pilot, test, run.stored_answers("00", name, texts).texts)
        for name in ("tuned", "few_shot")
    )
    pairs = judging.pairs(pilot, test, test, tuned.records, few_shot.records, 0)
    told = judging.larger_judge(LARGER, judging.pair_requests(pilot, pairs[:40]), run)
    assert told and len(told) == 80 and set(judging.read_pairs(told).ravel()) == {0}
    logs = judging.read_alone(LARGER, pilot, pairs, run)
    assert logs and len(logs) == len(pairs)
    further = pairs[40:]
    alone = judging.calibrate(
        judging.places_of(logs)[40:],
        [pair["better"] for pair in further],
        [pair["longer"] for pair in further],
    )
    assert not alone.reasons
    # the chapter says so: naming the tuned model every time would agree more often
    records = {str(row["id"]): record for row, record in zip(test, tuned.records)}
    always = [pair["records"][pair["better"]] == records[pair["id"]] for pair in further]
    assert intervals.share(always).low > alone.agrees.high

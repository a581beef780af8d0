"""Chapter 08 on a pilot of one's own: after chapter 00 it runs through, before it one sentence says what to run; its checks work."""

import json

import nbformat
import pytest
from conftest import ROOT
from test_notebooks import label_pilot

from helpers import course

CELLS = [c.source for c in nbformat.read(ROOT / "notebooks/08_good_enough.ipynb", as_version=4).cells if c.cell_type == "code"]


def test_without_chapter_00_one_sentence_says_what_to_run(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "08"]) == 1
    said = capsys.readouterr().err.strip()
    assert "answers is made by chapter 00; run that chapter once for the pilot 'mine'." in said and len(said.splitlines()) == 1


def test_chapter_08_on_a_pilot_of_ones_own(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    for chapter in ("00", "08"):
        assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", chapter]) == 0, capsys.readouterr().err
    folder = tmp_path / "runs/mine/smoke/08"
    figures = {f["name"]: f for f in json.loads((folder / "results.json").read_text())["figures"]}
    assert {"exact.tuned", "lm_eval.acc.base", "lm_eval.acc.tuned", "lm_eval.difference_to_ours", "forgetting.general",
            "judge.refused.embedded", "risk.coverage.confirmed", "escalation.by_field"} <= set(figures)
    assert abs(figures["lm_eval.difference_to_ours"]["value"]) < 0.2 and figures["judge.refused.embedded"]["value"] == 1
    assert "No bar was agreed" in (folder / "evaluation.html").read_text() and "# Model card: mine" in (folder / "model_card.md").read_text()
    assert str(tmp_path) not in (folder / "evaluation.html").read_text() + (folder / "model_card.md").read_text()


def test_the_stored_answers_of_another_seed_are_complete_and_have_the_figure_of_the_prose():
    from helpers import rows, scoring
    from helpers.pilot import Pilot
    from helpers.runs import Journal

    pilot = Pilot.load(ROOT / "data/inbox")
    test, right = rows.load(pilot).test, {}
    for name, place in (("tuned", "00"), ("seed_1", "08")):
        stored = next((ROOT / "data/reference/inbox" / place / "answers").glob(f"{name}-*.jsonl"))
        right[name] = scoring.score(pilot, test, Journal(stored).of(test)).exact
    gap = scoring.compare(right["tuned"], right["seed_1"])
    assert (right["tuned"].mean(), right["seed_1"].mean(), round(gap.p, 3)) == (0.58, 0.505, 0.028)
    prose = nbformat.read(ROOT / "notebooks/08_good_enough.ipynb", as_version=4)
    said = " ".join(" ".join(c.source.split()) for c in prose.cells if c.cell_type == "markdown")
    assert "seed 0 has 58.0 % and seed 1, with the same rows and settings, 50.5 %" in said and "(p = 0.028)" in said


@pytest.mark.parametrize("check, right, wrong", [
    ("check_share", 0.769, 0.8),
    ("check_pays", lambda a, b, c, d: a > b and d > c, lambda a, b, c, d: a > b)])
def test_the_exercises_know_right_from_wrong(check, right, wrong):
    cell = next(source for source in CELLS if f"def {check}" in source)
    space = {}
    exec(cell, space)  # noqa: S102 - the notebook's own cell
    assert "not attempted" in space[check](None)
    assert space[check](right).endswith("right.") and "not yet" in space[check](wrong)

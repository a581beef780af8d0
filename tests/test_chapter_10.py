"""Chapter 10 on someone else's pilot: no bar, all or none right, another profile's answers, and words where something is missing."""

import json
import os
from pathlib import Path

import pytest

from helpers import course, rows
from helpers.pilot import Pilot
from helpers.runs import Journal


def answered(folder, tuned_right, few_right):
    """Journals as chapter 00 leaves them: the first so many test rows right, the rest an empty record of the right form."""
    pilot = Pilot.load(folder)
    place = Path(os.environ["COURSE_RUNS"]) / "small/smoke/00/answers"
    for name, right, seconds in (("tuned-x", tuned_right, 4.0), ("few_shot-x", few_right, 3.0)):
        journal, data = Journal(place / f"{name}.jsonl"), rows.load(pilot).test
        wrong = json.dumps({"intent": "quote", "product": None, "order_id": None})
        journal.add({row["id"]: pilot.answer(row) if i < right else wrong for i, row in enumerate(data)}, seconds)
    return Path(os.environ["COURSE_RUNS"]) / "small/smoke/10"


@pytest.mark.parametrize("tuned_right, few_right, words", [
    (12, 0, "no ratio, because the dear way had no success in 12 rows"), (0, 3, "no ratio, because the cheap way had no success in 12 rows")])
def test_all_right_and_none_right_are_reported_without_a_crash(folder, capsys, tuned_right, few_right, words):
    place = answered(folder, tuned_right, few_right)
    assert course.main(["--pilot", str(folder), "--profile", "smoke", "--only", "10"]) == 0, capsys.readouterr().err
    result = json.loads((place / "results.json").read_text())
    figures = {f["name"]: f for f in result["figures"]}
    assert words in " ".join(result["settings"]["lead"]) and (place / "cost_model.xlsx").is_file()
    assert any("No bar" in note for note in result["settings"]["notes"])
    if tuned_right == 12:
        assert figures["cost_per_success.ratio"]["value"] is None and figures["pays.small"]["value"] > 0.3
    else:
        assert figures["pays.small"]["value"] < 0.5 and figures["break_even.small"]["value"] is None
    for f in figures.values():
        assert f["low"] is None or f["low"] <= f["value"] <= f["high"], f


def test_without_answers_it_says_what_to_run(folder, capsys):
    assert course.main(["--pilot", str(folder), "--profile", "smoke", "--only", "10"]) == 1
    assert "is made by chapter 00; run that chapter once" in capsys.readouterr().err

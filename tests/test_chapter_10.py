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
    (0, 0, "no ratio, because the dear way had no success in 12 rows"), (12, 0, "no ratio, because the dear way had no success in 12 rows"), (0, 3, "no ratio, because the cheap way had no success in 12 rows")])
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


def test_the_bundled_pilots_figures_are_worked_out_again_by_hand(capsys):
    """From the recorded answers: errors as chapter 02 prices them, and everything else with pencil and paper."""
    from helpers import ROOT, error_costs, scoring
    from helpers.bar import Bar

    assert course.main(["--profile", "smoke", "--only", "10"]) == 0, capsys.readouterr().err
    result = json.loads((Path(os.environ["COURSE_RUNS"]) / "inbox/smoke/10/results.json").read_text())
    figures = {f["name"]: f["value"] for f in result["figures"]}
    pilot = Pilot.load(ROOT / "data/inbox")
    data = rows.load(pilot)
    ways = {name: Journal(next((ROOT / "data/reference/inbox/00/answers").glob(f"{name}-*.jsonl"))) for name in ("tuned", "few_shot")}
    scored = {name: scoring.score(pilot, data.test, journal.of(data.test)) for name, journal in ways.items()}
    errors = error_costs.error_cost(pilot, data.test, scored["tuned"].records, Bar.load(pilot).costs).value
    # once: 260 rows of 1.5 minutes at 40 EUR and 40 hours at 70 EUR, over 2 years; upkeep: 24 hours at 70 EUR; 10,000 messages a year
    fixed = 1000 * ((260 * 1.5 / 60 * 40 + 40 * 70) / 2 + 24 * 70) / 10_000
    machine = 1000 * 2000 * 0.01 * 0.9 / 10_000  # 2,000 paid hours a year, 0.01 USD each, 0.90 EUR for a dollar
    wrong = 1 - scored["tuned"].exact.mean()
    reviewed = 1000 / 60 * 40 + 1000 * wrong * 0.9 / 60 * 40 + 0.1 * errors
    assert figures["cost_per_1000_done.people"] == pytest.approx(2000, abs=0.01)
    assert figures["cost_per_1000_done.small"] == pytest.approx(errors + machine + fixed, abs=0.01)
    assert figures["cost_per_1000_done.reviewed"] == pytest.approx(reviewed + machine + fixed, abs=0.01)
    rate = {name: ways[name].seconds / scored[name].exact.sum() for name in ways}
    assert figures["cost_per_success.ratio"] == pytest.approx(rate["few_shot"] / rate["tuned"], rel=1e-5)
    by_hand = (2000 - machine - fixed) / (errors / wrong)  # the share wrong at which errors use up what people cost
    assert figures["right_needed.small"] == pytest.approx(1 - by_hand, abs=1e-5)

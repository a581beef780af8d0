"""Chapter 08 on a pilot of one's own, and its recorded verdict counted again from the readings."""

import json
from dataclasses import replace

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from test_notebooks import label_pilot

from helpers import CourseError, course
from helpers.agree import sealed
from helpers.agree.bar import Bar
from helpers.core import rows, runs, runtime
from helpers.core.pilot import Pilot
from helpers.measure import baselines, error_costs, reviews, scoring, system, use_costs
from helpers.tune import students

CELLS = [
    cell.source
    for cell in nbformat.read(ROOT / "notebooks/08_good_enough.ipynb", as_version=4).cells
    if cell.cell_type == "code"
]
REFERENCE = ROOT / "data/reference/inbox"


def test_without_chapter_00_one_sentence_says_what_to_run(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "08"]) == 1
    printed = capsys.readouterr().err.strip()
    assert "Nothing is stored of what the tuned model reads" in printed
    assert "run chapter 00 once for the pilot 'mine'." in printed
    assert len(printed.splitlines()) == 1


@pytest.mark.slow
def test_chapter_08_on_a_pilot_of_ones_own(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    for chapter in ("00", "08"):
        options = ["--pilot", str(place), "--profile", "smoke", "--only", chapter]
        assert course.main(options) == 0, capsys.readouterr().err
    folder = tmp_path / "runs/mine/smoke/08"
    figures = {f["name"]: f for f in json.loads((folder / "results.json").read_text())["figures"]}
    assert {"exact.system", "system.exact", "system.reviewed", "cost_per_1000.system"} <= set(
        figures
    )
    lines = (folder / "decisions.jsonl").read_text().splitlines()
    assert len(lines) == figures["system.exact"]["n"]
    page, card = (folder / "evaluation.html").read_text(), (folder / "model_card.md").read_text()
    assert "No bar was agreed" in page and "# Model card: mine" in card
    assert "written for this course" not in page, "that is the bundled pilot's limit"
    assert str(tmp_path) not in page + card


@pytest.mark.slow
def test_a_small_run_says_everywhere_that_another_model_was_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    folder, remarks = tmp_path / "runs/inbox/smoke", []
    for chapter in ("08", "10"):
        options = ["--pilot", str(ROOT / "data/inbox"), "--profile", "smoke", "--only", chapter]
        assert course.main(options) == 0, capsys.readouterr().err
        lead = json.loads((folder / chapter / "results.json").read_text())["settings"]["lead"]
        remarks += [line for line in lead if "not of a model of this run" in line]
    assert len(remarks) == 2 and remarks[0] == remarks[1]
    page, card = (
        (folder / "08" / name).read_text() for name in ("evaluation.html", "model_card.md")
    )
    assert remarks[0] in page and remarks[0] in card
    assert "of the recorded recipe study · profile cpu" in page
    assert "of the recorded recipe study. Licence" in card and "**Made from** 60 labelled" in card


# What is recorded ---------------------------------------------------------------------------


def recorded_figures():
    result = json.loads((ROOT / "data/reference/results/08.json").read_text())
    return {figure["name"]: figure for figure in result["figures"]}


@pytest.fixture(scope="module")
def judged():
    """(pilot, new rows, bar, {seed: its readings}, Review), from the reference files alone."""
    pilot = Pilot.load(ROOT / "data/inbox")
    train, new = list(rows.load(pilot).train), list(sealed.judged_rows(pilot))
    asked, texts = ([row[pilot.text] for row in some] for some in (train, new))
    fold, ways, unseen = baselines.folds(pilot, train, 3, 0), ("rules", "TF-IDF", "embeddings"), {}
    for way in ways:

        def read(learnt, some, way=way):
            return system.cheap_reading(pilot, learnt, some, way)

        unseen[way] = system.out_of_fold_reading(pilot, train, fold, read)
    stored = REFERENCE / "studies/recipe" / system.READINGS
    unseen["tuned"] = system.kept_reading(stored, "unseen", asked)
    chosen = system.choose_system(pilot, train, unseen)
    bar = Bar.load(pilot)
    review = reviews.choose_review(chosen, train, unseen, bar.costs)
    cheap = {way: system.cheap_reading(pilot, train, texts, way) for way in ways}
    looked = REFERENCE / "08" / rows.NEW_READINGS
    readings = {}
    for seed in bar.seeds:
        tuned = system.kept_reading(looked, f"qlora {seed}", texts)
        readings[seed] = {**cheap, "tuned": tuned}
    return pilot, new, bar, readings, review


def test_the_verdict_counted_again(judged):
    pilot, new, bar, readings, review = judged
    figures, by_seed = recorded_figures(), {}
    for seed, each in readings.items():
        by_seed[seed] = scoring.score(pilot, new, review.system.records(each))
        published = figures[f"system.exact.seed_{seed}"]
        assert by_seed[seed].exact.mean() == pytest.approx(published["value"], abs=1e-5)
    middle = bar.judged(by_seed)
    checked = review.needed(readings[middle])
    assert figures["system.exact"]["seeds"] == [middle]
    assert figures["system.reviewed"]["value"] == pytest.approx(checked.mean(), abs=1e-5)
    use = use_costs.cost_of_use(pilot, new, by_seed[middle].records, checked, bar.costs)
    assert figures["cost_per_1000.system"]["value"] == pytest.approx(use.value, rel=1e-4)
    texts = [row[pilot.text] for row in new]
    train = list(rows.load(pilot).train)
    rival = scoring.score(pilot, new, baselines.LADDER[bar.baseline](pilot, train, texts))
    verdict = bar.verdict(by_seed[middle], rival, new, reviewed=checked)
    lead = json.loads((ROOT / "data/reference/results/08.json").read_text())["settings"]["lead"]
    assert f"against its bar (seed {middle}): {verdict.brief}" in lead
    shown = {name for name, state in verdict.conditions.items() if state == "shown"}
    for name in verdict.conditions:
        figure = figures[f"bar.shown.{name.replace(' ', '_').lower()}"]
        assert bool(figure["value"]) == (name in shown)


def test_the_decisions_are_those_of_the_verdict(judged):
    pilot, new, bar, readings, review = judged
    lines = [json.loads(line) for line in (REFERENCE / "08/decisions.jsonl").open()]
    assert len(lines) == len(new) * len(bar.seeds)
    for seed, each in readings.items():
        own = [line for line in lines if line["seed"] == seed]
        assert [line["id"] for line in own] == [row["id"] for row in new]
        assert [line["system"] for line in own] == review.system.records(each)
        assert [line["checked"] for line in own] == review.needed(each).tolist()
        assert [line["tuned"] for line in own] == each["tuned"].records
    assert len({line["seed"] for line in lines if line["judged"]}) == 1


def test_who_checks_follows_from_the_prices(judged):
    pilot, _, bar, readings, review = judged
    each = readings[0]
    dear = bar.costs.model_copy(update={"review_minutes": 60.0})
    free = bar.costs.model_copy(update={"review_minutes": 0.0})
    assert not replace(review, costs=dear).needed(each).any(), "an hour a check: nobody checks"
    assert replace(review, costs=free).needed(each).all(), "a check for nothing: all are checked"
    expected = review.expected_cost(each)
    line = bar.costs.review / bar.costs.caught
    assert np.array_equal(review.needed(each), expected > line)


def test_the_short_verdict_says_why(judged):
    pilot, new, bar, readings, review = judged
    scored = scoring.score(pilot, new, review.system.records(readings[0]))
    verdict = bar.verdict(scored, scored, new)
    assert verdict.status == "fail" and "exact record +0.0 points" in verdict.brief
    unsure = replace(verdict, conditions={"exact record": "shown", "intent": "open"})
    assert unsure.brief.endswith("asked +30; not shown: intent")
    assert replace(verdict, conditions={"exact record": "shown"}).brief.endswith("asked +30")


def test_the_difference_of_two_bills_is_the_sum_over_the_rows(judged):
    pilot, new, bar, readings, review = judged
    ways = [review.system.records(readings[0]), readings[0]["rules"].records]
    gap = error_costs.cost_difference(pilot, new, *ways, bar.costs)
    bills = [error_costs.error_cost(pilot, new, way, bar.costs).value for way in ways]
    assert gap[0] == pytest.approx(bills[0] - bills[1]) and gap[1] < gap[0] < gap[2]
    assert error_costs.cost_difference(pilot, new, ways[0], ways[0], bar.costs) == (0.0, 0.0, 0.0)
    with pytest.raises(CourseError, match="no rows to price"):
        error_costs.cost_difference(pilot, [], [], [], bar.costs)


# Other seeds --------------------------------------------------------------------------------


def test_a_seed_that_nobody_asked_is_refused_and_no_other_model_answers_for_it():
    run = runs.Run(Pilot.load(ROOT / "data/inbox"), "08", runtime.detect("smoke"))
    with pytest.raises(CourseError, match="student of seed 7 has not read these rows"):
        students.new_reading(run, [{"message": "Where is PO-1?"}], run.runtime, 7)

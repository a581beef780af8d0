"""Chapter 08 on a pilot of one's own: after chapter 00 it runs through, before it one sentence says what to run; its checks work."""

import json

import nbformat
import pytest
from conftest import ROOT
from test_notebooks import label_pilot

from helpers import CourseError, course

CELLS = [
    c.source
    for c in nbformat.read(ROOT / "notebooks/08_good_enough.ipynb", as_version=4).cells
    if c.cell_type == "code"
]


def test_without_chapter_00_one_sentence_says_what_to_run(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "08"]) == 1
    said = capsys.readouterr().err.strip()
    assert (
        "answers is made by chapter 00; run that chapter once for the pilot 'mine'." in said
        and len(said.splitlines()) == 1
    )


def test_chapter_08_on_a_pilot_of_ones_own(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    for chapter in ("00", "08"):
        assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", chapter]) == 0, (
            capsys.readouterr().err
        )
    folder = tmp_path / "runs/mine/smoke/08"
    figures = {f["name"]: f for f in json.loads((folder / "results.json").read_text())["figures"]}
    assert {
        "exact.tuned",
        "lm_eval.acc.base",
        "lm_eval.acc.tuned",
        "lm_eval.difference_to_ours",
        "lm_eval.written",
        "forgetting.general",
        "judge.refused.embedded",
        "risk.coverage.confirmed",
        "escalation.by_field",
    } <= set(figures)
    assert (
        abs(figures["lm_eval.difference_to_ours"]["value"]) < 0.2
        and figures["judge.refused.embedded"]["value"] == 1
    )
    assert (
        "No bar was agreed" in (folder / "evaluation.html").read_text()
        and "# Model card: mine" in (folder / "model_card.md").read_text()
    )
    assert (
        str(tmp_path)
        not in (folder / "evaluation.html").read_text() + (folder / "model_card.md").read_text()
    )


def test_the_stored_answers_of_another_seed_are_complete_and_have_the_figure_of_the_prose():
    from helpers.core import rows
    from helpers.core.pilot import Pilot
    from helpers.core.files import Journal
    from helpers.measure import intervals, scoring

    pilot = Pilot.load(ROOT / "data/inbox")
    test, right = rows.load(pilot).test, {}
    for name, place in (("tuned", "00"), ("seed_1", "08")):
        stored = next((ROOT / "data/reference/inbox" / place / "answers").glob(f"{name}-*.jsonl"))
        right[name] = scoring.score(pilot, test, Journal(stored).of(test)).exact
    gap = intervals.compare(right["tuned"], right["seed_1"])
    assert (right["tuned"].mean(), right["seed_1"].mean(), round(gap.p, 3)) == (0.58, 0.505, 0.028)
    prose = nbformat.read(ROOT / "notebooks/08_good_enough.ipynb", as_version=4)
    said = " ".join(" ".join(c.source.split()) for c in prose.cells if c.cell_type == "markdown")
    assert (
        "seed 0 has 58.0 % and seed 1, with the same rows and settings, 50.5 %" in said
        and "(p = 0.028; two pairs were tested, so count it double)" in said
    )


def reference():
    """(pilot, test rows, costs of the bar, {seed: Scored}, Scored of the rules) of the recorded run."""
    from helpers.agree.bar import Bar
    from helpers.core import rows
    from helpers.core.pilot import Pilot
    from helpers.core.files import Journal
    from helpers.measure import baselines, scoring

    pilot = Pilot.load(ROOT / "data/inbox")
    data = rows.load(pilot)
    places = {
        0: "00/answers/tuned-*.jsonl",
        1: "08/answers/seed_1-*.jsonl",
        2: "08/answers/seed_2-*.jsonl",
    }
    by_seed = {
        seed: scoring.score(
            pilot,
            data.test,
            Journal(next((ROOT / "data/reference/inbox").glob(place))).of(data.test),
        )
        for seed, place in places.items()
    }
    read = baselines.rules(pilot, data.train, baselines.keywords(pilot))
    return (
        pilot,
        data.test,
        Bar.load(pilot),
        by_seed,
        scoring.score(pilot, data.test, [read(text) for text in data.test[pilot.text]]),
    )


def test_the_bill_against_the_rules_is_the_sum_over_the_rows_and_stands_in_the_results():
    from helpers.measure import error_costs

    pilot, test, bar, by_seed, rules = reference()
    figures = {
        f["name"]: f
        for f in json.loads((ROOT / "data/reference/results/08.json").read_text())["figures"]
    }
    for seed, scored in by_seed.items():
        value, low, high = error_costs.cost_difference(
            pilot, test, scored.records, rules.records, bar.costs
        )
        bills = [
            error_costs.error_cost(pilot, test, s.records, bar.costs).value for s in (scored, rules)
        ]
        assert value == pytest.approx(bills[0] - bills[1]) and 0 < low < value < high, (
            "every seed costs more than the free rules"
        )
        stored = figures[f"cost_per_1000.tuned_minus_rules.seed_{seed}"]
        assert (stored["value"], stored["low"], stored["high"]) == pytest.approx(
            (value, low, high), rel=1e-4
        )
        assert stored["seeds"] == [seed]
    same = error_costs.cost_difference(pilot, test, rules.records, rules.records, bar.costs)
    assert same == (0.0, 0.0, 0.0)
    with pytest.raises(CourseError, match="no rows to price"):
        error_costs.cost_difference(pilot, [], [], [], bar.costs)


def test_the_short_verdict_says_why():
    from dataclasses import replace

    pilot, test, bar, by_seed, rules = reference()
    verdict = bar.verdict(by_seed[bar.judged(by_seed)], rules, test)
    assert verdict.brief == str(verdict).split("; not shown")[0] and verdict.brief.endswith(
        "; missed: urgency, cost of errors"
    )
    unsure = replace(verdict, conditions={"exact record": "shown", "intent": "open"})
    assert unsure.brief.endswith("asked +10; not shown: intent")
    assert replace(verdict, conditions={"exact record": "shown"}).brief.endswith("asked +10")
    lead = json.loads((ROOT / "data/reference/results/08.json").read_text())["settings"]["lead"]
    assert f"against its bar (seed 2): {verdict.brief}" in lead


def test_answers_of_another_seed_are_taken_only_with_the_same_rows_settings_and_steps(
    tmp_path, monkeypatch
):
    """The notebook's own cells: 224 steps come from chapter 00's epochs and packs, and one step more finds no stored answers."""
    import shutil

    from helpers.ask import answers
    from helpers.choose import models
    from helpers.core import rows, runs, runtime

    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    pilot, test, _, by_seed, _ = reference()
    space = {
        "pilot": pilot,
        "data": rows.load(pilot),
        "rows": rows,
        "models": models,
        "examples": examples,
        "students": students,
        "runs": runs,
        "json": json,
        "shutil": shutil,
        "answers": answers,
        "ROOT": ROOT,
        "CourseError": CourseError,
        "TRAIN_SEEDS": False,
        "STEPS": None,
        "run": runs.Run(pilot, "08", runtime.detect()),
        "stored": lambda *_: next((ROOT / "data/reference/inbox/00/answers").glob("tuned-*.jsonl")),
    }
    for mark in ("def settings_00", "def steps_00", "def seed_answers"):
        exec(next(source for source in CELLS if mark in source), space)  # noqa: S102 - the notebook's own cells
    assert space["steps_00"]() == 224
    from helpers.measure import scoring

    assert (
        scoring.score(pilot, test, space["seed_answers"](2)).exact.tolist()
        == by_seed[2].exact.tolist()
    )
    space["STEPS"] = 225
    assert space["seed_answers"](2) is None and space["seed_answers"](3) is None


@pytest.mark.parametrize(
    "check, right, wrong",
    [
        ("check_share", 0.769, 0.8),
        ("check_pays", lambda a, b, c, d: a > b and d > c, lambda a, b, c, d: a > b),
    ],
)
def test_the_exercises_know_right_from_wrong(check, right, wrong):
    cell = next(source for source in CELLS if f"def {check}" in source)
    space = {}
    exec(cell, space)  # noqa: S102 - the notebook's own cell
    assert "not attempted" in space[check](None)
    assert space[check](right).endswith("right.") and "not yet" in space[check](wrong)

"""Chapter 08 on a pilot of one's own, its recorded figures counted again, its seeds, its checks."""

import json
from dataclasses import replace

import nbformat
import pytest
from conftest import ROOT
from test_notebooks import label_pilot

from helpers import CourseError, course
from helpers.agree.bar import Bar
from helpers.core import rows, runs, runtime
from helpers.core.files import Journal, fingerprint
from helpers.core.pilot import Pilot
from helpers.measure import baselines, error_costs, scoring
from helpers.tune import students

CELLS = [
    cell.source
    for cell in nbformat.read(ROOT / "notebooks/08_good_enough.ipynb", as_version=4).cells
    if cell.cell_type == "code"
]


def test_without_chapter_00_one_sentence_says_what_to_run(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "08"]) == 1
    printed = capsys.readouterr().err.strip()
    assert "Chapter 00 has recorded no answers 'zero_shot'" in printed
    assert "run that chapter once for the pilot 'mine'." in printed
    assert len(printed.splitlines()) == 1


@pytest.mark.slow
def test_chapter_08_on_a_pilot_of_ones_own(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    for chapter in ("00", "08"):
        options = ["--pilot", str(place), "--profile", "smoke", "--only", chapter]
        assert course.main(options) == 0, capsys.readouterr().err
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
    assert abs(figures["lm_eval.difference_to_ours"]["value"]) < 0.2
    assert figures["judge.refused.embedded"]["value"] == 1
    page, card = (folder / "evaluation.html").read_text(), (folder / "model_card.md").read_text()
    assert "No bar was agreed" in page and "# Model card: mine" in card
    assert "written for this course" not in page, "that is the bundled pilot's limit"
    assert str(tmp_path) not in page + card


# What is recorded ---------------------------------------------------------------------------


def recorded_figures():
    result = json.loads((ROOT / "data/reference/results/08.json").read_text())
    return {figure["name"]: figure for figure in result["figures"]}


def recorded_answers(place, texts):
    """The answers of a file of the reference, whatever it was made from."""
    path = next((ROOT / "data/reference/inbox").glob(place))
    made_from = path.stem.rsplit("-", 1)[1]
    return Journal(path).of([fingerprint(made_from, text) for text in texts])


@pytest.fixture(scope="module")
def reference():
    """(pilot, test rows, bar, {seed: Scored}, Scored of the rules) of the recorded run."""
    pilot = Pilot.load(ROOT / "data/inbox")
    data = rows.load(pilot)
    texts, test = data.test[pilot.text][:], list(data.test)
    by_seed = {}
    for seed, place in enumerate(
        ["00/answers/tuned-*", "08/answers/seed_1*", "08/answers/seed_2*"]
    ):
        by_seed[seed] = scoring.score(pilot, test, recorded_answers(f"{place}.jsonl", texts))
    rules = scoring.score(pilot, test, baselines.rules(pilot, list(data.train), texts))
    return pilot, test, Bar.load(pilot), by_seed, rules


def test_the_recorded_answers_of_every_seed_have_the_published_figure(reference):
    _, _, _, by_seed, _ = reference
    figures = recorded_figures()
    for seed, scored in by_seed.items():
        published = figures[f"exact.tuned.seed_{seed}"]
        assert scored.exact.mean() == pytest.approx(published["value"], abs=1e-5)
        assert published["seeds"] == [seed]


def test_the_bill_against_the_rules_is_the_sum_over_the_rows_and_stands_in_the_results(reference):
    pilot, test, bar, by_seed, rules = reference
    figures = recorded_figures()
    for seed, scored in by_seed.items():
        gap = error_costs.cost_difference(pilot, test, scored.records, rules.records, bar.costs)
        bills = [
            error_costs.error_cost(pilot, test, way.records, bar.costs).value
            for way in (scored, rules)
        ]
        assert gap[0] == pytest.approx(bills[0] - bills[1]) and gap[1] < gap[0] < gap[2]
        stored = figures[f"cost_per_1000.tuned_minus_rules.seed_{seed}"]
        assert [stored[key] for key in ("value", "low", "high")] == pytest.approx(gap, rel=1e-4)
        assert stored["seeds"] == [seed]
    same = error_costs.cost_difference(pilot, test, rules.records, rules.records, bar.costs)
    assert same == (0.0, 0.0, 0.0)
    with pytest.raises(CourseError, match="no rows to price"):
        error_costs.cost_difference(pilot, [], [], [], bar.costs)


def test_the_short_verdict_says_why(reference):
    pilot, test, bar, by_seed, rules = reference
    judged = bar.judged(by_seed)
    verdict = bar.verdict(by_seed[judged], rules, test)
    assert verdict.brief == str(verdict).split("; not shown")[0]
    unsure = replace(verdict, conditions={"exact record": "shown", "intent": "open"})
    assert unsure.brief.endswith("asked +10; not shown: intent")
    assert replace(verdict, conditions={"exact record": "shown"}).brief.endswith("asked +10")
    lead = json.loads((ROOT / "data/reference/results/08.json").read_text())["settings"]["lead"]
    assert f"against its bar (seed {judged}): {verdict.brief}" in lead


# Other seeds --------------------------------------------------------------------------------


def test_answers_of_another_seed_are_taken_only_with_the_same_rows_and_steps(tmp_path):
    pilot, here = Pilot.load(ROOT / "data/inbox"), runtime.detect()
    data = rows.load(pilot)
    train, test = list(data.train), data.test.select(range(3))
    run = runs.Run(pilot, "08", here)
    job = students.job_of_epochs(pilot, train, 3, 8, test)
    assert job.steps == 224, "chapter 00's epochs times the packs that its rows make"
    texts, made_from = test[pilot.text][:], "0123456789ab"
    answers = dict(zip([fingerprint(made_from, text) for text in texts], "abc"))
    Journal(run.path(f"answers/seed_3_{job.key(pilot)}-{made_from}.jsonl")).add(answers)

    def found(job):
        return students.stored_or_trained(run, pilot, job, here, train=False)

    assert found(job) == ["a", "b", "c"]
    assert found(replace(job, sets={"test": test.select([2, 0, 1])})) is None
    assert found(replace(job, steps=225)) is None
    assert found(replace(job, rows=train[1:])) is None
    assert found(replace(job, settings={"r": 8})) is None


# The exercises ------------------------------------------------------------------------------


def combination_pays(kept_small, kept_other, handed_small, handed_other):
    return kept_small > kept_other and handed_other > handed_small


@pytest.mark.parametrize(
    "check, right, wrong",
    [
        ("check_share", 0.769, 0.8),
        ("check_pays", combination_pays, lambda a, b, c, d: a > b),
    ],
)
def test_the_exercises_know_right_from_wrong(check, right, wrong):
    cell = next(source for source in CELLS if f"def {check}" in source)
    space = {}
    exec(cell, space)  # noqa: S102 - the notebook's own cell
    assert "not attempted" in space[check](None)
    assert space[check](right).endswith("right.") and "not yet" in space[check](wrong)

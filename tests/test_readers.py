"""Of which model stored readings are: said where it is not the one of this run, and only there."""

import json

import numpy as np
import pytest
from conftest import ROOT

from helpers import at_work
from helpers.core import files, rows, runtime
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.measure import readers, system
from helpers.tune import students

RECORDED = json.loads((ROOT / "data/reference/results/05.json").read_text())["settings"]
SETTINGS = {name: value for name, value in RECORDED.items() if name not in ("lead", "notes")}


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    """Chapter 08 of the bundled pilot, in runs of its own."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    pilot = Pilot.load(ROOT / "data/inbox")
    return lambda profile: Run(pilot, "08", runtime.detect(profile))


def read(run, way="unseen"):
    """(what the study's model reads in this run's training rows, how many these are)."""
    train = list(rows.load(run.pilot, run.runtime.profile).train)
    texts = [row[run.pilot.text] for row in train]
    return system.stored_reading(run, {"studies/recipe": way}, texts), len(train)


def trained(run, **changes):
    """The run's own chapter 05, with the recorded settings but for `changes`."""
    own = Run(run.pilot, "05", run.runtime)
    files.write_text(own.path("adapter/adapter_model.safetensors"), "weights")
    own.keep("adapter", SETTINGS | changes)


def test_the_recorded_run_judges_its_own_model(run_of):
    run = run_of("cpu")
    judged = readers.who_read(run, *read(run))
    assert judged.remark == "" and judged.adapter(1) == "seed 1"
    assert (judged.labelled, judged.profile) == (60, "cpu")
    trained(run)
    assert readers.who_read(run, *read(run)).remark == ""
    trained(run, bf16="False", optim="adamw_torch")  # another machine, the same recipe
    assert readers.who_read(run, *read(run)).remark == ""


def test_a_smoke_run_says_that_the_recorded_model_is_judged(run_of):
    run = run_of("smoke")
    judged = readers.who_read(run, *read(run))
    assert "is of the recorded recipe study, not of a model of this run" in judged.remark
    assert "profile cpu, this run smoke" in judged.remark
    assert "60 labelled messages, this run 16" in judged.remark
    assert judged.adapter(1) == "seed 1 of the recorded recipe study"
    assert (judged.labelled, judged.profile) == (60, "cpu")


@pytest.mark.parametrize("changed", [{"r": "8"}, {"rows": "90 (0a1b2c3d)"}])
def test_other_settings_or_rows_of_chapter_05_are_named(run_of, changed):
    run = run_of("cpu")
    trained(run, **changed)
    [name] = changed
    remark = readers.who_read(run, *read(run)).remark
    assert remark.endswith(f"chapter 05 of this run has other {name}.")


def test_readings_of_a_study_of_ones_own_are_compared_with_its_settings(run_of, tmp_path):
    run = run_of("cpu")
    reading, labelled = read(run)
    home = tmp_path / "runs/inbox/studies/recipe"
    study = json.loads((ROOT / "data/reference/results/recipe_study.json").read_text())
    files.write_text(home / "results.json", json.dumps(study))
    own = system.Reading(reading.records, reading.probabilities, reading.sure, home)
    trained(run)
    assert readers.who_read(run, own, labelled).remark == ""
    trained(run, max_steps="90", lora_alpha="16")
    remark = readers.who_read(run, own, labelled).remark
    assert "of the recipe study," in remark and remark.endswith("other lora_alpha, max_steps.")


def test_new_readings_know_the_study_and_the_adapter_that_made_them(run_of):
    run = run_of("smoke")
    new = list(rows.load_new(run.pilot))[:3]
    of_study = students.new_reading(run, new, run.runtime, 0)
    assert of_study.home == ROOT / "data/reference/inbox/studies/recipe"
    trained(run)
    other, way = [{**row, "message": f"{row['message']} Thanks."} for row in new], None
    adapter = Run(run.pilot, "05", run.runtime).path("adapter")
    way = f"adapter {files.sha256(adapter / 'adapter_model.safetensors')[:12]}"
    texts = [row["message"] for row in other]
    system.keep_reading(run.path(rows.NEW_READINGS), way, texts, of_study)
    assert students.new_reading(run, other, run.runtime, 0).home == adapter.parent


def test_the_remark_goes_with_the_decisions(run_of):
    smoke, cpu = run_of("smoke"), run_of("cpu")
    assert readers.of_decisions(cpu) == ""
    assert "recorded ones (profile cpu), not of a model of" in readers.of_decisions(smoke)
    files.write_text(cpu.path("decisions.jsonl"), "{}\n")
    cpu.keep("decisions.jsonl", {"remark": "Another model."})
    assert readers.of_decisions(cpu) == "Another model."
    cpu.keep("decisions.jsonl")
    assert readers.of_decisions(cpu) == ""


def test_an_adapter_that_was_not_judged_says_so_when_it_answers(run_of, monkeypatch):
    run, said = run_of("smoke"), []
    read = lambda *parts: lambda messages: system.Reading([], {}, {"x": np.zeros(0)})  # noqa: E731
    monkeypatch.setattr(at_work.probe, "check_parts", lambda *parts: "probe: not asked")
    monkeypatch.setattr(at_work.answers, "open_base", lambda pilot: (None, None))
    monkeypatch.setattr(at_work.students, "shipped", lambda *parts: None)
    monkeypatch.setattr(at_work, "tuned_read", read)
    at_work.open_system(run.pilot, run.runtime, said.append)
    assert at_work.OTHER not in said, "the recorded adapter answers, and it was judged"
    trained(run)
    at_work.open_system(run.pilot, run.runtime, said.append)
    assert said.count(at_work.OTHER) == 1

"""Chapter 11 on a pilot of one's own, what `helpers.answer` then takes, and what is recorded."""

import json
import random
import subprocess
import sys

import pytest
from conftest import ROOT
from test_notebooks import label_pilot

from helpers import answer, at_work, course
from helpers.core import rows, runs, runtime
from helpers.core.pilot import Pilot
from helpers.measure import intervals
from helpers.pilot import judged, papers, tuned
from helpers.pilot.new_pilot import new_pilot

RESULTS = ROOT / "data/reference/results"
JAPANESE = {
    "注文": ["{}個注文します", "追加で{}個お願いします", "注文番号{}を発注"],
    "質問": ["{}番の値段は？", "{}番の納期を教えて", "仕様書{}はどこ"],
}


def a_japanese_file(folder, number=90):
    """Labels only; words that tell the label nearly always."""
    draw, lines = random.Random(0), ["本文;種別"]
    for i in range(number):
        label = draw.choice(list(JAPANESE))
        lines.append(f"{draw.choice(JAPANESE[label]).format(1000 + i)};{label}")
    path = folder / "mail.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def run_chapter_11(place):
    return course.main(["--pilot", str(place), "--profile", "smoke", "--only", "11"])


@pytest.mark.slow
def test_from_a_japanese_file_to_an_answer_without_a_model(tmp_path, capsys, monkeypatch):
    place = tmp_path / "denwa"
    new_pilot(place, a_japanese_file(tmp_path))
    assert run_chapter_11(place) == 0, capsys.readouterr().err
    folder = tmp_path / "runs/denwa/smoke/11"
    result = json.loads((folder / "results.json").read_text())
    assert result["settings"]["gate"] == "DO NOT TRAIN"
    assert json.loads((folder / "decision.json").read_text())["model"] is False
    assert not (folder / "adapter").exists() and not (folder / "model_card.md").exists()
    page = (folder / "decision.html").read_text(encoding="utf-8")
    assert "90% is enough, use it" in page and "written for the course" not in page
    assert str(tmp_path) not in page + (folder / "runbook.md").read_text(encoding="utf-8")
    log = b"".join(path.read_bytes() for path in (folder / "shadow").rglob("*.jsonl"))
    assert b"course.label" in log and "個".encode() not in log, "a message stands in the log"
    # and tomorrow's file is answered by what was decided
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    command = [str(tmp_path / "mail.csv"), str(tmp_path / "out.csv"), "--pilot", str(place)]
    assert answer.answer_command(command) == 0, capsys.readouterr().err
    told = (tmp_path / "out.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(told) == 91 and "tuned" not in told[1]


@pytest.mark.slow
def test_a_model_tuned_here_is_the_one_that_answers(tmp_path, tiny):
    pilot = Pilot.load(label_pilot(tmp_path, tiny))
    here = runtime.detect("smoke")
    data, run = rows.load(pilot, here.profile), runs.Run(pilot, "11", here)
    assert tuned.stored_tuned(run, data) is None
    found = tuned.train_tuned(run, data)
    assert found.trained_here and found.adapter == run.path("adapter")
    assert len(found.unseen.records) == len(data.train)
    again = tuned.stored_tuned(run, data)
    assert again.test.records == found.test.records
    system = at_work.open_system(pilot, here, say=lambda line: None)
    asked = [row[pilot.text] for row in data.test]
    assert len(system.answers(asked)) == len(asked)
    alone = intervals.share([True, False] * 6)
    store, name = papers.store_adapters(run, data, found, alone, "allowed", promote=False)
    assert store.current() is None and store.verify() == []
    store, name = papers.store_adapters(run, data, found, alone, "allowed", promote=True)
    # the same model pushed again is no second promotion
    papers.store_adapters(run, data, found, alone, "allowed", promote=True)
    assert store.current() == name and len(store.history()) == 1
    assert store.record(name)["evaluation"] == {"exact": 0.5, "rows": 12}
    # what is promoted is what answers
    again = at_work.open_system(pilot, here, say=lambda line: None)
    assert again.answers(asked) == system.answers(asked)


def test_what_the_gate_stopped_is_not_loaded(tmp_path, tiny):
    pilot = Pilot.load(label_pilot(tmp_path, tiny))
    here = runtime.detect("smoke")
    run = runs.Run(pilot, "11", here)
    judged.keep_decision(run.path("decision.json"), "GO", judged.CHEAP_USE, {})
    said = []
    system = at_work.open_system(pilot, here, say=said.append)
    assert at_work.CHEAP_ONLY in said and "tuned" not in system.ways
    assert system.answers(["Where is pump number 3?"])[0].record.keys() == pilot.fields.keys()


def test_three_kills_lose_and_double_nothing():
    command = [sys.executable, "-m", "benchmarks.shadow_kills", "--messages", "400"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["lines"], found["lost"], found["twice"]) == (400, 0, 0)
    assert found["kills"] >= 2, "the run ended before it could be killed"


# What is recorded ---------------------------------------------------------------------------


def figures(name):
    result = json.loads((RESULTS / f"{name}.json").read_text())
    return {figure["name"]: figure for figure in result["figures"]}


def test_the_recorded_alarm_rings_for_nothing_in_three_to_seven_per_cent():
    found = figures("11")
    for n in (200, 2000):
        alarm = found[f"drift.false_alarms.{n}"]
        assert 0.03 <= alarm["value"] <= 0.07 and alarm["n"] == 1000
    assert found["sampling.passes.plan"]["low"] <= 0.05 < found["sampling.passes.peeking"]["low"]
    assert found["shadow.lost"]["value"] == found["shadow.twice"]["value"] == 0
    assert found["shadow.lost"]["n"] == 10_000


def test_the_recorded_decision_is_that_of_the_frozen_bar():
    decided = json.loads((RESULTS / "11.json").read_text())["settings"]
    eight = figures("08")["system.exact"]
    assert figures("11")["decision.exact"]["value"] == eight["value"]
    assert decided["decision"] == "GO" and decided["way"] == judged.SYSTEM_USE


def test_four_sets_went_from_a_file_to_a_decision():
    study = json.loads((RESULTS / "11_study.json").read_text())
    sets = study["settings"]["sets"]
    assert {"clinc", "snips", "ja", "mail"} <= set(sets)
    for name, told in sets.items():
        assert told["decision"] in ("GO", "NO-GO", "LABEL MORE ROWS"), name
        assert told["changed_lines"] == 0, name
    found = figures("11_study")
    # where the gate says that a cheap way is enough, a tuned model is not shown to be better
    for name, told in sets.items():
        gap = found.get(f"{name}.tuned_model_minus_cheap_ways_together")
        if told["gate"] == "DO NOT TRAIN" and gap:
            assert gap["low"] <= 0, name

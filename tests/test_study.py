"""Students of a study: a finished one is not made again, intervals follow the rows, and one real student runs end to end."""

import json

import pytest

from helpers import CourseError, rows, runtime, study
from helpers.pilot import Pilot
from helpers.runs import Journal


@pytest.fixture
def pilot(folder, tiny):
    pilot = Pilot.load(folder)
    pilot.base_model = str(tiny)
    return pilot


def test_a_killed_study_goes_on_and_loses_at_most_one_student(pilot, tmp_path, monkeypatch):
    data, made = rows.load(pilot), []

    def fake(pilot, rows, steps, seed, here, sets, folder, free):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append((len(rows), seed))
        return {"test": [True, False]}, 1.0

    monkeypatch.setattr(study, "cell", fake)
    arms, sets = {"few": list(data.train)[:4], "all": list(data.train)}, {"test": data.test}
    go = lambda: study.study(pilot, arms, [0, 1], 3, None, sets, tmp_path / "s", say=lambda _: None)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        go()
    with open(tmp_path / "s/cells.jsonl", "ab") as file:
        file.write(b'{"key": "half')
    made.clear()
    cells = go()
    assert made == [(12, 1)] and [(c["arm"], c["seed"]) for c in cells] == [("few", 0), ("all", 0), ("few", 1), ("all", 1)]
    made.clear()
    assert go() == cells and made == []
    arms["all"] = arms["all"][:-1]
    go()
    assert made == [(11, 0), (11, 1)], "other rows are another student"
    with pytest.raises(CourseError, match="arm 'none' has no rows"):
        study.study(pilot, {"none": []}, [0], 3, None, sets, tmp_path / "s")


def test_differences_are_paired_over_rows():
    cells = [{"arm": a, "right": {"test": r}} for a, r in (("a", [True] * 30 + [False] * 10), ("a", [True] * 40),
                                                           ("b", [True] * 20 + [False] * 20), ("b", [True] * 30 + [False] * 10))]
    assert study.mean(cells, "a", "test").value == pytest.approx(0.875) and study.mean(cells, "a", "test").n == 40
    gap = study.gap(cells, "a", "b", "test")
    assert gap.value == pytest.approx(0.25) and 0.15 < gap.low < gap.value < gap.high < 0.35
    assert study.gap(cells, "a", "a", "test").low == study.gap(cells, "a", "a", "test").high == 0
    with pytest.raises(CourseError, match="'c'"):
        study.mean(cells, "c", "test")


def test_without_copying_a_value_may_be_invented(pilot):
    free = study.Uncopied.model_construct(**dict(pilot))
    assert free.grammar("Where is the pump?") == pilot.grammar("Where is the pump?", copy=False) != pilot.grammar("Where is the pump?")
    assert free.instruction(False) == pilot.instruction(False)


def test_one_real_student(pilot, tmp_path):
    here, data = runtime.detect("smoke"), rows.load(pilot)
    cells = study.study(pilot, {"seeds": data.train}, [0], 2, here, {"test": data.test, "ood": data.test.select(range(3))},
                        tmp_path / "s", say=lambda _: None)
    right = json.loads((tmp_path / "s/cells.jsonl").read_text())["right"]
    assert right == cells[0]["right"] and {"test", "ood", "test.invented", "test.exact_free", "test.intent"} <= set(right)
    assert len(right["test"]) == len(right["test.invented"]) == 12 and len(right["ood"]) == 3
    free = Journal(next((tmp_path / "s").glob("*/test.invented.jsonl"))).of(data.test)
    said = [answer.partition('"product": "')[2][:12] for answer in free]
    assert any(words not in row["message"] for words, row in zip(said, data.test)), "random weights invent what nothing forbids"

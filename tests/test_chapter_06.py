"""Chapter 06: on a pilot of one's own; what its page says agrees with the study's files."""

import json

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from test_notebooks import label_pilot

from helpers import course
from helpers.play import costs
from helpers.play.episodes import Episode, acted, random_episode
from helpers.play.order_desk import OrderDesk

RECORDED = ROOT / "data/reference/inbox/06"
CELLS = [
    cell.source
    for cell in nbformat.read(ROOT / "notebooks/06_episodes.ipynb", as_version=4).cells
    if cell.cell_type == "code"
]


@pytest.mark.slow
def test_chapter_06_on_a_pilot_of_ones_own(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    for _ in range(2):  # the second time it takes what it has
        assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "06"]) == 0, (
            capsys.readouterr().err
        )
        folder = tmp_path / "runs/mine/smoke/06"
        result = json.loads((folder / "results.json").read_text())
        figures = {f["name"]: f["value"] for f in result["figures"]}
        assert 0 <= figures["pass1.walker"] < 0.1 < figures["hasty.last_word"]
        assert figures["hasty.mended"] == 0 and figures["pass1.program"] > 0.8
        assert figures["world.desk.steps_per_second"] > 100
        assert 0 <= figures["pass1.mine"] <= 1 and figures["training.seconds"] > 0
        pictures = {path.name for path in folder.glob("*.png")}
        assert pictures == {
            "1_success_and_cost.png",
            "2_loss.png",
            "3_ratios.png",
            "4_episodes.png",
        }
    notebook = nbformat.read(folder / "06_episodes.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = " ".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "adapter taken from the earlier run" in printed, "not trained twice"


def test_the_log_is_of_the_desk_and_its_outcomes_are_the_worlds():
    lines = (RECORDED / "log_large.jsonl").read_text(encoding="utf-8").splitlines()
    log = [Episode.of(json.loads(line)) for line in lines]
    assert len({episode.seed for episode in log}) == len(log) >= 200
    assert max(episode.seed for episode in log) < 10_000, "no case that is measured on"
    for episode in log:
        again = acted(OrderDesk(), episode.seed, episode.actions, "large")
        assert again.success == episode.success and again.opening == episode.opening
        assert [turn.observation for turn in again.turns] == [
            turn.observation for turn in episode.turns
        ]


def test_the_ratio_of_the_page_is_that_of_the_timed_cases():
    timed = json.loads((RECORDED / "timed.json").read_text())["desk"]
    large, student = timed["large"], timed["student"]
    assert len(large["success"]) == len(student["success"]) == len(student["seconds"])
    each = [sum(way["seconds"]) / sum(way["success"]) for way in (large, student)]
    found = costs.cost_ratio(
        large["seconds"], large["success"], student["seconds"], student["success"]
    )
    assert found.value == pytest.approx(each[0] / each[1])
    result = json.loads((ROOT / "data/reference/results/06.json").read_text())
    told = {figure["name"]: figure["value"] for figure in result["figures"]}
    assert told["cost_per_success.ratio"] == pytest.approx(found.value, rel=1e-5)
    cells = (RECORDED / "study_cells.jsonl").read_text().splitlines()
    trained = {
        c["arm"]: c["seconds"] for c in map(json.loads, cells) if c.get("seconds") and not c["seed"]
    }
    spent = trained["curated, two cores"] + trained["round 2"] + 500 * np.mean(student["seconds"])
    for log in ("log_large", "log_hinted"):
        lines = (RECORDED / f"{log}.jsonl").read_text(encoding="utf-8").splitlines()
        spent += len(lines) * np.mean(large["seconds"])
    assert told["spent.paid_back_after"] == pytest.approx(spent / (each[0] - each[1]), rel=1e-5)
    assert told["pass1.student"] == pytest.approx(np.mean(student["success"]), abs=1e-6)


def test_faults_are_named_by_the_first_thing_that_went_wrong():
    space = {"desk": OrderDesk()}
    exec(next(source for source in CELLS if "def fault" in source), space)  # noqa: S102 - our cell
    desk = OrderDesk()
    desk.reset(4)
    right, task = list(desk.expert_actions()), desk.task
    other = {"refund": "refuse", "refuse": "refund"}.get(task.decision, "refuse")
    named = {
        "none": right,
        "no decision": right[:1] * 8,
        "wrong decision": [*right[:-1], f"decide {other} {task.number}"],
        "right end, wrong way": right[-1:],
    }
    for name, actions in named.items():
        assert space["fault"](acted(desk, 4, actions, "test")) == name
    walks = [random_episode(desk, seed) for seed in range(40)]
    assert "another order" in {space["fault"](walk) for walk in walks}

"""Nothing already computed is lost: journals, manifests, results, start anywhere."""

import json

import pytest
from conftest import ROOT

from helpers import CourseError, colab
from helpers.core import files, pages, runs, runtime
from helpers.core.pilot import Pilot


@pytest.fixture
def run(folder):
    return runs.Run(Pilot.load(folder), "00", runtime.detect("cpu"))


def test_a_journal_goes_on_after_a_kill_in_mid_line(run):
    rows = [{"id": str(i)} for i in range(4)]
    journal = run.journal("tuned", {"lr": 1})
    journal.add({"0": "a", "1": "b"}, 1.5)
    journal.add({"2": "c"}, 0.5)
    with open(journal.path, "ab") as file:
        file.write(b'{"answers": {"3": "d')  # the kill
    again = run.journal("tuned", {"lr": 1})
    assert again.seconds == 2.0 and [r["id"] for r in again.missing(rows)] == ["3"]
    again.add({"3": "d"}, 1.0)
    assert run.journal("tuned", {"lr": 1}).of(rows) == ["a", "b", "c", "d"]
    assert run.journal("tuned", {"lr": 2}).answers == {} and run.looks() == 1


def test_an_artifact_counts_only_when_whole_and_made_the_same_way(run):
    (run.path("adapter")).mkdir()
    (run.path("adapter") / "weights").write_text("w")
    run.keep("adapter", {"r": 16}, seconds=3)
    assert run.have("adapter", {"r": 16})["seconds"] == 3
    assert run.have("adapter", {"r": 8}) is None
    (run.path("adapter") / "weights").write_text("x")
    assert run.have("adapter", {"r": 16}) is None


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text("old")

    def full(*args, **kw):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.os, "replace", full)
    with pytest.raises(CourseError, match="could not be written.*untouched"):
        files.write_text(path, "new")
    assert path.read_text() == "old" and not list(tmp_path.glob("*.part"))


def test_another_chapters_file_is_named(run):
    with pytest.raises(CourseError, match="made by chapter 04"):
        run.need("04", "curated.jsonl")


def test_results_and_report(run):
    from helpers.measure import intervals

    run.figure("exact.tuned", intervals.share([True] * 12 + [False] * 8), how="a <test>")
    run.finish({"lead": ["60 % & more"]})
    result = json.loads(run.path("results.json").read_text())
    assert set(result) == {
        "chapter",
        "pilot",
        "profile",
        "seconds",
        "figures",
        "settings",
        "versions",
        "machine",
    }
    figure = result["figures"][0]
    assert (
        set(figure) == {"name", "value", "low", "high", "n", "unit", "seeds", "how"}
        and figure["low"] < 0.6 < figure["high"]
    )
    page = pages.build_report(run.folder.parent).read_text()
    assert "60.0 %" in page and "a &lt;test&gt;" in page and "60 % &amp; more" in page


def test_colab_keeps_what_it_has_and_adds_what_it_lacks():
    """Against the list of packages of a Colab machine, shortened to those that matter."""
    installed = {
        "torch": "2.11.0+cu128",
        "numpy": "2.1.0",
        "transformers": "5.15.0",
        "peft": "0.20.0",
        "accelerate": "1.14.0",
        "pandas": "2.2.2",
        "datasets": "4.0.0",
        "torchao": "0.10.0",
        "ipywidgets": "7.7.1",
    }
    wanted, constraints = colab.plan((ROOT / "requirements.txt").read_text(), installed)
    names = {w.split("==")[0] for w in wanted}
    assert {"trl", "bitsandbytes", "datasets", "llguidance"} <= names
    assert not names & {"torch", "numpy", "transformers", "ipywidgets", "jupyterlab"}
    assert "torch==2.11.0+cu128" in constraints


def test_colab_takes_torchao_out_and_elsewhere_nothing_happens(monkeypatch):
    called = []
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.delenv("COLAB_GPU", raising=False)
    assert colab.prepare(run=lambda *a, **k: called.append(a)) is None and called == []
    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")

    class Old:
        metadata, version = {"Name": "torchao"}, "0.10.0"

    monkeypatch.setattr(colab.metadata, "distributions", lambda: [Old])
    colab.prepare(run=lambda command, **k: called.append(command))
    assert called[0][-1] == "torchao" and "uninstall" in called[0] and "install" in called[1]

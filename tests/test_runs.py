"""Nothing already computed is lost: journals, manifests, results, start anywhere."""

import json
import os

import pytest
from conftest import ROOT

from helpers import CourseError, course
from helpers.core import files, rows, runs, runtime
from helpers.core.pilot import Pilot


@pytest.fixture
def run(folder):
    return runs.Run(Pilot.load(folder), "00", runtime.detect("cpu"))


def test_a_journal_goes_on_after_a_kill_in_mid_line(tmp_path):
    path = tmp_path / "answers/tuned.jsonl"
    journal = files.Journal(path)
    journal.add({"k0": "a", "k1": "b"}, 1.5)
    journal.add({"k2": "c"}, 0.5)
    with open(path, "ab") as file:
        file.write(b'{"entries": {"k3": "d')  # the kill
    again = files.Journal(path)
    keys = ["k0", "k1", "k2", "k3"]
    assert again.seconds == 2.0 and again.missing(keys) == ["k3"]
    again.add({"k3": "d"}, 1.0)
    assert files.Journal(path).of(keys) == ["a", "b", "c", "d"]


def test_a_journal_of_another_form_is_refused(tmp_path):
    files.append_entry(tmp_path / "old.jsonl", {"answers": {"1": "a"}}, "Answers", 0)
    with pytest.raises(CourseError, match="older version; delete it"):
        files.Journal(tmp_path / "old.jsonl")


def stored(run, made_from, answers, chapter="00", name="tuned"):
    """Record answers as chapter 00 does: {text: answer} under a key of model and text."""
    path = run.folder.parent / chapter / "answers" / f"{name}-{made_from}.jsonl"
    keys = {files.fingerprint(made_from, text): answer for text, answer in answers.items()}
    files.Journal(path).add(keys, 2.0)
    return path


def test_stored_answers_belong_to_their_text_whatever_the_rows_are_called(run):
    later = runs.Run(run.pilot, "08", run.runtime)
    path = stored(run, "0" * 12, {"a": "A", "b": "B", "c": "C"})
    stored(run, "1" * 12, {"a": "another model's"})  # answers one of two texts only
    stored(run, "2" * 12, {"a": "x", "b": "y"}, name="tuned-ood")
    found = later.stored_answers("00", "tuned", ["b", "a", "b"])
    assert (found.texts, found.seconds, found.path) == (["B", "A", "B"], 2.0, path)
    with pytest.raises(CourseError, match="Chapter 00 .*'tuned'.* run that chapter once"):
        later.stored_answers("00", "tuned", ["a", "changed text"])
    newer = stored(run, "3" * 12, {"a": "new"})
    os.utime(newer, (2e9, 2e9))
    assert later.stored_answers("00", "tuned", ["a"]).texts == ["new"]
    assert run.looks() == 4
    stored(run, "4" * 12, {"a": "one"}, name=f"seed_1_{'5' * 12}")  # with its recipe's digest
    stored(run, "4" * 12, {"a": "ten"}, name=f"seed_10_{'5' * 12}")
    assert later.stored_answers("00", "seed_1", ["a"]).texts == ["one"]


def test_the_reference_answers_are_found_without_a_run():
    pilot = Pilot.load(ROOT / "data/inbox")
    here = runs.Run(pilot, "08", runtime.detect("cpu"))
    texts = rows.load(pilot).test["message"][:]
    found = here.stored_answers("00", "tuned", texts)
    assert len(found.texts) == 200 and found.seconds > 0
    assert here.stored_answers("00", "tuned", texts[::-1]).texts == found.texts[::-1]


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

    monkeypatch.setattr(files.os, "replace", full)
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
    page = course.build_report(run.folder.parent).read_text()
    assert "60.0 %" in page and "a &lt;test&gt;" in page and "60 % &amp; more" in page


def test_pictures_carry_the_values_they_show():
    from helpers.core import plots
    from helpers.measure import intervals

    def words(figure):
        plots.plt.close(figure)
        return [text.get_text().strip() for text in figure.axes[0].texts]

    cost = {"rules": {"wrong": 10, "empty": 5}, "tuned": {"wrong": 3, "extra": 400}}
    assert words(plots.stacks(cost, unit="EUR")) == ["403 EUR", "15 EUR"]  # the first on top
    assert words(plots.bars({"a": 3, "b": 55.5}, unit="rows")) == ["55.5 rows", "3 rows"]
    shares = {"rules": intervals.share([True, False]), "tuned": intervals.share([True] * 9)}
    assert words(plots.shares(shares, highlight="tuned")) == ["100.0%", "50.0%"]


def test_one_variable_forces_32_bits(monkeypatch):
    monkeypatch.setenv("COURSE_FLOAT32", "1")
    here = runtime.detect("cpu")
    assert (here.dtype, here.bf16, here.fp16) == ("float32", False, False)


def test_a_damaged_line_is_named_and_a_cut_one_leaves_the_file(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"a": 1}\n{"b": {"c": 2}\n{"d": 3}\n')
    with pytest.raises(CourseError, match=r"answers.jsonl line 2 is damaged; take that line out"):
        files.read_entries(path)
    path.write_text('{"a": 1}\n{"b": ')
    assert files.read_entries(path) == [{"a": 1}] and path.read_text() == '{"a": 1}\n'


def test_a_package_that_is_missing_is_left_out_of_the_versions(monkeypatch):
    """A machine without one library still says what it has: it was seen on a rented card."""
    real = runtime.version

    def without(name):
        if name == "xllamacpp":
            raise runtime.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(runtime, "version", without)
    found = runtime.versions()
    assert "xllamacpp" not in found and {"python", "torch", "transformers", "trl"} <= {*found}

"""The recorded studies: their arms are what they say, two processes share the work, and a missing student is said."""

import json

import pytest

from helpers import CourseError
from helpers.core import files, rows, runs, runtime
from helpers.core.pilot import Pilot
from helpers.studies import curation_study, runner
from helpers.tune import students


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Chapter 04's study on the inbox with a pool that needs no teacher and students that answer by a coin."""
    pilot = Pilot.load("data/inbox")
    data = rows.load(pilot)
    monkeypatch.setattr(curation_study, "SIZE", 60)
    monkeypatch.setattr(curation_study, "LEAK", 0.03)
    made = []

    def fake(pilot, rows, steps, seed, here, sets, folder, free, settings):
        made.append(len(rows))
        folder.mkdir(parents=True)
        (folder / "facts.json").write_text("{}")
        right = {
            name: [(len(rows) + i + seed) % 3 > 0 for i in range(len(held))]
            for name, held in sets.items()
        }
        first = right["test"]
        return right | {f"test.{field}": first for field in pilot.fields} | (
            {"test.invented": first} if free else {}
        ), 1.0

    monkeypatch.setattr(students, "cell", fake)
    run = runs.Run(pilot, "studies/04", runtime.detect("smoke"))
    from helpers.make import phrase_book

    book, seeds = phrase_book.read_phrase_book(pilot), curation_study.few(pilot, data)
    bad = [
        {**row, "product": "no such words"} for row in phrase_book.compose(pilot, seeds, 60, book, 9)
    ]
    pool = phrase_book.compose(pilot, seeds, 120, book, 4) + [
        {**row, "id": row["id"] + "x"} for row in bad
    ]
    files.write_text(run.path("study_pool.jsonl"), "".join(json.dumps(row) + "\n" for row in pool))
    return pilot, data, run, made


def test_the_arms_have_equal_size_and_only_the_leak_has_test_rows(small):
    pilot, data, run, _ = small
    seeds, wanted = curation_study.few(pilot, data), curation_study.jobs(pilot, data, run)
    held, sizes = {row["message"] for row in data.test}, {}
    for _, arms, seed, *_ in wanted:
        for name, found in arms.items():
            leaked = sum(row["message"] in held for row in found)
            assert leaked == {"leak": 6, "leak read often": 36}.get(name, 0)
            sizes.setdefault(name, set()).add(len(found))
            missing = sum(
                bool(row[f]) and row[f] not in row["message"]
                for row in found
                for f in ("product", "order_id")
            )
            assert missing == 0 or name in ("raw", "no teacher, unfiltered")
    assert (
        sizes["raw"]
        == sizes["rules only"]
        == sizes["curated"]
        == {curation_study.REPEAT * len(seeds) + 60}
    )
    assert sizes["seeds only"] == {24} and sizes["all seeds"] == {60}
    draws = [arms["curated"] for name, arms, *_ in wanted if name == "arms"]
    assert draws[0] != draws[1], "every seed has a draw of its own"


def test_noise_changes_the_share_of_labels_it_says(small):
    pilot, data, *_ = small
    table = [dict(row) for row in data.test]
    for rate in curation_study.NOISE:
        noisy = curation_study.noisy(pilot, table, rate, 0)
        changed = [a[f] != b[f] for a, b in zip(table, noisy) for f in pilot.labels]
        assert abs(sum(changed) / len(changed) - rate) < 0.07
        assert all(
            a["product"] == b["product"] and b["urgency"] in pilot.fields["urgency"].values
            for a, b in zip(table, noisy)
        )


def test_two_processes_share_the_students_and_the_report_wants_them_all(small):
    pilot, data, run, made = small
    curation_study.train_students(pilot, data, run, say=lambda _: None, part=0, parts=2)
    half = len(made)
    with pytest.raises(CourseError, match="students of the study are missing"):
        curation_study.report(pilot, data, run)
    curation_study.train_students(pilot, data, run, say=lambda _: None, part=1, parts=2)
    total = sum(len(arms) for _, arms, *_ in curation_study.jobs(pilot, data, run))
    assert 0 < half < total and len(made) == total == 21
    settings = curation_study.report(pilot, data, run)
    assert len(made) == total, "the report trains nothing"
    figures = {f["name"]: f for f in run.figures}
    assert {
        "exact.seeds_only",
        "exact.curated",
        "invented_span.raw",
        "invented_span.curated",
        "exact.noise_40",
        "exact.leak.on_leaked",
        "exact.curated_minus_seeds_only",
    } <= set(figures)
    assert (
        figures["exact.curated"]["seeds"] == [0, 1, 2]
        and figures["exact.curated"]["n"] == 200
        and settings["seeds"] == 24
    )


def test_an_unknown_study_is_named(capsys):
    assert runner.main(["99"]) == 1
    assert "no study '99'" in capsys.readouterr().err

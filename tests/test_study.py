"""Students of a study: a finished one is not made again, intervals follow the rows, and one real student runs end to end."""

import json

import pytest

from helpers import CourseError
from helpers.core import files, rows, runs, runtime
from helpers.core.pilot import Pilot
from helpers.core.files import Journal
from helpers.studies.runner import qlora_study
from helpers.tune import students


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

    monkeypatch.setattr(students, "cell", fake)
    arms, sets = {"few": list(data.train)[:4], "all": list(data.train)}, {"test": data.test}
    go = lambda: students.run_students(
        pilot, arms, [0, 1], 3, None, sets, tmp_path / "s", say=lambda _: None
    )  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        go()
    with open(tmp_path / "s/cells.jsonl", "ab") as file:
        file.write(b'{"key": "half')
    made.clear()
    cells = go()
    assert made == [(12, 1)] and [(c["arm"], c["seed"]) for c in cells] == [
        ("few", 0),
        ("all", 0),
        ("few", 1),
        ("all", 1),
    ]
    made.clear()
    assert go() == cells and made == []
    arms["all"] = arms["all"][:-1]
    go()
    assert made == [(11, 0), (11, 1)], "other rows are another student"
    with pytest.raises(CourseError, match="arm 'none' has no rows"):
        students.run_students(pilot, {"none": []}, [0], 3, None, sets, tmp_path / "s")


def test_differences_are_paired_over_rows():
    cells = [
        {"arm": a, "right": {"test": r}}
        for a, r in (
            ("a", [True] * 30 + [False] * 10),
            ("a", [True] * 40),
            ("b", [True] * 20 + [False] * 20),
            ("b", [True] * 30 + [False] * 10),
        )
    ]
    assert (
        students.mean(cells, "a", "test").value == pytest.approx(0.875)
        and students.mean(cells, "a", "test").n == 40
    )
    gap = students.gap(cells, "a", "b", "test")
    assert gap.value == pytest.approx(0.25) and 0.15 < gap.low < gap.value < gap.high < 0.35
    assert (
        students.gap(cells, "a", "a", "test").low == students.gap(cells, "a", "a", "test").high == 0
    )
    with pytest.raises(CourseError, match="'c'"):
        students.mean(cells, "c", "test")


def test_without_copying_a_value_may_be_invented(pilot):
    free = students.Uncopied.model_construct(**dict(pilot))
    assert (
        free.grammar("Where is the pump?")
        == pilot.grammar("Where is the pump?", copy=False)
        != pilot.grammar("Where is the pump?")
    )
    assert free.instruction(False) == pilot.instruction(False)


def test_one_real_student(pilot, tmp_path):
    here, data = runtime.detect("smoke"), rows.load(pilot)
    cells = students.run_students(
        pilot,
        {"seeds": data.train},
        [0],
        2,
        here,
        {"test": data.test, "ood": data.test.select(range(3))},
        tmp_path / "s",
        say=lambda _: None,
    )
    right = json.loads((tmp_path / "s/cells.jsonl").read_text())["right"]
    assert right == cells[0]["right"] and {
        "test",
        "ood",
        "test.invented",
        "test.exact_free",
        "test.intent",
    } <= set(right)
    assert len(right["test"]) == len(right["test.invented"]) == 12 and len(right["ood"]) == 3
    free = Journal(next((tmp_path / "s").glob("*/test.invented.jsonl"))).of(data.test)
    said = [answer.partition('"product": "')[2][:12] for answer in free]
    assert any(words not in row["message"] for words, row in zip(said, data.test)), (
        "random weights invent what nothing forbids"
    )


def test_settings_of_a_student_are_its_own_and_leave_other_keys_alone(pilot, tmp_path, monkeypatch):
    data, seen = rows.load(pilot), []

    def fake(pilot, rows, steps, seed, here, sets, folder, free, settings=None):
        folder.mkdir(parents=True)
        (folder / "facts.json").write_text('{"trained": 7, "ship_bytes": 14, "loss": 1.0}')
        seen.append((folder.name, settings))
        return {"test": [True]}, 1.0

    monkeypatch.setattr(students, "cell", fake)

    def go(**more):
        return students.run_students(
            pilot,
            {"a": data.train},
            [0],
            3,
            None,
            {"test": data.test},
            tmp_path / "s",
            say=lambda _: None,
            **more,
        )

    plain, low, lower = go(), go(settings={"r": 4}), go(settings={"r": 4, "method": "lora"})
    assert len({plain[0]["key"], low[0]["key"], lower[0]["key"]}) == 3
    assert [s for _, s in seen] == [None, {"r": 4}, {"r": 4, "method": "lora"}]
    assert (
        "settings" not in plain[0] and low[0]["settings"] == {"r": 4} and low[0]["ship_bytes"] == 14
    )
    go(), go(settings={"r": 4})
    assert len(seen) == 3, "none is made again"
    with pytest.raises(CourseError, match="no setting 'rank'"):
        go(settings={"rank": 4})
    with pytest.raises(CourseError, match="qlora, lora or full, not 'dora'"):
        go(settings={"method": "dora"})


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "full"},
        {"method": "lora", "r": 4, "target_modules": ["q_proj", "v_proj"]},
        {"loss": "answer", "packing": False, "batch": 8, "load": "float32", "checkpointing": True},
    ],
    ids=["full", "attention", "default"],
)
def test_students_of_every_kind_train(pilot, tmp_path, settings):
    here, data = runtime.detect("smoke"), rows.load(pilot)
    found = students.run_students(
        pilot,
        {"a": data.train},
        [0],
        2,
        here,
        {"test": data.test.select(range(2))},
        tmp_path / "s",
        lambda _: None,
        free=False,
        settings=settings,
    )[0]
    assert "test.invented" not in found["right"] and len(found["right"]["test"]) == 2
    if settings.get("method") == "lora":  # two layers; q: 64 to 64, v: 64 to 32
        assert (
            found["trained"] == 2 * 4 * (64 + 64 + 64 + 32)
            and found["ship_bytes"] == 2 * found["trained"]
        )
    if settings.get("method") == "full":
        assert found["trained"] > 1_000_000, "every weight, the embedding table included"


def test_a_student_starts_from_the_adapter_of_another(pilot, tmp_path):
    from safetensors.torch import load_file

    here, data = runtime.detect("smoke"), rows.load(pilot)
    sets, moved = {"test": data.test.select(range(2))}, {}

    def go(steps, **more):
        return students.run_students(
            pilot,
            {"a": data.train},
            [0],
            steps,
            here,
            sets,
            tmp_path / "s",
            lambda _: None,
            free=False,
            settings={"loss": "answer", **more},
        )[0]

    def weights(cell):
        return load_file(tmp_path / "s" / cell["key"] / "adapter/adapter_model.safetensors")

    first = go(2)
    for name, start in (("on", first["key"]), ("anew", None)):
        a, b = weights(first), weights(go(1, learning_rate=1e-9, start=start))
        moved[name] = max(float((a[k] - b[k]).abs().max()) for k in a)
    assert moved["on"] < 1e-6 < moved["anew"]


@pytest.fixture
def small_study(pilot, tmp_path, monkeypatch):
    """Study 05 in a nutshell: two seeds, raw rows of chapter 03 beside it, students that are noted down instead of trained."""

    def noted(pilot, rows, steps, seed, here, sets, folder, free=True, settings=None):
        asked = students._settings(settings)
        assert (
            steps >= 1
            and rows
            and not free
            and (not asked["start"] or (folder.parent / asked["start"]).is_dir())
        )
        folder.mkdir(parents=True)
        trained = (
            10**6
            if asked["method"] == "full"
            else asked["r"] * (7 if asked["target_modules"] == "all-linear" else 4)
        )
        (folder / "facts.json").write_text(
            json.dumps({"trained": trained, "ship_bytes": 2 * trained, "loss": 1.0})
        )
        return {"test": [True, len(rows) > 12], "test.intent": [True, True]}, 1.5

    monkeypatch.setattr(students, "cell", noted)
    for name, value in {
        "EPOCHS": 1,
        "SEEDS": (0, 1),
        "FEWER": (0, 1),
        "CURVE": (6, 18),
        "STAGE_STEPS": 1,
    }.items():
        monkeypatch.setattr(qlora_study, name, value)
    data = rows.load(pilot)
    data.test = data.test.select(range(2))
    run = runs.Run(pilot, "studies/05", runtime.detect("smoke"))
    raw = [
        dict(row) | {"recipe": recipe}
        for recipe in ("lamini", "explain", "evolve")
        for row in data.train
    ]
    files.write_text(
        run.folder.parent.parent / "03/raw.jsonl", "".join(json.dumps(row) + "\n" for row in raw)
    )
    return pilot, data, run


def test_study_05_runs_in_two_parts_and_ends_in_figures(small_study, tmp_path):
    pilot, data, run = small_study
    jobs = qlora_study.jobs(pilot, data, run)
    assert [arm for folder, arm, *_ in jobs if arm.startswith("rows")] == 2 * ["rows 6", "rows 18"]
    assert not {row[pilot.text] for _, _, arm_rows, *_ in jobs for row in arm_rows} & {
        row[pilot.text] for row in data.test
    }
    with pytest.raises(
        CourseError, match=f"{len(jobs)} of {len(jobs)} students of study 05 are missing"
    ):
        qlora_study.report(pilot, data, run)
    quiet = [].append
    first = qlora_study.train_students(pilot, data, run, quiet, part=0, parts=2)
    both = qlora_study.train_students(pilot, data, run, quiet, part=1, parts=2)
    assert 0 < len(first) < len(both) == len(jobs)
    settings = qlora_study.report(pilot, data, run)
    assert (
        settings["rows_beyond_the_seeds"] == "substituted"
        and "default, 2 seeds" in settings["lead"][1]
    )
    figures = {f["name"]: f for f in run.figures}
    wanted = {
        "exact.fast",
        "exact.default",
        "exact.fast_minus_default",
        "exact.lora",
        "exact.full",
        "exact.rows_18",
        "exact.rank_4",
        "exact.attention_only",
        "exact.after_lamini",
        "exact.after_evol",
        "exact.mix",
        "exact.after_evol_minus_mix",
        "ship_bytes.fast",
        "seconds.full",
        "intent.fast",
        "seed_spread.fast",
        "exact.packs_of_256_minus_fast",
        "exact.fast_minus_rows_6",
        "exact.rows_18_minus_no_more_rows",
    }
    assert wanted <= set(figures)
    fast = figures["exact.fast"]
    assert fast["low"] <= fast["value"] <= fast["high"] and fast["n"] == 2
    assert (
        figures["ship_bytes.rank_4"]["value"]
        < figures["ship_bytes.fast"]["value"]
        < figures["ship_bytes.full"]["value"]
    )
    assert figures["ship_bytes.attention_only"]["value"] < figures["ship_bytes.fast"]["value"]
    started = {cell["arm"]: cell["settings"].get("start") for cell in both}
    keys = {cell["arm"]: cell["key"] for cell in both}
    assert (
        started["after Orca"] == keys["after LaMini"]
        and started["after Evol"] == keys["after Orca"]
        and started["mix"] is None
    )
    again = qlora_study.run(run.runtime, run.folder, quiet, pilot, data)
    assert [cell["key"] for cell in again] == [cell["key"] for cell in both], (
        "nothing is made twice"
    )


def test_study_05_takes_curated_rows_where_they_are_and_never_a_test_row(small_study):
    pilot, data, run = small_study
    fresh = {
        "message": "Please send belt number 9",
        "intent": "order",
        "product": "belt",
        "order_id": None,
    }
    stolen = fresh | {"message": data.test[0]["message"]}
    files.write_text(
        run.folder.parent.parent / "04/curated.jsonl",
        json.dumps(fresh) + "\n" + json.dumps(stolen) + "\n",
    )
    found, source = qlora_study.curated(pilot, data, run, 5)
    assert source == "curated" and found == [fresh]
    assert list(qlora_study.curve(pilot, data, run)) == [6], "too few rows for 18"
    with pytest.raises(CourseError, match="no finished student of study 05"):
        qlora_study.figures([])

"""The recorded studies: arms are what they say, no student twice, and the figures counted again."""

import json

import pytest
import torch

from helpers import ROOT, CourseError
from helpers.core import rows, runs, runtime
from helpers.core.files import Journal, read_entries, write_text
from helpers.core.pilot import Pilot
from helpers.make import phrase_book
from helpers.make.grammar import NO_COPY, record_grammar
from helpers.studies import (
    curation_study,
    episodes_figures,
    methods_study,
    pilots_study,
    qlora_study,
    recipe_study,
    runner,
    shipping_study,
    study_figures,
)
from helpers.tune import students
from helpers.tune.students import StudentJob


def quiet(line):
    """Takes the lines a study says."""


@pytest.fixture
def pilot(folder, tiny):
    pilot = Pilot.load(folder)
    pilot.base_model = str(tiny)
    return pilot


def job(data, settings=None, arm="a", seed=0, steps=2, number=2, **more):
    sets = {"test": data.test.select(range(number))}
    taught = more.pop("rows", list(data.train))
    return StudentJob(arm, taught, seed, steps, sets, settings or {}, **more)


def noted_students(monkeypatch, right):
    """Students that are noted down instead of trained; `right(job)` gives their answers."""
    seen = []

    def noted(pilot, job, here, folder):
        settings = job.all_settings()
        start = settings["start"]
        assert job.steps >= 1 and (start is None or start in [cell["key"] for cell in seen])
        trained = 10**6
        if settings["method"] != "full":
            trained = settings["r"] * (7 if settings["target_modules"] == "all-linear" else 4)
        cell = {"key": folder.name, "arm": job.arm, "study": job.study, "seed": job.seed}
        cell |= {"steps": job.steps, "rows": len(job.rows), "settings": job.settings}
        cell |= {"seconds": 1.5, "trained": trained, "ship_bytes": 2 * trained, "loss": 1.0}
        seen.append(cell | {"right": right(job)})
        return seen[-1]

    monkeypatch.setattr(students, "measure_student", noted)
    return seen


# Students -------------------------------------------------------------------------------------


def test_a_killed_study_goes_on_and_loses_at_most_one_student(pilot, tmp_path, monkeypatch):
    data, made = rows.load(pilot), []

    def right(job):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append((len(job.rows), job.seed))
        return {"test": [True, False]}

    noted_students(monkeypatch, right)
    jobs = []
    for seed in (0, 1):
        jobs.append(job(data, arm="few", seed=seed, rows=list(data.train)[:4]))
        jobs.append(job(data, arm="all", seed=seed))

    def go():
        return students.train_students(pilot, jobs, None, tmp_path / "s", quiet)

    with pytest.raises(KeyboardInterrupt):
        go()
    with open(tmp_path / "s/students.jsonl", "ab") as file:
        file.write(b'{"entries": {"half')
    made.clear()
    cells = go()
    assert made == [(12, 1)]
    assert [(c["arm"], c["seed"]) for c in cells] == [(j.arm, j.seed) for j in jobs]
    made.clear()
    assert go() == cells and made == []
    jobs[1] = job(data, arm="all", rows=list(data.train)[:-1])
    go()
    assert made == [(11, 0)], "other rows are another student"
    with pytest.raises(CourseError, match="arm 'none' has no rows"):
        students.train_students(pilot, [job(data, arm="none", rows=[])], None, tmp_path / "s")


def test_settings_of_a_student_shape_its_key(pilot):
    data = rows.load(pilot)
    plain, low = job(data).key(pilot), job(data, {"r": 4}).key(pilot)
    assert len({plain, low, job(data, {"r": 4, "method": "lora"}).key(pilot)}) == 3
    assert plain == job(data, {"r": 16}, arm="other name").key(pilot), "the default, said"
    assert plain != job(data, number=3).key(pilot), "another test set is another measurement"
    with pytest.raises(CourseError, match="no setting 'rank'"):
        job(data, {"rank": 4}).key(pilot)
    with pytest.raises(CourseError, match="qlora, lora or full, not 'dora'"):
        job(data, {"method": "dora"}).key(pilot)


def test_two_arms_of_the_same_rows_are_one_student(pilot, tmp_path, monkeypatch):
    data = rows.load(pilot)
    seen = noted_students(monkeypatch, lambda job: {"test": [True]})
    jobs = [job(data, arm="a"), job(data, arm="b")]
    cells = students.train_students(pilot, jobs, None, tmp_path / "s", quiet)
    assert len(seen) == 1 and [cell["arm"] for cell in cells] == ["a", "b"]


def test_differences_are_paired_over_rows():
    def cell(arm, wrong, seed=0):
        return {
            "arm": arm,
            "seed": seed,
            "right": {"test": [True] * (40 - wrong) + [False] * wrong},
        }

    cells = [cell("a", 10), cell("a", 0), cell("b", 20), cell("b", 10)]
    share = study_figures.mean_share(cells, "a", "test")
    assert share.value == pytest.approx(0.875) and share.n == 40
    gap = study_figures.mean_gap(cells, "a", "b", "test")
    assert gap.value == pytest.approx(0.25) and 0.15 < gap.low < gap.value < gap.high < 0.35
    none = study_figures.mean_gap(cells, "a", "a", "test")
    assert none.low == none.high == 0
    with pytest.raises(CourseError, match="'c'"):
        study_figures.mean_share(cells, "c", "test")


def test_without_copying_a_value_may_be_invented(pilot):
    free, text = students.InventingPilot.model_construct(**dict(pilot)), "Where is the pump?"
    assert NO_COPY in record_grammar(free, text)
    assert NO_COPY not in record_grammar(pilot, text)
    assert free.instruction(False) == pilot.instruction(False)


def test_real_students_side_by_side(pilot, tmp_path):
    """Two processes, two students; the second answers freely and shows what it invents."""
    data, here = rows.load(pilot), runtime.detect("smoke")
    sets = {"test": data.test, "ood": data.test.select(range(3))}
    free = StudentJob("free", list(data.train), 0, 2, sets, free=True)
    folder = tmp_path / "s"
    cells = students.train_students(pilot, [job(data), free], here, folder, quiet, n_jobs=2)
    assert len(read_entries(folder / "students.jsonl")) == 2
    assert {"test", "test.intent"} <= set(cells[0]["right"])
    right = cells[1]["right"]
    assert {"ood", "test.invented", "test.exact_free"} <= set(right)
    assert len(right["test"]) == len(right["test.invented"]) == 12 and len(right["ood"]) == 3
    [path] = (folder / cells[1]["key"]).glob("test.invented-*.jsonl")
    values = [text.partition('"product": "')[2][:12] for text in Journal(path).entries.values()]
    messages = " ".join(data.test[pilot.text])
    assert any(value not in messages for value in values), "random weights invent if they may"


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "full"},
        {"method": "lora", "r": 4, "target_modules": ["q_proj", "v_proj"]},
        qlora_study.DEFAULT,
    ],
    ids=["full", "attention", "default"],
)
def test_students_of_every_kind_train(pilot, tmp_path, settings):
    data, here = rows.load(pilot), runtime.detect("smoke")
    cell = students.measure_student(pilot, job(data, settings), here, tmp_path / "s")
    assert "test.invented" not in cell["right"] and len(cell["right"]["test"]) == 2
    if settings.get("method") == "lora":  # two layers; q: 64 to 64, v: 64 to 32
        assert cell["trained"] == 2 * 4 * (64 + 64 + 64 + 32)
        assert cell["ship_bytes"] == 2 * cell["trained"]
    if settings.get("method") == "full":
        assert cell["trained"] > 1_000_000, "every weight, the embedding table included"


def test_a_student_starts_from_the_adapter_of_another(pilot, tmp_path):
    from safetensors.torch import load_file

    data, here, moved = rows.load(pilot), runtime.detect("smoke"), {}

    def weights(steps, **settings):
        own = job(data, {"answer_only": True, **settings}, steps=steps, number=1)
        [cell] = students.train_students(pilot, [own], here, tmp_path / "s", quiet)
        adapter = tmp_path / "s" / cell["key"] / "adapter/adapter_model.safetensors"
        return cell["key"], load_file(adapter)

    key, first = weights(2)
    for name, start in (("on", key), ("anew", None)):
        _, then = weights(1, learning_rate=1e-9, start=start)
        moved[name] = max(float((first[k] - then[k]).abs().max()) for k in first)
    assert moved["on"] < 1e-6 < moved["anew"]


def test_a_look_at_held_out_rows_is_logged_and_changes_nothing_that_is_learnt(pilot, tmp_path):
    data, here, learnt = rows.load(pilot), runtime.detect("smoke"), {}

    class Watch(students.TrainerCallback):
        def __init__(self):
            self.losses = []

        def on_evaluate(self, args, state, control, metrics, **_):
            self.losses.append(metrics["eval_loss"])

    own = job(data, {"answer_only": True}, steps=6)
    longest = {**data.test[0], pilot.text: data.test[0][pilot.text] * 40}
    for name, held_out in (("watched", [*data.test.select(range(4)), longest]), ("alone", [])):
        watch = Watch()
        model, _, facts = students.train_student(
            pilot, own, here, tmp_path / name, held_out, [watch]
        )
        learnt[name] = [p.detach().clone() for p in model.parameters() if p.requires_grad]
        assert bool(watch.losses) == bool(held_out)
        assert all(0 < loss < 20 for loss in watch.losses)
    assert all(torch.equal(a, b) for a, b in zip(*learnt.values(), strict=True))


# Study 04 -------------------------------------------------------------------------------------


@pytest.fixture
def curation(monkeypatch):
    """Study 04 on the inbox with rows that no teacher wrote; students answer by a coin."""
    pilot = Pilot.load(ROOT / "data/inbox")
    data = rows.load(pilot)
    monkeypatch.setattr(curation_study, "LEAK", 0.03)

    def right(job):
        coins = {}
        for name, held_out in job.sets.items():
            coins[name] = [(len(job.rows) + i + job.seed) % 3 > 0 for i in range(len(held_out))]
        for field in pilot.fields:
            coins[f"test.{field}"] = coins["test"]
        return coins | ({"test.invented": coins["test"]} if job.free else {})

    seen = noted_students(monkeypatch, right)
    run = runs.Run(pilot, "studies/04", runtime.detect("smoke"))
    book, seeds = phrase_book.read_phrase_book(pilot), list(data.train)
    made = phrase_book.compose(pilot, seeds, 200, book, 2)
    for row in phrase_book.compose(pilot, seeds, 120, book, 4):
        made.append(row | {"recipe": "evolve", "teacher": "m"})
    for row in phrase_book.compose(pilot, seeds, 60, book, 9):
        wrong = {"product": "no such words", "id": row["id"] + "x", "teacher": "m"}
        made.append(row | wrong | {"recipe": "attributes"})
    made.append(dict(made[0]) | {"recipe": "explain", "teacher": "m", "message": "seed's own"})
    chapter = run.folder.parent.parent / "03/raw.jsonl"
    write_text(chapter, "".join(json.dumps(row) + "\n" for row in made))
    return pilot, data, run, seen


def test_the_arms_have_equal_size_and_only_the_leak_has_test_rows(curation):
    pilot, data, run, _ = curation
    test = {row["message"] for row in data.test}
    jobs, sizes = curation_study.curation_jobs(pilot, data, run, quiet), {}
    for one in jobs:
        leaked = sum(row["message"] in test for row in one.rows)
        assert leaked == {"leak": 6, "leak read often": 36}.get(one.arm, 0)
        assert not any(row["message"] == "seed's own" for row in one.rows)
        sizes.setdefault(one.arm, set()).add(len(one.rows))
        for row in one.rows:
            for field in ("product", "order_id"):
                missing = row[field] and row[field] not in row["message"]
                assert not missing or one.arm == "raw"
    kept = len(read_entries(run.path("study_curated.jsonl")))
    assert 60 < kept < 180
    full = {curation_study.REPEAT * len(data.train) + kept}
    assert sizes["raw"] == sizes["rules only"] == sizes["curated"] == sizes["phrase book"] == full
    assert sizes["labelled only"] == {60} and sizes["fewer"] == {max(full) - 6}
    draws = [one.rows for one in jobs if one.arm == "raw"]
    assert draws[0] != draws[1], "every seed has a draw of its own"


def test_noise_changes_the_share_of_labels_it_says(curation):
    pilot, data, *_ = curation
    table = [dict(row) for row in data.test]
    for rate in curation_study.NOISE:
        noisy = curation_study.with_label_noise(pilot, table, rate, 0)
        changed = [a[f] != b[f] for a, b in zip(table, noisy) for f in pilot.labels]
        assert abs(sum(changed) / len(changed) - rate) < 0.07
        for before, after in zip(table, noisy):
            assert before["product"] == after["product"]
            assert after["urgency"] in pilot.fields["urgency"].values


def test_study_04_ends_in_figures(curation):
    pilot, data, run, seen = curation
    path = runner.run_study("04", pilot, "smoke", say=quiet)
    total = len(curation_study.curation_jobs(pilot, data, run, quiet))
    assert len(seen) == total == 23
    result = json.loads(path.read_text())
    assert result["chapter"] == "04" and result["seconds"] == 1.5 * total
    figures = {f["name"]: f for f in result["figures"]}
    wanted = ["exact.labelled_only", "exact.all_rows", "invented_span.raw", "invented_span.curated"]
    wanted += ["exact.noise_40", "exact.leak.on_leaked", "exact.curated_minus_raw", "exact.fewer"]
    assert set(wanted) <= set(figures)
    assert figures["exact.curated"]["seeds"] == [0, 1, 2] and figures["exact.curated"]["n"] == 200
    assert result["settings"]["labelled"] == 60
    runner.run_study("04", pilot, "smoke", say=quiet)
    assert len(seen) == total, "nothing is made twice"


# Study 05 -------------------------------------------------------------------------------------


@pytest.fixture
def qlora(pilot, monkeypatch):
    """Study 05 in a nutshell: two seeds, chapter 03's raw rows beside it, students noted down."""
    right = lambda job: {"test": [True, len(job.rows) > 12], "test.intent": [True, True]}  # noqa: E731
    seen = noted_students(monkeypatch, right)
    small = {"EPOCHS": 1, "SEEDS": (0, 1), "FEWER": (0, 1), "CURVE": (6, 18), "STAGE_STEPS": 1}
    for name, value in small.items():
        monkeypatch.setattr(qlora_study, name, value)
    monkeypatch.setattr(qlora_study, "method_peaks", lambda pilot, run: {"qlora": 5})
    data = rows.load(pilot)
    run = runs.Run(pilot, "studies/05", runtime.detect("smoke"))
    raw = []
    for recipe in ("lamini", "explain", "evolve"):
        raw += [dict(row) | {"recipe": recipe} for row in data.train]
    raw_file = run.folder.parent.parent / "03/raw.jsonl"
    write_text(raw_file, "".join(json.dumps(row) + "\n" for row in raw))
    return pilot, data, run, seen


def test_study_05_ends_in_figures(qlora):
    pilot, data, run, seen = qlora
    jobs = qlora_study.qlora_jobs(pilot, data, run, quiet)
    sizes = [one.arm for one in jobs if one.arm.startswith("rows")]
    assert sizes == 2 * ["rows 6", "rows 18"]
    test = {row[pilot.text] for row in data.test}
    assert not any(row[pilot.text] in test for one in jobs for row in one.rows)
    path = runner.run_study("05", pilot, "smoke", say=quiet)
    result = json.loads(path.read_text())
    assert result["settings"]["rows_beyond_the_seeds"] == "substituted"
    assert "default, 2 seeds" in result["settings"]["lead"][1]
    figures = {f["name"]: f for f in result["figures"]}
    for arm in ("fast", "default", "lora", "full", "rows_18", "rank_4", "attention_only", "mix"):
        assert f"exact.{arm}" in figures
    for a, b in (("fast", "default"), ("after_evol", "mix"), ("packs_of_256", "fast")):
        assert f"exact.{a}_minus_{b}" in figures
    for name in ("fast_minus_rows_6", "rows_18_minus_no_more_rows", "after_lamini"):
        assert f"exact.{name}" in figures
    assert {"seconds.full", "intent.fast", "seed_spread.fast", "peak_bytes.qlora"} <= set(figures)
    fast = figures["exact.fast"]
    assert fast["low"] <= fast["value"] <= fast["high"] and fast["n"] == 2
    ship = {name: figures[f"ship_bytes.{name}"]["value"] for name in ("rank_4", "fast", "full")}
    assert ship["rank_4"] < ship["fast"] < ship["full"]
    assert figures["ship_bytes.attention_only"]["value"] < ship["fast"]
    cells = {cell["arm"]: cell for cell in seen}
    assert cells["after Orca"]["settings"]["start"] == cells["after LaMini"]["key"]
    assert cells["after Evol"]["settings"]["start"] == cells["after Orca"]["key"]
    assert "start" not in cells["mix"]["settings"]
    number = len(seen)
    runner.run_study("05", pilot, "smoke", say=quiet)
    assert len(seen) == number, "nothing is made twice"


def test_study_05_takes_curated_rows_where_they_are_and_never_a_test_row(qlora):
    pilot, data, run, _ = qlora
    fresh = {"message": "Please send belt number 9", "intent": "order"}
    fresh |= {"product": "belt", "order_id": None}
    stolen = fresh | {"message": data.test[0]["message"]}
    curated = run.folder.parent.parent / "04/curated.jsonl"
    write_text(curated, json.dumps(fresh) + "\n" + json.dumps(stolen) + "\n")
    assert qlora_study.rows_beyond_seeds(pilot, data, run) == ([fresh], "curated")
    assert list(qlora_study.curve_rows(pilot, data, run)) == [6], "too few rows for 18"
    with pytest.raises(CourseError, match="no finished student of study 05"):
        list(qlora_study.qlora_figures([], {}))


# The recorded ones ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", runner.STUDIES)
def test_the_recorded_students_give_the_published_figures(number):
    """Every answer of every student is stored, right or wrong; counted again, every figure."""
    pilot = Pilot.load(ROOT / "data/inbox")
    data = rows.load(pilot)
    place = number if number.isdigit() else f"studies/{number}"
    text = (ROOT / f"data/reference/inbox/{place}/study_cells.jsonl").read_text(encoding="utf-8")
    cells = [json.loads(line) for line in text.splitlines()]
    result = ROOT / f"data/reference/results/{number}_study.json"
    published = json.loads(result.read_text(encoding="utf-8"))["figures"]
    if number == "06":
        timed = json.loads((ROOT / f"data/reference/inbox/{place}/timed.json").read_text())
        figures = episodes_figures.play_figures(cells, timed)
    elif number == "09":
        figures = shipping_study.ship_figures(cells)
    elif number == "11":
        figures = pilots_study.pilot_figures(cells)
    else:
        figures = curation_study.curation_figures(pilot, data, cells)
    if number == "05":
        peaks = {}
        for figure in published:
            if figure["name"].startswith("peak_bytes."):
                peaks[figure["name"].removeprefix("peak_bytes.")] = figure["value"]
        figures = qlora_study.qlora_figures(cells, peaks)
    if number == "recipe":
        figures = recipe_study.recipe_figures(pilot, cells)
    if number == "methods":
        figures = methods_study.method_figures(pilot, cells)
    run = runs.Run(pilot, f"studies/{number}", runtime.detect("smoke"))
    for figure in figures:
        run.figure(**vars(figure))
    assert run.figures == published


# The recipe that is judged --------------------------------------------------------------------


def recipe_run():
    pilot = Pilot.load(ROOT / "data/inbox")
    return pilot, rows.load(pilot), runs.Run(pilot, "studies/recipe", runtime.detect("smoke"))


def test_the_recipe_has_no_test_row_and_its_arms_differ_in_one_thing():
    pilot, data, run = recipe_run()
    jobs = recipe_study.recipe_jobs(pilot, data, run)
    tested = {row["message"] for row in data.test}
    assert not [row for job in jobs for row in job.rows if row["message"] in tested]
    assert {job.steps for job in jobs} == {720}
    for seed in recipe_study.SEEDS:
        arms = {job.arm: job for job in jobs if job.seed == seed}
        assert set(arms) == {"qlora", "labelled only"}
        assert len(arms["labelled only"].rows) == 60
        assert arms["qlora"].settings == arms["labelled only"].settings


def test_the_methods_are_compared_on_the_recipe_of_the_chapter():
    pilot, data, run = recipe_run()
    recipe = {job.seed: job for job in recipe_study.recipe_jobs(pilot, data, run)[::2]}
    jobs = methods_study.method_jobs(pilot, data, run)
    larger, bigger = methods_study.larger_jobs(pilot, data, run)
    assert larger.base_model == "qwen2.5-coder-0.5b" and pilot.base_model == "embedded"
    for job, big in zip(jobs, bigger, strict=True):
        assert job.rows == big.rows == recipe[job.seed].rows and job.steps == big.steps == 720
        assert big.arm == f"larger {job.arm}" and big.seed == job.seed
        assert big.settings["learning_rate"] < job.all_settings()["learning_rate"]
    assert [job.arm for job in jobs] == ["qlora"] * 3 + ["lora"] * 3 + ["full"] * 3
    # the chapter's own students are this study's first three: nothing is trained twice
    assert [job.key(pilot) for job in jobs[:3]] == [recipe[s].key(pilot) for s in (0, 1, 2)]


def test_the_methods_say_where_they_were_trained_and_what_is_missing():
    cells = methods_cells()
    settings = methods_study.method_settings(Pilot.load(ROOT / "data/inbox"), cells)
    have = {(cell["arm"], cell["seed"]) for cell in cells}
    assert len(have) == len(cells) and all(cell["machine"] for cell in cells)
    assert len(settings["unfinished"]) == 18 - len(have)
    published = json.loads((ROOT / "data/reference/results/methods_study.json").read_text())
    assert published["settings"]["unfinished"] == settings["unfinished"]
    assert published["settings"]["machines"] == settings["machines"]


def methods_cells():
    path = ROOT / "data/reference/inbox/studies/methods/study_cells.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_fold_student_never_learned_the_rows_it_reads_nor_a_piece_of_them():
    pilot, data, run = recipe_run()
    folds, train = recipe_study.fold_jobs(pilot, data, run), list(data.train)
    places = sorted(place for own, _ in folds for place in own)
    assert places == list(range(len(train))), "each labelled row once"
    for own, job in folds:
        read = [train[place]["message"] for place in own]
        assert [row["message"] for row in job.sets["unseen"]] == read
        learnt = " | ".join(row["message"].casefold() for row in job.rows)
        for message in read:
            assert message.casefold() not in learnt
        assert len(job.rows) > 400, "most made rows stay"
    made = [{"message": text} for text in ("Send me the blue belt now", "send me a red belt")]
    kept = recipe_study.made_apart_from(pilot, made, [{"message": "send me the BLUE one"}])
    assert [row["message"] for row in kept] == ["send me a red belt"]
    made = [{"message": "軸受けの納期はいつになりますか教えて"}, {"message": "請求書をください"}]
    read = [{"message": "この軸受けの納期はいつになりますか"}]
    assert recipe_study.made_apart_from(pilot, made, read) == made[1:]


def test_the_new_rows_are_refused_without_rows_or_without_a_bar(folder):
    small = Pilot.load(folder)
    run = runs.Run(small, "studies/recipe", runtime.detect("smoke"))
    data = rows.load(small)
    with pytest.raises(CourseError, match="has no new.csv"):
        recipe_study.read_new_rows(small, data, run)
    lines = (folder / "test.csv").read_text(encoding="utf-8").splitlines()
    fresh = [f"new-{line}".replace("belt", "chain") for line in lines[1:] if "belt" in line]
    (folder / "new.csv").write_text("\n".join([lines[0], *fresh]) + "\n", encoding="utf-8")
    with pytest.raises(CourseError, match="run chapter 02"):
        recipe_study.read_new_rows(small, data, run)


def test_fast_and_default_students_differ_in_the_choices_alone():
    path = ROOT / "data/reference/inbox/05/study_cells.jsonl"
    cells = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    results = json.loads((ROOT / "data/reference/results/05_study.json").read_text())
    for arm in ("fast", "default"):
        cell = next(cell for cell in cells if cell["arm"] == arm)
        assert cell["rows"] == 60 and cell["settings"] == results["settings"][arm]


def test_an_unknown_study_is_named(capsys):
    assert runner.study_command(["99"]) == 1
    assert "no study '99'" in capsys.readouterr().err

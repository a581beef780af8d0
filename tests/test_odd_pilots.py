"""Pilots as strangers bring them: every encoding, column, label and folder; nothing lost unsaid."""

import contextlib
import json
import os
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import generated_pilots
from helpers import CourseError, course
from helpers.agree import clusters
from helpers.agree.bar import Bar
from helpers.agree.wish import Wish
from helpers.core import files, rows, runtime
from helpers.core.pilot import Pilot
from helpers.core.runtime import PROFILES
from helpers.keep import filters, pipeline
from helpers.label import labeler
from helpers.make import recipes
from helpers.measure import baselines, confidence, error_costs, harness, judging, scoring

LABELS = "name: odd\ntext: message\nfields:\n  kind: {type: label, values: [order, quote]}\n"


def pilot_of(folder, lines, yaml=LABELS, encoding="utf-8", header="message,kind"):
    """A pilot whose three splits hold the same lines, but for a number in front of each."""
    folder.mkdir(exist_ok=True)
    (folder / "pilot.yaml").write_text(yaml, encoding="utf-8")
    for split in ("train", "test"):
        text = "\n".join([header, *(f"{split} {n} {line}" for n, line in enumerate(lines))])
        (folder / f"{split}.csv").write_bytes((text + "\n").encode(encoding))
    return Pilot.load(folder)


WORDS = {
    "cp932": "注文の番号を教えてください。",
    "cp1252": "Größe für die Stückliste, 20 €, “prüfen”",
    "utf-16": "Größe и заказ, 注文",
    "utf-16-le": "order for spare parts",
    "utf-8-sig": "Größe и заказ",
}


@pytest.mark.parametrize("encoding", WORDS)
def test_encodings_that_can_be_told_are_read_with_a_note(tmp_path, encoding):
    lines = [f'"{WORDS[encoding]}"\t{kind}' for kind in ("order", "quote")] * 6
    pilot = pilot_of(tmp_path / "p", lines, encoding=encoding, header="message\tkind")
    data = rows.load(pilot)
    assert data.test["message"][3] == f'test 3 "{WORDS[encoding]}"'
    said = [note for note in data.notes if "is not UTF-8 and was read as" in note]
    assert len(said) == (0 if encoding == "utf-8-sig" else 2)


OTHERS = {
    "cp1250": "Proszę o wysłanie zamówienia, było źle zapakowane; příliš žluťoučký kůň",
    "cp1251": "Где мой заказ? Пожалуйста, ответьте",
    "cp1253": "Πού είναι η παραγγελία μου; Ευχαριστώ",
    "cp1254": "Siparişim nerede? Lütfen bana yazınız, teşekkürler",
    "mac_roman": "Größe für die Stückliste, bitte prüfen Sie schöne Grüße",
    "cp850": "Größe für die Stückliste, bitte prüfen",
    "euc_jp": "注文の番号を教えてください",
    "gbk": "请问我的订单在哪里？谢谢",
    "big5": "請問我的訂單在哪裡？謝謝",
    "cp949": "제 주문은 어디에 있습니까? 감사합니다",
}


@pytest.mark.parametrize("encoding", OTHERS)
def test_every_other_encoding_is_refused_and_not_misread(tmp_path, encoding):
    lines = [f'"{OTHERS[encoding]}"\t{kind}' for kind in ("order", "quote")] * 6
    pilot = pilot_of(tmp_path / "p", lines, encoding=encoding, header="message\tkind")
    with pytest.raises(CourseError, match=r"^train.csv is not UTF-8 \(line 2\); save it as"):
        rows.load(pilot)


def test_utf_8_with_other_bytes_pasted_in_is_refused_with_its_line(tmp_path):
    pilot = pilot_of(tmp_path / "p", ["grün für,order", "blau für,quote"] * 6)
    path = pilot.folder / "test.csv"
    path.write_bytes(path.read_bytes() + "neue Größe,order\n".encode("cp1252"))
    with pytest.raises(CourseError, match=r"test.csv is not UTF-8 \(line 14\); save"):
        rows.load(pilot)
    (pilot.folder / "pilot.yaml").write_bytes((LABELS + "about: für Grüße\n").encode("cp1252"))
    with pytest.raises(CourseError, match=r"\(line 5\), it looks like Windows-1252"):
        Pilot.load(pilot.folder)


def test_columns_that_the_pilot_does_not_name_are_kept_for_grouping_alone(tmp_path):
    lines = [f"mail,{('order', 'quote')[n % 2]},t{n % 3}" for n in range(12)]
    pilot = pilot_of(tmp_path / "p", lines, header="message,kind,thread")
    data = rows.load(pilot, PROFILES["smoke"])
    assert data.test.column_names == ["id", "message", "kind", "tags"] and len(data.test) == 8
    for row, beside in zip(data.test, data.metadata["test"], strict=True):
        number = int(row["message"].split()[1])
        assert beside["thread"] == f"t{number % 3}", "sampled together"
    assert any("does not name: thread; kept for grouping" in note for note in data.notes)


def test_what_stands_above_the_header_moves_no_row_number(tmp_path):
    pilot = pilot_of(tmp_path / "p", ["a;order", "b;quote"] * 6, header="\nsep=;\n\nmessage ; kind")
    assert len(rows.load(pilot).test) == 12
    path = pilot.folder / "test.csv"
    path.write_text(path.read_text().replace("test 1 b;quote", "test 1 b;quota"))
    with pytest.raises(CourseError, match="test.csv row 6: .*'quota'"):
        rows.load(pilot)


def test_spaces_around_labels_and_values_are_taken_off_with_a_note(tmp_path):
    yaml = LABELS + "  item: {type: span, optional: true}\n"
    lines = ["send a pump, order , pump", "what does it cost,quote,  "] * 6
    data = rows.load(pilot_of(tmp_path / "p", lines, yaml, header="message,kind,item"))
    assert data.test[0]["kind"] == "order" and data.test[0]["item"] == "pump"
    assert data.test[1]["item"] is None
    assert any("test.csv: spaces around the values of 12 row(s)" in note for note in data.notes)


def test_a_missing_id_never_takes_the_id_of_another_row(tmp_path):
    pilot = pilot_of(tmp_path / "p", ["a,order", "b,quote"] * 6)
    lines = [
        {"id": {0: "2", 1: None, 2: " "}.get(n, n + 10), "message": f"m {n}", "kind": "order"}
        for n in range(12)
    ]
    (pilot.folder / "test.csv").unlink()
    lines[5] |= {"tags": ["a", "b"], "thread": 7, "more": {"a": None}}
    path = pilot.folder / "test.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    data = rows.load(pilot)
    assert data.test["id"][:4] == ["2", "row 2", "3", "13"] and data.test["tags"][5] == '["a", "b"]'
    assert data.metadata["test"][5] == {"thread": "7", "more": '{"a": null}'}
    lines[5] |= {"id": "2", "kind": 1}
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(CourseError, match="test.jsonl line 6: .*'2' stands in line 1 already"):
        rows.load(pilot)


def test_hints_for_numbers_that_a_spreadsheet_changed(tmp_path):
    yaml = LABELS.replace("[order, quote]", '["01", "10", "2"]')
    for value, meant in (("1", "01"), ("1.0", "01"), ("2.0", "2")):
        pilot = pilot_of(tmp_path / "p", [f"a,{value}"] * 12, yaml)
        with pytest.raises(CourseError, match=f"did you mean '{meant}'"):
            rows.load(pilot)
    yaml = LABELS.replace("{type: label, values: [order, quote]}", "") + (
        "    type: label\n    values:\n      - item\n      - item #1\n"
    )
    with pytest.raises(CourseError, match="listed twice"):
        pilot_of(tmp_path / "p", ["a,item #1"] * 12, yaml)
    pilot = pilot_of(tmp_path / "p", ["a,item #1"] * 12, yaml.replace("- item\n", "- other\n"))
    with pytest.raises(CourseError, match="a # begins a comment: write 'item #1' in quotes"):
        rows.load(pilot)


@pytest.mark.parametrize("profile", ["smoke", "cpu"])
def test_seventy_seven_labels_of_five_rows_keep_a_row_each(tmp_path, profile):
    names = [f"k{n}" for n in range(77)]
    yaml = LABELS.replace("[order, quote]", str(names)) + (
        "  mood: {type: label, values: [good, bad, odd], optional: true}\n"
    )
    lines = [f"about {n} again {again},k{n},good" for n in range(77) for again in range(5)]
    lines[13] = lines[13].replace("good", "bad")
    lines[200] = lines[200].replace("good", "odd")
    lines[350] = lines[350].replace("good", "")
    data = rows.load(
        pilot_of(tmp_path / "p", lines, yaml, header="message,kind,mood"), PROFILES[profile]
    )
    assert set(data.train["kind"]) == set(names)
    assert set(data.train["mood"]) == {"good", "bad", "odd", None}
    assert len(data.train) <= max(PROFILES[profile].train_rows, 80)
    assert any(f"train: {len(data.train)} of 385 rows" in note for note in data.notes)


# Folders and several processes ----------------------------------------------------------------


def test_relative_folders_are_meant_from_where_the_user_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in runtime.FOLDERS:
        monkeypatch.setenv(name, f"some/{name}")
    options = course._options([])
    assert options.pilot == str(tmp_path / "some/COURSE_PILOT")
    for name in runtime.FOLDERS:
        assert os.environ[name] == str(tmp_path / "some" / name)


def test_in_a_notebook_relative_folders_are_meant_from_where_its_server_stands(tmp_path):
    """The kernel runs in notebooks/, and what the shell said about its folder may be old."""
    script = """
        import nbclient, nbformat, sys
        cell = nbformat.v4.new_code_cell(
            "import sys; sys.path.insert(0, '..')\\n"
            "from helpers.core import runtime; runtime.make_folders_absolute()\\n"
            "import os; print(os.environ['COURSE_RUNS'], os.environ['COURSE_CACHE'])")
        notebook = nbformat.v4.new_notebook(cells=[cell])
        resources = {"metadata": {"path": sys.argv[1]}}
        nbclient.NotebookClient(notebook, resources=resources, kernel_name="python3").execute()
        print(notebook.cells[0].outputs[0].text)
        """
    environment = {**os.environ, "COURSE_RUNS": "out", "COURSE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(ROOT / "notebooks")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "out"), str(tmp_path / "cache")]


SLOW_WRITER = """
import sys, time
from helpers.core import files
with files.locked(sys.argv[1]), open(sys.argv[1], "ab") as file:
    file.write(b'{"entries": {"theirs"')
    file.flush()
    print("half a line", flush=True)
    time.sleep(0.5)
    file.write(b': "b"}, "seconds": 0}\\n')
"""


@pytest.mark.parametrize("read_first", [True, False])
def test_two_processes_write_one_journal_and_no_line_is_lost_or_cut(tmp_path, read_first):
    path = tmp_path / "answers.jsonl"
    files.append_entry(path, {"entries": {"first": "a"}, "seconds": 0}, "Answers", 0)
    command = [sys.executable, "-c", SLOW_WRITER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "half a line\n"
        if read_first:  # half a line that somebody is writing is no line that a kill cut
            assert set(files.Journal(path).entries) == {"first", "theirs"}
        files.append_entry(path, {"entries": {"mine": "c"}, "seconds": 0}, "Answers", 0)
    assert set(files.Journal(path).entries) == {"first", "theirs", "mine"}


def test_make_course_holds_its_folder_while_it_runs(folder, monkeypatch, tmp_path):
    """A second `make course` of the pilot waits, whatever it is going to run."""
    lock = tmp_path / "runs/small/smoke/.lock"
    taken = []

    def try_to_take(*args):
        with open(lock, "ab") as file, pytest.raises(OSError):
            files._lock(file, wait=False)
        taken.append(True)

    monkeypatch.setattr(course, "_run", try_to_take)
    assert course.main(["--pilot", str(folder), "--profile", "smoke"]) == 0 and taken == [True]
    with open(lock, "ab") as file:
        files._lock(file, wait=False)  # free again


def test_messages_are_grouped_by_a_column_of_the_file_or_by_wording(tmp_path):
    pilot = pilot_of(tmp_path / "p", ["a,order", "b,quote"] * 6)
    texts = ["はい", "いい", "はい", "注文"]  # the shortest have no run of three characters
    assert clusters.message_clusters(pilot, texts, [{}] * 4) == [0, 1, 0, 2]
    beside = [{"thread": "9"}, {"thread": "7"}, {}, {"thread": "9"}]
    assert clusters.message_clusters(pilot, texts, beside, "thread") == [0, 1, 2, 0]
    with pytest.raises(CourseError, match="'tread' to group by; did you mean 'thread'"):
        clusters.message_clusters(pilot, texts, beside, "tread")


def test_pilots_made_by_chance_run_through_and_lose_nothing(tokenizer, monkeypatch):
    """The first of the hundred that benchmarks/generated_pilots.py tries and records."""
    counts = generated_pilots.try_all(8, tokenizer)
    assert counts["generated"] == 8 and counts["refused"] < 8 and counts["asked"] > 60
    for name in ("tracebacks", "silent_losses", "false_refusals", "damage_not_named"):
        assert counts[name] == 0
    # the same pilots, with a reader that drops a row or takes a mistake for granted
    monkeypatch.setattr(rows, "_without_leaks", lambda pilot, tables, notes: tables["train"][1:])
    monkeypatch.setattr(rows, "_problems", lambda *args: [])
    broken = generated_pilots.try_all(3, tokenizer)
    assert broken["silent_losses"] >= 2


def test_recorded_counts_of_the_hundred_pilots():
    page = json.loads((ROOT / "data/reference/results/everywhere.json").read_text())
    figures = {figure["name"]: figure["value"] for figure in page["figures"]}
    assert figures["pilots.generated"] == 100
    assert figures["pilots.tracebacks"] == figures["pilots.silent_losses"] == 0


NAMES = """
name: odd
text: message
fields:
  注文番号: {type: span, optional: true}
  größe: {type: label, values: [order, quote], optional: true}
"""


def test_names_in_any_script_are_found_where_the_model_writes_them(tmp_path, tokenizer):
    """Their escaped form would be another text: other places, another prompt than in training."""
    lines = ["send A1,A1,order", "what,,quote", "nothing,,"] * 4
    pilot = pilot_of(tmp_path / "p", lines, NAMES, header="message,注文番号,größe")
    data = rows.load(pilot)
    answer = pilot.answer(data.test[0])
    places = confidence.field_places(pilot, answer)
    assert {name: answer[a:b] for name, (a, b) in places.items()} == {
        "注文番号": '"A1"',
        "größe": '"order"',
    }
    docs = harness.label_docs(pilot, list(data.test), tokenizer)
    for row, doc in zip(data.test, docs, strict=True):
        right = doc["choices"][doc["answer"]]
        assert (doc["prompt"] + right).endswith(pilot.answer(row))


SPICE = [
    "\0",
    '"',
    "\n",
    "\r",
    ",",
    ";",
    "\t",
    "{",
    "[",
    "null",
    "NaN",
    ":",
    "- ",
    "? ",
    "&a ",
    "*a",
]
SPICE += ["!!python/name:os ", "<<: ", "| ", "%", "@", "2024-01-01", "\u2028", "# ", "'", "\\ud800"]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["pilot.yaml", "test.csv", "test.jsonl"]),
    at=st.integers(0, 400),
    cut=st.integers(0, 12),
    put=st.one_of(st.sampled_from(SPICE), st.binary(max_size=3)),
)
def test_a_damaged_file_is_read_or_refused_in_one_sentence(tmp_path_factory, name, at, cut, put):
    pilot = pilot_of(
        tmp_path_factory.mktemp("odd") / "p",
        ["send please,order", "what does it cost,quote"] * 6,
    )
    path = pilot.folder / name
    if name == "test.jsonl":
        lines = [json.dumps(row) + "\n" for row in rows.load(pilot).test]
        path.write_text("".join(lines))
        (pilot.folder / "test.csv").unlink()
    data = path.read_bytes()
    at %= len(data)
    put = put.encode() if isinstance(put, str) else put
    path.write_bytes(data[:at] + put + data[at + cut :])
    try:
        rows.load(Pilot.load(pilot.folder))
    except CourseError as problem:
        assert "\n" not in str(problem) and str(problem).endswith((".", "?"))


# Pilots without a label field, with labels that may be empty, with many ----------------------

KINDS = {
    "spans only": (
        "item: {type: span, optional: true}\n  code: {type: pattern, regex: 'A\\d', optional: true}",
        ["send a pump A1,pump,A1", "all is well,,", "where is the belt,belt,", "A2 please,,A2"] * 5,
        "message,item,code",
    ),
    "optional labels": (
        "kind: {type: label, values: [order, quote], optional: true}\n"
        "  mood: {type: label, values: [good, bad], optional: true}",
        ["send a pump,order,good", "all is well,,", "what does it cost,quote,", "well,,bad"] * 5,
        "message,kind,mood",
    ),
    "77 labels of 5 rows": (
        f"kind: {{type: label, values: [{', '.join(f'k{n}' for n in range(77))}]}}",
        [f"about matter {n} again {again},k{n}" for again in range(5) for n in range(77)],
        "message,kind",
    ),
}


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("kind", KINDS)
def test_every_helper_of_the_chapters_takes_an_odd_pilot(tmp_path, tokenizer, kind):
    """What 02, 03, 04, 08 and 10 ask of a pilot, without a model."""
    fields, lines, header = KINDS[kind]
    yaml = f"name: odd\ntext: message\nfields:\n  {fields}\n"
    pilot = pilot_of(tmp_path / "p", lines, yaml, header=header)
    data = rows.load(pilot)
    train, test = list(data.train), list(data.test)
    texts, ways = [row["message"] for row in test], {}
    for name in ("majority", "rules", "tf_idf"):
        ways[name] = scoring.score(pilot, test, getattr(baselines, name)(pilot, train, texts))
        assert ways[name].valid.all()
    wish = Wish.load(pilot)
    bar = Bar.freeze(pilot, **wish.for_bar(pilot, "majority", len(test)) | {"agreed": False})
    assert bar.verdict(ways["tf_idf"], ways["majority"], test).n == len(test)
    fold = baselines.folds(pilot, train)
    assert all(baselines.out_of_fold(pilot, train, baselines.tf_idf, fold))
    cost = error_costs.error_cost(pilot, test, ways["tf_idf"].records, bar.costs)
    assert cost.value >= 0
    with contextlib.suppress(pipeline.CurationError):  # a sentence, where a label is gone
        pipeline.curate(pilot, data.train, filters.standard(pilot, data.train, data.test))
    for recipe in (recipes.lamini, recipes.evolve, recipes.attributes):
        plans = recipe(pilot, train, 8, 0)
        assert plans or (recipe is recipes.lamini and not pilot.labels)
    if pilot.labels:
        docs = harness.label_docs(pilot, test[:20], tokenizer, 256)
        assert len({doc["answer"] for doc in docs}) > 1
    pairs = judging.pairs(pilot, test, test, ways["tf_idf"].records, ways["majority"].records, 0)
    judging.pair_requests(pilot, pairs[:5])
    sides = []
    for name, rate in (("a", 0.1), ("b", 0.3)):
        path = tmp_path / f"{name}.jsonl"
        sides.append(labeler.simulate(pilot, test[:40], path, rate, annotator=name, seed=1))
    assert set(sides[0].agreement_with(sides[1])) == {*pilot.fields, "exact record"}

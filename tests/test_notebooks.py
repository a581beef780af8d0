"""The chapters on someone else's pilot and model; nbval runs them on the inbox."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from helpers import ROOT, CourseError, course


def label_pilot(tmp_path, base):
    """The smallest pilot: one label field, CSV, another base model."""
    place = tmp_path / "mine"
    place.mkdir()
    (place / "pilot.yaml").write_text(
        "name: mine\ntext: body\nfields:\n  topic: {type: label, values: [order, complaint]}\n"
        f"base_model: {json.dumps(str(base))}\n"
    )
    for split, n in (("train", 14), ("test", 12)):
        lines = ["body,topic"] + [
            f"{'please send part' if i % 2 else 'I am unhappy with part'} {split} {i},"
            f"{('complaint', 'order')[i % 2]}"
            for i in range(n)
        ]
        (place / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return place


@pytest.mark.slow
def test_chapter_00_runs_on_a_folder_and_a_model_of_ones_own(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "00"]) == 0, (
        capsys.readouterr().err
    )
    folder = tmp_path / "runs/mine/smoke"
    result = json.loads((folder / "00/results.json").read_text())
    names = {f["name"] for f in result["figures"]}
    assert {"exact.tuned", "exact.zero_shot", "exact.few_shot", "topic.tuned_minus_tf_idf"} <= names
    assert "mine" in (folder / "report.html").read_text()
    said = capsys.readouterr().out
    assert re.search(r"00_first_pilot +done in \d+ s", said) and "report.html" in said
    # run again: nothing is asked or trained twice, the figures stay
    before = {p.name: p.read_bytes() for p in (folder / "00/answers").iterdir()}
    assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "00"]) == 0
    assert {p.name: p.read_bytes() for p in (folder / "00/answers").iterdir()} == before
    again = json.loads((folder / "00/results.json").read_text())
    drop = ("seconds", "date")
    assert {k: v for k, v in again.items() if k not in drop} == {
        k: v for k, v in result.items() if k not in drop
    }


@pytest.mark.slow
def test_chapter_00_without_a_label_field_and_with_rows_out_of_domain(tmp_path, tiny, capsys):
    place = tmp_path / "spans"
    place.mkdir()
    (place / "pilot.yaml").write_text(
        "name: spans\ntext: body\nfields:\n  product: {type: span, optional: true}\n"
        f"base_model: {json.dumps(str(tiny))}\n"
    )
    for split, n in (("train", 14), ("test", 12), ("ood", 4)):
        lines = ["body,product"]
        for i in range(n):
            product = f"pump {i}" if i % 2 and split != "ood" else ""
            lines.append(f"please send {product or 'nothing'} for {split},{product}")
        (place / f"{split}.csv").write_text("\n".join(lines) + "\n")
    assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "00"]) == 0, (
        capsys.readouterr().err
    )
    result = json.loads((tmp_path / "runs/spans/smoke/00/results.json").read_text())
    names = {figure["name"] for figure in result["figures"]}
    assert {"exact.tuned", "product.span.rules", "filled_where_null.tuned"} <= names


@pytest.mark.slow
def test_chapter_01_on_a_folder_and_a_model_that_the_catalogue_does_not_know(
    tmp_path, tiny, capsys
):
    place = label_pilot(tmp_path, tiny)
    assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "01"]) == 0, (
        capsys.readouterr().err
    )
    folder = tmp_path / "runs/mine/smoke/01"
    choice = json.loads((folder / "choice.json").read_text())
    # a model of random weights is a candidate like others, and not the one that is chosen
    assert choice["base_model"] == "embedded" and choice["verdict"] == "allowed"
    own = choice["candidates"][str(tiny)]
    assert own["gib_to_tune"] > 0
    assert own["bits_per_character"] > choice["candidates"]["embedded"]["bits_per_character"]
    names = {f["name"] for f in json.loads((folder / "results.json").read_text())["figures"]}
    assert {"gate.cases", "gate.right", "memory.prediction_error.embedded"} <= names
    assert {"candidate.embedded.exact", "surprise.embedded"} <= names
    assert sum(name.startswith("surprise.") for name in names) == 4
    assert str(tmp_path) not in str(names)


def test_a_mistake_in_the_pilot_is_one_sentence_without_a_traceback(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    (place / "train.csv").write_text(
        (place / "train.csv").read_text().replace(",order", ",ordr", 1)
    )
    assert course.main(["--pilot", str(place), "--profile", "smoke"]) == 1
    said = capsys.readouterr().err
    assert (
        "did you mean 'order'" in said
        and "Traceback" not in said
        and len(said.strip().splitlines()) == 1
    )


def test_a_cell_that_fails_is_named_and_no_interruption(tmp_path):
    page = tmp_path / "09_broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), page)
    with pytest.raises(
        CourseError, match="09_broken stopped with ZeroDivisionError: division by zero"
    ):
        course.run_chapter(page, lambda line: None, dict(os.environ))


def test_unknown_pilot_and_chapter(tmp_path, capsys):
    assert course.main(["--pilot", str(tmp_path / "nowhere")]) == 1
    assert "no pilot.yaml" in capsys.readouterr().err
    assert course.main(["--only", "99"]) == 1
    assert "no chapter '99'" in capsys.readouterr().err


def test_stored_outputs_are_small():
    for _, path in course.chapters():
        assert path.stat().st_size < 1_000_000, path.name


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal to a process group")
def test_ctrl_c_ends_in_a_sentence_and_keeps_what_was_answered(tmp_path, tiny):
    place = label_pilot(tmp_path, tiny)
    command = [sys.executable, "-m", "helpers.course", "--pilot", str(place), "--profile", "smoke"]
    victim = subprocess.Popen(
        command,
        cwd=ROOT,
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    answers, deadline = tmp_path / "runs/mine/smoke/00/answers", time.time() + 120
    while (
        not list(answers.glob("zero_shot-*.jsonl"))
        and victim.poll() is None
        and time.time() < deadline
    ):
        time.sleep(0.1)
    os.killpg(victim.pid, signal.SIGINT)
    said = victim.communicate(timeout=60)[1]
    assert victim.returncode == 130 and "Stopped." in said and "Traceback" not in said, said
    assert list(answers.glob("zero_shot-*.jsonl"))

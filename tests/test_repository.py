"""The two roads agree, README and results agree, and nothing of one machine is in the tree."""

import json
import re
import subprocess

import nbformat
import pytest
import yaml
from conftest import ROOT

from helpers import check, colab, course
from helpers.core import runtime
from helpers.measure import pages


def test_conda_and_pip_are_the_same_set():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(d["pip"] for d in dependencies if isinstance(d, dict))
    conda = {re.split(r"[<>=]", d)[0] for d in dependencies if isinstance(d, str)}
    assert pip == ["-r requirements.txt"] and conda == {"python", "pip"}, (
        "no package may come from conda beside requirements.txt"
    )
    lines = [
        line
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert len(lines) == len(colab.pinned()), "every requirement is an exact pin"
    assert not re.search(r"https?://", (ROOT / "requirements.txt").read_text())


def test_what_is_installed_is_what_is_pinned():
    wrong = [
        (wanted, found)
        for ok, wanted, found, _ in check.check()
        if ok is False
        and "==" not in wanted
        and re.match(r"\S+ \d", wanted)
        and "GiB" not in wanted
    ]
    assert wrong == []


def test_the_environment_check_names_the_fix(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    assert check._main() == 1
    said = capsys.readouterr().out
    for what in ("the embedded model", "the encoder"):
        assert re.search(rf"FAIL +{what} +absent +-> python -m helpers.choose.models", said)
    assert re.search(r"OK +Python 3.11 or newer", said) and "2 requirement(s) failed" in said


def reference():
    return sorted((ROOT / "data/reference/results").glob("*.json"))


@pytest.mark.parametrize("path", reference(), ids=lambda p: p.stem)
def test_reference_results_have_the_published_shape(path):
    result = json.loads(path.read_text())
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
    names = [f["name"] for f in result["figures"]]
    assert len(names) == len(set(names)) and all(
        re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", n) for n in names
    )
    for figure in result["figures"]:
        assert (
            set(figure) == {"name", "value", "low", "high", "n", "unit", "seeds", "how"}
            and figure["how"]
        )
        if figure["low"] is not None:
            assert figure["low"] <= figure["value"] <= figure["high"]


@pytest.mark.parametrize("name", ["zero_shot", "few_shot", "tuned"])
def test_the_reference_answers_give_the_reference_figures(name):
    """The stored answers of the recorded run, scored again here, give the published figures."""
    from helpers.core import rows, runs
    from helpers.core.pilot import Pilot
    from helpers.measure import scoring

    pilot = Pilot.load(ROOT / "data/inbox")
    data = rows.load(pilot)
    result = json.loads((ROOT / "data/reference/results/00.json").read_text())
    figures = {f["name"]: f["value"] for f in result["figures"]}
    later = runs.Run(pilot, "08", runtime.detect("cpu"))
    stored = later.stored_answers("00", name, data.test[pilot.text][:])
    scored = scoring.score(pilot, data.test, stored.texts)
    assert scored.exact.mean() == pytest.approx(figures[f"exact.{name}"], abs=1e-6)


def test_the_reference_rows_give_the_reference_figures():
    """Chapter 03: the recorded raw rows, counted again here, give the published figures."""
    from helpers.core.pilot import Pilot

    pilot = Pilot.load(ROOT / "data/inbox")
    figures = {
        f["name"]: f["value"]
        for f in json.loads((ROOT / "data/reference/results/03.json").read_text())["figures"]
    }
    rows = [
        json.loads(line)
        for line in (ROOT / "data/reference/inbox/03/raw.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
        if line
    ]
    copied = [name for name, field in pilot.fields.items() if field.type != "label"]
    for recipe in ("lamini", "evolve", "attributes", "explain"):
        made = [row for row in rows if row["recipe"] == recipe]
        invented = sum(
            any(row[f] and row[f] not in row[pilot.text] for f in copied) for row in made
        )
        teacher = "qwen2_5_coder_1_5b"
        assert len(made) == figures[f"raw.rows.{teacher}.{recipe}"]
        consistent = figures[f"generation.consistent.{teacher}.{recipe}"]
        assert 1 - invented / len(made) == pytest.approx(consistent, abs=1e-6)
        assert all(
            row["teacher"] and row["prompt_version"] and row["parents"] and row["licence"]
            for row in made
        )


def test_notebook_prose_and_outputs_agree_with_the_results():
    result = json.loads((ROOT / "data/reference/results/00.json").read_text())
    notebook = nbformat.read(ROOT / "notebooks/00_first_pilot.ipynb", as_version=4)
    shown = "\n".join(
        o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs
    )
    for line in result["settings"]["lead"]:  # a long line is folded
        assert " ".join(line.split()) in " ".join(shown.split())
    by_name = {f["name"]: f for f in result["figures"]}
    tuned = by_name["exact.tuned"]
    assert (
        f"{tuned['value']:.1%}" in shown and f"[{tuned['low']:.1%}, {tuned['high']:.1%}]" in shown
    )
    assert pages.format_figure(by_name["training.seconds"]["value"], "count") in shown


def test_stored_notebooks_are_clean():
    for _, path in course.chapters():
        notebook = nbformat.read(path, as_version=4)
        code = [c for c in notebook.cells if c.cell_type == "code"]
        assert [c.execution_count for c in code] == list(range(1, len(code) + 1)), (
            "run top to bottom in one go"
        )
        text = json.dumps([c.outputs for c in code])
        assert (
            "widgets" not in notebook.metadata and '"stderr"' not in text and "Warning" not in text
        )
        assert not re.search(r"(?<![\w.:/])/(home|root|tmp|work|Users|content)/\w", text)


def test_nothing_of_one_machine_and_no_pickles_in_the_tree():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("not a git checkout")
    for name in files.stdout.splitlines():
        assert not name.endswith((".pkl", ".bin", ".pt", ".pth")), name
        text = (ROOT / name).read_bytes().decode("utf-8", errors="ignore")
        assert "trust_remote_" + "code=True" not in text, name
        assert not re.search("/" + r"(work|farm|root)/[a-z]", text), name


def test_every_kind_of_input_names_a_test_that_exists():
    page = (ROOT / "tests/KINDS.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if re.match(r"\| (\d+ )?[a-z]", line)][1:]
    numbers = [int(n) for n in re.findall(r"^\| (\d+) ", page, re.M)]
    assert numbers == list(range(1, 29)) and len(lines) > 28
    for line in lines:
        file, name = re.search(r"(test_\w+\.py)::(test_\w+)", line).groups()
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), line


def test_what_the_readme_says_of_other_scripts_and_attacks_was_measured():
    page = json.loads((ROOT / "data/reference/results/everywhere.json").read_text())
    figures = {figure["name"]: figure for figure in page["figures"]}
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())

    def share(name, part="value"):
        return f"{figures[name][part]:.0%}".replace("%", " %")

    tuned = "japanese.exact.tuned_embedded"
    low, high = share(tuned, "low"), share(tuned, "high")
    product = share("japanese.product.tuned_embedded"), share("japanese.product.rules")
    request = share("japanese.request.tuned_embedded"), share("japanese.request.rules")
    most = f"{figures['injections.outside_schema']['high']:.1%}".replace("%", " %")
    obeyed, twin = share("injections.obeyed"), share("injections.twin_obeyed")
    for sentence in (
        f"{share(tuned)} [{low}, {high}] of {figures[tuned]['n']} records right",
        f"keyword rules {share('japanese.exact.rules')}",
        f"copies the product better ({product[0]} against {product[1]})",
        f"reads the request worse ({request[0]} against {request[1]})",
        f"Of {figures['injections.outside_schema']['n']} messages that try",
        f"0 left the schema (95 %: at most {most})",
        f"{obeyed} got the label that they asked for, against {twin}",
    ):
        assert sentence in readme, sentence
    assert figures["injections.outside_schema"]["value"] == 0


def test_the_version_is_the_same_everywhere():
    import tomllib

    import helpers

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.search(r"^## (\S+) ", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert project["version"] == helpers.__version__ == cited[1] == newest[1]

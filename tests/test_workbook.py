"""Live formulas: LibreOffice calculates Python's figures to the cent, also after a change."""

import csv
import re
import shutil
import subprocess
import zipfile

import pytest
from test_money import STEPS, WAYS, made

from helpers import CourseError
from helpers.pay import cost_model, workbook

SOFFICE = shutil.which("soffice") or shutil.which("libreoffice")
needs_soffice = pytest.mark.skipif(
    not SOFFICE,
    reason="LibreOffice (soffice) is not installed, so nobody recalculates the workbook",
)
NAMES = {"small": "a small model"}
MORE = {**WAYS, "never": {"each": "people_each + 1"}}


@pytest.fixture
def book(tmp_path):
    inputs, model = made(), cost_model.CostModel(STEPS, MORE, NAMES)
    drawn = model.run(inputs.draw(500))
    found = {way: cost_model.judge_way(model, inputs, drawn, way) for way in ("small", "never")}
    return (
        inputs,
        model,
        workbook.write_workbook(
            tmp_path / "cost.xlsx", "Does it pay?", inputs, model, found, ["=1+1 is a note"]
        ),
    )


def emptied(path, place, **changed):
    """A copy without stored values, some inputs overwritten: what it shows was calculated."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as new:
        names = {
            re.search(r"\$B\$(\d+)", where)[1]: name
            for name, where in re.findall(
                r'<definedName name="(\w+)">Inputs!([^<]+)<', old.read("xl/workbook.xml").decode()
            )
        }
        for item in old.namelist():
            text = old.read(item)
            if item.startswith("xl/worksheets/sheet"):
                text = re.sub(
                    r'(<c [^>]*?)(?: t="str")?>(<f>[^<]*</f>)<v>[^<]*</v>', r"\1>\2", text.decode()
                )
                assert not re.search(r"</f><v>", text)
                if item.endswith("sheet2.xml"):
                    for row, name in names.items():
                        if name in changed:
                            text, hits = re.subn(
                                rf'(<c r="B{row}"[^>]*><v>)[^<]*', rf"\g<1>{changed[name]}", text
                            )
                            assert hits == 1
                text = text.encode()
            new.writestr(item, text)
    return place


def recalculated(path, tmp_path):
    """{sheet: rows} of the workbook as LibreOffice calculates it, full precision."""
    form = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,false,false,false,false,-1"
    subprocess.run(
        [
            SOFFICE,
            f"-env:UserInstallation={(tmp_path / 'office').as_uri()}",
            "--headless",
            "--convert-to",
            form,
            "--outdir",
            str(tmp_path / "csv"),
            str(path),
        ],
        check=True,
        capture_output=True,
        timeout=180,
    )
    return {
        sheet: list(csv.reader(open(tmp_path / f"csv/{path.stem}-{sheet}.csv", encoding="utf-8")))
        for sheet in ("Summary", "Inputs", "Model")
    }


def compare(sheets, model, inputs):
    base = model.base(inputs)
    lines = {row[0]: float(row[1]) for row in sheets["Model"][1:] if row[0]}
    assert set(lines) == set(model.formulas)
    for name, value in lines.items():
        assert round(value, 2) == pytest.approx(
            round(base[name], 2), abs=1e-9
        ) and value == pytest.approx(base[name], rel=1e-9), name
    rows = {row[0]: row for row in sheets["Summary"] if row}
    for way in model.ways[1:]:
        here = [cost_model.break_even(base, way), cost_model.payback(base, way)]
        for cell, value in zip(rows[model.names[way]][3:5], here, strict=True):
            assert (
                cell == "never"
                if value == float("inf")
                else float(cell) == pytest.approx(value, rel=1e-9)
            )
        assert float(rows[model.names[way]][2]) == pytest.approx(
            base["people_total"] - base[f"{way}_total"], abs=1e-6
        )
    return base


@needs_soffice
def test_recalculated_it_gives_the_same_figures(book, tmp_path):
    inputs, model, path = book
    sheets = recalculated(emptied(path, tmp_path / "empty.xlsx"), tmp_path)
    base = compare(sheets, model, inputs)
    assert round(base["small_total"], 2) == 571.80 and sheets["Summary"][0][0] == "Does it pay?"
    assert any("=1+1 is a note" in row for row in sheets["Summary"]), (
        "a note that looks like a formula stays text"
    )


@needs_soffice
def test_a_changed_input_changes_the_result(book, tmp_path):
    inputs, model, path = book
    sheets = recalculated(
        emptied(path, tmp_path / "changed.xlsx", hourly=55, small_right=0.7), tmp_path
    )
    compare(sheets, model, inputs.fixed(hourly=55.0, small_right=0.7))


def test_every_formula_is_live_and_the_stored_values_are_pythons(book):
    inputs, model, path = book
    with zipfile.ZipFile(path) as parts:
        sheet = parts.read("xl/worksheets/sheet3.xml").decode()
        names = re.findall(r'<definedName name="(\w+)"', parts.read("xl/workbook.xml").decode())
    cells = re.findall(r"<f>([^<]*)</f><v>([^<]*)</v>", sheet)
    assert [text for text, _ in cells] == [
        re.sub(r"\s+", " ", text) for text in model.formulas.values()
    ]
    assert [float(value) for _, value in cells] == pytest.approx(
        [model.base(inputs)[name] for name in model.formulas]
    )
    assert set(names) == set(inputs) | set(model.formulas)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    inputs, model = made(), cost_model.CostModel(STEPS, MORE, NAMES)
    with pytest.raises(CourseError, match="cost.xlsx could not be written; close it"):
        workbook.write_workbook(tmp_path / "nowhere/cost.xlsx", "t", inputs, model, {}, [])

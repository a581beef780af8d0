"""The cost model as a spreadsheet with live formulas: change a blue number and all follows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xlsxwriter
from xlsxwriter.exceptions import FileCreateError

from helpers import ROOT, CourseError
from helpers.core.files import read_yaml
from helpers.pay.cost_model import TODAY, CostModel, Payoff, break_even, payback, saving
from helpers.pay.inputs import Inputs


def write_workbook(
    path: Path,
    title: str,
    inputs: Inputs,
    model: CostModel,
    payoffs: Mapping[str, Payoff],
    notes: Sequence[str],
) -> Path:
    """Write an XLSX with the sheets Summary, Inputs and Model; returns its path.

    Every formula of the model stands in a cell of its own name, its value beside it for viewers
    that do not calculate. Raises CourseError when the file is open elsewhere.
    """
    # formats, columns and the summary's formulas are a table, not code
    layout = read_yaml(ROOT / "helpers/templates/workbook.yaml")
    # a note or a source that begins with = stays text
    book = xlsxwriter.Workbook(path, {"strings_to_formulas": False, "strings_to_urls": False})
    looks = {name: book.add_format(form) for name, form in layout["looks"].items()}
    for name, sheet in layout["sheets"].items():
        _add_sheet(book.add_worksheet(name), looks, inputs.currency, **sheet)
    summary, knowledge, lines = book.worksheets()
    summary.write(0, 0, title, looks["title"])
    _write_summary(summary, looks, layout["summary"], inputs, model, payoffs)
    for row, text in enumerate([*layout["notes"], *notes], start=5 + len(model.ways)):
        summary.merge_range(row, 0, row, 5, text, looks["note"])
        summary.set_row(row, min(15 * (1 + len(text) // 150), 409))  # no row may be higher
    _write_inputs(book, knowledge, looks, inputs)
    _write_model(book, lines, looks, model, model.base(inputs))
    try:
        book.close()
    except FileCreateError:
        cure = "close it in the spreadsheet program and run the cell again"
        raise CourseError(f"{path.name} could not be written; {cure}.") from None
    return path


def _add_sheet(sheet: Any, looks: Mapping, currency: str, row: int, columns: Mapping) -> None:
    """The head of a table and its widths; the sheet prints on the width of one A4 page."""
    for column, (head, width) in enumerate(columns.items()):
        sheet.write(row, column, head.format(currency=currency), looks["head"])
        sheet.set_column(column, column, width)
    sheet.freeze_panes(row + 1, 1)  # names stay in sight while one scrolls
    sheet.set_landscape()
    sheet.set_paper(9)  # A4
    sheet.fit_to_pages(1, 0)  # one page wide, as long as it needs


def _write_summary(
    sheet: Any, looks: Mapping, cells: list, inputs: Inputs, model: CostModel, payoffs: Mapping
) -> None:
    """The ways side by side, all live; today's process first, with its total alone."""
    base = model.base(inputs)
    sheet.write(3, 0, model.names[TODAY])
    sheet.write_formula(3, 1, f"={TODAY}_total", looks["money"], float(base[f"{TODAY}_total"]))
    for row, (way, payoff) in enumerate(payoffs.items(), start=4):
        values = [base[f"{way}_total"], saving(model, inputs, way)]
        values += [break_even(base, way), payback(base, way)]
        sheet.write(row, 0, model.names[way])
        for column, (cell, value) in enumerate(zip(cells, values, strict=True), start=1):
            shown = float(value) if np.isfinite(value) else "never"
            formula = cell["formula"].format(way=way)
            sheet.write_formula(row, column, formula, looks[cell["look"]], shown)
        sheet.write_number(row, 5, payoff.probability, looks["share"])


def _write_inputs(book: Any, sheet: Any, looks: Mapping, inputs: Inputs) -> None:
    """One row an input; blue is what the reader is asked to change."""
    for row, (name, one) in enumerate(inputs.items(), start=1):
        look = looks["own"] if one.origin.startswith("assumed") else looks["other"]
        sheet.write(row, 0, name)
        sheet.write_row(row, 1, (one.value, one.low, one.high), look)
        sheet.write_row(row, 4, (one.unit, one.origin, one.source))
        book.define_name(name, f"=Inputs!$B${row + 1}")  # formulas find it by this name


def _write_model(book: Any, sheet: Any, looks: Mapping, model: CostModel, base: Mapping) -> None:
    """One row a formula: its name, the live cell, and its text as the notebook prints it."""
    for row, (name, formula) in enumerate(model.formulas.items(), start=1):
        text = " ".join(str(formula).split())  # a formula of several lines, in one
        sheet.write(row, 0, name)
        sheet.write_formula(row, 1, f"={text}", looks["fine"], float(base[name]))
        sheet.write(row, 2, text, looks["soft"])
        book.define_name(name, f"=Model!$B${row + 1}")

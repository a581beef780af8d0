"""The cost model as a spreadsheet with live formulas: change a blue number and all follows."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers import CourseError
from helpers.pay.cost_model import TODAY, CostModel, Payoff, break_even, payback
from helpers.pay.inputs import Inputs

LOOKS = {
    "title": {"bold": True, "font_size": 14},
    "head": {"bold": True, "bottom": 1},
    "money": {"num_format": "#,##0.00", "align": "right"},
    "fine": {"num_format": "#,##0.0000", "align": "right"},
    "count": {"num_format": "#,##0.0", "align": "right"},
    "share": {"num_format": "0.0%", "align": "right"},
    "own": {"font_color": "#1f4fbf", "bg_color": "#eef3fb", "num_format": "#,##0.######"},
    "other": {"num_format": "#,##0.######"},
    "soft": {"font_color": "#66788a", "indent": 1},
    "note": {"text_wrap": True, "valign": "top"},
}


def write_workbook(
    path: str | Path,
    title: str,
    inputs: Inputs,
    model: CostModel,
    payoffs: Mapping[str, Payoff] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write an XLSX with the sheets Summary, Inputs and Model; returns its path.

    Every formula of the model stands in a cell of its own name, as the notebook prints it. P(pays)
    of `payoffs` goes in as a plain number and says so. Values computed here are stored beside the
    formulas for viewers that do not calculate. Raises CourseError when the file is open elsewhere.
    """
    import xlsxwriter
    from xlsxwriter.exceptions import FileCreateError

    path, base = Path(path), model.base(inputs)
    book = xlsxwriter.Workbook(str(path))
    looks = {name: book.add_format(form) for name, form in LOOKS.items()}
    summary, sheet, lines = (book.add_worksheet(name) for name in ("Summary", "Inputs", "Model"))
    _write_inputs(book, sheet, looks, inputs)
    _write_model(book, lines, looks, model, base, inputs.currency)
    end = _write_summary(summary, looks, title, model, base, inputs.currency, payoffs or {})
    _write_notes(summary, looks, end + 2, notes)
    try:
        book.close()
    except FileCreateError:
        raise CourseError(
            f"{path.name} could not be written; close it in the spreadsheet program and run the "
            "cell again."
        ) from None
    return path


def _write_inputs(book: Any, sheet: Any, looks: Mapping, inputs: Inputs) -> None:
    """One row an input; blue is what the reader is asked to change."""
    head = {"input": 18, "value": 12, "low": 12, "high": 12, "unit": 24, "kind of knowledge": 34}
    _write_head(sheet, looks, head | {"where it comes from": 95})
    for row, (name, one) in enumerate(inputs.items(), start=1):
        look = looks["own"] if one.origin.startswith("assumed") else looks["other"]
        sheet.write(row, 0, name)
        sheet.write_row(row, 1, (one.value, one.low, one.high), look)
        for column, text in enumerate((one.unit, one.origin, one.source), start=4):
            sheet.write_string(row, column, text)  # never read as a formula
        book.define_name(name, f"=Inputs!$B${row + 1}")  # formulas find it by this name


def _write_model(
    book: Any, sheet: Any, looks: Mapping, model: CostModel, base: Mapping, currency: str
) -> None:
    """One row a formula: its name, the live cell, and its text as the notebook prints it."""
    _write_head(sheet, looks, {"line": 26, f"in {currency}": 16, "formula": 110})
    for row, (name, formula) in enumerate(model.formulas.items(), start=1):
        text = re.sub(r"\s+", " ", str(formula))  # a formula of several lines, in one
        sheet.write(row, 0, name)
        sheet.write_formula(row, 1, f"={text}", looks["fine"], float(base[name]))
        sheet.write_string(row, 2, text, looks["soft"])
        book.define_name(name, f"=Model!$B${row + 1}")


def _write_summary(
    sheet: Any,
    looks: Mapping,
    title: str,
    model: CostModel,
    base: Mapping,
    currency: str,
    payoffs: Mapping[str, Payoff],
) -> int:
    """The ways side by side, all live; returns the row below them."""
    others = [way for way in model.ways if way != TODAY]
    sheet.write(0, 0, title, looks["title"])
    head = {"way": 44, f"{currency} per 1,000 done": 22, f"saved against {TODAY}": 24}
    head |= {"break-even, messages a year": 28, "payback, months": 18, "P(it pays), drawn": 18}
    _write_head(sheet, looks, head, row=2)
    for row, way in enumerate([TODAY, *others], start=3):
        total = float(base[f"{way}_total"])
        sheet.write(row, 0, model.names[way])
        sheet.write_formula(row, 1, f"={way}_total", looks["money"], total)
    # the same sums as in cost_model, in the language of a spreadsheet
    for row, way in enumerate(others, start=4):
        each = f"({TODAY}_each-{way}_each)"
        once = f"({way}_once-{TODAY}_once)"
        fixed = f"({once}/life_years+{way}_year-{TODAY}_year)"
        a_year = f"({each}*messages_a_year-{way}_year+{TODAY}_year)"
        volume = f'=IF({each}>0,MAX({fixed},0)/{each},"never")'
        months = f'=IF({a_year}>0,12*MAX({once},0)/{a_year},"never")'
        saved = float(base[f"{TODAY}_total"] - base[f"{way}_total"])
        sheet.write_formula(row, 2, f"={TODAY}_total-{way}_total", looks["money"], saved)
        sheet.write_formula(row, 3, volume, looks["count"], _or_never(break_even(base, way)))
        sheet.write_formula(row, 4, months, looks["count"], _or_never(payback(base, way)))
        if way in payoffs:
            sheet.write_number(row, 5, payoffs[way].probability, looks["share"])
    return 3 + len(model.ways)


def _write_notes(sheet: Any, looks: Mapping, first: int, notes: Iterable[str]) -> None:
    texts = [
        "Blue numbers on the sheet Inputs are assumptions: put your own in, and the columns B to E "
        "follow.",
        "P(it pays) comes from random draws in the notebook and does not follow: run the notebook "
        "with the new numbers.",
        *notes,
    ]
    for row, text in enumerate(texts, start=first):
        sheet.merge_range(row, 0, row, 5, "", looks["note"])
        sheet.write_string(row, 0, text, looks["note"])  # a note that begins with = stays text
        sheet.set_row(row, 15 * (1 + len(text) // 150))


def _or_never(value: float) -> float | str:
    return value if np.isfinite(value) else "never"


def _write_head(sheet: Any, looks: Mapping, widths: Mapping[str, int], row: int = 0) -> None:
    """The first line of a table; the sheet prints on the width of one A4 page."""
    for column, (name, width) in enumerate(widths.items()):
        sheet.write(row, column, name, looks["head"])
        sheet.set_column(column, column, width)
    sheet.freeze_panes(row + 1, 1)  # names stay in sight while one scrolls
    sheet.set_landscape()
    sheet.set_paper(9)  # A4
    sheet.fit_to_pages(1, 0)  # one page wide, as long as it needs

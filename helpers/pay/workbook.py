"""The cost model as a spreadsheet with live formulas: change a blue number and everything follows."""

import re
from pathlib import Path

import numpy as np

from helpers import CourseError
from helpers.pay.cost_model import break_even, payback

WIDE = (18, 12, 12, 12, 24, 34, 95)
LOOKS = {
    "title": {"bold": True, "font_size": 14},
    "head": {"bold": True, "bottom": 1},
    "count_head": {"bold": True, "bottom": 1, "align": "right"},
    "money": {"num_format": "#,##0.00", "align": "right"},
    "fine": {"num_format": "#,##0.0000", "align": "right"},
    "count": {"num_format": "#,##0.0", "align": "right"},
    "share": {"num_format": "0.0%", "align": "right"},
    "own": {"font_color": "#1f4fbf", "bg_color": "#eef3fb", "num_format": "#,##0.######"},
    "other": {"num_format": "#,##0.######"},
    "text": {"indent": 1},
    "soft": {"font_color": "#66788a", "indent": 1},
    "note": {"text_wrap": True, "valign": "top"},
}


def write(path, title, inputs, model, drawn=None, notes=()):
    """Write an XLSX with the sheets Summary, Inputs and Model; returns its path.

    `inputs` and `model` as in helpers.pay.cost_model. Every formula of the model stands in a cell of the same name, so that the text in the
    notebook and the text in the sheet are one. `drawn`: {way: Pays}, whose P(it pays) goes in as plain numbers and says so. Values
    computed here are stored beside the formulas for viewers that do not calculate. Raises CourseError when the file is open elsewhere.
    """
    import xlsxwriter
    from xlsxwriter.exceptions import FileCreateError

    base = model.base(inputs)
    path = Path(path)
    book = xlsxwriter.Workbook(str(path))
    look = {name: book.add_format(form) for name, form in LOOKS.items()}
    summary, sheet, lines = (book.add_worksheet(name) for name in ("Summary", "Inputs", "Model"))
    _inputs(book, sheet, look, inputs)
    _model(book, lines, look, model, base, inputs.currency)
    _summary(summary, look, title, model, base, inputs, drawn or {}, notes)
    try:
        book.close()
    except FileCreateError:
        raise CourseError(
            f"{path.name} could not be written; close it in the spreadsheet program and run the cell again."
        ) from None
    return path


def _inputs(book, sheet, look, inputs):
    """One row an input; blue is what the reader is asked to change."""
    _head(
        sheet,
        look,
        ("input", "value", "low", "high", "unit", "kind of knowledge", "where it comes from"),
        (1, 2, 3),
    )
    for row, (name, one) in enumerate(inputs.items(), start=1):
        own = look["own" if one.origin.startswith("assumed") else "other"]
        sheet.write(row, 0, name)
        for column, value in enumerate((one.value, one.low, one.high), start=1):
            sheet.write_number(row, column, value, own)
        for column, text in enumerate((one.unit, one.origin, one.source), start=4):
            sheet.write_string(row, column, text, look["text"])
        book.define_name(name, f"=Inputs!$B${row + 1}")


def _model(book, sheet, look, model, base, currency):
    """One row a formula: its name, the live cell, and the text of the formula as the notebook prints it."""
    _head(sheet, look, ("line", f"in {currency}", "formula"), (1,), (26, 16, 110))
    for row, (name, text) in enumerate(model.formulas.items(), start=1):
        text = re.sub(r"\s+", " ", str(text))
        sheet.write(row, 0, name)
        sheet.write_formula(row, 1, f"={text}", look["fine"], float(base[name]))
        sheet.write_string(row, 2, text, look["soft"])
        book.define_name(name, f"=Model!$B${row + 1}")


def _summary(sheet, look, title, model, base, inputs, drawn, notes):
    """The ways side by side: cost per 1,000 messages done, saving, break-even volume and payback, all live."""
    first, *others = model.ways
    sheet.write(0, 0, title, look["title"])
    head = (
        "way",
        f"{inputs.currency} per 1,000 done",
        f"saved against {first}",
        "break-even, messages a year",
        "payback, months",
        "P(it pays), drawn",
    )
    _head(sheet, look, head, range(1, 6), (16, 22, 24, 28, 18, 18), row=2)
    sheet.write(3, 0, first)
    sheet.write_formula(3, 1, f"={first}_total", look["money"], float(base[f"{first}_total"]))
    for row, way in enumerate(others, start=4):
        gap = f"({first}_each-{way}_each)"
        fixed = f"(({way}_once-{first}_once)/life_years+{way}_year-{first}_year)"
        back = f"({gap}*messages_a_year-{way}_year+{first}_year)"
        saved = float(base[f"{first}_total"] - base[f"{way}_total"])
        sheet.write(row, 0, way)
        sheet.write_formula(row, 1, f"={way}_total", look["money"], float(base[f"{way}_total"]))
        sheet.write_formula(row, 2, f"={first}_total-{way}_total", look["money"], saved)
        sheet.write_formula(
            row,
            3,
            f'=IF({gap}>0,MAX({fixed},0)/{gap},"never")',
            look["count"],
            _or_never(break_even(base, way, first)),
        )
        sheet.write_formula(
            row,
            4,
            f'=IF({back}>0,12*MAX({way}_once-{first}_once,0)/{back},"never")',
            look["count"],
            _or_never(payback(base, way, first)),
        )
        if way in drawn:
            sheet.write_number(row, 5, drawn[way].probability, look["share"])
    below = [
        "Blue numbers on the sheet Inputs are assumptions: put your own in, and the columns B to E follow.",
        "P(it pays) comes from random draws in the notebook and does not follow: run the notebook with the new numbers.",
        *notes,
    ]
    for row, text in enumerate(below, start=5 + len(model.ways)):
        sheet.merge_range(row, 0, row, 5, "", look["note"])
        sheet.write_string(row, 0, text, look["note"])
        sheet.set_row(row, 15 * (1 + len(text) // 125))


def _or_never(value):
    return float(value) if np.isfinite(value) else "never"


def _head(sheet, look, names, numbers, widths=WIDE, row=0):
    """The first line of a table, right-aligned over the columns in `numbers`; the sheet prints on the width of one A4 page."""
    for column, (name, width) in enumerate(zip(names, widths)):
        sheet.write(row, column, name, look["count_head" if column in numbers else "head"])
        sheet.set_column(column, column, width)
    sheet.freeze_panes(row + 1, 1)
    sheet.set_landscape()
    sheet.set_paper(9)
    sheet.fit_to_pages(1, 0)

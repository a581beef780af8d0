"""Pages from templates with one style sheet, and figures as a reader wants them."""

import base64
from pathlib import Path
from typing import Any

import jinja2

from helpers import ROOT

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(ROOT / "helpers/templates"),
    autoescape=jinja2.select_autoescape(["html"]),
    trim_blocks=True,  # a line with only a tag leaves no empty line
)


def render(template: str, **values: Any) -> str:
    """Fill a template of helpers/templates/; values are escaped where its name ends in .html."""
    return TEMPLATES.get_template(template).render(format_figure=format_figure, **values)


def format_figure(value: float | None, unit: str) -> str:
    """A figure as a reader wants it: shares as per cent, others with three significant digits."""
    if value is None:
        return "none"
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "difference":
        return f"{100 * value:+.1f} points"
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return number if unit == "count" else f"{number} {unit}"


def embedded_picture(path: Path) -> str:
    """A picture file in base64, so that a page opens anywhere without files beside it."""
    return base64.b64encode(path.read_bytes()).decode()

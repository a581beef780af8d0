"""Pages from templates with one style sheet, and figures as a reader wants them."""

import base64
import re
from pathlib import Path
from typing import Any

import jinja2

from helpers import ROOT
from helpers.core.text import visible

# what Markdown, HTML in it, or MathJax would not show as it stands: marks anywhere, between words,
# and at the start of a line
MARKS = re.compile(
    r"[&<>\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|://"
    r"|^\s*[-+#=]+(?=\s|$)|^\s*\d+[.)](?=\s|$)"
)


def _as_text(value: Any) -> Any:
    """Plain strings with nothing hidden; numbers, and what a filter has marked as safe, stay."""
    return visible(value) if type(value) is str else value


def _as_markdown(value: Any) -> Any:
    """Plain strings as one line that Markdown shows as it stands."""
    if type(value) is not str:
        return value
    # numbers for the marks: a backslash in front would itself be a mark to MathJax
    line = MARKS.sub(_numbered, re.sub(r"\s+", " ", visible(value)))
    # MathJax looks at the finished page, where a tag between the marks makes them text
    return re.sub("&#(36|92);", r"<span>&#\1;</span>", line)


def _numbered(match: re.Match) -> str:
    kept = (mark if mark.isalnum() or mark == " " else f"&#{ord(mark)};" for mark in match.group())
    return "".join(kept)


def _environment(autoescape: bool, finalize: Any) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "helpers/templates"),
        autoescape=autoescape,
        finalize=finalize,
        trim_blocks=True,  # a line with only a tag leaves no empty line
    )


# how values reach a page; what a model reads (.txt) gets them as they are
TEMPLATES = {
    ".html": _environment(True, _as_text),
    ".md": _environment(False, _as_markdown),
    ".txt": _environment(False, None),
}


def render(template: str, **values: Any) -> str:
    """Fill a template of helpers/templates/; in .html and .md every value is shown as text."""
    environment = TEMPLATES[Path(template).suffix]
    return environment.get_template(template).render(format_figure=format_figure, **values)


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

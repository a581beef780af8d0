"""The bar as a page to sign: sentences, messages and money for the people who decide."""

from typing import TYPE_CHECKING

from helpers.core.pages import render

if TYPE_CHECKING:
    from helpers.agree.bar import Bar

# what went wrong in a field, by the ending of the kind of error
ENDINGS = {
    "wrong": "{} wrong",
    "empty": "{} left empty where one stood",
    "extra": "{} given where there is none",
}


def bar_page(bar: "Bar") -> str:
    """A Bar, frozen or a draft, as one page of Markdown (templates/bar.md)."""
    limits = []
    for kind, rate in bar.critical.items():
        limits.append((_kind_in_words(kind), 1000 * rate, bar.costs.of(kind)))
    thousands = (bar.messages_per_year or 0) / 1000
    return render("bar.md", bar=bar, limits=limits, thousands=thousands)


def _kind_in_words(kind: str) -> str:
    field, *rest = kind.split(".", 2)
    if not rest:
        return "no usable record"
    if rest[0] == "missed":
        return f"{field} {rest[1]!r} overlooked"
    return ENDINGS[rest[0]].format(field)

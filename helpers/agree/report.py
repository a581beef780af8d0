"""A page for whoever signs and a model card for whoever uses the model, filled from the figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.choose import models
from helpers.core.files import write_text
from helpers.core.pilot import Pilot
from helpers.measure.pages import embedded_picture, render

ANSWER = {
    "pass": "Yes: it met everything that was agreed.",
    "fail": "No: it missed what was agreed.",
    "not enough rows": "Not known yet: the messages tested are too few.",
    "": "No bar was agreed, so there is no yes or no.",
}
KINDS = {
    "wrong": "another value",
    "empty": "left empty where a value stood",
    "extra": "a value where none belongs",
}
SIDES = {"shown": "shown", "missed": "missed", "open": "not shown"}
COLOURS = {"pass": "#5b8a72", "fail": "#c8553d"}
ON_THE_CARD = ("exact.", "system.", "risk.", "forgetting.")  # figures with these names
NEEDED = {"pilot", "about", "language", "base", "licence", "adapter", "profile", "fields", "rows"}
NEEDED |= {"train_rows", "settings", "status", "why", "exact", "conditions", "errors", "currency"}
NEEDED |= {"findings", "limits", "figures"}


def base_facts(pilot: Pilot) -> dict[str, str]:
    """The facts `base` and `licence` of a pilot's base model."""
    base = models.resolve(pilot.base_model, pilot.folder)
    return {"base": base.name, "licence": base.licence}


def error_in_words(kind: str) -> str:
    """A kind of error in words: 'order_id.wrong' as 'order_id: another value'."""
    field, *rest = kind.split(".", 2)
    if not rest:
        return "no usable record"
    if rest[0] == "missed":
        return f"{field}: {rest[1]} overlooked"
    return f"{field}: {KINDS[rest[0]]}"


def evaluation_page(facts: dict[str, Any], pictures: Sequence[tuple[str, Path]] = ()) -> str:
    """The page for a manager as self-contained HTML, with every text escaped.

    `facts` has the keys NEEDED: `status` of the verdict ('' without a bar), `why`, `findings` and
    `limits` sentences, `exact` {way: Share}, `conditions` the verdict's parts, `errors` {kind:
    (count, money per 1,000)}, `figures` as in results.json. `pictures`: (caption, path of a PNG).
    """
    shown = [(caption, embedded_picture(Path(path))) for caption, path in pictures]
    colour = COLOURS.get(facts.get("status", ""), "#b08d3e")
    return _fill("evaluation.html", facts, pictures=shown, colour=colour)


def model_card(facts: dict[str, Any]) -> str:
    """The model card as Markdown with a YAML head, from the same facts."""
    figures = []
    for figure in facts.get("figures", ()):
        if figure["value"] is not None and figure["name"].startswith(ON_THE_CARD):
            figures.append(figure)
    return _fill("model_card.md", facts, figures=figures)


def write_report(
    folder: str | Path, facts: dict[str, Any], pictures: Sequence[tuple[str, Path]] = ()
) -> tuple[Path, Path]:
    """Write evaluation.html and model_card.md into a run's folder; returns both paths."""
    page, card = evaluation_page(facts, pictures), model_card(facts)
    write_text(Path(folder) / "evaluation.html", page)
    write_text(Path(folder) / "model_card.md", card)
    return Path(folder) / "evaluation.html", Path(folder) / "model_card.md"


def _fill(template: str, facts: dict[str, Any], **more: Any) -> str:
    lacking = sorted(NEEDED - set(facts))
    if lacking:
        raise CourseError(f"The report lacks {', '.join(lacking)}; run the cells above first.")
    if facts["status"] not in ANSWER:
        known = ", ".join(filter(None, ANSWER))
        raise CourseError(f"The report knows no status {facts['status']!r}; it can be {known}.")
    answer = ANSWER[facts["status"]]
    words = {"answer": answer, "sides": SIDES, "error_in_words": error_in_words}
    return render(template, f=facts, **words, **more)

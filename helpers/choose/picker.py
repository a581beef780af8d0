"""Pick a base model by language, licence, memory and use, with controls where a kernel runs."""

import os
from typing import Any

from helpers.choose import catalog, licensing, memory


def matching_models(
    language: str = "any",
    licence: str = "any",
    gib: float = 15.0,
    mode: str = "qlora",
    use: licensing.Use | None = None,
    max_length: int = 512,
) -> list[dict[str, Any]]:
    """Base models of the catalogue that fit, smallest first: rows with name, verdict and GiB.

    language: any or Japanese; licence: any, or a class of licences.yaml such as permissive; gib:
    memory at hand; mode: lora, qlora, full or inference. Blocked models are left out; those with
    open questions come after the others, those whose memory is not known (GiB is None) last.
    """
    matching = []
    for row in catalog.models():
        # the column japanese: native (made for it), declared (its makers name it), weak (neither)
        if "base" not in row["role"] or (language == "Japanese" and row["japanese"] == "weak"):
            continue
        if licence != "any" and _licence_classes(row) != {licence}:
            continue
        need = _gib_needed(row, mode, max_length)
        # where the sizes are not known, it takes at least the weights in 4 bits
        least = need or memory.NF4 * int(row["parameters"] or 0) / memory.GIB
        # asked without the teacher and the rows: this is about the base alone
        verdict = licensing.gate(row["hub_id"], use=use).verdict
        if least <= gib and verdict != licensing.BLOCKED:
            model = {"model": row["hub_id"], "verdict": verdict, "GiB": need}
            matching.append({**model, "Japanese": row["japanese"]})
    return sorted(matching, key=_place)


def _licence_classes(row: dict[str, str]) -> set[str | None]:
    profiles = catalog.licences()
    return {profiles.get(name, {}).get("class") for name in row["licence"].split(" + ")}


def _gib_needed(row: dict[str, str], mode: str, max_length: int) -> float | None:
    shape = memory.shape_of_row(row)
    if shape is None:
        return None
    return memory.estimate(shape, mode, max_length).total / memory.GIB


def _place(model: dict[str, Any]) -> tuple:
    unknown_verdict = model["verdict"] == licensing.UNKNOWN
    # the name last, so that the order is the same in every process
    return unknown_verdict, model["GiB"] is None, model["GiB"] or 0, model["model"]


def models_as_html(matching: list[dict[str, Any]], limit: int = 8) -> str:
    """The first models whose memory is known, as an HTML table; catalogue text is escaped."""
    import pandas as pd

    if not matching:
        return (
            "<p>No base model of the catalogue fits. Give it more memory, another licence class, "
            "or state the revenue.</p>"
        )
    sized = [model for model in matching if model["GiB"] is not None]
    table = pd.DataFrame(sized[:limit]).to_html(index=False, float_format="%.1f", border=0)
    unsized = len(matching) - len(sized)
    return (
        f"<p><b>{len(sized)} base models fit</b>, {len(sized[:limit])} are shown; "
        f"of {unsized} more the memory is not known</p>{table}"
    )


def show_picker(
    use: licensing.Use | None = None,
    language: str = "any",
    gib: float = 15.0,
    mode: str = "qlora",
) -> None:
    """Display the table with controls that it follows; without a kernel the table stands alone.

    language: any, Japanese, or a pilot's language code; gib: memory at hand.
    """
    import ipywidgets as widgets
    from IPython.display import HTML, display

    def show_table(language: str, licence: str, gib: float, mode: str) -> None:
        display(HTML(models_as_html(matching_models(language, licence, gib, mode, use))))

    language = "Japanese" if language in ("ja", "Japanese") else "any"
    if os.environ.get("COURSE_QUIET"):  # a recorded page has no kernel to talk to
        show_table(language, "any", gib, mode)
        return
    classes = {profile["class"] for profile in catalog.licences().values()}
    classes -= {"own", "service-terms"}  # no base model stands under these
    widgets.interact(
        show_table,
        language=widgets.Dropdown(options=["any", "Japanese"], value=language),
        licence=["any", *sorted(classes)],
        gib=widgets.Dropdown(options=sorted({4.0, 8.0, 15.0, 24.0, 80.0, gib}), value=gib),
        mode=widgets.Dropdown(options=memory.MODES, value=mode),
    )

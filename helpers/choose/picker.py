"""Pick a base model by language, licence, memory and use, with controls where a kernel runs."""

import os
from typing import Any

import pandas as pd

from helpers.choose import catalog, licensing, memory


def matching_models(
    language: str = "any",
    licence: str = "any",
    gib: float = 15.0,
    mode: str = "qlora",
    use: licensing.Use | None = None,
) -> list[dict[str, Any]]:
    """Base models of the catalogue that fit, smallest first: rows with name, verdict and GiB.

    language: any or Japanese; licence: any, or a class of licences.yaml such as permissive; mode:
    one of memory.MODES, in `gib` of memory with texts of 512 tokens. Blocked models are left out;
    open questions come after the others, those whose memory is not known (GiB is None) last.
    """
    matching = []
    for row in catalog.models():
        # the column japanese: native (made for it), declared (its makers name it), weak (neither)
        if "base" not in row["role"] or (language == "Japanese" and row["japanese"] == "weak"):
            continue
        profiles = [catalog.licences().get(name, {}) for name in row["licence"].split(" + ")]
        if licence != "any" and {profile.get("class") for profile in profiles} != {licence}:
            continue
        # where the sizes are not known, it takes at least the weights in 4 bits
        need, least = None, memory.NF4 * int(row["parameters"] or 0) / memory.GIB
        shape = memory.shape_of_row(row)
        if shape:
            need = least = memory.estimate(shape, mode, max_length=512).total / memory.GIB
        # asked without the teacher and the rows: this is about the base alone
        verdict = licensing.gate(row["hub_id"], use=use).verdict
        if least <= gib and verdict != licensing.BLOCKED:
            model = {"model": row["hub_id"], "verdict": verdict, "GiB": need}
            matching.append({**model, "Japanese": row["japanese"]})
    matching.sort(key=lambda model: (model["GiB"] is None, model["GiB"] or 0, model["model"]))
    return sorted(matching, key=lambda model: model["verdict"] == licensing.UNKNOWN)


def models_as_html(matching: list[dict[str, Any]]) -> str:
    """The first eight models whose memory is known, as an HTML table; catalogue text is escaped."""
    if not matching:
        cure = "Give it more memory, another licence class, or state the revenue."
        return f"<p>No base model of the catalogue fits. {cure}</p>"
    sized = [model for model in matching if model["GiB"] is not None]
    shown, unsized = sized[:8], len(matching) - len(sized)
    table = pd.DataFrame(shown).to_html(index=False, float_format="%.1f", border=0)
    counted = f"<b>{len(sized)} base models fit</b>, {len(shown)} are shown"
    return f"<p>{counted}; of {unsized} more the memory is not known</p>{table}"


def show_picker(
    use: licensing.Use | None = None, language: str = "any", gib: float = 15.0, mode: str = "qlora"
) -> None:
    """Display the table with controls that it follows; without a kernel the table stands alone."""
    import ipywidgets as widgets
    from IPython.display import HTML, display

    def show_table(language: str, licence: str, gib: float, mode: str) -> None:
        display(HTML(models_as_html(matching_models(language, licence, gib, mode, use))))

    language = "Japanese" if language in ("ja", "Japanese") else "any"  # a pilot's code counts too
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

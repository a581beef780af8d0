"""A form in a notebook: which column is what, then one button makes the pilot."""

import html
import os
from pathlib import Path
from typing import Any

from helpers.pilot.message_files import read_messages
from helpers.pilot.new_pilot import new_pilot
from helpers.pilot.roles import propose


def new_pilot_form(source: str | Path, folder: str = "my_desk", language: str = "") -> Any:
    """Choose the columns of `source` and make a pilot; what was proposed is chosen already.

    With `COURSE_QUIET` (no kernel to talk to) it shows the proposal alone. Returns the box of
    controls. Raises CourseError for a file that cannot be read.
    """
    import ipywidgets as widgets
    from IPython.display import display
    from IPython.utils.capture import capture_output

    table = read_messages(source)
    roles = propose(table)
    if os.environ.get("COURSE_QUIET"):
        return display(roles)
    copied = [*roles.spans, *roles.patterns]
    wide = {"width": "95%"}
    style = {"description_width": "8em"}

    def many(title: str, chosen: list[str]) -> Any:
        rows = min(6, len(table.columns))
        return widgets.SelectMultiple(
            options=table.columns, value=chosen, description=title, rows=rows, style=style
        )

    def one(title: str, chosen: str) -> Any:
        options = [("(none)", ""), *((name, name) for name in table.columns)]
        return widgets.Dropdown(options=options, value=chosen, description=title, style=style)

    text = widgets.Dropdown(
        options=table.columns, value=roles.text, description="message", style=style
    )
    labels, spans = many("labels", roles.labels), many("copied words", copied)
    group, date = one("group", roles.group), one("date", roles.date)
    name = widgets.Text(value=folder, description="new folder", style=style)
    values = widgets.Text(
        description="or new labels", placeholder="a, b, c", style=style, layout=wide
    )
    button = widgets.Button(description="Make the pilot", button_style="primary")
    shown = widgets.HTML(roles._repr_html_())

    def make(_: Any) -> None:
        button.disabled, shown.value = True, "<p>Reading …</p>"
        try:
            with capture_output():
                found = new_pilot(
                    name.value.strip(), source, text=text.value, label=labels.value,
                    span=spans.value, group=group.value, date=date.value, values=values.value,
                    language=language,
                )  # fmt: skip
            shown.value = found._repr_html_()
        except Exception as problem:  # a control must never go silent
            shown.value = f"<p>{html.escape(str(problem) or type(problem).__name__)}</p>"
        finally:
            button.disabled = False

    button.on_click(make)
    controls = [text, labels, spans, group, date, values, name, button, shown]
    box = widgets.VBox(controls)
    display(box)
    return box

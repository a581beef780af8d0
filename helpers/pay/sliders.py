"""Sliders over a cost model's inputs with a picture that follows; without a kernel, the picture."""

import html
import os
from collections.abc import Callable, Mapping

import ipywidgets as widgets
import matplotlib.pyplot as plt
from IPython.display import HTML, display
from matplotlib.figure import Figure

from helpers.pay.inputs import Input, Inputs

Ends = tuple[float, float] | None


def show_sliders(
    inputs: Inputs, names: Mapping[str, Ends], draw: Callable[[Inputs], Figure]
) -> widgets.VBox | None:
    """A slider for each input in `names` ({name: (low, high)}, None for its own range), and below
    them the picture of `draw(inputs)` with the moved inputs fixed; `inputs` itself stays as it is.

    Returns the box of controls; with `COURSE_QUIET` (no kernel to talk to) the picture alone.
    """
    if os.environ.get("COURSE_QUIET"):
        draw(inputs)
        return plt.show()
    sliders = {name: _slider(inputs[name], ends) for name, ends in names.items()}

    def follow(**values: float) -> None:
        # an input whose slider stands where it stood keeps its range
        moved = {name: value for name, value in values.items() if value != inputs[name].value}
        try:
            draw(inputs.fixed(**moved))
            plt.show()
        except Exception as problem:  # a control must never go silent
            display(HTML(f"<p>{html.escape(str(problem))}</p>"))

    controls = widgets.HBox(list(sliders.values()), layout={"flex_flow": "row wrap"})
    box = widgets.VBox([controls, widgets.interactive_output(follow, sliders)])
    display(box)
    return box


def _slider(one: Input, ends: Ends) -> widgets.FloatSlider:
    low, high = ends or (one.low, one.high)
    low, high = min(low, one.value), max(high, one.value)
    return widgets.FloatSlider(
        value=one.value,
        min=low,
        max=high,
        step=(high - low) / 100 or 0.01,
        description=one.name,
        continuous_update=False,  # a redraw takes a moment: only when the knob is let go
        readout_format=",.0f" if high >= 1000 else ".3g",
        style={"description_width": "150px"},
        layout={"width": "430px"},
    )

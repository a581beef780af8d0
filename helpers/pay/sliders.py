"""Sliders over a cost model's inputs with a picture that follows; without a kernel, the picture."""

import html
import os
from collections.abc import Callable, Mapping

import matplotlib.pyplot as plt
from IPython.core.pylabtools import print_figure
from IPython.display import HTML, Image, display
from matplotlib.figure import Figure

from helpers.pay.inputs import Inputs


def show_sliders(
    inputs: Inputs,
    names: Mapping[str, tuple[float, float] | None],
    draw: Callable[[Inputs], Figure],
) -> object | None:
    """A slider for each input in `names` ({name: (low, high)}, None for its own range), and below
    them `draw(inputs)` with the moved inputs fixed; `inputs` itself is left as it is.

    An error of `draw` is shown in words. Returns the box of controls, or None where only the still
    picture is shown (`COURSE_QUIET`: a recorded page has no kernel to talk to).
    """
    if os.environ.get("COURSE_QUIET"):
        _show(draw(inputs))
        return None
    import ipywidgets as widgets

    sliders = {name: _slider(inputs, name, ends) for name, ends in names.items()}
    start = {name: slider.value for name, slider in sliders.items()}

    def follow(**values: float) -> None:
        # an input whose slider stands where it stood keeps its range
        moved = {name: value for name, value in values.items() if value != start[name]}
        try:
            _show(draw(inputs.fixed(**moved)))
        except Exception as problem:  # a control must never go silent
            display(HTML(f"<p>{html.escape(str(problem))}</p>"))

    def reset(_: object) -> None:
        for name, slider in sliders.items():
            slider.value = start[name]

    again = widgets.Button(description="back to the start")
    again.on_click(reset)
    controls = widgets.HBox([*sliders.values(), again], layout={"flex_flow": "row wrap"})
    box = widgets.VBox([controls, widgets.interactive_output(follow, sliders)])
    display(box)
    return box


def _show(figure: Figure) -> None:
    display(Image(print_figure(figure, "png")))
    plt.close(figure)


def _slider(inputs: Inputs, name: str, ends: tuple[float, float] | None):
    import ipywidgets as widgets

    one = inputs[name]
    low, high = ends or (one.low, one.high)
    low, high = min(low, one.value), max(high, one.value)
    return widgets.FloatSlider(
        value=one.value,
        min=low,
        max=high,
        step=(high - low) / 100 or 0.01,
        description=name,
        continuous_update=False,  # a redraw takes a moment: only when the knob is let go
        readout_format=",.0f" if high >= 1000 else ".3g",
        style={"description_width": "150px"},
        layout={"width": "430px"},
    )

"""Sliders over a cost model's inputs with a picture that follows them; a page without a kernel shows the picture alone."""

import base64
import html
import io
import os


def png(figure):
    """A matplotlib figure as PNG bytes, closed afterwards."""
    import matplotlib.pyplot as plt

    out = io.BytesIO()
    figure.savefig(out, format="png", bbox_inches="tight")
    plt.close(figure)
    return out.getvalue()


def show(inputs, names, draw):
    """Display a slider for each input in `names` ({name: (low, high)}, or None for its own range) and `draw(inputs)` below them.

    A slider fixes its input where it is put; every input that was not moved keeps its range. `draw` returns a figure. `inputs`
    is left as it is. An error of `draw` is shown in words in the picture's place. Returns the box with the controls, or None where only
    the still picture is shown (`COURSE_QUIET`).
    """
    import ipywidgets as widgets
    from IPython.display import display

    first = png(draw(inputs))
    still = {
        "image/png": base64.b64encode(first).decode(),
        "text/plain": "a picture of the cost model at its own values",
    }
    if os.environ.get("COURSE_QUIET"):  # a recorded page has no kernel to talk to
        display(still, raw=True)
        return None
    sliders, moved = {}, {}
    for name, ends in names.items():
        low, high = ends or (inputs[name].low, inputs[name].high)
        low, high = min(low, inputs[name].value), max(high, inputs[name].value)
        sliders[name] = widgets.FloatSlider(
            value=inputs[name].value,
            min=low,
            max=high,
            step=(high - low) / 100 or 0.01,
            description=name,
            continuous_update=False,
            readout_format=",.0f" if high >= 1000 else ".3g",
            style={"description_width": "150px"},
            layout={"width": "430px"},
        )
    picture, words = widgets.Image(value=first, format="png"), widgets.HTML()
    again = widgets.Button(description="back to the start")

    def follow(change):
        moved[change["owner"].description] = float(change["new"])
        redraw()

    def redraw():
        try:
            picture.value, words.value = png(draw(inputs.fixed(**moved))), ""
        except Exception as problem:  # a control must never go silent
            words.value = f"<p>{html.escape(str(problem))}</p>"

    def reset(_):
        for name, slider in sliders.items():
            slider.unobserve(follow, names="value")
            slider.value = inputs[name].value
            slider.observe(follow, names="value")
        moved.clear()
        redraw()

    for slider in sliders.values():
        slider.observe(follow, names="value")
    again.on_click(reset)
    box = widgets.VBox(
        [widgets.HBox([*sliders.values(), again], layout={"flex_flow": "row wrap"}), words, picture]
    )
    bundle = box._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    display({**(bundle or {}), **still}, raw=True)
    return box

"""The sliders draw what they are set to, leave the inputs alone, and never go silent."""

import os

import pytest
from matplotlib.figure import Figure
from test_money import made

from helpers.pay import sliders


@pytest.fixture
def shown(monkeypatch):
    """Display sliders as a live kernel would; returns (box, values seen by draw, what was displayed)."""
    monkeypatch.delenv("COURSE_QUIET", raising=False)
    seen, out = [], []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: out.append(bundle))

    def draw(inputs):
        seen.append({name: one.value for name, one in inputs.items()})
        if inputs["hourly"].value > 50:
            raise ValueError("too <much>")
        figure = Figure(figsize=(1, 1))
        figure.text(0, 0, str(len(seen)))
        return figure

    inputs = made()
    inputs.assume("hourly", 30, 20, 60, "EUR", "a test")
    return (
        inputs,
        lambda: sliders.show(inputs, {"hourly": None, "small_right": (0.95, 1)}, draw),
        seen,
        out,
    )


def parts(box):
    row, words, picture = box.children
    *knobs, again = row.children
    return {knob.description: knob for knob in knobs}, again, words, picture


def test_a_moved_slider_redraws_and_the_inputs_stay(shown):
    inputs, show, seen, out = shown
    box = show()
    knobs, again, words, picture = parts(box)
    assert (
        knobs["hourly"].min == 20 and knobs["hourly"].max == 60 and knobs["small_right"].min == 0.9
    ), "the range takes in the value"
    assert knobs["hourly"].readout_format == ".3g"
    before = picture.value
    knobs["hourly"].value = 40
    knobs["small_right"].value = 0.97
    assert (
        seen[-1]["hourly"] == 40
        and seen[-1]["small_right"] == 0.97
        and seen[0]["hourly"] == 30
        and picture.value != before
    )
    assert inputs["hourly"].value == 30 and inputs["hourly"].shape == "triangular"
    knobs["hourly"].value = 55
    assert "too &lt;much&gt;" in words.value
    again.click()
    assert seen[-1]["hourly"] == 30 and words.value == "" and knobs["hourly"].value == 30
    assert out[0]["image/png"] and "widget" in " ".join(out[0])


def test_a_recorded_page_shows_the_still_picture_alone(shown, monkeypatch):
    _, show, seen, out = shown
    monkeypatch.setitem(os.environ, "COURSE_QUIET", "1")
    assert show() is None and len(seen) == 1 and set(out[0]) == {"image/png", "text/plain"}


def test_thousands_are_not_shown_as_powers_of_ten(shown):
    inputs, _, seen, _ = shown
    box = sliders.show(
        inputs, {"messages_a_year": (1000, 200_000)}, lambda changed: Figure(figsize=(1, 1))
    )
    assert parts(box)[0]["messages_a_year"].readout_format == ",.0f"

"""The sliders draw what they are set to, leave the inputs alone, and never go silent."""

import os

import pytest
from matplotlib.figure import Figure
from test_money import made

from helpers.pay import sliders


def blank():
    figure = Figure(figsize=(1, 1))
    figure.subplots()
    return figure


@pytest.fixture
def sliders_of(monkeypatch):
    """(inputs, make the sliders, values that `draw` saw, what was displayed), with a kernel."""
    monkeypatch.delenv("COURSE_QUIET", raising=False)
    seen, out = [], []
    monkeypatch.setattr(sliders, "display", out.append)
    monkeypatch.setattr(sliders.plt, "show", lambda: out.append("picture"))

    def draw(inputs):
        seen.append({name: one.value for name, one in inputs.items()})
        if inputs["hourly"].value > 50:
            raise ValueError("too <much>")
        return blank()

    inputs = made()
    inputs.assume("hourly", 30, 20, 60, "EUR", "a test")
    names = {"hourly": None, "small_right": (0.95, 1)}
    return inputs, lambda: sliders.show_sliders(inputs, names, draw), seen, out


def controls(box):
    return {knob.description: knob for knob in box.children[0].children}


def test_a_moved_slider_redraws_and_the_inputs_stay(sliders_of):
    inputs, make, seen, out = sliders_of
    box = make()
    knobs = controls(box)
    assert knobs["hourly"].min == 20 and knobs["hourly"].max == 60
    assert knobs["small_right"].min == 0.9, "the range takes in the value"
    assert knobs["hourly"].readout_format == ".3g" and box in out
    knobs["hourly"].value = 40
    knobs["small_right"].value = 0.97
    assert seen[-1]["hourly"] == 40 and seen[-1]["small_right"] == 0.97
    assert seen[0]["hourly"] == 30 and out[-1] == "picture"
    assert inputs["hourly"].value == 30 and inputs["hourly"].distribution is not None
    knobs["hourly"].value = 55
    assert "too &lt;much&gt;" in out[-1].data
    knobs["hourly"].value = 30
    assert seen[-1]["hourly"] == 30 and seen[-1]["small_right"] == 0.97 and out[-1] == "picture"


def test_an_input_that_was_not_moved_keeps_its_range(sliders_of):
    inputs, _, _, _ = sliders_of
    ranges = []

    def draw(changed):
        ranges.append((changed["hourly"].low, changed["hourly"].high))
        return blank()

    box = sliders.show_sliders(inputs, {"hourly": None}, draw)
    knobs = controls(box)
    knobs["hourly"].value = 40
    knobs["hourly"].value = 30
    assert ranges == [(20, 60), (40, 40), (20, 60)]


def test_a_recorded_page_shows_the_still_picture_alone(sliders_of, monkeypatch):
    _, make, seen, out = sliders_of
    monkeypatch.setitem(os.environ, "COURSE_QUIET", "1")
    assert make() is None and len(seen) == 1
    assert out == ["picture"]


def test_thousands_are_not_shown_as_powers_of_ten(sliders_of):
    inputs, _, _, _ = sliders_of
    names = {"messages_a_year": (1000, 200_000)}
    box = sliders.show_sliders(inputs, names, lambda changed: blank())
    assert controls(box)["messages_a_year"].readout_format == ",.0f"

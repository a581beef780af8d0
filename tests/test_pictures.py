"""Every picture can be read on a phone: its smallest letters, scaled to 360 pixels, are 8 tall."""

import base64
import io
import re
from itertools import combinations

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image
from test_money import made

from helpers import course
from helpers.core import plots, text
from helpers.measure import confidence, intervals, reviews
from helpers.pay import cost_pictures
from helpers.pay.cost_model import Payoff

PHONE, SMALLEST = 360, 8  # pixels that a phone leaves for a picture, and of its smallest letters
WAYS = [
    f"{way}, {use}"
    for way in ("best cheap way", "system")
    for use in ("unchecked", "doubtful checked")
]
JAPANESE = ["一番よいと思われる安い方法で全件を確認する", "調整済みのモデル"]
COLOURS = dict.fromkeys(WAYS, plots.INK)
NAMES = dict(zip(WAYS, WAYS))


def share(right: int, n: int) -> intervals.Share:
    return intervals.share([True] * right + [False] * (n - right))


def money(names) -> dict[str, dict[str, float]]:
    pieces = ("people's minutes", "wrong records", "once and upkeep", "machine or tokens")
    return {name: dict.fromkeys(pieces, 5_000.0) for name in names}


def tornado():
    inputs = made()
    inputs.assume("hourly", 30, 20, 60, "times a wrong record of the tuned model", "a test")
    ends = pd.DataFrame({"low": [-900.0], "high": [2_500.0]}, ["hourly"])
    return cost_pictures.draw_tornado(ends, inputs, 770, f"{WAYS[-1]}: EUR per 1,000 messages")


def payoffs():
    found = {way: Payoff((7_714, -50_000, 19_252), 5_433, 0.97) for way in WAYS}
    return cost_pictures.draw_payoffs(
        found, NAMES, COLOURS, -30_000, "not decided", "EUR saved a year", WAYS[:1]
    )


def lines(names) -> dict:
    months = np.linspace(1, 12, 12)
    return {name: (months, 1 / months + number / 50) for number, name in enumerate(names)}


def checks():
    cost = np.geomspace(0.05, 12, 60)
    return reviews.draw_checks(cost, cost > 0.4, 0.74, "EUR", "left of the line nobody checks")


DRAW = {
    "shares": lambda: plots.shares({way: share(190, 200) for way in WAYS}, "exact record " * 6),
    "shares, all right": lambda: plots.shares({way: share(200, 200) for way in JAPANESE}, "x"),
    "ranges": lambda: plots.ranges(dict.fromkeys(WAYS, (1.5, 1.2, 1.9)), "bits", "{:.3f}"),
    "bars": lambda: plots.bars(dict.fromkeys(WAYS, 8_123.4), "speed", "tokens/s"),
    "stacks": lambda: plots.stacks(money(WAYS), "expected cost", "EUR"),
    "stacks, Japanese": lambda: plots.stacks(money(JAPANESE), "費用", "円"),
    "limits": lambda: plots.limits(
        dict(zip(WAYS, (0.9, 5.0, 30.0, 140.0))), {"8 GB": 7.5, "T4": 14, "24 GB": 22}, "memory"
    ),
    "radar": lambda: plots.radar_and_dots(
        {
            way: {"exact record": 0.2, "intent": 0.5, "order_id": 0.9, "delivery_address": 1}
            for way in WAYS[:2]
        }
    ),
    "curves": lambda: plots.curves(
        lines(WAYS), "growing", "rows looked at", "share of tests", 0.05
    ),
    "pieces": lambda: cost_pictures.draw_pieces(money(WAYS), "EUR", WAYS[:1]),
    "payoffs": payoffs,
    "volumes": lambda: cost_pictures.draw_volumes(
        lines(["people", *WAYS[:3]]),
        {"people": "people, as today", **NAMES},
        {"people": plots.INK, **COLOURS},
        3,
        "cost of a message",
        "EUR",
    ),
    "tornado": tornado,
    "ratios": lambda: cost_pictures.draw_ratios(
        {"hosted / tuned, machine always busy": (1497.9, 1170.4, 1995.0)},
        {"household robot": (29.4, 1.55)},
    ),
    "checks": checks,
    "reliability": lambda: confidence.plot_reliability(
        {"rows": [(0.6, share(5, 9)), (0.9, share(9, 9))]}
    ),
}


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plots.plt.close("all")


@pytest.mark.parametrize("name", DRAW)
def test_letters_are_legible_on_a_phone_and_none_lies_on_another(name):
    figure = DRAW[name]()
    figure.canvas.draw()
    # a notebook stores what is drawn, and a tenth of an inch around it
    width = figure.get_tightbbox().width + 0.2
    texts = [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()
    ]
    for one in texts:
        pixels = one.get_fontsize() / 72 / width * PHONE
        assert pixels >= SMALLEST, (one.get_text(), pixels)
    places = {one: one.get_window_extent() for one in texts}
    for (one, place), (other, beside) in combinations(places.items(), 2):
        shared = min(place.x1, beside.x1) - max(place.x0, beside.x0)
        over = min(place.y1, beside.y1) - max(place.y0, beside.y0)
        assert min(shared, over) < 4, (one.get_text(), other.get_text())


def test_long_names_are_broken_after_their_commas_and_nothing_is_lost():
    assert plots.wrapped("best cheap way, all checked") == "best cheap way,\nall checked"
    assert plots.wrapped("system, unchecked") == "system, unchecked"
    assert plots.wrapped(JAPANESE[0]).replace("\n", "") == JAPANESE[0]
    assert max(map(len, plots.wrapped(JAPANESE[0]).split("\n"))) <= 12


def pictures(path):
    """(cell's id, inches that its stored picture is wide) of a chapter."""
    plots.use_style()
    dots = plots.plt.rcParams["figure.dpi"]
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                told = output.metadata.get("image/png", {})
                stored = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
                yield cell.id, told.get("width", stored.width) / dots


@pytest.mark.parametrize("number, path", course.chapters(), ids=lambda one: str(one)[:3])
def test_stored_pictures_are_narrow_enough_for_a_phone(number, path):
    plots.use_style()
    sizes = ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "legend.fontsize")
    smallest = min(plots.plt.rcParams[size] for size in sizes)
    shown = dict(pictures(path))
    assert shown, f"{path.name} shows no picture"
    pixels = {cell: smallest / 72 / inches * PHONE for cell, inches in shown.items()}
    assert not {cell: size for cell, size in pixels.items() if size < SMALLEST}
    code = "\n".join(
        cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"
    )
    assert [size for size in re.findall(r"\b(?:font)?size=([\d.]+)", code) if float(size) < 8] == []


def test_printed_lines_are_short_and_keep_intervals_and_words_whole():
    long = f"it saves [-5,397, +19,252] EUR, {'and so on ' * 9}[4.5%, 5.0%] " + "x" * 90
    printed = text.narrow("short", long, "", "[not closed " * 9)
    lines = printed.splitlines()
    assert lines[0] == "short" and "[-5,397, +19,252]" in printed and "[4.5%, 5.0%]" in printed
    assert [line for line in lines if len(line) > 78] == [" " * 3 + "x" * 90]
    together = " ".join(["short", long, "[not closed " * 9]).split()
    assert printed.split() == together

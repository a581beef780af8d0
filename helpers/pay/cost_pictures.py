"""Pictures of a cost model. A way keeps its own colour; what is no way is green or brown."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.core import plots
from helpers.core.plots import INK
from helpers.pay.cost_model import TODAY, Payoff, Texts
from helpers.pay.inputs import Inputs, plain_number

PIECES = ["#4f7a5f", "#b08d3e", "#a9bfa4", "#dccfa8"]  # what money is spent on
LOW_END, HIGH_END = "#b9cdb3", "#4f7a5f"


def draw_pieces(
    pieces: Mapping[str, Mapping[str, float]], title: str, unmeasured: Collection[str] = ()
) -> Figure:
    """Stacked bars for {name of a way: {what: money}}, the totals written on; pale where the way
    is `unmeasured`."""
    figure = plots.stacks(pieces, title)
    axes = figure.axes[0]
    for bars, colour in zip(axes.containers, PIECES, strict=True):
        plots.plt.setp(bars, color=colour)
    # before any bar turns pale: the legend looks like the first one
    axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.4, -0.02))
    for bars in axes.containers:
        for name, bar in zip(reversed(list(pieces)), bars):  # counted from below
            if name in unmeasured:
                bar.set(alpha=0.4, linewidth=0)
    return figure


def draw_payoffs(
    payoffs: Mapping[str, Payoff],
    names: Texts,
    colours: Texts,
    least: float,
    title: str,
    unit: str,
    unmeasured: Collection[str] = (),
) -> Figure:
    """What each way saves, `unit`: a dot and the middle nine tenths of the draws.

    Dotted and hollow where the way is `unmeasured`.
    """
    rows = [plots.wrapped(names[way], 18) for way in payoffs]
    figure, axes = plots.new_axes(height=1.2 + plots.height_of_rows(rows))
    for y, (way, payoff) in enumerate(list(payoffs.items())[::-1]):
        value, low, high = np.maximum(payoff.saving, least)  # what lies beyond is cut off
        guessed = way in unmeasured
        style, face = (":", "white") if guessed else ("-", colours[way])
        axes.plot([low, high], [y, y], style, color=colours[way], linewidth=2.5)
        if low == least:  # an arrow: the line goes on
            axes.plot(least, y, "<", color=colours[way])
        if value > least:
            axes.plot(value, y, "o", color=colours[way], markerfacecolor=face)
        words = f"pays in {payoff.probability:.0%}" + ",\nnot measured" * guessed
        axes.text(1.02, y, words, transform=axes.get_yaxis_transform(), va="center")
    _name_rows(axes, rows)
    axes.set_xlim(1.05 * least, None)
    axes.set_xlabel(f"{unit},\n5th to 95th percentile of the draws")
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+,.0f}" if value else "today")
    plots.set_title(figure, title)
    return figure


def draw_volumes(
    lines: Mapping[str, tuple], names: Texts, colours: Texts, volume: float, title: str, unit: str
) -> Figure:
    """Cost of a message over the volume, {way: (messages a year, money)}; dotted: your volume."""
    named = {names[way]: line for way, line in lines.items()}
    figure = plots.curves(named, title, "messages a year (logarithmic)", unit, percent=False)
    axes = figure.axes[0]
    colour_of = {names[way]: colours[way] for way in lines}
    for way, line in zip(lines, axes.lines):
        line.set(color=colours[way], linestyle="--" if way == TODAY else "-")
    for text in axes.texts:
        text.set_color(colour_of[" ".join(text.get_text().split())])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.axvline(volume, color="black", linewidth=0.8, linestyle=":")
    return figure


def draw_tornado(table: pd.DataFrame, inputs: Inputs, saved: float, title: str) -> Figure:
    """Bars from cost_model.tornado around what is `saved` now."""
    labels = []
    for name in table.index:
        one = inputs[name]
        ends = f"{plain_number(one.low)} to {plain_number(one.high)} {one.unit}"
        labels.append(f"{name.replace('_', ' ')}:\n{plots.wrapped(ends, 28)}")
    figure, axes = plots.new_axes(height=1.2 + plots.height_of_rows(labels))
    rows = range(len(table))[::-1]
    axes.barh(rows, table["low"] - saved, left=saved, color=LOW_END, height=0.6)
    axes.barh(rows, table["high"] - saved, left=saved, color=HIGH_END, height=0.6)
    _name_rows(axes, labels)
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter("{x:+,.0f}")
    axes.set_xlabel("light: input at its low end, dark: at its high end", x=0, ha="center")
    plots.set_title(figure, title)
    return figure


def draw_ratios(
    ratios: Mapping[str, tuple], published: Mapping[str, tuple[float, float]]
) -> Figure:
    """Times cheaper, logarithmic: your own {name: (value, low, high)}, and below them the published
    ones {task: (at the prices of its day, at today's)}, with an arrow from one to the other."""
    names = [plots.wrapped(name) for name in (*ratios, *(f"published: {one}" for one in published))]
    figure, axes = plots.new_axes(height=1.2 + plots.height_of_rows(names))
    places = iter(range(len(names) - 1, -1, -1))
    for value, low, high in ratios.values():
        y = next(places)
        if not 0 < value < np.inf:
            continue  # no number, infinite and 0 have no place on a logarithmic axis
        # an interval without an end goes to the edge of the picture
        axes.plot([low, min(high, 1e4)], [y, y], color=HIGH_END, linewidth=2)
        _dot(axes, value, y, HIGH_END)
    for then, now in published.values():
        y = next(places)
        arrow = {"arrowstyle": "->", "color": PIECES[1], "shrinkA": 6, "shrinkB": 6}
        axes.annotate("", (now, y), (then, y), arrowprops=arrow)
        _dot(axes, then, y, PIECES[1])
        _dot(axes, now, y, PIECES[1], "white")
    _name_rows(axes, names, 1)
    axes.axvspan(5, 30, color=PIECES[3], alpha=0.4)  # what was published
    label = "times cheaper (logarithmic);\nleft of the dashed line: costs more"
    axes.set(xscale="log", xlabel=label)
    axes.xaxis.set_major_formatter("{x:,g}")
    return figure


def _dot(axes: Axes, value: float, y: int, colour: str, face: str | None = None) -> None:
    axes.plot(value, y, "o", color=colour, markerfacecolor=face or colour)
    words, above = plain_number(value), (0, 5)
    axes.annotate(words, (value, y), above, textcoords="offset points", ha="center")


def _name_rows(axes: Axes, names: Sequence[str], today: float = 0) -> None:
    """The first name on top, and a dashed line where a way costs what it costs today."""
    axes.set_yticks(range(len(names)), names[::-1])
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.axvline(today, color=INK, linewidth=0.9, linestyle="--")

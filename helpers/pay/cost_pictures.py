"""Pictures of a cost model: red is the tuned model, dark is measured, light is not measured."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.core import plots
from helpers.core.plots import ACCENT, INK, SOFT
from helpers.pay.cost_model import Payoff, Texts
from helpers.pay.inputs import Inputs, plain_number

PIECES = ["#5b8a72", "#b08d3e", INK, SOFT]  # what money is spent on; no red, which is the model


def draw_pieces(pieces: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Stacked bars for {name of a way: {what: money}}, the totals written on."""
    figure = plots.stacks(pieces, title)
    axes = figure.axes[0]
    for bars, colour in zip(axes.containers, PIECES, strict=True):
        plots.plt.setp(bars, color=colour)
    axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.02))
    return figure


def draw_payoffs(
    payoffs: Mapping[str, Payoff], names: Texts, colours: Texts, least: float, title: str, unit: str
) -> Figure:
    """What each way saves per 1,000 messages: a dot and the middle nine tenths of the draws."""
    figure, axes = plots.new_axes(7.8, 1.2 + 0.34 * len(payoffs))
    for y, (way, payoff) in enumerate(list(payoffs.items())[::-1]):
        value, low, high = np.maximum(payoff.saving, least)  # what lies beyond is cut off
        axes.plot([low, high], [y, y], color=colours[way], linewidth=2)
        if low == least:  # an arrow: the line goes on
            axes.plot(least, y, "<", color=colours[way])
        if value > least:
            axes.plot(value, y, "o", color=colours[way])
        words, right = f"pays in {payoff.probability:.0%}", axes.get_yaxis_transform()
        axes.text(1.02, y, words, transform=right, va="center", color=colours[way])
    _name_rows(axes, [names[way] for way in payoffs])
    axes.set_xlim(1.05 * least, None)
    axes.set_xlabel(f"{unit} saved per 1,000 messages, 5th to 95th percentile of the draws")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+,.0f}" if value else "today")
    figure.suptitle(title, x=0.02, ha="left")
    return figure


def draw_tornado(table: pd.DataFrame, inputs: Inputs, saved: float, title: str) -> Figure:
    """Bars from cost_model.tornado around what is `saved` now."""
    figure, axes = plots.new_axes(7.4, 1.0 + 0.34 * len(table))
    rows = range(len(table))[::-1]
    axes.barh(rows, table["low"] - saved, left=saved, color=SOFT, height=0.6)
    axes.barh(rows, table["high"] - saved, left=saved, color=INK, height=0.6)
    labels = []
    for name in table.index:
        low, high = plain_number(inputs[name].low), plain_number(inputs[name].high)
        labels.append(f"{name}  {low} to {high}")
    _name_rows(axes, labels)
    axes.xaxis.set_major_formatter("{x:+,.0f}")
    axes.set_title(f"{title}\nlight: input at its low end, dark: at its high end")
    return figure


def draw_ratios(ratios: Mapping[str, tuple], published: Mapping[str, float]) -> Figure:
    """Times cheaper, logarithmic: {name: (value, low, high)} in red, the published ones light."""
    figure, axes = plots.new_axes(7.6, 1.0 + 0.34 * (len(published) + len(ratios)))
    rows = {f"published: {task}": (times, times, times) for task, times in published.items()}
    rows |= ratios
    for y, (name, (value, low, high)) in enumerate(reversed(rows.items())):
        if not 0 < value < np.inf:
            continue  # no number, infinite and 0 have no place on a logarithmic axis
        colour = ACCENT if name in ratios else SOFT
        # an interval without an end goes to the edge of the picture
        axes.plot([low, min(high, 1e4)], [y, y], color=colour, linewidth=2)
        axes.plot(value, y, "o", color=colour)
        words = plain_number(value)
        axes.annotate(words, (value, y), (0, 5), textcoords="offset points", ha="center")
    _name_rows(axes, list(rows), 1)
    axes.axvspan(5, 30, color=SOFT, alpha=0.25)  # what was published
    label = "times cheaper (logarithmic); left of the dashed line: costs more"
    axes.set(xscale="log", xlabel=label)
    return figure


def _name_rows(axes: Axes, names: Sequence[str], today: float = 0) -> None:
    """The first name on top, and a dashed line where a way costs what it costs today."""
    axes.set_yticks(range(len(names)), names[::-1])
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.axvline(today, color="black", linewidth=0.9, linestyle="--")

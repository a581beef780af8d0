"""Pictures of a cost model: red is the tuned model, dark is measured, light is not measured."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.core.plots import ACCENT, INK, SOFT, new_axes
from helpers.pay.cost_model import Payoff
from helpers.pay.inputs import Inputs, plain_number

PIECES = ["#5b8a72", "#b08d3e", INK, SOFT]  # what money is spent on; no red, which is the model


def draw_pieces(pieces: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Stacked bars for {name of a way: {what: money}}, the totals written on."""
    figure, axes = new_axes(height=1.2 + 0.36 * len(pieces))
    table = pd.DataFrame(pieces).T[::-1]
    table.plot.barh(stacked=True, color=PIECES, width=0.62, ax=axes)
    # written at the end of the last piece, which is the end of the bar
    totals = [f" {total:,.0f}" for total in table.sum(axis=1)]
    axes.bar_label(axes.containers[-1], labels=totals)
    axes.set_xlim(0, 1.12 * table.sum(axis=1).max())
    axes.set_xticks([])
    axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.02))
    axes.set_title(title)
    return figure


def draw_payoffs(
    payoffs: Mapping[str, Payoff],
    names: Mapping[str, str],
    colours: Mapping[str, str],
    least: float,
    title: str,
    unit: str,
) -> Figure:
    """What each way saves per 1,000 messages: a dot and the middle nine tenths of the draws.

    A line that goes on below `least` ends in an arrow there.
    """
    figure, axes = new_axes(7.8, 1.2 + 0.34 * len(payoffs))
    for y, (way, payoff) in enumerate(reversed(payoffs.items())):
        value, low, high = np.maximum(payoff.saving, least)  # what lies beyond is cut off
        axes.plot([low, high], [y, y], color=colours[way], linewidth=2)
        if low == least:
            axes.plot(least, y, "<", color=colours[way])
        if value > least:
            axes.plot(value, y, "o", color=colours[way])
        place = {"xycoords": ("axes fraction", "data"), "va": "center", "color": colours[way]}
        axes.annotate(f"pays in {payoff.probability:.0%}", (1.02, y), **place)
    _name_rows(axes, [names[way] for way in payoffs])
    axes.axvline(0, color="black", linewidth=0.9, linestyle="--")
    axes.set_xlim(1.05 * least, None)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+,.0f}" if value else "today")
    axes.set_xlabel(f"{unit} saved per 1,000 messages, 5th to 95th percentile of the draws")
    figure.suptitle(title, x=0.02, ha="left")
    return figure


def draw_tornado(table: pd.DataFrame, inputs: Inputs, saved: float, title: str) -> Figure:
    """Bars from cost_model.tornado around what is `saved` now: light at an input's low end, dark at
    its high end.
    """
    figure, axes = new_axes(7.4, 1.0 + 0.34 * len(table))
    labels = []
    for y, (name, row) in enumerate(table[::-1].iterrows()):
        axes.barh(y, row["low"] - saved, left=saved, color=SOFT, height=0.6)
        axes.barh(y, row["high"] - saved, left=saved, color=INK, height=0.6)
        ends = plain_number(inputs[name].low), plain_number(inputs[name].high)
        labels.insert(0, f"{name}  {' to '.join(ends)}")
    _name_rows(axes, labels)
    axes.axvline(0, color="black", linewidth=0.9, linestyle="--")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+,.0f}")
    axes.set_title(f"{title}\nlight: input at its low end, dark: at its high end")
    return figure


def draw_ratios(ratios: Mapping[str, tuple], published: Mapping[str, float]) -> Figure:
    """Times cheaper on a logarithmic axis: {name: (value, low, high)} in red, published ones light.

    A ratio that is no number, infinite or 0 has no place on such an axis and is left out.
    """
    figure, axes = new_axes(7.6, 1.0 + 0.34 * (len(published) + len(ratios)))
    rows = {f"published: {task}": (times, times, times) for task, times in published.items()}
    rows |= ratios
    for y, (name, (value, low, high)) in enumerate(reversed(rows.items())):
        if not np.isfinite(value) or value <= 0:
            continue
        colour = ACCENT if name in ratios else SOFT
        # an interval without an end goes to the edge of the picture
        axes.plot([low, min(high, 1e4)], [y, y], color=colour, linewidth=2)
        axes.plot(value, y, "o", color=colour)
        words = plain_number(value)
        axes.annotate(words, (value, y), (0, 5), textcoords="offset points", ha="center")
    _name_rows(axes, list(rows))
    axes.set_xscale("log")
    axes.axvspan(5, 30, color=SOFT, alpha=0.25)  # what was published
    axes.axvline(1, color="black", linewidth=0.9, linestyle="--")
    axes.set_xlabel("times cheaper (logarithmic); left of the dashed line: costs more")
    return figure


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """The first name on top."""
    axes.set_yticks(range(len(names)), names[::-1])
    axes.set_ylim(-0.6, len(names) - 0.3)

"""The course's pictures: dots with intervals, bars with their values, lines.

All are narrow: scaled to a phone 360 pixels wide, their smallest letters are 8 pixels tall.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any
from unicodedata import east_asian_width

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

INK, ACCENT, SOFT = "#22313f", "#c8553d", "#9fb3c8"
# spines, sizes, and the colours of lines and stacks in their order
STYLE = Path(__file__).with_name("course.mplstyle")
# files of fonts with the letters that Matplotlib's own lacks; one is on most machines that need it
WIDE_FONTS: tuple[str, ...] = (
    "NotoSansCJK-Regular",
    "NotoSansCJKjp-Regular",
    "ヒラギノ角ゴシック W3",
    "YuGothR",
    "meiryo",
)
WIDE_FONTS += ("msgothic", "ipaexg", "NotoSansJP-Regular", "PingFang", "msyh", "malgun")


def new_axes(width: float = 5.0, height: float = 2.6) -> tuple[Figure, Axes]:
    """An empty picture in the style of the course; `width` and `height` in inches."""
    use_style()
    return plt.subplots(figsize=(width, height))


def use_style() -> None:
    """Switch on the look of the course, with a font for other scripts where one is here."""
    plt.style.use(STYLE)
    plt.rcParams["font.family"] = _fonts()


@cache
def _fonts() -> list[str]:
    """Matplotlib's own font, and behind it one with Japanese letters where this machine has it."""
    # Matplotlib's list of fonts is as old as its cache: the files say what is there now
    for path in sorted(font_manager.findSystemFonts()):
        if Path(path).stem in WIDE_FONTS:
            font_manager.fontManager.addfont(path)
            return ["DejaVu Sans", font_manager.FontProperties(fname=path).get_name()]
    return ["DejaVu Sans"]


def wrapped(words: str, columns: int = 24) -> str:
    """`words` in lines of at most `columns` Latin letters; a Japanese one takes two columns.

    Words that are too long for one line are first broken after their commas.
    """
    wide = any(east_asian_width(letter) in "WF" for letter in words)
    columns = columns // 2 if wide else columns
    parts = [words] if len(words) <= columns else re.split("(?<=,) ", words)
    return "\n".join(fill(part, columns) for part in parts)


def set_title(figure: Figure, title: str) -> None:
    """A title that begins at the left edge of the picture, in as many lines as it needs."""
    figure.suptitle(wrapped(title, 60), x=0.02, ha="left", size=10)


def height_of_rows(names: Iterable[str]) -> float:
    """Inches that rows with these names take, all as tall as the one with the most lines."""
    lines = [name.count("\n") + 1 for name in names]
    return len(lines) * (0.24 + 0.1 * max(lines, default=0))


def shares(named: Mapping[str, Any], title: str = "", highlight: str | None = None) -> Figure:
    """Dots with 95 % intervals for {name: Share}; `highlight` names the one in colour."""
    intervals = {name: (share.value, share.low, share.high) for name, share in named.items()}
    figure = ranges(intervals, title, "{:.1%}", highlight)
    axes = figure.axes[0]
    axes.set_xlim(0, 1.18)  # beyond 100 % there is only a dot's label
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")
    return figure


def ranges(
    named: Mapping[str, Sequence[float]],
    title: str = "",
    form: str = "{:.3g}",
    highlight: str | None = None,
) -> Figure:
    """Dots with intervals for {name: (value, low, high)} in any unit, values written in `form`."""
    names = [wrapped(name) for name in named]
    figure, axes = new_axes(height=0.9 + height_of_rows(names))
    for y, (name, (value, low, high)) in enumerate(list(named.items())[::-1]):
        colour = ACCENT if name == highlight else INK
        axes.plot([low, high], [y, y], color=colour, linewidth=2)
        axes.plot(value, y, "o", color=colour, markersize=6)
        axes.annotate(f"  {form.format(value)}", (high, y), va="center", color=colour)
    axes.set_yticks(range(len(named)), names[::-1])
    axes.set_ylim(-0.6, len(named) - 0.4)
    axes.set_xlim(0, 1.15 * max(high for _, _, high in named.values()))
    axes.grid(axis="x")
    set_title(figure, title)
    return figure


def bars(named: Mapping[str, float], title: str = "", unit: str = "") -> Figure:
    """Horizontal bars for {name: number}, each with its value."""
    form = "{:,.0f} " if max(named.values()) >= 1000 else "{:.3g} "  # never 1.2e+03
    return _draw_bars(pd.DataFrame({"value": named}), title, form + unit, SOFT)


def limits(named: Mapping[str, float], marks: Mapping[str, float], title: str = "") -> Figure:
    """Bars for {name: number} against dashed lines {name: limit}, on a logarithmic axis."""
    figure = _draw_bars(pd.DataFrame({"value": named}), title, "{:.1f}", SOFT)
    axes = figure.axes[0]
    axes.set(xscale="log", xlim=(min(named.values()) / 2, max(named.values()) * 2))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("logarithmic: each step is ten times the one before")
    for label in axes.texts:  # a line passes behind a number
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0})
    for place, (name, value) in enumerate(marks.items()):
        axes.axvline(value, color=ACCENT, linewidth=1, linestyle="--")
        above = (value, len(named) - 0.3 + 0.45 * (place % 2))  # close limits: one above the other
        axes.annotate(name, above, color=ACCENT, ha="center", annotation_clip=False)
    return figure


def stacks(named: Mapping[str, Mapping[str, float]], title: str = "", unit: str = "") -> Figure:
    """Stacked bars for {name: {piece: number}}: one colour per piece, totals written on."""
    figure = _draw_bars(pd.DataFrame(named).T.fillna(0.0), title, "{:,.0f} " + unit)
    figure.axes[0].legend(ncols=2, loc="upper center", bbox_to_anchor=(0.4, -0.02))
    return figure


def _draw_bars(table: pd.DataFrame, title: str, form: str, colour: str | None = None) -> Figure:
    """A bar for each row of `table`, its columns stacked and their sum written at the end."""
    table = table.rename(index=wrapped)
    figure, axes = new_axes(height=1.0 + height_of_rows(table.index))
    table = table[::-1]  # matplotlib counts from below
    table.plot.barh(ax=axes, stacked=True, color=colour, width=0.62, legend=False)
    totals = table.sum(axis=1)
    labels = [" " + form.format(total) for total in totals]
    axes.bar_label(axes.containers[-1], labels)  # type: ignore[arg-type]
    axes.set(xlim=(0, 1.25 * totals.max()), ylabel="")
    set_title(figure, title)
    axes.set_xticks([])  # the values are written on: no axis is needed
    return figure


def radar_and_dots(named: Mapping[str, Mapping[str, float]]) -> Figure:
    """The same shares {way: {field: share}} as a radar, which misleads, and as dots."""
    plt.style.use(STYLE)
    figure = plt.figure(figsize=(5.0, 4.4))
    radar, dots = figure.add_subplot(211, polar=True), figure.add_subplot(212)
    for (way, values), colour in zip(named.items(), (INK, ACCENT, SOFT)):
        fields, shares = list(values), list(values.values())
        angles = [2 * math.pi * place / len(fields) for place in range(len(fields) + 1)]
        radar.fill(angles, [*shares, shares[0]], color=colour, alpha=0.35)
        dots.plot(shares, range(len(fields)), "o", color=colour, label=way)
        radar.set_xticks(angles[:-1], fields)
        dots.set_yticks(range(len(fields)), fields)
    for angle, label in zip(angles, radar.get_xticklabels()):
        side = round(math.cos(angle))
        label.set(horizontalalignment={1: "left", 0: "center", -1: "right"}[side])
    radar.set_yticklabels([])
    radar.tick_params(pad=4)
    dots.invert_yaxis()  # the first field on top
    dots.set_xlim(0, 1)
    dots.xaxis.set_major_formatter(PercentFormatter(1))
    dots.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def curves(
    named: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    x: str = "",
    y: str = "",
    level: float | None = None,
    percent: bool = True,
) -> Figure:
    """Lines for {name: (xs, ys)}, each with its name at its end; a dashed line at `level`."""
    figure, axes = new_axes(height=3.2)
    ends = []
    for name, (xs, ys) in named.items():
        [line] = axes.plot(xs, ys, linewidth=1.8)
        ends.append((ys[-1], xs[-1], wrapped(name, 18), line.get_color()))
    # a line of text is about 8 % of the height: names of close lines are moved apart
    gap = 0.08 * max(max(ys) for _, ys in named.values())
    lowest, beside = -math.inf, (4, 0)
    for height, last, name, colour in sorted(ends):
        half = gap * (name.count("\n") + 1) / 2
        middle = max(height, lowest + half)
        lowest = middle + half
        label = axes.annotate(name, (last, middle), beside, textcoords="offset points")
        label.set(color=colour, va="center", annotation_clip=False)
    if level is not None:
        axes.axhline(level, color=INK, linewidth=0.9, linestyle="--", alpha=0.6)
    axes.margins(x=0.01)
    axes.set(xlabel=x, ylabel=y, ylim=(0, None))
    set_title(figure, title)
    if percent:
        axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(axis="y")
    return figure


def points(named: Mapping[str, tuple[Any, Any]], title: str = "", x: str = "") -> Figure:
    """A point with the intervals of both axes for each {name: (across, up)}, two Shares.

    Across is drawn on a logarithmic scale, up in percent.
    """
    figure, axes = new_axes(height=3.2)
    beside = cycle([(8, 8), (8, -16)])  # above and below by turns: close points stay legible
    for name, (across, up) in named.items():
        spans = [[[one.value - one.low], [one.high - one.value]] for one in (across, up)]
        axes.errorbar(across.value, up.value, spans[1], spans[0], fmt="o", capsize=3)
        place = across.value, up.value
        axes.annotate(wrapped(name, 18), place, next(beside), textcoords="offset points")
    axes.set(xscale="log", xlabel=x, ylim=(0, 1))
    axes.margins(x=0.2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid()
    set_title(figure, title)
    return figure

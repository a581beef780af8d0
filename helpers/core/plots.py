"""The course's pictures: a live loss curve, dots with intervals, bars with their values."""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import TrainerCallback

INK, ACCENT, SOFT = "#22313f", "#c8553d", "#9fb3c8"
STYLE = Path(__file__).with_name("course.mplstyle")  # spines, sizes and colours of every picture
Interval = tuple[float, float, float]  # value, low, high


def new_axes(width: float = 7.0, height: float = 2.6) -> tuple[Figure, Axes]:
    """An empty picture in the style of the course; `width` and `height` in inches."""
    plt.style.use(STYLE)
    return plt.subplots(figsize=(width, height))


class LiveLoss(TrainerCallback):
    """Redraws the loss in the cell while the Trainer runs, and saves it at the end to `path`.

    The title tells the last values and the tokens a second since the first log of this start
    (TRL counts the tokens). A resumed run shows its earlier piece too.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = path
        self.handle = None  # the picture in the notebook's cell
        self.logs_drawn = 0
        self.first_log: tuple[float, float] | None = None  # (tokens, time)
        self.speed = ""

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer has written a line of its log."""
        newest = state.log_history[-1] if state.log_history else {}
        if "loss" in newest and newest.get("num_tokens"):
            tokens, now = newest["num_tokens"], time.perf_counter()
            if self.first_log is None:
                self.first_log = (tokens, now)
            elif tokens > self.first_log[0]:
                rate = (tokens - self.first_log[0]) / (now - self.first_log[1])
                self.speed = f", {rate:.0f} tokens/s"
        if len(state.log_history) > self.logs_drawn:
            self._draw(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer is done: draw once more and save the picture."""
        self._draw(state, save=True)

    def _draw(self, state: Any, save: bool = False) -> None:
        self.logs_drawn = len(state.log_history)
        losses, held_out = _logged(state, "loss"), _logged(state, "eval_loss")
        if not losses:
            return
        figure, axes = new_axes()
        axes.plot(*zip(*losses, strict=True), marker="o", markersize=3, label="training")
        title = f"step {losses[-1][0]}: loss {losses[-1][1]:.3f}"
        if held_out:
            axes.plot(*zip(*held_out, strict=True), marker="s", markersize=4, label="held out")
            axes.legend()
            title += f", held out {held_out[-1][1]:.3f}"
        axes.set(xlim=(0, state.max_steps), ylim=(0, None), title=title + self.speed)
        axes.set_xlabel(f"optimizer step (of {state.max_steps})")
        axes.set_ylabel("loss on the answer's tokens")
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)  # in place, not one below the other
        if save and self.path:
            figure.savefig(self.path)
        plt.close(figure)  # or the cell would show it a second time


def _logged(state: Any, name: str) -> list[tuple[int, float]]:
    """(step, value) of every log line that has this value."""
    return [(log["step"], log[name]) for log in state.log_history if name in log]


# Dots and bars: the first name stands on top --------------------------------------------------


def shares(named: Mapping[str, Any], title: str = "", highlight: str | None = None) -> Figure:
    """Dots with 95 % intervals for {name: Share}; `highlight` names the one in colour."""
    intervals = {name: (share.value, share.low, share.high) for name, share in named.items()}
    figure = ranges(intervals, title, "{:.1%}", highlight)
    axes = figure.axes[0]
    axes.set_xlim(0, 1.14)  # beyond 100 % there is only a dot's label
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")
    return figure


def ranges(
    named: Mapping[str, Interval],
    title: str = "",
    form: str = "{:.3g}",
    highlight: str | None = None,
) -> Figure:
    """Dots with intervals for {name: (value, low, high)} in any unit, values written in `form`."""
    figure, axes = new_axes(height=0.9 + 0.34 * len(named))
    for y, (name, (value, low, high)) in enumerate(list(named.items())[::-1]):
        colour = ACCENT if name == highlight else INK
        axes.plot([low, high], [y, y], color=colour, linewidth=2)
        axes.plot(value, y, "o", color=colour, markersize=6)
        axes.annotate(f"  {form.format(value)}", (high, y), va="center", color=colour)
    axes.set_yticks(range(len(named)), list(named)[::-1])
    axes.set_ylim(-0.6, len(named) - 0.4)
    axes.set_xlim(0, 1.15 * max(high for _, _, high in named.values()))
    axes.grid(axis="x")
    axes.set_title(title)
    return figure


def bars(named: Mapping[str, float], title: str = "", unit: str = "") -> Figure:
    """Horizontal bars for {name: number}, each with its value."""
    figure, axes = new_axes(height=0.7 + 0.34 * len(named))
    _named_bars(axes, named, "{:.3g} " + unit)
    axes.set_xlim(0, max(named.values()) * 1.2)
    _hide_x(axes)
    axes.set_title(title)
    return figure


def limits(named: Mapping[str, float], marks: Mapping[str, float], title: str = "") -> Figure:
    """Bars for {name: number} against dashed lines {name: limit}, on a logarithmic axis."""
    figure, axes = new_axes(height=1.0 + 0.3 * len(named))
    _named_bars(axes, named, "{:.1f}")
    axes.set_xscale("log")
    axes.set_xlim(min(named.values()) / 2, max(named.values()) * 2)
    for name, value in marks.items():
        axes.axvline(value, color=ACCENT, linewidth=1, linestyle="--")
        above = (value, len(named) - 0.3)
        axes.annotate(name, above, color=ACCENT, ha="center", size=8, annotation_clip=False)
    axes.set_xlabel("logarithmic axis: each step is ten times the one before")
    axes.set_title(title, pad=16)
    return figure


def stacks(named: Mapping[str, Mapping[str, float]], title: str = "", unit: str = "") -> Figure:
    """Stacked bars for {name: {piece: number}}: one colour per piece, totals written on."""
    figure, axes = new_axes(height=1.3 + 0.36 * len(named))
    names = list(named)[::-1]
    left = [0.0] * len(names)  # where the next piece of each bar begins
    for piece in dict.fromkeys(piece for bar in named.values() for piece in bar):
        widths = [named[name].get(piece, 0.0) for name in names]
        drawn = axes.barh(names, widths, left=left, height=0.62, label=piece)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.bar_label(drawn, [f" {total:,.0f} {unit}" for total in left])  # the sum of its pieces
    axes.set_xlim(0, max(left) * 1.25 or 1)
    _hide_x(axes)
    axes.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.02))
    axes.set_title(title)
    return figure


def _named_bars(axes: Axes, named: Mapping[str, float], form: str) -> None:
    names = list(named)[::-1]
    drawn = axes.barh(names, [named[name] for name in names], color=SOFT, height=0.6)
    axes.bar_label(drawn, fmt=" " + form)


def _hide_x(axes: Axes) -> None:
    """The values are written on: no axis is needed."""
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


# Lines and histograms -------------------------------------------------------------------------


def curves(
    named: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    x: str = "",
    y: str = "",
    level: float | None = None,
    percent: bool = True,
) -> Figure:
    """Lines for {name: (xs, ys)}, each with its name at its end; a dashed line at `level`."""
    figure, axes = new_axes(height=3.0)
    colours = cycle([ACCENT, INK, "#5b8a72", SOFT, "#8d6a9f", "#b08d3e"])
    ends = []
    for (name, (xs, ys)), colour in zip(named.items(), colours, strict=False):
        axes.plot(xs, ys, color=colour, linewidth=1.8)
        ends.append((ys[-1], xs[-1], name, colour))
    # a line of text is about 7 % of the height
    gap = 0.07 * max(max(ys) for _, ys in named.values())
    lowest = -1.0
    for height, last, name, colour in sorted(ends):  # names of close lines are moved apart
        lowest = max(height, lowest + gap)
        place = (last, lowest)
        axes.annotate(f" {name}", place, color=colour, va="center", annotation_clip=False)
    if level is not None:
        axes.axhline(level, color=INK, linewidth=0.9, linestyle="--", alpha=0.6)
    axes.margins(x=0.01)
    axes.set(xlabel=x, ylabel=y, title=title, ylim=(0, None))
    if percent:
        axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(axis="y")
    return figure


def histogram(
    values: Sequence[float],
    title: str = "",
    x: str = "",
    marks: Iterable[tuple[float, str]] = (),
    bins: int | Sequence[float] | None = None,
    y: str = "rows",
) -> Figure:
    """A histogram (`bins`: the edges), with a dashed line for each (value, name) in `marks`."""
    figure, axes = new_axes(height=2.2)
    if bins is None:
        bins = min(20, max(4, len(set(values))))  # no more bars than values
    axes.hist(values, bins=bins, color=SOFT, edgecolor="white")
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])  # space for the names of the marks
    for value, name in marks:
        axes.axvline(value, color=ACCENT, linewidth=1.2, linestyle="--")
        axes.annotate(f" {name}", (value, axes.get_ylim()[1]), color=ACCENT, va="top")
    axes.set(xlabel=x, ylabel=y, title=title)
    return figure

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


def new_axes(width: float = 7.0, height: float = 2.6) -> tuple[Figure, Axes]:
    """An empty picture in the style of the course; `width` and `height` in inches."""
    plt.style.use(STYLE)
    return plt.subplots(figsize=(width, height))


class LiveLoss(TrainerCallback):
    """Redraws the loss in the cell while the Trainer runs, and saves it at the end to `path`.

    The title tells the last values and, from TRL's count of tokens, the tokens a second since
    the first log of this start. A resumed run shows its earlier part too.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = path
        self.handle = None  # the picture in the notebook's cell
        self.points_drawn = 0
        self.first_log: tuple[float, float] | None = None  # (tokens, time)
        self.tokens_per_second: float | None = None

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer has written a line of its log."""
        self._measure_speed(state)
        self._draw(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer is done: draw once more and save the picture."""
        self._draw(state, last=True)

    def _measure_speed(self, state: Any) -> None:
        newest = state.log_history[-1] if state.log_history else {}
        if "loss" not in newest or not newest.get("num_tokens"):
            return
        tokens, now = newest["num_tokens"], time.perf_counter()
        if self.first_log is None:
            self.first_log = (tokens, now)
        elif tokens > self.first_log[0]:
            self.tokens_per_second = (tokens - self.first_log[0]) / (now - self.first_log[1])

    def _draw(self, state: Any, last: bool = False) -> None:
        training, held_out = _series(state, "loss"), _series(state, "eval_loss")
        number = len(training) + len(held_out)
        if not training or (number == self.points_drawn and not last):
            return
        self.points_drawn = number
        figure = self._picture(state, training, held_out)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
        if last and self.path:
            figure.savefig(self.path)
        plt.close(figure)

    def _picture(self, state: Any, training: list[tuple], held_out: list[tuple]) -> Figure:
        figure, axes = new_axes()
        axes.plot(*zip(*training, strict=True), marker="o", markersize=3, label="training")
        title = f"step {training[-1][0]}: loss {training[-1][1]:.3f}"
        if held_out:
            axes.plot(*zip(*held_out, strict=True), marker="s", markersize=4, label="held out")
            axes.legend()
            title += f", held out {held_out[-1][1]:.3f}"
        if self.tokens_per_second:
            title += f", {self.tokens_per_second:.0f} tokens/s"
        axes.set_title(title)
        axes.set_xlabel(f"optimizer step (of {state.max_steps})")
        axes.set_ylabel("loss on the answer's tokens")
        axes.set_xlim(0, state.max_steps)
        axes.set_ylim(0, None)
        return figure


def _series(state: Any, name: str) -> list[tuple[int, float]]:
    """(step, value) of every log line that has this value."""
    return [(entry["step"], entry[name]) for entry in state.log_history if name in entry]


# Dots and bars --------------------------------------------------------------------------------


def shares(named: Mapping[str, Any], title: str = "", highlight: str | None = None) -> Figure:
    """Dots with 95 % intervals for {name: Share}; `highlight` names the one in colour."""
    figure, axes = _rows_of(named)
    for y, name in enumerate(reversed(named)):
        share = named[name]
        colour = ACCENT if name == highlight else INK
        axes.plot([share.low, share.high], [y, y], color=colour, linewidth=2)
        axes.plot(share.value, y, "o", color=colour, markersize=6)
        axes.text(share.high + 0.02, y, f"{share.value:.1%}", va="center", color=colour)
    axes.set_xlim(0, 1.14)
    axes.xaxis.set_major_formatter(_per_cent)
    axes.set_title(title)
    return figure


def ranges(named: Mapping[str, tuple[float, float, float]], title: str = "") -> Figure:
    """Dots with intervals for {name: (value, low, high)} in any unit."""
    figure, axes = _rows_of(named)
    for y, name in enumerate(reversed(named)):
        value, low, high = named[name]
        axes.plot([low, high], [y, y], color=INK, linewidth=2)
        axes.plot(value, y, "o", color=ACCENT, markersize=6)
        axes.annotate(f" {value:.3g}", (high, y), va="center")
    axes.set_xlim(0, 1.15 * max(high for _, _, high in named.values()))
    axes.set_title(title)
    return figure


def _rows_of(named: Mapping[str, Any]) -> tuple[Figure, Axes]:
    """An empty picture with one row per name, the first name on top."""
    figure, axes = new_axes(height=0.9 + 0.34 * len(named))
    axes.set_yticks(range(len(named)), list(reversed(named)))
    axes.set_ylim(-0.6, len(named) - 0.4)
    axes.grid(axis="x")
    return figure, axes


def _per_cent(value: float, _: int) -> str:
    """Axis labels in per cent; none beyond 100 %, where only the labels of the dots lie."""
    return f"{value:.0%}" if value <= 1 else ""


def bars(named: Mapping[str, float], title: str = "", unit: str = "") -> Figure:
    """Horizontal bars for {name: number}, each with its value."""
    figure, axes = new_axes(height=0.7 + 0.34 * len(named))
    _draw_bars(axes, named, "{:.3g} " + unit)
    axes.set_xlim(0, max(named.values()) * 1.2)
    _without_x_axis(axes)
    axes.set_title(title)
    return figure


def limits(named: Mapping[str, float], marks: Mapping[str, float], title: str = "") -> Figure:
    """Bars for {name: number} against dashed lines {name: limit}, on a logarithmic axis."""
    figure, axes = new_axes(height=1.0 + 0.3 * len(named))
    _draw_bars(axes, named, "{:.1f}")
    axes.set_xscale("log")
    for name, value in marks.items():
        axes.axvline(value, color=ACCENT, linewidth=1, linestyle="--")
        place = (value, len(named) - 0.3)
        axes.annotate(name, place, fontsize=8, color=ACCENT, ha="center", annotation_clip=False)
    axes.set_xlim(min(named.values()) / 2, max(named.values()) * 2)
    axes.set_xlabel("logarithmic axis: each step is ten times the one before", fontsize=8)
    axes.set_title(title, pad=16)
    return figure


def _draw_bars(axes: Axes, named: Mapping[str, float], form: str) -> None:
    names = list(reversed(named))
    axes.barh(names, [named[name] for name in names], color=SOFT, height=0.6)
    for y, name in enumerate(names):
        axes.text(named[name], y, " " + form.format(named[name]), va="center")


def _without_x_axis(axes: Axes) -> None:
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def stacks(named: Mapping[str, Mapping[str, float]], title: str = "", unit: str = "") -> Figure:
    """Stacked bars for {name: {piece: number}}: one colour per piece, totals written on."""
    figure, axes = new_axes(height=1.3 + 0.36 * len(named))
    pieces = dict.fromkeys(piece for bar in named.values() for piece in bar)
    names = list(reversed(named))
    left = [0.0] * len(names)
    for piece in pieces:
        widths = [named[name].get(piece, 0.0) for name in names]
        axes.barh(names, widths, left=left, height=0.62, label=piece)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for name, total in zip(names, left, strict=True):
        axes.text(total, name, f" {total:,.0f} {unit}", va="center")
    axes.set_xlim(0, max(left) * 1.25 or 1)
    _without_x_axis(axes)
    axes.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.02))
    axes.set_title(title)
    return figure


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
    _name_ends(axes, ends, gap=0.07 * max(max(ys) for _, ys in named.values()))
    if level is not None:
        axes.axhline(level, color=INK, linewidth=0.9, linestyle="--", alpha=0.6)
    axes.set_ylim(0, None)
    axes.margins(x=0.01)
    axes.set(xlabel=x, ylabel=y, title=title)
    if percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y")
    return figure


def _name_ends(axes: Axes, ends: list[tuple[float, float, str, str]], gap: float) -> None:
    """Write each line's name at its end; names of close lines are moved apart by `gap`."""
    lowest = -1.0
    for height, last, name, colour in sorted(ends):
        lowest = max(height, lowest + gap)
        place = (last, lowest)
        axes.annotate(f" {name}", place, color=colour, va="center", annotation_clip=False)


def histogram(
    values: Sequence[float],
    title: str = "",
    x: str = "",
    marks: Iterable[tuple[float, str]] = (),
    bins: Sequence[float] | None = None,
    y: str = "rows",
) -> Figure:
    """A histogram (`bins`: the edges), with a dashed line for each (value, name) in `marks`."""
    figure, axes = new_axes(height=2.2)
    if bins is None:
        bins = min(20, max(4, len(set(values))))
    axes.hist(values, bins=bins, color=SOFT, edgecolor="white")
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    for value, name in marks:
        axes.axvline(value, color=ACCENT, linewidth=1.2, linestyle="--")
        axes.annotate(f" {name}", (value, axes.get_ylim()[1]), color=ACCENT, va="top")
    axes.set(xlabel=x, ylabel=y, title=title)
    return figure

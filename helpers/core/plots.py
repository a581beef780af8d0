"""The course's pictures: a live loss curve, shares as dots with intervals, bars with their value written on."""

import time

import matplotlib.pyplot as plt
from IPython.display import display
from transformers import TrainerCallback

INK, ACCENT, SOFT = "#22313f", "#c8553d", "#9fb3c8"


def _axes(width=7.0, height=2.6):
    figure, axes = plt.subplots(figsize=(width, height), dpi=110)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    return figure, axes


class LiveLoss(TrainerCallback):
    """Redraws the loss, and the held-out loss where there is one, in the cell while the Trainer runs; saves it at the end to `path`.

    The title tells the last values and, from TRL's count of tokens, the tokens a second since the first log of this start. A resumed run
    shows its earlier part too.
    """

    def __init__(self, path=None):
        self.handle, self.shown, self.path, self.first, self.rate = None, 0, path, None, None

    def _draw(self, state, last=False):
        points = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
        held = [
            (entry["step"], entry["eval_loss"])
            for entry in state.log_history
            if "eval_loss" in entry
        ]
        if not points or (len(points) + len(held) == self.shown and not last):
            return
        self.shown = len(points) + len(held)
        figure, axes = _axes()
        axes.plot(
            *zip(*points), color=ACCENT, marker="o", markersize=3, linewidth=1.5, label="training"
        )
        title = f"step {points[-1][0]}: loss {points[-1][1]:.3f}"
        if held:
            axes.plot(
                *zip(*held), color=INK, marker="s", markersize=4, linewidth=1.5, label="held out"
            )
            axes.legend(frameon=False, fontsize=9)
            title += f", held out {held[-1][1]:.3f}"
        title += f", {self.rate:.0f} tokens/s" if self.rate else ""
        axes.set(
            xlabel=f"optimizer step (of {state.max_steps})",
            ylabel="loss on the answer's tokens",
            ylim=(0, None),
        )
        axes.set_xlim(0, state.max_steps)
        axes.set_title(title, fontsize=10, loc="left", color=INK)
        figure.tight_layout()
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
        if last and self.path:
            figure.savefig(self.path)
        plt.close(figure)

    def _time(self, state):
        tokens = state.log_history[-1].get("num_tokens") if state.log_history else None
        if tokens and "loss" in state.log_history[-1]:
            now = (tokens, time.perf_counter())
            if self.first is None:
                self.first = now
            elif now[0] > self.first[0]:
                self.rate = (now[0] - self.first[0]) / (now[1] - self.first[1])

    def on_log(self, args, state, control, **_):
        self._time(state)
        self._draw(state)

    def on_train_end(self, args, state, control, **_):
        self._draw(state, last=True)


def shares(named, title="", highlight=None):
    """Dots with 95 % intervals for {name: Share}; returns the figure."""
    figure, axes = _axes(height=0.9 + 0.34 * len(named))
    names = list(named)[::-1]
    for y, name in enumerate(names):
        s = named[name]
        colour = ACCENT if name == highlight else INK
        axes.plot([s.low, s.high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot(s.value, y, "o", color=colour, markersize=6)
        axes.text(s.high + 0.02, y, f"{s.value:.1%}", va="center", fontsize=9, color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(0, 1.14)
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}" if v <= 1 else "")
    axes.grid(axis="x", color=SOFT, alpha=0.35, linewidth=0.7)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    figure.tight_layout()
    return figure


def bars(named, title="", unit=""):
    """Horizontal bars for {name: number}, each with its value; returns the figure."""
    figure, axes = _axes(height=0.7 + 0.34 * len(named))
    names = list(named)[::-1]
    axes.barh(names, [named[n] for n in names], color=SOFT, height=0.6)
    for y, name in enumerate(names):
        axes.text(named[name], y, f" {named[name]:.3g} {unit}", va="center", fontsize=9, color=INK)
    axes.set_xlim(0, max(named.values()) * 1.2)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    figure.tight_layout()
    return figure


def curves(named, title="", x="", y="", level=None, percent=True):
    """Lines for {name: (xs, ys)}, each with its name at its end, and a dashed line at `level`; returns the figure."""
    figure, axes = _axes(height=3.0)
    colours = [ACCENT, INK, "#5b8a72", SOFT, "#8d6a9f", "#b08d3e"]
    for (name, (xs, ys)), colour in zip(named.items(), colours * 9):
        axes.plot(xs, ys, color=colour, linewidth=1.8)
    room = 0.07 * max(
        max(ys) for _, ys in named.values()
    )  # names at the ends of close lines are moved apart
    ends, below = (
        sorted(
            (ys[-1], xs[-1], name, colour)
            for (name, (xs, ys)), colour in zip(named.items(), colours * 9)
        ),
        -1.0,
    )
    for end, last, name, colour in ends:
        below = max(end, below + room)
        axes.annotate(
            f" {name}", (last, below), color=colour, fontsize=9, va="center", annotation_clip=False
        )
    if level is not None:
        axes.axhline(level, color=INK, linewidth=0.9, linestyle="--", alpha=0.6)
    axes.set_ylim(0, None)
    axes.margins(x=0.01)
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    if percent:
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    axes.grid(axis="y", color=SOFT, alpha=0.35, linewidth=0.7)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    figure.tight_layout()
    return figure


def stacks(named, title="", unit=""):
    """Horizontal stacked bars for {name: {part: number}}, the same part in the same colour, totals written on; returns the figure."""
    figure, axes = _axes(height=1.3 + 0.36 * len(named))
    parts = list(dict.fromkeys(part for bar in named.values() for part in bar))
    palette = [ACCENT, INK, "#5b8a72", "#b08d3e", SOFT, "#8d6a9f", "#d8a48f", "#6f8fa8"]
    names = list(named)[::-1]
    left = [0.0] * len(names)
    for part, colour in zip(parts, palette * 9):
        widths = [named[name].get(part, 0.0) for name in names]
        axes.barh(names, widths, left=left, color=colour, height=0.62, label=part)
        left = [a + b for a, b in zip(left, widths)]
    for name, total in enumerate(left):
        axes.text(total, name, f" {total:,.0f} {unit}", va="center", fontsize=9, color=INK)
    axes.set_xlim(0, max(left) * 1.25 or 1)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.02))
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    figure.tight_layout()
    return figure


def histogram(values, title="", x="", marks=(), bins=None, y="rows"):
    """A histogram of numbers (`bins`: their edges; `y`: what they are), with a dashed line for each
    (value, name) in `marks`; returns the figure.
    """
    figure, axes = _axes(height=2.2)
    axes.hist(
        values,
        bins=min(20, max(4, len(set(values)))) if bins is None else bins,
        color=SOFT,
        edgecolor="white",
    )
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    for value, name in marks:
        axes.axvline(value, color=ACCENT, linewidth=1.2, linestyle="--")
        axes.annotate(f" {name}", (value, axes.get_ylim()[1]), color=ACCENT, fontsize=9, va="top")
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    figure.tight_layout()
    return figure


def ranges(named, title=""):
    """Dots with intervals for {name: (value, low, high)} in any unit; returns the figure."""
    figure, axes = _axes(height=0.9 + 0.34 * len(named))
    names = list(named)[::-1]
    for y, name in enumerate(names):
        value, low, high = named[name]
        axes.plot([low, high], [y, y], color=INK, linewidth=2, solid_capstyle="round")
        axes.plot(value, y, "o", color=ACCENT, markersize=6)
        axes.annotate(f" {value:.3g}", (high, y), va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(0, 1.15 * max(high for _, _, high in named.values()))
    axes.grid(axis="x", color=SOFT, alpha=0.35, linewidth=0.7)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    figure.tight_layout()
    return figure


def limits(named, marks, title=""):
    """Horizontal bars for {name: number} against dashed lines {name: limit}, on a logarithmic axis; returns the figure."""
    figure, axes = _axes(height=1.0 + 0.3 * len(named))
    names = list(named)[::-1]
    axes.barh(names, [named[n] for n in names], color=SOFT, height=0.6)
    axes.set_xscale("log")
    for y, name in enumerate(names):
        axes.text(named[name], y, f" {named[name]:.1f}", va="center", fontsize=9, color=INK)
    for name, value in marks.items():
        axes.axvline(value, color=ACCENT, linewidth=1, linestyle="--")
        axes.annotate(
            name,
            (value, len(names) - 0.3),
            fontsize=8,
            color=ACCENT,
            ha="center",
            annotation_clip=False,
        )
    axes.set_xlim(min(named.values()) / 2, max(named.values()) * 2)
    axes.set_xlabel(
        "logarithmic axis: each step is ten times the one before", fontsize=8, color=INK
    )
    axes.set_title(title, fontsize=10, loc="left", color=INK, pad=16)
    figure.tight_layout()
    return figure

"""Drawings of ideas, in the colours of the pictures: a box is a matrix, an arrow is what flows."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from helpers.core.plots import ACCENT, INK, SOFT, new_axes


def _canvas(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure, axes = new_axes(width, height)
    axes.set(xlim=(0, 10), ylim=(0, 4), title=title)
    axes.axis("off")
    return figure, axes


def _box(
    axes: Axes, place: tuple[float, float], size: tuple[float, float], words: str, colour: str
) -> None:
    """A rounded box with its lower left corner at `place`, words in the middle."""
    shape = FancyBboxPatch(place, *size, "round,pad=0.05", facecolor=colour, edgecolor=INK)
    axes.add_patch(shape)
    middle = place[0] + size[0] / 2, place[1] + size[1] / 2
    ink = "white" if colour == ACCENT else INK
    axes.annotate(words, middle, ha="center", va="center", color=ink)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1.4})


def lora(shape: tuple[int, int], rank: int) -> Figure:
    """LoRA beside a frozen weight matrix of `shape` (outputs, inputs): what trains is in colour."""
    outputs, inputs = shape
    figure, axes = _canvas(7.4, 2.9, f"LoRA of rank {rank} beside one weight matrix")
    _box(axes, (2.4, 2.3), (4.2, 1.3), f"W: {outputs} x {inputs}, frozen, four bits", SOFT)
    _box(axes, (2.4, 0.4), (1.6, 1.2), f"A: {rank} x {inputs}", ACCENT)
    _box(axes, (5.0, 0.4), (1.6, 1.2), f"B: {outputs} x {rank}", ACCENT)
    axes.annotate("x", (0.7, 1.95), ha="center", va="center", fontsize=13)
    for level in (2.95, 1.0):
        _arrow(axes, (0.95, 1.95), (2.3, level))
    _arrow(axes, (4.1, 1.0), (4.9, 1.0))
    axes.annotate(f"{rank} numbers", (4.5, 0.15), ha="center", fontsize=8)
    axes.annotate("+", (7.6, 1.95), ha="center", va="center", fontsize=16)
    for level in (2.95, 1.0):
        _arrow(axes, (6.7, level), (7.4, 2.0))
    _arrow(axes, (7.8, 1.95), (8.5, 1.95))
    axes.annotate("Wx + (α/r) BAx", (9.2, 1.95), ha="center", va="center")
    axes.annotate("trained, 32 bits", (4.5, 1.75), ha="center", fontsize=8, color=ACCENT)
    return figure


def pack(packs: Sequence[Sequence[tuple[int, int]]], length: int) -> Figure:
    """Packs of rows: each row is (prompt tokens, answer tokens); answers, which train, in colour.

    `length`: tokens that fit into a pack; what is left of it is empty.
    """
    figure, axes = new_axes(7.4, 0.9 + 0.42 * len(packs))
    for level, rows in enumerate(reversed(packs)):
        start = 0
        for prompt, answer in rows:
            axes.barh(level, prompt, left=start, color=SOFT, edgecolor="white", height=0.7)
            axes.barh(level, answer, left=start + prompt, color=ACCENT, height=0.7)
            start += prompt + answer
            # a row never sees the one before it
            axes.plot([start, start], [level - 0.45, level + 0.45], color=INK, linewidth=1.6)
        axes.barh(level, length - start, left=start, color="none", edgecolor=SOFT, height=0.7)
    axes.set_yticks(range(len(packs)), [f"pack {n + 1}" for n in reversed(range(len(packs)))])
    axes.set(xlim=(0, length), xlabel="tokens", title="grey: read, red: trained, line: a new row")
    return figure

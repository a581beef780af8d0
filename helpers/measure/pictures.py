"""Pictures of an evaluation: the radar everyone expects, the dots that say more, a reliability diagram, risk against coverage."""

import math

from helpers.core.plots import ACCENT, INK, SOFT, new_axes, plt

PALETTE = [ACCENT, INK, "#5b8a72", "#b08d3e", "#8d6a9f", SOFT]


def radar(named, title=""):
    """A radar of {name: {axis: share}}: what everybody expects, and less than it seems (see chapter 08); returns the figure."""
    axis = list(next(iter(named.values())))
    angles = [2 * math.pi * i / len(axis) for i in range(len(axis))]
    figure, axes = plt.subplots(figsize=(4.6, 4.2), dpi=110, subplot_kw={"projection": "polar"})
    for (name, values), colour in zip(named.items(), PALETTE * 9):
        ring = [values[a] for a in axis]
        axes.plot([*angles, 0], [*ring, ring[0]], color=colour, linewidth=1.6, label=name)
        axes.fill([*angles, 0], [*ring, ring[0]], color=colour, alpha=0.15)
    axes.set_xticks(angles, axis, fontsize=9, color=INK)
    axes.tick_params(axis="x", pad=10)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "50%", "", "100%"], fontsize=7, color=INK)
    axes.set_title(title, fontsize=10, color=INK, pad=14)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    figure.tight_layout()
    return figure


def dots(grouped, title=""):
    """Dots with 95 % intervals for {group: {name: Share}}, names side by side within a group; returns the figure."""
    names = list(dict.fromkeys(n for group in grouped.values() for n in group))
    figure, axes = new_axes(height=1.2 + (0.2 * len(names) + 0.16) * len(grouped))
    colours = dict(zip(names, PALETTE * 9))
    step = 0.8 / max(1, len(names))
    for y, group in enumerate(list(grouped)[::-1]):
        for k, (name, s) in enumerate(grouped[group].items()):
            place = y + 0.4 - step * (k + 0.5)
            axes.plot(
                [s.low, s.high],
                [place, place],
                color=colours[name],
                linewidth=2,
                solid_capstyle="round",
            )
            axes.plot(
                s.value,
                place,
                "o",
                color=colours[name],
                markersize=5,
                label=name if y == 0 else None,
            )
    axes.set_yticks(range(len(grouped)), list(grouped)[::-1])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    axes.grid(axis="x", color=SOFT, alpha=0.35, linewidth=0.7)
    axes.legend(fontsize=8, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.1))
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    figure.tight_layout()
    return figure


def reliability(named, title=""):
    """Share right against confidence for {name: list of confidence.Bin}, with 95 % intervals; returns the figure."""
    figure, axes = new_axes(width=4.6, height=4.0)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle="--", alpha=0.6)
    for (name, bins), colour in zip(named.items(), PALETTE * 9):
        for b in bins:
            axes.plot(
                [b.confidence] * 2,
                [b.right.low, b.right.high],
                color=colour,
                linewidth=1.4,
                alpha=0.7,
            )
        axes.plot(
            [b.confidence for b in bins],
            [b.right.value for b in bins],
            "o-",
            color=colour,
            markersize=5,
            linewidth=1,
            label=name,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("confidence: how likely the model says it is right", fontsize=9, color=INK)
    axes.set_ylabel("share that was right", fontsize=9, color=INK)
    for scale in (axes.xaxis, axes.yaxis):
        scale.set_major_formatter(lambda v, _: f"{v:.0%}")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    figure.tight_layout()
    return figure


def risk_coverage(named, title=""):
    """Share wrong among the kept rows against the share kept, for {name: (coverage, risk)}; returns the figure."""
    figure, axes = new_axes(height=3.2)
    for (name, (coverage, risk)), colour in zip(named.items(), PALETTE * 9):
        axes.step(coverage, risk, where="post", color=colour, linewidth=1.7, label=name)
    axes.set(xlim=(0, 1), ylim=(0, None))
    axes.set_xlabel("share of messages kept, the surest first", fontsize=9, color=INK)
    axes.set_ylabel("wrong among the kept", fontsize=9, color=INK)
    for scale in (axes.xaxis, axes.yaxis):
        scale.set_major_formatter(lambda v, _: f"{v:.0%}")
    axes.grid(axis="y", color=SOFT, alpha=0.35, linewidth=0.7)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    figure.tight_layout()
    return figure

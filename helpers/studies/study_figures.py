"""From finished students to figures: means over seeds, gaps between arms, how far seeds differ."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helpers import CourseError
from helpers.measure import intervals

Cells = Sequence[Mapping]


@dataclass(frozen=True)
class StudyFigure:
    """The arguments of Run.figure; without `seeds` the run's own."""

    name: str
    value: float | intervals.Share
    how: str
    seeds: Sequence[int] | None = None
    unit: str = "share"
    n: int | None = None


def arm_name(arm: str) -> str:
    """An arm as part of a figure's name: "after LaMini" is after_lamini."""
    return re.sub(r"\W+", "_", arm.lower()).strip("_")


def cells_of(cells: Cells, arm: str) -> list[Mapping]:
    """The finished students of an arm; raises CourseError when there is none."""
    own = [cell for cell in cells if cell["arm"] == arm]
    if not own:
        raise CourseError(f"There is no finished student of the arm {arm!r}.")
    return own


def seeds_of(cells: Cells, arm: str) -> list[int]:
    """The seeds an arm was trained with, in order."""
    return sorted({cell["seed"] for cell in cells if cell["arm"] == arm})


def mean_share(cells: Cells, arm: str, what: str) -> intervals.Share:
    """Share over the seeds of an arm; bootstrap 95 % over rows, each its mean over the seeds."""
    return _with_interval(_row_means(cells, arm, what))


def mean_gap(cells: Cells, a: str, b: str, what: str) -> intervals.Share:
    """Arm a minus arm b on the same rows, seeds averaged, with its bootstrap 95 % interval."""
    return _with_interval(_row_means(cells, a, what) - _row_means(cells, b, what))


def _row_means(cells: Cells, arm: str, what: str) -> np.ndarray:
    # one row of numbers for each seed, one column for each test row
    right = [cell["right"][what] for cell in cells_of(cells, arm)]
    return np.mean(np.array(right, float), axis=0)


def _with_interval(values: np.ndarray) -> intervals.Share:
    low, high = intervals.bootstrap_interval(values)
    return intervals.Share(float(values.mean()), low, high, len(values))


def seed_figures(cells: Cells, arm: str) -> list[StudyFigure]:
    """The exact record of each seed of an arm."""
    figures = []
    for cell in cells_of(cells, arm):
        name = f"exact.{arm_name(arm)}.seed_{cell['seed']}"
        share = intervals.share(cell["right"]["test"])
        figures.append(StudyFigure(name, share, "test, one seed, Wilson 95 %", [cell["seed"]]))
    return figures


def spread_figure(cells: Cells, arm: str, seeds: Sequence[int] | None = None) -> StudyFigure:
    """How far the seeds of an arm lie apart."""
    shares = [float(np.mean(cell["right"]["test"])) for cell in cells_of(cells, arm)]
    spread, how = max(shares) - min(shares), "highest minus lowest seed"
    name = f"seed_spread.{arm_name(arm)}"
    return StudyFigure(name, spread, how, seeds, "difference", len(shares))


def gap_figure(
    cells: Cells, a: str, b: str, what: str, key: str, how: str, seeds: Sequence[int]
) -> StudyFigure:
    """The difference of two arms, named `key`.a_minus_b."""
    name, gap = f"{key}.{arm_name(a)}_minus_{arm_name(b)}", mean_gap(cells, a, b, what)
    return StudyFigure(name, gap, how, seeds, "difference")

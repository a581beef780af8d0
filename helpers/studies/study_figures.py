"""What studies share: rows of chapters, and figures of finished students.

Means over seeds, gaps between arms, how far seeds differ.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helpers import CourseError
from helpers.core.files import read_entries
from helpers.core.runs import Run
from helpers.measure import intervals

Cells = Sequence[Mapping]


@dataclass(frozen=True)
class StudyFigure:
    """The arguments of Run.figure; without `seeds` the run's own."""

    name: str
    value: float | intervals.Share | intervals.Comparison
    how: str
    seeds: Sequence[int] | None = None
    unit: str = "share"
    n: int | None = None


def chapter_rows(run: Run, chapter: str, name: str) -> list[dict]:
    """A chapter's JSONL: from this pilot's run of it, or the reference copy; else CourseError."""
    place = run.folder.parent.parent / chapter / name
    if not place.is_file():
        place = run.need(chapter, name)
    return read_entries(place)


def arm_name(arm: str) -> str:
    """An arm as part of a figure's name: "after LaMini" is after_lamini."""
    return re.sub(r"\W+", "_", arm.lower()).strip("_")


def cells_of(cells: Cells, arm: str) -> list[Mapping]:
    """The finished students of an arm; raises CourseError when there is none."""
    own = [cell for cell in cells if cell["arm"] == arm]
    if not own:
        raise CourseError(f"There is no finished student of the arm {arm!r}.")
    return own


def seeds_of(cells: Cells, arm: str, what: str = "test") -> list[int]:
    """The seeds whose students of an arm were asked `what`, in order."""
    return sorted({c["seed"] for c in cells if c["arm"] == arm and what in c["right"]})


def mean_share(cells: Cells, arm: str, what: str) -> intervals.Share:
    """Share over the seeds of an arm; bootstrap 95 % over rows, each its mean over the seeds."""
    return _with_interval(_row_means(cells, arm, what))


def mean_gap(cells: Cells, a: str, b: str, what: str) -> intervals.Share:
    """Arm a minus arm b on the same rows, seeds averaged, with its bootstrap 95 % interval."""
    return _with_interval(_row_means(cells, a, what) - _row_means(cells, b, what))


def _row_means(cells: Cells, arm: str, what: str) -> np.ndarray:
    # one row of numbers for each seed, one column for each test row
    own = [cell["right"] for cell in cells_of(cells, arm)]
    right = [each[what] for each in own if what in each]  # some seeds may not have been asked
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

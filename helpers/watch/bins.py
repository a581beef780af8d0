"""Two heaps of rows in the same bins, and the index that says how far apart they are."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

NUMBER_BINS = 10
NOTHING = "(nothing)"  # an empty label, or what is no number


def psi(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The population stability index of counts, shape (..., bins), with half a row in each bin.

    The sum of (q - p) ln(q / p) over the bins, which is Jeffreys' divergence (1946); rounded, so
    that equal counts give equal figures.
    """
    return np.round(_parts(before, now).sum(axis=-1), 12)


def _parts(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    before, now = np.asarray(before, float), np.asarray(now, float)
    half = before.shape[-1] / 2
    p = (before + 0.5) / (before.sum(axis=-1, keepdims=True) + half)
    q = (now + 0.5) / (now.sum(axis=-1, keepdims=True) + half)
    return (q - p) * np.log(q / p)


@dataclass(frozen=True)
class SharedBins:
    """Rows of a reference and of a week: the bin of each (reference first), and two counts."""

    names: list[str]
    place: np.ndarray
    before: np.ndarray
    now: np.ndarray

    @classmethod
    def of(cls, before: list[Any], now: list[Any], numeric: bool) -> "SharedBins":
        """The bins of both heaps together, which so know nothing of which row came when."""
        values = [*before, *now]
        named = ranges_of(values) if numeric else categories_of(values)
        names, place = np.unique(np.array(named, dtype=object), return_inverse=True)
        counts = np.bincount(place[: len(before)], minlength=len(names))
        of_week = np.bincount(place[len(before) :], minlength=len(names))
        return cls([str(name) for name in names], place, counts, of_week)

    def shares(self) -> dict[str, tuple[float, float]]:
        """{bin: (share of the reference, of the week)}, those that moved most first."""
        p, q = self.before / self.before.sum(), self.now / max(1, self.now.sum())
        order = np.argsort(-_parts(self.before, self.now), kind="stable")
        return {self.names[i]: (float(p[i]), float(q[i])) for i in order}

    def unseen(self) -> dict[str, int]:
        """{bin without a row of the reference: rows of the week}."""
        return {self.names[i]: int(self.now[i]) for i in np.flatnonzero(self.before == 0)}


def is_number(value: Any) -> bool:
    """True for what counts as a number here; a bool is a category."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)


def categories_of(values: list[Any]) -> list[str]:
    """The name of each value's category; an empty one has a name, too."""
    return [NOTHING if value is None or value == "" else str(value) for value in values]


def ranges_of(values: list[Any]) -> list[str]:
    """The name of each number's bin: ten of about equally many rows; a frequent number has its own.

    Ten different numbers or fewer have a bin each.
    """
    usable = [float(v) if is_number(v) and math.isfinite(v) else None for v in values]
    counts = sorted(Counter(v for v in usable if v is not None).items())
    full = 1.0
    if len(counts) > NUMBER_BINS:
        full = sum(count for _, count in counts) / NUMBER_BINS
    bins: list[list[float]] = []
    size = 0
    for value, count in counts:
        if not bins or size >= full or count >= full:
            bins.append([])
            size = 0
        bins[-1].append(value)
        size += count
    name_of = {}
    for inside in bins:
        low, high = f"{inside[0]:.6g}", f"{inside[-1]:.6g}"
        name_of.update(dict.fromkeys(inside, low if low == high else f"{low} to {high}"))
    return [NOTHING if value is None else name_of[value] for value in usable]

"""How sure is the model? Probabilities of its own answers, calibration, thresholds."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

from helpers import CourseError
from helpers.ask import answers
from helpers.ask.likelihood import log_likelihoods
from helpers.core.files import Journal, fingerprint
from helpers.core.pilot import Pilot
from helpers.core.plots import INK, new_axes
from helpers.measure.intervals import Bools, Share, share
from helpers.measure.scoring import parse

Numbers = Sequence[float] | np.ndarray
KEPT_TOGETHER = 128  # answers read before they are written down; a kill loses no more


def of_answers(
    model,
    tokenizer,
    pilot: Pilot,
    rows: Sequence[Mapping],
    texts: Sequence[str],
    at: str | Path,
    max_length: int = 512,
) -> list[dict[str, float]]:
    """[{field: probability, "record": ...}]: how likely the model finds its own answers `texts`.

    It is the model's opinion before any calibration and without the grammar: near 0 where that
    forced its hand; 0 for an answer of another form. Kept in `<at>-<made from>.jsonl`, as
    answers.generate does it.
    """
    made_from = fingerprint(answers.hash_of_weights(model), tokenizer.chat_template, max_length)
    journal = Journal(f"{at}-{made_from}.jsonl", "Confidences")
    asked = {}  # key: (prompt, answer)
    keys = []
    for row, text in zip(rows, texts, strict=True):
        message = row[pilot.text]
        prompt = answers.prompt(pilot, tokenizer, message, full=False, max_length=max_length)
        keys.append(fingerprint(made_from, prompt, text))
        asked[keys[-1]] = prompt, text
    todo = journal.missing(keys)
    for start in range(0, len(todo), KEPT_TOGETHER):
        batch = todo[start : start + KEPT_TOGETHER]
        prompts, replies = zip(*(asked[key] for key in batch))
        read = log_likelihoods(model, tokenizer, prompts, replies)
        sure = {}
        for key, reply, (log_p, begins) in zip(batch, replies, read):
            sure[key] = _probabilities(pilot, reply, log_p, begins)
        journal.add(sure)
    return journal.of(keys)


def _probabilities(pilot: Pilot, text: str, log_p: np.ndarray, begins: list[int]) -> dict:
    places = field_places(pilot, text)
    if places is None:
        return dict.fromkeys((*pilot.fields, "record"), 0.0)
    token_begins, token_ends = np.array(begins), np.array([*begins[1:], len(text)])
    sure = {}
    for name, (start, end) in places.items():
        # a token may hold the end of a value and the mark behind it: whatever touches counts
        touching = (token_begins < end) & (token_ends > start)
        sure[name] = round(float(np.exp(log_p[touching].sum())), 6)
    return sure | {"record": round(float(np.exp(log_p.sum())), 6)}


def field_places(pilot: Pilot, answer: str) -> dict[str, tuple[int, int]] | None:
    """{field: (start, end)} of every value in an answer written like Pilot.answer, else None."""
    record = parse(answer)
    if record is None or list(record) != list(pilot.fields):
        return None
    if json.dumps(record, ensure_ascii=False) != answer:
        return None
    places, place = {}, 1  # behind the brace
    for name, value in record.items():
        start = place + len(json.dumps(name, ensure_ascii=False)) + 2
        end = start + len(json.dumps(value, ensure_ascii=False))
        places[name] = start, end
        place = end + 2
    return places


def confidence_bins(confidence: Numbers, right: Bools, bins: int = 5) -> list[tuple[float, Share]]:
    """[(mean confidence, Share that was right)] over bins of (nearly) equal numbers of rows.

    The least sure first; equal confidences stay together.
    """
    confidence, right = _pair(confidence, right)
    quantiles = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.unique(np.quantile(confidence, quantiles, method="higher"))
    bin_of = np.searchsorted(edges, confidence, side="right")
    result = []
    for number in np.unique(bin_of):
        inside = bin_of == number
        result.append((float(confidence[inside].mean()), share(right[inside])))
    return result


def calibration_error(confidence: Numbers, right: Bools, bins: int = 5) -> float:
    """Mean distance of confidence and share right over the bins (expected calibration error).

    Chance alone makes it larger than 0: a bin of 20 rows is off by some points.
    """
    total = 0.0
    for mean, correct in confidence_bins(confidence, right, bins):
        total += correct.n * abs(mean - correct.value)
    return total / len(right)


def calibrator(confidence: Numbers, right: Bools) -> Callable[[Numbers], np.ndarray]:
    """A function confidence -> probability: Platt's logistic curve (1999) on the log odds.

    Raises CourseError when all rows are right or all wrong: there is no curve to fit.
    """
    confidence, right = _pair(confidence, right)
    if right.all() or not right.any():
        word = "right" if right.all() else "wrong"
        raise CourseError(f"All {right.size} rows are {word}; calibration needs both kinds.")

    def log_odds(values: Numbers) -> np.ndarray:
        inside = np.clip(np.asarray(values, float), 1e-6, 1 - 1e-6)
        return np.log(inside / (1 - inside))[:, None]

    curve = LogisticRegression(C=1.0).fit(log_odds(confidence), right)
    return lambda values: curve.predict_proba(log_odds(values))[:, 1]


def risk_coverage(confidence: Numbers, right: Bools) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(coverage, risk, threshold), arrays over every possible threshold, highest first.

    Coverage: the share of rows at least that sure. Risk: the share wrong among them.
    """
    confidence, right = _pair(confidence, right)
    order = np.argsort(-confidence, kind="stable")
    level, wrong = confidence[order], np.cumsum(~right[order])
    # rows of equal confidence are kept or handed on together
    last = np.flatnonzero(np.append(level[1:] != level[:-1], True))
    return (last + 1) / right.size, wrong[last] / (last + 1), level[last]


def threshold(confidence: Numbers, right: Bools, wanted: float) -> float | None:
    """The lowest confidence from which the kept rows are right in the share `wanted`, or None."""
    if not 0 < wanted <= 1:
        raise CourseError(
            f"The share wanted is {wanted:g}; write one between 0 and 1, 0.9 for 90 %."
        )
    _, risk, level = risk_coverage(confidence, right)
    good = np.flatnonzero(1 - risk >= wanted - 1e-12)
    return float(level[good[-1]]) if good.size else None


def kept(confidence: Numbers, right: Bools, level: float | None) -> tuple[Share, Share | None]:
    """(Share at a threshold or above, Share right among these or None); None keeps nothing."""
    confidence, right = _pair(confidence, right)
    keep = np.zeros(right.size, bool)
    if level is not None:
        keep = confidence >= level
    return share(keep), share(right[keep]) if keep.any() else None


def best_level(confidence: Numbers, small: Bools, other: Bools) -> float:
    """The threshold from which to keep `small` that is right most often here; inf: hand on all.

    Of equally good ones the one that keeps most. Like every choice it flatters its own rows.
    """
    confidence, small = _pair(confidence, small)
    levels = [*np.unique(confidence), np.inf]
    gains = [np.where(confidence >= level, small, other).sum() for level in levels]
    return float(levels[int(np.argmax(gains))])


def halves(
    rows: Sequence, seed: int = 0, groups: Sequence[Hashable] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Two bool arrays of shape (rows,): a random half to choose on, the other to confirm on.

    A group is never torn apart.
    """
    groups = list(range(len(rows)) if groups is None else groups)
    names = sorted(set(groups), key=str)
    if len(names) < 2:
        raise CourseError(
            "One half to choose on and one to confirm on need at least two rows (or groups)."
        )
    drawn = np.random.default_rng(seed).permutation(len(names))
    first = {names[i] for i in drawn[: len(names) // 2]}
    choose = np.array([group in first for group in groups])
    return choose, ~choose


def _pair(confidence: Numbers, right: Bools) -> tuple[np.ndarray, np.ndarray]:
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    if confidence.shape != right.shape:
        raise CourseError(
            f"Every row needs a confidence and a result, not {confidence.size} and {right.size}."
        )
    if not right.size:
        raise CourseError("There are no rows to judge.")
    if not np.isfinite(confidence).all():
        raise CourseError("A confidence is not a number; ask the model again for that row.")
    return confidence, right


def plot_reliability(named: dict[str, list[tuple[float, Share]]], title: str = "") -> Figure:
    """Share right against confidence for {name: confidence_bins}, with 95 % intervals."""
    figure, axes = new_axes(4.6, 4.0)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle="--", alpha=0.6)
    for name, bins in named.items():
        means, values = zip(*((mean, s.value) for mean, s in bins))
        ends = [(s.value - s.low, s.high - s.value) for _, s in bins]
        # rounding may put the upper end of "all right" a hair below it
        axes.errorbar(
            means, values, yerr=np.maximum(ends, 0).T, marker="o", linewidth=1, label=name
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), title=title)
    axes.set_xlabel("confidence: how likely the model says it is right")
    axes.set_ylabel("share that was right")
    axes.legend(loc="upper left")
    return figure

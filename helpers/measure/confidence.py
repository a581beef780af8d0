"""How sure is the model? Token probabilities of its own answers, calibration, risk and coverage, a threshold, escalation."""

import json
from dataclasses import dataclass

import numpy as np

from helpers import CourseError
from helpers.ask import answers
from helpers.measure.intervals import Comparison, Share, compare, share
from helpers.measure.scoring import parse

# Probabilities -----------------------------------------------------------------------------------------------


def log_likelihoods(model, tokenizer, prompts, texts, batch_size=16):
    """For each (prompt, text): (log p of every token of the text, where each token begins in the text), natural logarithms.

    The model reads the text as it stands, one forward pass and no generation; shortest first. Token borders as in lm-eval:
    prompt and text are tokenised together and cut where the prompt alone ends.
    """
    import torch

    half = torch.bfloat16 if model.device.type == "cpu" else model.dtype
    jobs = []
    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        whole = tokenizer(prompt + text, add_special_tokens=False, return_offsets_mapping=True)
        cut = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        jobs.append(
            (
                i,
                whole.input_ids,
                cut,
                [max(0, a - len(prompt)) for a, _ in whole.offset_mapping[cut:]],
            )
        )
    found, was_training = [None] * len(jobs), model.training
    model.eval()
    jobs.sort(key=lambda job: len(job[1]))
    for start in range(0, len(jobs), batch_size):
        batch = jobs[start : start + batch_size]
        width, keep = (
            max(len(ids) for _, ids, _, _ in batch),
            max(len(ids) - cut for _, ids, cut, _ in batch) + 1,
        )
        ids = torch.tensor(
            [[tokenizer.pad_token_id] * (width - len(ids)) + ids for _, ids, _, _ in batch],
            device=model.device,
        )
        mask = torch.tensor(
            [[0] * (width - len(ids)) + [1] * len(ids) for _, ids, _, _ in batch],
            device=model.device,
        )
        with (
            torch.inference_mode(),
            torch.autocast(model.device.type, dtype=half, enabled=model.dtype != torch.float32),
        ):
            logits = (
                model(input_ids=ids, attention_mask=mask, logits_to_keep=keep)
                .logits[:, :-1]
                .float()
            )
        logp = (
            torch.log_softmax(logits, -1).gather(-1, ids[:, 1 - keep :, None])[..., 0].cpu().numpy()
            if keep > 1
            else None
        )
        for (i, row, cut, begins), values in zip(
            batch, logp if logp is not None else [[]] * len(batch)
        ):
            n = len(row) - cut
            found[i] = np.asarray(values[len(values) - n :], float), begins
    model.train(was_training)
    return found


def field_places(pilot, answer):
    """{field: (start, end)} of every value in an answer that has the form of Pilot.answer, or None when it has another form."""
    record, places, at = parse(answer), {}, 1
    if record is None or list(record) != list(pilot.fields):
        return None
    for name, value in record.items():
        start = at + len(json.dumps(name)) + 2
        at = start + len(json.dumps(value, ensure_ascii=False))
        places[name], at = (start, at), at + 2
    return places if json.dumps(record, ensure_ascii=False) == answer else None


def of_answers(model, tokenizer, pilot, rows, texts, journal, max_tokens=512, batch_size=16):
    """[{field: probability, "record": probability}], how likely the model finds each of its own answers `texts`; 0 for another form.

    A field's probability is the product over the tokens that touch its value, the record's over all tokens. Kept row by row in
    the journal. It is the model's own opinion, before any calibration and without the grammar: near 0 where that forced its hand.
    """
    known = dict(zip((str(row["id"]) for row in rows), texts, strict=True))
    todo = journal.missing(rows)
    for start in range(0, len(todo), 8 * batch_size):
        part, made = todo[start : start + 8 * batch_size], {}
        said = [known[str(row["id"])] for row in part]
        asks = [
            answers.prompt(pilot, tokenizer, row[pilot.text], full=False, max_tokens=max_tokens)
            for row in part
        ]
        for row, text, (logp, begins) in zip(
            part, said, log_likelihoods(model, tokenizer, asks, said, batch_size)
        ):
            places, values = (
                field_places(pilot, text),
                {name: 0.0 for name in (*pilot.fields, "record")},
            )
            if places:
                ends = [*begins[1:], len(text)]
                for name, (a, b) in places.items():
                    values[name] = float(
                        np.exp(sum(p for p, x, y in zip(logp, begins, ends) if x < b and y > a))
                    )
                values["record"] = float(np.exp(logp.sum()))
            made[row["id"]] = json.dumps({name: round(v, 6) for name, v in values.items()})
        journal.add(made, 0.0)
    return [json.loads(text) for text in journal.of(rows)]


# Is a probability worth its name? ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Bin:
    """Rows of similar confidence: their mean `confidence` and the Share that was `right`."""

    confidence: float
    right: Share


def reliability(confidence, right, bins=5):
    """Bins with (nearly) equal numbers of rows, least sure first; equal confidences are not torn apart."""
    confidence, right = _pair(confidence, right)
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1], method="higher"))
    place = np.searchsorted(edges, confidence, side="right")
    return [
        Bin(float(confidence[place == k].mean()), share(right[place == k]))
        for k in np.unique(place)
    ]


def calibration_error(confidence, right, bins=5):
    """Mean distance between confidence and share right over equal-count bins, weighted by rows (expected calibration error).

    Chance alone makes it larger than 0: a bin of 20 rows is off by some points even for a perfectly calibrated model.
    """
    found = reliability(confidence, right, bins)
    return float(
        sum(b.right.n * abs(b.confidence - b.right.value) for b in found)
        / sum(b.right.n for b in found)
    )


def calibrator(confidence, right):
    """A function confidence -> calibrated probability, fitted on one part of the rows: Platt's logistic curve (1999) on the log odds.

    Raises CourseError when all rows are right or all wrong: there is no curve to fit.
    """
    from sklearn.linear_model import LogisticRegression

    confidence, right = _pair(confidence, right)
    if right.all() or not right.any():
        raise CourseError(
            f"All {right.size} rows are {'right' if right.all() else 'wrong'}; calibration needs both kinds."
        )
    odds = lambda c: np.log(np.clip(c, 1e-6, 1 - 1e-6) / (1 - np.clip(c, 1e-6, 1 - 1e-6)))[:, None]  # noqa: E731
    curve = LogisticRegression(C=1.0).fit(odds(confidence), right)
    return lambda c: curve.predict_proba(odds(np.asarray(c, float)))[:, 1]


# Keep or hand on ---------------------------------------------------------------------------------------------


def risk_coverage(confidence, right):
    """(coverage, risk, threshold), arrays over every possible threshold: keep the rows at least that sure; risk is the share wrong.

    Rows of equal confidence are kept or handed on together.
    """
    confidence, right = _pair(confidence, right)
    order = np.argsort(-confidence, kind="stable")
    level, wrong = confidence[order], np.cumsum(~right[order])
    last = np.flatnonzero(np.append(level[1:] != level[:-1], True))
    return (last + 1) / right.size, wrong[last] / (last + 1), level[last]


def threshold(confidence, right, wanted):
    """The lowest confidence from which the kept rows are right in at least the share `wanted`, or None when no threshold gives it.

    Chosen on these rows it flatters them: confirm it on others with `kept`.
    """
    if not 0 < wanted <= 1:
        raise CourseError(
            f"The share wanted is {wanted:g}; write one between 0 and 1, 0.9 for 90 %."
        )
    _, risk, level = risk_coverage(confidence, right)
    good = np.flatnonzero(1 - risk >= wanted - 1e-12)
    return float(level[good[-1]]) if good.size else None


@dataclass(frozen=True)
class Kept:
    """Rows at or above a threshold: the Share `coverage` that is kept and the Share `right` among them (None when nothing is kept)."""

    coverage: Share
    right: Share | None

    def __str__(self):
        return f"kept {self.coverage}; of these right {self.right if self.right else 'none: nothing is kept'}"


def kept(confidence, right, level):
    """What a threshold gives on these rows; `level` None keeps nothing."""
    confidence, right = _pair(confidence, right)
    keep = confidence >= level if level is not None else np.zeros(right.size, bool)
    return Kept(share(keep), share(right[keep]) if keep.any() else None)


@dataclass(frozen=True)
class Escalation:
    """Small model on the kept rows, another way on the rest. `kept_gap`: small minus other on the kept rows, `handed_gap`: other minus
    small on the rest (Comparison or None); `over_small`, `over_other`: the combination against each alone.
    """

    right: np.ndarray
    coverage: Share
    both: Share
    kept_gap: Comparison | None
    handed_gap: Comparison | None
    over_small: Comparison
    over_other: Comparison

    def __str__(self):
        return (
            f"right {self.both}, {self.coverage.value:.0%} kept\n   against the small model alone {self.over_small}\n"
            f"   against the other alone     {self.over_other}"
        )


def escalate(small, other, keep):
    """Combine two ways row by row: `small` where `keep`, else `other` (bool arrays over the same rows).

    The combination beats the other way alone exactly when the small one is better on the kept rows, and beats the small one exactly
    when the other is better on the rows handed on: both are sums over the rows where they differ.
    """
    small, other, keep = (np.asarray(x, bool) for x in (small, other, keep))
    if not small.shape == other.shape == keep.shape:
        raise CourseError(
            f"Escalation needs the same rows on every side, not {small.size}, {other.size} and {keep.size}."
        )
    both = np.where(keep, small, other)
    part = lambda a, b, where: compare(a[where], b[where]) if where.any() else None  # noqa: E731
    return Escalation(
        both,
        share(keep),
        share(both),
        part(small, other, keep),
        part(other, small, ~keep),
        compare(both, small),
        compare(both, other),
    )


def best_level(confidence, small, other):
    """The threshold (from which `small` is kept) that makes the combination right most often on these rows; inf hands on every row.

    Of several equally good ones the one that keeps most. Like every choice it flatters the rows it was made on.
    """
    confidence, small = _pair(confidence, small)
    other = np.asarray(other, bool)
    levels = [*np.unique(confidence), np.inf]
    gains = [np.where(confidence >= level, small, other).sum() for level in levels]
    return float(levels[int(np.argmax(gains))])


def halves(rows, seed=0, groups=None):
    """Two bool arrays of shape (rows,): a random half to choose on and the other to confirm on; a group is never torn apart."""
    groups = list(range(len(rows))) if groups is None else list(groups)
    names = sorted(set(groups), key=str)
    if len(names) < 2:
        raise CourseError(
            "One half to choose on and one to confirm on need at least two rows (or groups)."
        )
    drawn = np.random.default_rng(seed).permutation(len(names))
    first = {names[i] for i in drawn[: len(names) // 2]}
    choose = np.array([group in first for group in groups])
    return choose, ~choose


def _pair(confidence, right):
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

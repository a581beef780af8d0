"""Does the label fit the text? A quick model that never saw the row is asked."""

import numpy as np
from datasets import Dataset
from threadpoolctl import threadpool_limits

from helpers.core.pilot import Pilot
from helpers.core.text import tokens
from helpers.keep.pipeline import Filter, content_hash
from helpers.keep.word_counts import tf_idf_classifier

FOLDS, MOST = 5, 20_000  # each fold learns from at most so many rows


def cross_fit_disagreement(
    pilot: Pilot, seeds: Dataset | None = None, times: float = 5.0, seed: int = 0
) -> Filter:
    """Rows whose label a quick model (TF-IDF, logistic regression) that never saw the row doubts.

    Another value of the first label field must be `times` as likely. `seeds` are rows to trust:
    they join the training side of every fold, except where the same text is being judged. With few
    rows for each label the model knows little: it finds under half of swapped labels, and the rows
    it rejects are worth reading. A relative of confident learning (Northcutt et al. 2021, arXiv
    1911.00068), whose thresholds need far more rows.
    """
    name = pilot.labels[0]

    def judge(rows: Dataset) -> dict[int, str]:
        texts, values = np.array(rows[pilot.text], dtype=object), list(rows[name])
        classes = sorted(set(values), key=str)
        trusted = [(row[pilot.text], row[name]) for row in seeds or () if row[name] in classes]
        # every row is judged by a model of the other folds
        fold_of = np.random.default_rng(seed).permutation(len(texts)) % FOLDS
        probability = np.full((len(texts), len(classes)), 1 / len(classes))
        for fold in range(FOLDS):
            judged, unseen = np.flatnonzero(fold_of == fold), set(texts[fold_of == fold])
            learn = [(texts[i], values[i]) for i in np.flatnonzero(fold_of != fold)[:MOST]]
            # a trusted copy of a judged text would give its answer away
            learn += [pair for pair in trusted if pair[0] not in unseen]
            # nothing to ask, or nothing to tell apart: every class stays as likely as the others
            if len(judged) and len({value for _, value in learn}) > 1:
                probability[judged] = _probability(pilot, learn, texts[judged], classes)
        reasons = {}
        for row, value in enumerate(values):
            likely, best = probability[row], int(probability[row].argmax())
            given = classes.index(value)
            if best != given and likely[best] >= times * likely[given]:
                doubt = f"{name} {value!r} has probability {likely[given]:.2f}"
                reasons[row] = f"{doubt}, {classes[best]!r} {likely[best]:.2f}"
        return reasons

    settings = {"times": times, "seed": seed, "seeds": content_hash(seeds) if seeds else ""}
    return Filter("agreement", judge, settings, whole=True)


def _probability(pilot: Pilot, learn: list, texts: np.ndarray, classes: list) -> np.ndarray:
    """Array (texts, classes) from a model of the pairs (text, value) in `learn`."""
    known, values = zip(*learn, strict=True)
    # strong weights for few rows, and every label counts alike
    logistic = {"C": 100, "max_iter": 500, "class_weight": "balanced"}
    model = tf_idf_classifier(pilot, known, tokenizer=tokens, **logistic)
    with threadpool_limits(1):  # small matrices: more threads only wait for each other
        model.fit(known, list(map(classes.index, values)))
    probability = np.zeros((len(texts), len(classes)))
    probability[:, model.classes_] = model.predict_proba(texts)
    return probability

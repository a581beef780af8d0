"""Does the label fit the text? A quick model that never saw the row is asked."""

from collections.abc import Callable, Sequence

import numpy as np
from datasets import Dataset
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_limits

from helpers.core.pilot import Pilot
from helpers.core.text import tokens
from helpers.keep.pipeline import Filter, content_hash
from helpers.keep.word_counts import tf_idf_classifier

Embed = Callable[[Sequence[str]], np.ndarray]  # texts to vectors, shape (texts, width)
FOLDS, MOST = 5, 20_000  # each fold learns from at most so many rows


def cross_fit_disagreement(
    pilot: Pilot,
    seeds: Dataset | None = None,
    times: float = 5.0,
    seed: int = 0,
    embed: Embed | None = None,
    fields: Sequence[str] = (),
) -> Filter:
    """Rows whose labels a quick model (TF-IDF, logistic regression) that never saw the row doubts.

    Another value of a label must be `times` as likely: of the first label field, or of `fields`,
    which finds more and takes more right rows, too. `seeds` are rows to trust: they join
    the training side of every fold, except where the same text is being judged. With `embed` (texts
    to vectors, shape (texts, width)) a second regression reads the vectors, and the mean of both
    counts. With few rows for each label the models know little: they find about half of swapped
    labels, and the rows they reject are worth reading. A relative of confident learning (Northcutt
    et al. 2021, arXiv 1911.00068), whose thresholds need far more rows.
    """

    def judge(rows: Dataset) -> dict[int, str]:
        texts = np.array(rows[pilot.text], dtype=object)
        # every row is judged by a model of the other folds
        fold_of = np.random.default_rng(seed).permutation(len(texts)) % FOLDS
        reasons: dict[int, str] = {}
        for name in fields or pilot.labels[:1]:
            values = list(rows[name])
            classes = sorted(set(values), key=str)
            trusted = [(row[pilot.text], row[name]) for row in seeds or () if row[name] in classes]
            probability = np.full((len(texts), len(classes)), 1 / len(classes))
            for fold in range(FOLDS):
                judged, unseen = np.flatnonzero(fold_of == fold), set(texts[fold_of == fold])
                learn = [(texts[i], values[i]) for i in np.flatnonzero(fold_of != fold)[:MOST]]
                # a trusted copy of a judged text would give its answer away
                learn += [pair for pair in trusted if pair[0] not in unseen]
                # nothing to ask, or nothing to tell apart: every class stays as likely
                if len(judged) and len({value for _, value in learn}) > 1:
                    told = _probability(pilot, learn, texts[judged], classes, embed)
                    probability[judged] = told
            for row, value in enumerate(values):
                likely, best = probability[row], int(probability[row].argmax())
                given = classes.index(value)
                if best != given and likely[best] >= times * likely[given]:
                    doubt = f"{name} {value!r} has probability {likely[given]:.2f}"
                    reasons.setdefault(row, f"{doubt}, {classes[best]!r} {likely[best]:.2f}")
        return reasons

    settings = {"times": times, "seed": seed, "seeds": content_hash(seeds) if seeds else ""}
    settings |= {"embed": embed is not None, "fields": [*fields]}
    return Filter("agreement", judge, settings, whole=True)


def _probability(
    pilot: Pilot, learn: list, texts: np.ndarray, classes: list, embed: Embed | None
) -> np.ndarray:
    """Array (texts, classes) from models of the pairs (text, value) in `learn`."""
    known, values = zip(*learn, strict=True)
    numbers = list(map(classes.index, values))
    # strong weights for few rows, and every label counts alike
    logistic = {"C": 100, "max_iter": 500, "class_weight": "balanced"}
    models = [tf_idf_classifier(pilot, known, tokenizer=tokens, **logistic)]
    if embed:
        embedded = FunctionTransformer(lambda some: embed(list(some)))
        models.append(make_pipeline(embedded, LogisticRegression(**logistic | {"C": 20})))
    probability = np.zeros((len(texts), len(classes)))
    with threadpool_limits(1):  # small matrices: more threads only wait for each other
        for model in models:
            model.fit(known, numbers)
            probability[:, model.classes_] += model.predict_proba(texts) / len(models)
    return probability

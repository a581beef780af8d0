"""The cheap ways that every model must beat: majority, keyword rules, word counts, embeddings.

Each way is called as `way(pilot, train, texts)` and returns one record for each text. WAYS holds
them all; the best of them, field by field, is what a tuned model is compared with. How sure a way
is of each label says `label_probabilities`.
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from helpers import CourseError
from helpers.choose import encoder
from helpers.core.pilot import Pilot
from helpers.core.text import same_message
from helpers.keep.keywords import BORDER, keywords, told_by
from helpers.keep.word_counts import tf_idf_classifier
from helpers.measure.scoring import score

Rows = Sequence[dict]
Way = Callable[[Pilot, Rows, Sequence[str]], list[dict]]


def majority(pilot: Pilot, train: Rows, texts: Sequence[str]) -> list[dict]:
    """The same record for every text: each field's commonest value in training."""
    record = {}
    for name in pilot.fields:
        record[name] = Counter(row[name] for row in train).most_common(1)[0][0]
    return [dict(record) for _ in texts]


def rules(pilot: Pilot, train: Rows, texts: Sequence[str]) -> list[dict]:
    """Keywords of rules.yaml for labels, the regex for patterns, and the spans seen in training."""
    common = majority(pilot, train, [""])[0]
    keywords_of = keywords(pilot)
    records: list[dict] = [{} for _ in texts]
    for name, spec in pilot.fields.items():
        spans = _spans_seen(train, name)
        for record, text in zip(records, texts):
            if spec.type == "pattern":
                hit = re.search(spec.regex, text)
                record[name] = (hit.group(0) or None) if hit else None
            elif spec.type == "span":
                record[name] = next((span for span in spans if _stands_in(text, span)), None)
            else:
                # no hit: the commonest value
                record[name] = told_by(keywords_of[name], common[name])(text)
    return records


def tf_idf(pilot: Pilot, train: Rows, texts: Sequence[str]) -> list[dict]:
    """Labels by word counts and a logistic regression for each field, the rest by rules."""
    return _likeliest_labels(pilot, train, texts, "TF-IDF")


def embeddings(pilot: Pilot, train: Rows, texts: Sequence[str]) -> list[dict]:
    """Labels by the encoder's vectors and a logistic regression, the rest by rules."""
    return _likeliest_labels(pilot, train, texts, "embeddings")


def embeddings_and_tf_idf(pilot: Pilot, train: Rows, texts: Sequence[str]) -> list[dict]:
    """Labels by the plain mean of the probabilities of both, the rest by rules."""
    return _likeliest_labels(pilot, train, texts, "embeddings + TF-IDF")


def _likeliest_labels(pilot: Pilot, train: Rows, texts: Sequence[str], way: str) -> list[dict]:
    records = rules(pilot, train, texts)
    for field, table in label_probabilities(pilot, train, texts, way).items():
        classes = label_classes(pilot, field)
        for record, place in zip(records, table.argmax(axis=1)):
            record[field] = classes[place]
    return records


def label_classes(pilot: Pilot, field: str) -> list[str | None]:
    """The values of a label field, then None where it is optional: the order of probabilities."""
    spec = pilot.fields[field]
    return [*spec.values, None] if spec.optional else list(spec.values)


def label_probabilities(
    pilot: Pilot, train: Rows, texts: Sequence[str], way: str
) -> dict[str, np.ndarray]:
    """{label field: probabilities, float64, shape (texts, classes)} of a way in PROBABILITIES.

    Classes stand in the order of `label_classes`; each row sums to 1. A class that training rows
    do not have gets 0, except from a keyword that names it.
    """
    tables = {}
    for field in pilot.labels:
        place = {name: i for i, name in enumerate(label_classes(pilot, field))}
        truth = np.array([place[row[field] or None] for row in train])  # an empty text is None
        tables[field] = PROBABILITIES[way](pilot, field, train, truth, texts)
    return tables


def _class_shares(pilot: Pilot, field: str, train: Rows, truth: np.ndarray, texts) -> np.ndarray:
    """The share of each class in training, for every text."""
    counts = np.bincount(truth, minlength=len(label_classes(pilot, field)))
    return np.tile(counts / len(truth), (len(texts), 1))


def _keyword_shares(pilot: Pilot, field: str, train: Rows, truth: np.ndarray, texts) -> np.ndarray:
    """The label that the rules give, as often as they are right with it; the others share the rest.

    That is (right + 1) / (given + 2) over training rows, counted apart for labels that a keyword
    gave and for the commonest label where none did. The rest goes by the shares in training.
    """
    shares = _class_shares(pilot, field, train, truth, [""])[0]
    classes, tests = label_classes(pilot, field), keywords(pilot)[field]
    commonest = int(shares.argmax())

    def given(text: str) -> tuple[int, bool]:
        for label, test in tests.items():  # in the order of rules.yaml, not of the classes
            if test.search(text):
                return classes.index(label), True
        return commonest, False

    right, count = Counter[tuple[int, bool]](), Counter[tuple[int, bool]]()
    for row, label in zip(train, truth):
        said = given(row[pilot.text])
        count[said] += 1
        right[said] += said[0] == label
    table = []
    for text in texts:
        said = given(text)
        others = shares.copy()
        others[said[0]] = 0
        sure = (right[said] + 1) / (count[said] + 2)
        if not others.any():  # training has no other label
            sure = 1.0
        others *= (1 - sure) / (others.sum() or 1)
        others[said[0]] = sure
        table.append(others)
    return np.array(table).reshape(len(texts), len(shares))


def _by_word_counts(pilot: Pilot, field: str, train: Rows, truth: np.ndarray, texts) -> np.ndarray:
    seen = [row[pilot.text] for row in train]
    return _fitted(
        tf_idf_classifier(pilot, seen), seen, truth, texts, len(label_classes(pilot, field))
    )


def _by_vectors(pilot: Pilot, field: str, train: Rows, truth: np.ndarray, texts) -> np.ndarray:
    seen = [row[pilot.text] for row in train]
    # asked for by name in a script that no encoder reads: it is tried all the same
    name = encoder.encoder_for(pilot, seen) or encoder.MINI
    model = LogisticRegression(C=20, max_iter=2000)
    if name != encoder.MINI:  # a language model's numbers differ in size from place to place
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    number = len(label_classes(pilot, field))
    vectors, asked = encoder.encode(seen, name), encoder.encode(texts, name)
    return _fitted(model, vectors, truth, asked, number)


def _by_both(pilot: Pilot, field: str, train: Rows, truth: np.ndarray, texts) -> np.ndarray:
    counted = _by_word_counts(pilot, field, train, truth, texts)
    return (counted + _by_vectors(pilot, field, train, truth, texts)) / 2


PROBABILITIES = {
    "majority": _class_shares,
    "rules": _keyword_shares,
    "TF-IDF": _by_word_counts,
    "embeddings": _by_vectors,
    "embeddings + TF-IDF": _by_both,
}


def _fitted(model: Any, seen: Any, truth: np.ndarray, asked: Any, classes: int) -> np.ndarray:
    """The probabilities of a classifier, with a column for every class."""
    table = np.zeros((len(asked), classes))
    if len(set(truth)) == 1:  # nothing to learn
        table[:, truth[0]] = 1
    elif len(asked):
        with threadpool_limits(1):  # so small a fit only waits for a second thread
            model.fit(seen, truth)
            table[:, np.unique(truth)] = model.predict_proba(asked)
    return table


def _stands_in(text: str, words: str) -> bool:
    """Whether these words stand in the text as whole words: 2 does not stand in 12:25."""
    # the first test is fast, and nearly always enough
    return words in text and bool(re.search(BORDER + re.escape(words) + BORDER, text))


def _spans_seen(train: Rows, name: str) -> list[str]:
    """The values of a field in training, the longest first."""
    # equal lengths by the alphabet: the order of a set differs from process to process
    values = {row[name] for row in train if row[name]}
    return sorted(values, key=lambda value: (-len(value), value))


# one more cheap way is one more line here
WAYS: dict[str, Way] = {
    "majority": majority,
    "rules": rules,
    "TF-IDF": tf_idf,
    "embeddings": embeddings,
    "embeddings + TF-IDF": embeddings_and_tf_idf,
}
BY_ENCODER = ("embeddings", "embeddings + TF-IDF")
MOST_ROWS = 600  # to choose between ways; more would cost minutes and change little


def ways_for(pilot: Pilot, train: Rows) -> dict[str, Way]:
    """WAYS without those of an encoder where none reads the script of the messages.

    TF-IDF stands in for it there, on characters: of all that was measured on Japanese training
    rows nothing that is always at hand was better. A larger base model reads them itself.
    """
    if encoder.encoder_for(pilot, [row[pilot.text] for row in train]):
        return dict(WAYS)
    return {name: way for name, way in WAYS.items() if name not in BY_ENCODER}


def best_way_of_each_field(pilot: Pilot, train: Rows, seed: int = 0) -> dict[str, str]:
    """{field: the name of the way in `ways_for` that reads it best}, by records out of fold.

    Among equals the way with more exact records; of two with the same answers the simpler one.
    Raises CourseError when all texts are the same.
    """
    if len(train) > MOST_ROWS:
        drawn = np.random.default_rng(seed).choice(len(train), MOST_ROWS, replace=False)
        train = [train[place] for place in sorted(drawn)]
    fold = folds(pilot, train, 5, seed)
    answered, scored = {}, {}
    ways = ways_for(pilot, train)
    for name, way in ways.items():
        answered[name] = out_of_fold(pilot, train, way, fold)
        scored[name] = score(pilot, train, answered[name])
    ranked = sorted(scored, key=lambda name: -int(scored[name].exact.sum()))
    best = {}
    for field in pilot.fields:
        first = max(ranked, key=lambda name: int(scored[name].right[field].sum()))
        said = {name: [record[field] for record in answered[name]] for name in ways}
        best[field] = next(name for name in ways if said[name] == said[first])
    return best


def best_per_field(
    pilot: Pilot, train: Rows, texts: Sequence[str], seed: int = 0
) -> tuple[list[dict], dict[str, str]]:
    """(records, {field: way}): every field by the way that reads it best in the training rows."""
    way_of = best_way_of_each_field(pilot, train, seed)
    return by_field(pilot, train, texts, way_of), way_of


def by_field(
    pilot: Pilot, train: Rows, texts: Sequence[str], way_of: Mapping[str, str]
) -> list[dict]:
    """Records whose fields come from the ways named in `way_of`."""
    answered = {}
    for name in dict.fromkeys(way_of.values()):
        answered[name] = WAYS[name](pilot, train, texts)
    records = []
    for i in range(len(texts)):
        records.append({field: answered[name][i][field] for field, name in way_of.items()})
    return records


def best_cheap(pilot: Pilot, train: Rows, texts: Sequence[str]) -> list[dict]:
    """The records of `best_per_field`: a way like the others, which chooses anew in every fold."""
    return best_per_field(pilot, train, texts)[0]


LADDER: dict[str, Way] = {**WAYS, "best cheap": best_cheap}


def folds(pilot: Pilot, rows: Rows, number: int = 5, seed: int = 0) -> np.ndarray:
    """A fold number for every row, shape (rows,); equal messages share a fold.

    The first label's values are spread over all folds. Raises CourseError for a single text.
    """
    texts = [same_message(row[pilot.text]) for row in rows]
    number = min(number, len(set(texts)))
    if number < 2:
        raise CourseError(
            "All rows have the same text; cross-validation needs at least two different ones."
        )
    values = [""] * len(rows)
    if pilot.labels:
        values = [str(row[pilot.labels[0]]) for row in rows]
    maker = GroupKFold
    if max(Counter(values).values()) >= number:
        maker = StratifiedGroupKFold
    splitter = maker(n_splits=number, shuffle=True, random_state=seed)
    fold_of = np.zeros(len(rows), int)
    with warnings.catch_warnings():
        # a rare label cannot stand in every fold; the reader sees the counts
        warnings.simplefilter("ignore", UserWarning)
        for fold, (_, places) in enumerate(splitter.split(texts, values, texts)):
            fold_of[places] = fold
    return fold_of


def out_of_fold(pilot: Pilot, rows: Rows, way: Way, fold: np.ndarray) -> list[dict]:
    """One record for each row, made by a `way` that learned from the other folds only."""
    rows = list(rows)
    records: list[dict] = [{} for _ in rows]
    for number in np.unique(fold):
        train = list(compress(rows, fold != number))
        places = np.flatnonzero(fold == number)
        texts = [rows[place][pilot.text] for place in places]
        for place, record in zip(places, way(pilot, train, texts)):
            records[place] = record
    return records

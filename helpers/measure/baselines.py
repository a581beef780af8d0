"""The cheap ways that every model must beat: the commonest answer, keyword rules, word counts.

Each way is called as `way(pilot, train, texts)` and returns one record for each text.
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from helpers import CourseError
from helpers.core.files import read_yaml
from helpers.core.pilot import Pilot
from helpers.core.text import did_you_mean, same_message
from helpers.keep.word_counts import tf_idf_classifier

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
                record[name] = next((span for span in spans if span in text), None)
            else:
                tests = keywords_of[name].items()
                hits = (value for value, test in tests if test.search(text))
                record[name] = next(hits, common[name])  # no hit: the commonest value
    return records


def tf_idf(pilot: Pilot, train: Rows, texts: Sequence[str]) -> list[dict]:
    """Labels by word counts and a logistic regression for each field, the rest by rules."""
    records = rules(pilot, train, texts)
    seen = [row[pilot.text] for row in train]
    for name in pilot.labels:
        # an optional label may be empty, which is a class of its own here
        truth = [row[name] or "" for row in train]
        guesses = [truth[0]] * len(texts)
        if len(set(truth)) > 1:  # else there is nothing to learn
            guesses = tf_idf_classifier(pilot, seen).fit(seen, truth).predict(texts)
        for record, guess in zip(records, guesses):
            record[name] = str(guess) or None
    return records


def _spans_seen(train: Rows, name: str) -> list[str]:
    """The values of a field in training, the longest first."""
    # equal lengths by the alphabet: the order of a set differs from process to process
    values = {row[name] for row in train if row[name]}
    return sorted(values, key=lambda value: (-len(value), value))


def keywords(pilot: Pilot) -> dict[str, dict[str, re.Pattern]]:
    """{label field: {label: compiled regex}} from the pilot's rules.yaml, where it has one.

    Raises CourseError naming the field or label that is wrong.
    """
    tests: dict[str, dict[str, re.Pattern]] = {}
    for field in pilot.labels:
        tests[field] = {}  # a label without keywords is found by its own name
        for label in pilot.fields[field].values:
            own_name = re.escape(label.replace("_", " "))
            tests[field][label] = re.compile(own_name, re.IGNORECASE)
    path = pilot.folder / "rules.yaml"
    if not path.is_file():
        return tests
    content = read_yaml(path)
    if not isinstance(content, dict) or not all(isinstance(x, dict) for x in content.values()):
        raise CourseError(
            "rules.yaml needs 'field:' and under it lines of 'label: [words, ...]'; "
            "data/inbox/rules.yaml is an example."
        )
    for field, labels in content.items():
        if field not in pilot.labels:
            raise CourseError(
                f"rules.yaml: {field!r} is no label field of this pilot"
                f"{did_you_mean(field, pilot.labels)}"
            )
        values = pilot.fields[field].values
        if labels:
            tests[field] = {}
        for label, words in labels.items():
            if label not in values:
                raise CourseError(
                    f"rules.yaml: {field} has no value {label!r}{did_you_mean(label, values)}"
                )
            tests[field][label] = _one_test(f"{field} > {label}", words)
    return tests


def _one_test(where: str, words: Any) -> re.Pattern:
    if not isinstance(words, list) or not words or not all(isinstance(w, str) and w for w in words):
        raise CourseError(
            f"rules.yaml: {where} must be a list of words or regular expressions, "
            "such as [late, lost]."
        )
    for word in words:
        try:
            re.compile(word)
        except re.error as problem:
            raise CourseError(
                f"rules.yaml: {where}: {word!r} does not compile ({problem})."
            ) from None
    return re.compile("|".join(words), re.IGNORECASE)


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

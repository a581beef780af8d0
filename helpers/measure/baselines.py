"""The cheap ways that every model must beat: the commonest answer, keyword rules, word counts.

Each way is called as `way(pilot, train, texts)` and returns one record for each text. WAYS holds
them all; the best of them, field by field, is what a tuned model is compared with.
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from helpers import CourseError
from helpers.core.files import read_yaml
from helpers.core.pilot import Pilot
from helpers.core.text import did_you_mean, same_message
from helpers.keep.privacy import TOUCHING
from helpers.keep.word_counts import tf_idf_classifier
from helpers.measure.scoring import score

Rows = Sequence[dict]
Way = Callable[[Pilot, Rows, Sequence[str]], list[dict]]
# not inside a word or a number; in scripts that write words without a gap, anywhere
LETTER = rf"[^\W{TOUCHING}]"
BORDER = rf"(?!(?<={LETTER})(?={LETTER}))"


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
            with threadpool_limits(1):  # so small a fit only waits for a second thread
                guesses = tf_idf_classifier(pilot, seen).fit(seen, truth).predict(texts)
        for record, guess in zip(records, guesses):
            record[name] = str(guess) or None
    return records


def _stands_in(text: str, words: str) -> bool:
    """Whether these words stand in the text as whole words: 2 does not stand in 12:25."""
    # the first test is fast, and nearly always enough
    return words in text and bool(re.search(BORDER + re.escape(words) + BORDER, text))


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
            tests[field][label] = re.compile(BORDER + own_name + BORDER, re.IGNORECASE)
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
            re.compile(f"(?:{word})")  # as it stands below, where (?i) would be too late
        except re.error as problem:
            raise CourseError(
                f"rules.yaml: {where}: {word!r} does not compile ({problem})."
            ) from None
    return re.compile(f"{BORDER}(?:{'|'.join(words)}){BORDER}", re.IGNORECASE)


# one more cheap way is one more line here
WAYS: dict[str, Way] = {"majority": majority, "rules": rules, "TF-IDF": tf_idf}
MOST_ROWS = 600  # to choose between ways; more would cost minutes and change little


def best_way_of_each_field(pilot: Pilot, train: Rows, seed: int = 0) -> dict[str, str]:
    """{field: the name in WAYS of the way that reads it best}, by records out of their own fold.

    Among equals the way with more exact records; of two with the same answers the simpler one.
    Raises CourseError when all texts are the same.
    """
    if len(train) > MOST_ROWS:
        drawn = np.random.default_rng(seed).choice(len(train), MOST_ROWS, replace=False)
        train = [train[place] for place in sorted(drawn)]
    fold = folds(pilot, train, 5, seed)
    answered, scored = {}, {}
    for name, way in WAYS.items():
        answered[name] = out_of_fold(pilot, train, way, fold)
        scored[name] = score(pilot, train, answered[name])
    ranked = sorted(scored, key=lambda name: -int(scored[name].exact.sum()))
    best = {}
    for field in pilot.fields:
        first = max(ranked, key=lambda name: int(scored[name].right[field].sum()))
        said = {name: [record[field] for record in answered[name]] for name in WAYS}
        best[field] = next(name for name in WAYS if said[name] == said[first])
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

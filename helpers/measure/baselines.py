"""The cheap ways that every model must beat: the commonest answer, keyword rules, word counts; asked on rows they did not see."""

import difflib
import re
import warnings
from collections import Counter

import numpy as np
import yaml
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from helpers import CourseError


def keywords(pilot):
    """{field: {label: compiled regex}} from the optional rules.yaml in the pilot's folder; {} without one.

    The file gives, for a label field, each label a list of regular expressions; the first label that has a hit wins, case is
    ignored. Raises CourseError naming the field or label that is wrong.
    """
    path = pilot.folder / "rules.yaml"
    if not path.is_file():
        return {}
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, yaml.YAMLError) as problem:
        line = getattr(getattr(problem, "problem_mark", None), "line", 0) + 1
        raise CourseError(
            f"rules.yaml is not valid YAML in UTF-8 near line {line}; data/inbox/rules.yaml is an example."
        ) from None
    if not isinstance(raw, dict) or not all(isinstance(part, dict) for part in raw.values()):
        raise CourseError(
            "rules.yaml needs 'field:' and under it lines of 'label: [words, ...]'; data/inbox/rules.yaml is an example."
        )
    found = {}
    for field, part in raw.items():
        if field not in pilot.labels:
            raise CourseError(
                f"rules.yaml: {field!r} is no label field of this pilot{_near(field, pilot.labels)}."
            )
        for label, words in part.items():
            if label not in pilot.fields[field].values:
                raise CourseError(
                    f"rules.yaml: {field} has no value {label!r}{_near(label, pilot.fields[field].values)}."
                )
            if (
                not isinstance(words, list)
                or not words
                or not all(isinstance(w, str) and w for w in words)
            ):
                raise CourseError(
                    f"rules.yaml: {field} > {label} must be a list of words or regular expressions, such as [late, lost]."
                )
            for word in words:
                try:
                    re.compile(word)
                except re.error as problem:
                    raise CourseError(
                        f"rules.yaml: {field} > {label}: {word!r} does not compile ({problem})."
                    ) from None
            found.setdefault(field, {})[label] = re.compile("|".join(words), re.IGNORECASE)
    return found


def _near(word, known):
    near = difflib.get_close_matches(str(word), list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def spaced(pilot, texts):
    """Whether words stand apart in these texts. Japanese, Chinese, Thai, Lao, Khmer and Burmese are read by characters instead.

    Without such a language in pilot.yaml the texts decide: fewer than one gap in 20 characters means no words to count.
    """
    if re.split("[-_]", str(pilot.language).lower())[0] in ("ja", "zh", "th", "lo", "km", "my"):
        return False
    whole = sum(map(len, texts))
    return (
        whole < 20 or sum(len(re.findall(r"\s+", text.strip())) for text in texts) / whole >= 1 / 20
    )


def majority(pilot, train):
    """The record made of each field's commonest value in the training rows; ties go to the first seen."""
    return {name: Counter(row[name] for row in train).most_common(1)[0][0] for name in pilot.fields}


def rules(pilot, train, words):
    """A function text -> record: `words` of keywords() for labels, the regex for patterns, spans seen in training.

    A label field without words is found when the label's own name stands in the text; without a hit it gets the commonest value.
    """
    common = majority(pilot, train)
    seen, tests = {}, {}
    for name, spec in pilot.fields.items():
        if spec.type == "span":
            seen[name] = sorted({row[name] for row in train if row[name]}, key=len, reverse=True)
        elif spec.type == "label":
            own = {
                v: re.compile(re.escape(v.replace("_", " ")), re.IGNORECASE) for v in spec.values
            }
            tests[name] = words.get(name, own)

    def read(text):
        record = {}
        for name, spec in pilot.fields.items():
            if spec.type == "pattern":
                hit = re.search(spec.regex, text)
                record[name] = hit.group(0) if hit and hit.group(0) else None
            elif spec.type == "span":
                record[name] = next((s for s in seen[name] if s in text), None)
            else:
                record[name] = next(
                    (v for v, test in tests[name].items() if test.search(text)), common[name]
                )
        return record

    return read


def classified(pilot, train, texts, classifier, records):
    """Copies of `records`, one per text, whose label fields come from a scikit-learn classifier trained on `train`.

    `classifier()` makes a fresh one per field. A field with one value in training keeps it: there is nothing to learn.
    """
    records = [dict(record) for record in records]
    seen = [row[pilot.text] for row in train]
    for name in pilot.labels:
        truth = [
            row[name] if row[name] is not None else "" for row in train
        ]  # an optional label: empty is a class of its own
        guesses = (
            classifier().fit(seen, truth).predict(texts)
            if len(set(truth)) > 1
            else truth[:1] * len(texts)
        )
        for record, guess in zip(records, guesses):
            record[name] = str(guess) or None
    return records


def squeezed(text):
    """A text without case, punctuation and spacing: what makes two rows 'the same message'."""
    return " ".join(re.findall(r"\w+", text.lower()))


def folds(pilot, rows, number=5, seed=0):
    """A fold number for every row, shape (rows,): equal texts share a fold, the first label's values are spread over all.

    Fewer folds are made where fewer different texts exist. Raises CourseError when there is but one.
    """
    texts = [squeezed(row[pilot.text]) for row in rows]
    number = min(number, len(set(texts)))
    if number < 2:
        raise CourseError(
            "All rows have the same text; cross-validation needs at least two different ones."
        )
    values = [str(row[pilot.labels[0]]) for row in rows] if pilot.labels else [""] * len(rows)
    stratify = max(Counter(values).values()) >= number
    maker = (StratifiedGroupKFold if stratify else GroupKFold)(
        n_splits=number, shuffle=True, random_state=seed
    )
    found = np.zeros(len(rows), int)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # a rare label cannot stand in every fold; the reader sees the counts
        for fold, (_, held) in enumerate(maker.split(texts, values, texts)):
            found[held] = fold
    return found


def out_of_fold(pilot, rows, way, fold):
    """One record per row, each from `way(training rows, texts) -> records` that did not see the row's fold."""
    rows, records = list(rows), [None] * len(rows)
    for k in sorted(set(fold.tolist())):
        train = [row for row, f in zip(rows, fold) if f != k]
        held = [i for i, f in enumerate(fold) if f == k]
        for i, record in zip(held, way(train, [rows[i][pilot.text] for i in held])):
            records[i] = record
    return records

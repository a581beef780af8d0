"""A pilot's keyword rules (rules.yaml): which words tell a label, and a filter that asks them."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from datasets import Dataset

from helpers import CourseError
from helpers.core.files import read_yaml
from helpers.core.pilot import FieldSpec, Pilot
from helpers.core.text import did_you_mean
from helpers.keep.pipeline import Filter, field_filter
from helpers.keep.privacy import TOUCHING

# not inside a word or a number; in scripts that write words without a gap, anywhere
LETTER = rf"[^\W{TOUCHING}]"
BORDER = rf"(?!(?<={LETTER})(?={LETTER}))"


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


def told_by(tests: Mapping[str, re.Pattern], common: str) -> Callable[[str], str]:
    """A function text -> label: the first with a keyword in the text, else the commonest."""
    return lambda text: next((label for label, test in tests.items() if test.search(text)), common)


def by_keywords(pilot: Pilot, seeds: Dataset, least: float = 0.85) -> Filter:
    """The pilot's own keyword rules tell another label than the row says.

    Only where the rules can be trusted: for label fields in which they are right on a share of
    `least` of the seeds. A made message that should be urgent and has no word of it goes.
    """
    tell: dict[str, Callable[[str], str]] = {}
    for name, tests in keywords(pilot).items():
        common = Counter(seeds[name]).most_common(1)[0][0]
        told = told_by(tests, common)
        right = sum(told(text) == value for text, value in zip(seeds[pilot.text], seeds[name]))
        if right >= least * len(seeds):
            tell[name] = told

    def check(text: str, name: str, spec: FieldSpec, value: str | None) -> str | None:
        if name not in tell or tell[name](text or "") == value:
            return None
        return f"{name} is {value!r}, and the keywords say {tell[name](text or '')!r}"

    rules = {
        name: [test.pattern for test in tests.values()] for name, tests in keywords(pilot).items()
    }
    return replace(
        field_filter("keywords", pilot, check), settings={"least": least, "rules": rules}
    )

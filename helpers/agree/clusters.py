"""Messages that belong together: near-copies must not count as independent rows."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer

from helpers import CourseError
from helpers.core.pilot import Pilot
from helpers.core.text import did_you_mean, words_are_spaced


def message_clusters(
    pilot: Pilot, texts: Sequence[str], metadata: Sequence[Mapping[str, str]], column: str = ""
) -> list[int]:
    """The cluster of each text, shape (texts,): what is near in wording, or shares a `column`.

    `metadata`: {column: text} of each row, as rows.load keeps it. A row without the column is a
    cluster of its own. Raises CourseError for a column that no row has.
    """
    if not column:
        count, clusters = connected_components(near_copies(pilot, texts))
        return clusters.tolist() if count > 1 else list(range(len(texts)))
    names = dict.fromkeys(name for row in metadata for name in row)
    if column not in names:
        hint = did_you_mean(column, names) if names else "; the file has no other columns."
        raise CourseError(f"There is no column {column!r} to group by{hint}")
    number_of: dict[Any, int] = {}
    groups = [row.get(column, place) for place, row in enumerate(metadata)]
    return [number_of.setdefault(group, len(number_of)) for group in groups]


def near_copies(pilot: Pilot, texts: Sequence[str], least: float = 0.6) -> csr_matrix:
    """Which texts are near-copies of each other: a bool matrix of shape (texts, texts).

    Texts are compared by runs of five letters (three characters where words are not spaced), with
    digits masked; a cosine of 0.6 is about *the same sentence, reworded*.
    """
    runs: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (5, 5)}
    if not words_are_spaced(pilot.language, texts):
        runs = {"analyzer": "char", "ngram_range": (3, 3)}
    # with a space on each side, the shortest text still has a run of three characters
    masked = [" " + re.sub(r"\d+", "#", text.lower()) + " " for text in texts]
    vectors = TfidfVectorizer(sublinear_tf=True, **runs).fit_transform(masked)
    return vectors @ vectors.T >= least

"""Messages that belong together: near-copies must not count as independent rows."""

import re
from collections.abc import Sequence
from typing import Any

from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from helpers.core.pilot import Pilot
from helpers.core.text import words_are_spaced


def near_copies(pilot: Pilot, texts: Sequence[str], least: float = 0.6) -> csr_matrix:
    """Which texts are near-copies of each other: a bool matrix of shape (texts, texts).

    Texts are compared by runs of five letters (three characters where words are not spaced), with
    digits masked; a cosine of 0.6 is about *the same sentence, reworded*.
    """
    runs: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (5, 5)}
    if not words_are_spaced(pilot.language, texts):
        runs = {"analyzer": "char", "ngram_range": (3, 3)}
    masked = [re.sub(r"\d+", "#", text.lower()) for text in texts]
    vectors = TfidfVectorizer(sublinear_tf=True, **runs).fit_transform(masked)
    return vectors @ vectors.T >= least

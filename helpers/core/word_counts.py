"""Counting words: are they spaced, a classifier on weighted counts, and near-copies."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from helpers.core.pilot import Pilot

WITHOUT_SPACES = ("ja", "zh", "th", "lo", "km", "my")


def words_are_spaced(pilot: Pilot, texts: Sequence[str]) -> bool:
    """Whether words stand apart in these texts: not so in Japanese, Chinese, Thai and their like.

    Without such a language in pilot.yaml the texts decide: fewer than one gap in 20 characters
    means no words to count.
    """
    language = re.split("[-_]", str(pilot.language).lower())[0]
    if language in WITHOUT_SPACES:
        return False
    characters = sum(len(text) for text in texts)
    gaps = sum(len(re.findall(r"\s+", text.strip())) for text in texts)
    return characters < 20 or gaps / characters >= 1 / 20


def tf_idf_classifier(
    pilot: Pilot,
    texts: Sequence[str],
    tokenizer: Callable[[str], list[str]] | None = None,
    **logistic: Any,
) -> Pipeline:
    """An unfitted pipeline: words and pairs weighted by rarity (TF-IDF), then logistic regression.

    Where words are not spaced, runs of one to three characters are counted instead. A `tokenizer`
    splits the words its own way. `logistic` changes the regression (C=10, max_iter=2000).
    """
    if tokenizer:
        counts = TfidfVectorizer(
            tokenizer=tokenizer, token_pattern=None, ngram_range=(1, 2), sublinear_tf=True
        )
    elif words_are_spaced(pilot, texts):
        counts = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    else:
        counts = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    return make_pipeline(counts, LogisticRegression(**({"C": 10, "max_iter": 2000} | logistic)))


def near_copies(pilot: Pilot, texts: Sequence[str], least: float = 0.6) -> csr_matrix:
    """Which texts are near-copies of each other: a bool matrix of shape (texts, texts).

    Texts are compared by runs of five letters (three characters where words are not spaced), with
    digits masked; a cosine of 0.6 is about *the same sentence, reworded*.
    """
    runs: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (5, 5)}
    if not words_are_spaced(pilot, texts):
        runs = {"analyzer": "char", "ngram_range": (3, 3)}
    masked = [re.sub(r"\d+", "#", text.lower()) for text in texts]
    vectors = TfidfVectorizer(sublinear_tf=True, **runs).fit_transform(masked)
    return vectors @ vectors.T >= least

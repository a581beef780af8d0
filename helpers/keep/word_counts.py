"""A classifier on counted words: the cheap baseline, and the judge of suspicious labels."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from helpers.core.pilot import Pilot
from helpers.core.text import words_are_spaced


def tf_idf_classifier(
    pilot: Pilot,
    texts: Sequence[str],
    tokenizer: Callable[[str], list[str]] | None = None,
    **logistic: Any,
) -> Pipeline:
    """An unfitted pipeline: words and pairs weighted by rarity (TF-IDF), then logistic regression.

    Where words are not spaced, or nothing has two letters, runs of one to three characters are
    counted instead. A `tokenizer` splits the words its own way. `logistic` changes the
    regression (C=10, max_iter=2000).
    """
    counted: dict[str, Any] = {"ngram_range": (1, 2)}
    has_words = any(re.search(r"\w\w", text) for text in texts)
    if tokenizer and any(map(tokenizer, texts)):
        counted |= {"tokenizer": tokenizer, "token_pattern": None}
    elif not has_words or not words_are_spaced(pilot.language, texts):
        counted = {"analyzer": "char", "ngram_range": (1, 3)}
    counts = TfidfVectorizer(sublinear_tf=True, **counted)
    return make_pipeline(counts, LogisticRegression(**({"C": 10, "max_iter": 2000} | logistic)))

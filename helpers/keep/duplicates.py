"""Rows that repeat each other or a row of the test set: exact copies, near ones, shared words."""

import functools
import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
from datasets import Dataset
from rensa import RMinHash

from helpers.core.pilot import Pilot
from helpers.core.text import TOKEN, is_wide, same_message, tokens
from helpers.keep.pipeline import Filter, text_filter, texts_of

NEAR, HEADS = 0.7, 8  # a near copy shares 70 % of its runs; crowds are met by their first 8 rows
BANDS, BAND_SIZE = 24, 5  # 24 bands of 5 hashes find 98.8 % of pairs at 0.7 alike, 99.99 % at 0.8
LEAK, LONG_RUN, SHORT_RUN = 0.5, 13, 8  # of a test row: share of its runs; words in a row
# Punctuation says nothing here; every other sign does: C# is not C++, and 50 % is not 50.
PUNCTUATION = r""".,;:!?*…'"`´‘’“”„‚«»‹›()\[\]{}\-–—‐・、。「」『』（）【】〈〉《》〜"""
WORD_OR_SIGN = re.compile(rf"{TOKEN.pattern}|[^\w\s{PUNCTUATION}]")


def words_and_signs(text: str) -> str:
    """The text without what does not matter: case, spaces, punctuation."""
    return " ".join(WORD_OR_SIGN.findall(unicodedata.normalize("NFKC", text).casefold()))


def shingles(text: str, size: int = 5) -> frozenset[str]:
    """The set of runs of `size` characters of words_and_signs(text); a shorter text is one run."""
    text = words_and_signs(text)
    return frozenset(text[i : i + size] for i in range(max(1, len(text) - size + 1)))


def word_runs(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    """Every run of `size` neighbouring words."""
    return zip(*(words[start:] for start in range(size)), strict=False)


def _named_texts(rows: Dataset, column: str) -> Iterable[tuple]:
    names: Iterable = range(1, len(rows) + 1)
    if "id" in rows.column_names:
        names = texts_of(rows, "id")
    return zip(names, texts_of(rows, column), strict=True)


def exact(pilot: Pilot) -> Filter:
    """Rows with the words of an earlier row in its order; the first stays."""

    def judge(rows: Dataset) -> dict[int, str]:
        first: dict[bytes, object] = {}
        reasons = {}
        for number, (name, text) in enumerate(_named_texts(rows, pilot.text)):
            # the digest is short; a million texts would not be
            key = hashlib.blake2b(words_and_signs(text).encode(), digest_size=8).digest()
            if key in first:
                reasons[number] = f"the same words as row {first[key]}"
            else:
                first[key] = name
        return reasons

    return Filter("exact", judge, whole=True)


def near(pilot: Pilot) -> Filter:
    """Rows that share most of their five-character runs (Jaccard, NEAR) with a kept earlier row.

    MinHash with locality-sensitive hashing proposes pairs, the texts decide. Bands are grouped by
    sorting: about 200 bytes a row, beside the texts of kept rows that have neighbours. A crowded
    bucket compares with its first HEADS kept rows: time grows with the rows, not their square.
    Source: Broder 1997; Lee et al. 2022 (arXiv 2107.06499) on why it matters for training.
    """

    def judge(rows: Dataset) -> dict[int, str]:
        kept: dict[int, tuple] = {}
        kept_in: dict[int, list[int]] = defaultdict(list)
        reasons: dict[int, str] = {}
        shingles_of = functools.lru_cache(4000)(shingles)
        buckets_of = _buckets(rows, pilot.text)
        for number, (name, text) in enumerate(_named_texts(rows, pilot.text)):
            buckets = buckets_of[:, number][buckets_of[:, number] > 0].tolist()
            # the rows that share most bands are the likeliest copies
            candidates = Counter(chain.from_iterable(kept_in.get(b, ()) for b in buckets))
            for other, _ in candidates.most_common(HEADS):
                own, others = shingles_of(text), shingles_of(kept[other][1])
                alike = len(own & others) / len(own | others)
                if alike >= NEAR:
                    reasons[number] = f"{alike:.0%} like row {kept[other][0]}"
                    break
            if number not in reasons and buckets:  # without a bucket nobody will ask for it
                kept[number] = name, text
                for bucket in buckets:
                    if len(kept_in[bucket]) < HEADS:
                        kept_in[bucket].append(number)
        return reasons

    settings = {"threshold": NEAR, "heads": HEADS, "bands": [BANDS, BAND_SIZE]}
    return Filter("near", judge, settings, whole=True)


def _buckets(rows: Dataset, column: str) -> np.ndarray:
    """Bucket numbers, uint32 of shape (BANDS, rows): 0 where no other row has the band's number.

    A band's number folds its MinHash signatures (rensa).
    """
    factors = np.random.default_rng(1).integers(1, 2**63, BAND_SIZE, dtype=np.uint64)
    factors |= np.uint64(1)  # odd factors lose no bit when they wrap around 2**64
    keys, start = np.empty((BANDS, len(rows)), np.uint32), 0
    for batch in rows.select_columns(column).iter(5000):
        runs = [list(shingles(text or "")) for text in batch[column]]
        hashes = np.array(RMinHash.digests_from_token_sets(runs, BANDS * BAND_SIZE, 1), np.uint64)
        mixed = (hashes.reshape(len(runs), BANDS, BAND_SIZE) * factors).sum(axis=2)
        keys[:, start : start + len(runs)] = (mixed >> np.uint64(32)).T
        start += len(runs)
    used = 0  # buckets are numbered through over all bands
    for band in range(BANDS):
        _, group, times = np.unique(keys[band], return_inverse=True, return_counts=True)
        bucket = np.where(times > 1, np.cumsum(times > 1) + used, 0)
        used = max(used, int(bucket.max()))
        keys[band] = bucket[group]  # in place: a million rows need one array, not two
    return keys


def decontaminate(pilot: Pilot, test: Dataset, ood: Dataset | None = None) -> Filter:
    """Rows too close to a row of the test or out-of-domain set.

    Too close: the same message; LEAK of the five-character runs shared (Jaccard, exact: an index of
    the test rows' runs needs no MinHash); or a shared run of LONG_RUN words (SHORT_RUN in rows
    under 26 words; 2.5 times as many characters in scripts without spaces). The reason names the
    test row. A rejected row's text may be the test row's: it is withheld, and no text of the test
    set is in the result. Source: the overlaps of Brown et al. 2020 (arXiv 2005.14165, appendix C).
    """
    named = list(_named_texts(test, pilot.text))
    if ood:
        named += _named_texts(ood, pilot.text)
    messages: dict[str, str] = {}
    runs: dict[tuple[str, ...], str] = {}
    sizes: list[int] = []
    with_shingle: dict[str, list[int]] = defaultdict(list)
    for number, (name, text) in enumerate(named):
        messages.setdefault(same_message(text), name)
        words = tokens(text)
        for size in (LONG_RUN, SHORT_RUN):
            for run in word_runs(words, _scaled(size, words)):
                runs.setdefault(run, name)
        sizes.append(len(shingles(text)))
        for shingle in shingles(text):
            with_shingle[shingle].append(number)

    def check(text: str) -> str | None:
        if same_message(text) in messages:
            return f"the same words as {messages[same_message(text)]}"
        own, most_alike = shingles(text), (0.0, 0)
        shared = Counter(chain.from_iterable(with_shingle.get(shingle, ()) for shingle in own))
        for number, common in shared.items():
            most_alike = max(most_alike, (common / (len(own) + sizes[number] - common), number))
        if most_alike[0] >= LEAK:
            return f"{most_alike[0]:.0%} like {named[most_alike[1]][0]}"
        words, size = tokens(text), SHORT_RUN
        if len(words) >= _scaled(2 * LONG_RUN, words):
            size = LONG_RUN
        for run in word_runs(words, _scaled(size, words)):
            if run in runs:
                return f"{len(run)} words in a row shared with {runs[run]}"
        return None

    settings = {"threshold": LEAK, "runs": [LONG_RUN, SHORT_RUN], "test_rows": named}
    return text_filter("decontaminate", pilot, check, withhold=pilot.text, **settings)


def _scaled(size: int, words: list[str]) -> int:
    """`size` words, or 2.5 times as many characters where words are not spaced."""
    return int(2.5 * size) if is_wide(words) else size

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

BANDS, BAND_SIZE = 24, 5  # 24 bands of 5 hashes find 98.8 % of pairs at 0.7 alike, 99.99 % at 0.8
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


def exact(pilot: Pilot) -> Filter:
    """Rows with the words of an earlier row in its order; the first stays. 8 bytes a row."""

    def key(text: str) -> int:
        digest = hashlib.blake2b(words_and_signs(text).encode(), digest_size=8).digest()
        return int.from_bytes(digest)

    def judge(rows: Dataset) -> dict[int, str]:
        # rows are sorted by their key: the first of each group stays
        keys = np.fromiter(map(key, texts_of(rows, pilot.text)), np.uint64, len(rows))
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        copies = np.flatnonzero(first[group] != np.arange(len(rows)))
        names = first[group][copies] + 1
        if "id" in rows.column_names:
            names = rows.select(first[group][copies])["id"]
        return {
            int(i): f"the same words as row {name}" for i, name in zip(copies, names, strict=True)
        }

    return Filter("exact", judge, {"text": pilot.text}, whole=True)


# Near copies ----------------------------------------------------------------------------------


def band_keys(texts: Sequence[str], seed: int = 1) -> np.ndarray:
    """MinHash signatures (rensa) folded to one number a band: uint32 of shape (texts, BANDS).

    Two texts with an equal number in one band are candidates.
    """
    sets = [list(shingles(text)) for text in texts]
    hashes = RMinHash.digests_from_token_sets(sets, BANDS * BAND_SIZE, seed)
    bands = np.array(hashes, np.uint64).reshape(len(texts), BANDS, BAND_SIZE)
    factors = np.random.default_rng(seed).integers(1, 2**63, BAND_SIZE, dtype=np.uint64)
    # odd factors lose no bit when they wrap around 2**64
    mixed = (bands * (factors | np.uint64(1))).sum(axis=2)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def near(pilot: Pilot, threshold: float = 0.7, heads: int = 8) -> Filter:
    """Rows that share `threshold` of their five-character runs (Jaccard) with a kept earlier row.

    MinHash with locality-sensitive hashing proposes pairs, the texts decide. Bands are grouped by
    sorting: about 200 bytes a row, beside the texts of kept rows that have neighbours. A crowded
    bucket compares with its first `heads` kept rows: time grows with the rows, not their square.
    Source: Broder 1997; Lee et al. 2022 (arXiv 2107.06499) on why it matters for training.
    """

    def judge(rows: Dataset) -> dict[int, str]:
        kept: dict[int, tuple] = {}
        kept_in: dict[int, list[int]] = defaultdict(list)
        reasons: dict[int, str] = {}
        shingles_of = functools.lru_cache(4000)(lambda number: shingles(kept[number][1]))
        buckets_of = _buckets(rows, pilot.text)
        for number, (name, text) in enumerate(_named_texts(rows, pilot.text)):
            buckets = buckets_of[:, number][buckets_of[:, number] > 0].tolist()
            # the rows that share most bands are the likeliest copies
            candidates = Counter(chain.from_iterable(kept_in.get(b, ()) for b in buckets))
            own = shingles(text)
            for other, _ in candidates.most_common(heads):
                alike = len(own & shingles_of(other)) / len(own | shingles_of(other))
                if alike >= threshold:
                    reasons[number] = f"{alike:.0%} like row {kept[other][0]}"
                    break
            if number not in reasons and buckets:  # without a bucket nobody will ask for it
                kept[number] = name, text
                for bucket in buckets:
                    if len(kept_in[bucket]) < heads:
                        kept_in[bucket].append(number)
        return reasons

    settings = {"text": pilot.text, "threshold": threshold, "heads": heads}
    return Filter("near", judge, {**settings, "bands": [BANDS, BAND_SIZE]}, whole=True)


def _named_texts(rows: Dataset, column: str) -> Iterable[tuple]:
    names: Iterable = range(1, len(rows) + 1)
    if "id" in rows.column_names:
        names = texts_of(rows, "id")
    return zip(names, texts_of(rows, column), strict=True)


def _buckets(rows: Dataset, column: str) -> np.ndarray:
    """Bucket numbers, uint32 of shape (BANDS, rows): 0 where no other row has the band's number."""
    keys, start = np.empty((BANDS, len(rows)), np.uint32), 0
    for batch in rows.select_columns(column).iter(5000):
        texts = [text or "" for text in batch[column]]
        keys[:, start : start + len(texts)] = band_keys(texts).T
        start += len(texts)
    used = 0  # buckets are numbered through over all bands
    for band in range(BANDS):
        _, group, times = np.unique(keys[band], return_inverse=True, return_counts=True)
        bucket = np.where(times > 1, np.cumsum(times > 1) + used, 0)
        used = max(used, int(bucket.max()))
        keys[band] = bucket[group]  # in place: a million rows need one array, not two
    return keys


# Rows of the test set -------------------------------------------------------------------------


def decontaminate(
    pilot: Pilot, test: Dataset, ood: Dataset | None = None, threshold=0.5, long=13, short=8
) -> Filter:
    """Rows too close to a row of the test or out-of-domain set.

    Too close: the same message; `threshold` of the five-character runs shared (Jaccard, exact: an
    index of the test rows' runs needs no MinHash); or a shared run of `long` words (`short` in rows
    under 26 words; 2.5 times as many characters in scripts without spaces). The reason names the
    test row. A rejected row's text may be the test row's: it is withheld, and no text of the test
    set is in the result. Source: the overlaps of Brown et al. 2020 (arXiv 2005.14165, appendix C).
    """
    named: list[tuple] = []
    for split in (test, ood):
        if split:
            named += _named_texts(split, pilot.text)
    messages: dict[str, str] = {}
    runs: dict[tuple[str, ...], str] = {}
    for name, text in named:
        messages.setdefault(same_message(text), name)
        words = tokens(text)
        for size in (long, short):
            for run in word_runs(words, _scaled(size, words)):
                runs.setdefault(run, name)
    sizes: list[int] = []
    with_shingle: dict[str, list[int]] = defaultdict(list)
    for number, (_, text) in enumerate(named):
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
        if most_alike[0] >= threshold:
            return f"{most_alike[0]:.0%} like {named[most_alike[1]][0]}"
        words = tokens(text)
        size = short
        if len(words) >= _scaled(2 * long, words):
            size = long
        for run in word_runs(words, _scaled(size, words)):
            if run in runs:
                return f"{len(run)} words in a row shared with {runs[run]}"
        return None

    settings = {"threshold": threshold, "runs": [long, short]}
    settings["test_rows"] = hashlib.sha256(repr(named).encode()).hexdigest()
    return text_filter("decontaminate", pilot, check, withhold=pilot.text, **settings)


def _scaled(size: int, words: list[str]) -> int:
    """`size` words, or 2.5 times as many characters where words are not spaced."""
    if is_wide(words):
        return int(2.5 * size)
    return size

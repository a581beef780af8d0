"""Rows that repeat each other, or a row of the test set: exact copies, near copies, neighbours in meaning, shared runs of words."""

import functools
import hashlib
from collections import Counter
from itertools import chain

import numpy as np
from rensa import RMinHash

from helpers.core.text import is_wide, tokens
from helpers.keep.pipeline import Filter, each

BANDS, SIZE = 24, 5  # 24 bands of 5 hashes: finds 98.8 % of pairs at similarity 0.7, 99.99 % at 0.8


def squeezed(text):
    """The text without what does not matter: case, spaces, punctuation."""
    return " ".join(tokens(text))


def exact(pilot):
    """Rows with the same words in the same order as an earlier row; the first one stays. Memory: 8 bytes a row."""

    def judge(rows):
        keys = np.fromiter(
            (
                int.from_bytes(hashlib.blake2b(squeezed(text).encode(), digest_size=8).digest())
                for batch in rows.select_columns(pilot.text).iter(1000)
                for text in batch[pilot.text]
            ),
            np.uint64,
            len(rows),
        )
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[group] != np.arange(len(rows)))
        named = _names(rows, first[group][again])
        return {int(i): f"the same words as row {name}" for i, name in zip(again, named)}

    return Filter("exact", judge, {"text": pilot.text}, whole=True)


def _names(rows, numbers):
    """What the rows with these numbers are called: their id, else their number counted from 1."""
    return (
        rows.select(numbers)["id"] if "id" in rows.column_names else [int(i) + 1 for i in numbers]
    )


def shingles(text, size=5):
    """The set of runs of `size` characters of the squeezed text; a shorter text is one run."""
    text = squeezed(text)
    return frozenset(text[i : i + size] for i in range(max(1, len(text) - size + 1)))


def band_keys(texts, seed=1):
    """MinHash signatures (rensa) folded to one number per band: uint32 of shape (texts, BANDS). Equal numbers are candidates."""
    hashes = np.array(
        RMinHash.digests_from_token_sets([list(shingles(t)) for t in texts], BANDS * SIZE, seed),
        np.uint64,
    )
    odd = np.random.default_rng(seed).integers(1, 2**63, SIZE, dtype=np.uint64) | np.uint64(1)
    mixed = (hashes.reshape(len(texts), BANDS, SIZE) * odd).sum(axis=2)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def near(pilot, threshold=0.7, heads=8):
    """Rows that share at least `threshold` of their five-character runs (Jaccard) with an earlier row that was kept.

    MinHash with locality-sensitive hashing proposes pairs, the texts decide. Bands are grouped by sorting: about 200 bytes a row,
    beside the texts of kept rows that have neighbours. A crowded bucket compares with its first `heads` kept rows, so time grows
    with the rows, not their square. Source: Broder 1997; Lee et al. 2022 (arXiv 2107.06499) on why it matters for training.
    """

    def judge(rows):
        keys, start = np.empty((BANDS, len(rows)), np.uint32), 0
        for batch in rows.select_columns(pilot.text).iter(5000):
            keys[:, start : start + len(batch[pilot.text])] = band_keys(batch[pilot.text]).T
            start += len(batch[pilot.text])
        total = 0
        for band in range(
            BANDS
        ):  # a number that only one row has gets bucket 0, the others a number of their own
            _, group, times = np.unique(keys[band], return_inverse=True, return_counts=True)
            bucket = np.where(times > 1, np.cumsum(times > 1) + total, 0)
            total, keys[band] = max(total, int(bucket.max())), bucket[group]
        seen, texts, found, start = {}, {}, {}, 0
        cached = functools.lru_cache(4000)(lambda number: shingles(texts[number][1]))
        for batch in rows.select_columns(
            [c for c in ("id", pilot.text) if c in rows.column_names]
        ).iter(1000):
            for offset, text in enumerate(batch[pilot.text]):
                number = start + offset
                buckets = [b for b in keys[:, number].tolist() if b]
                if not buckets:
                    continue
                own = None
                for head, _ in Counter(
                    chain.from_iterable(seen[b] for b in buckets if b in seen)
                ).most_common(heads):
                    own = own or shingles(text)
                    other = cached(head)
                    alike = len(own & other) / len(own | other)
                    if alike >= threshold:
                        found[number] = f"{alike:.0%} like row {texts[head][0]}"
                        break
                else:
                    texts[number] = batch["id"][offset] if "id" in batch else number + 1, text
                    for b in buckets:
                        if len(seen.setdefault(b, [])) < heads:
                            seen[b].append(number)
            start += len(batch[pilot.text])
        return found

    return Filter(
        "near",
        judge,
        {"text": pilot.text, "threshold": threshold, "heads": heads, "bands": [BANDS, SIZE]},
        whole=True,
    )


def decontaminate(pilot, test, ood=None, threshold=0.5, long=13, short=8):
    """Rows too close to a row of the test or out-of-domain set: the same words, `threshold` of the five-character runs shared
    (Jaccard, exact: an index of the test rows' runs needs no MinHash), or a shared run of 13 words (8 in rows under 26 words;
    2.5 times as many characters in scripts without spaces). The reason names the test row; its text is nowhere in the result,
    so the text of a rejected row, which may be the test row's, is withheld.

    Source: the 8- to 13-word overlap of Brown et al. 2020 (arXiv 2005.14165, appendix C).
    """
    held = [
        (str(row.get("id", i + 1)), row[pilot.text])
        for split in (test, ood)
        if split is not None
        for i, row in enumerate(split)
    ]
    same, runs, where, sizes = {}, {}, {}, []
    for number, (name, text) in enumerate(held):
        same.setdefault(squeezed(text), name)
        for run in _runs(text, (long, short)):
            runs.setdefault(run, name)
        sizes.append(len(shingles(text)))
        for shingle in shingles(text):
            where.setdefault(shingle, []).append(number)

    def find(text):
        words, own = tokens(text), shingles(text)
        if " ".join(words) in same:
            return f"the same words as {same[' '.join(words)]}"
        shared = Counter(chain.from_iterable(where[shingle] for shingle in own if shingle in where))
        alike, number = max(
            ((n / (len(own) + sizes[i] - n), i) for i, n in shared.items()), default=(0, 0)
        )
        if alike >= threshold:
            return f"{alike:.0%} like {held[number][0]}"
        size = long if len(words) >= 2 * long * (2.5 if is_wide(words) else 1) else short
        run = next((run for run in _runs(text, (size,)) if run in runs), None)
        return f"{len(run)} words in a row shared with {runs[run]}" if run else None

    return Filter(
        "decontaminate",
        each("", pilot, find).judge,
        {
            "text": pilot.text,
            "threshold": threshold,
            "runs": [long, short],
            "held": hashlib.sha256(repr(held).encode()).hexdigest(),
        },
        withhold=pilot.text,
    )


def _runs(text, sizes):
    words = tokens(text)
    for size in sizes:
        size = int(size * 2.5) if is_wide(words) else size
        yield from zip(*(words[i:] for i in range(size)))


class Latent:
    """An encoder for semhash that needs no download: TF-IDF of words and pairs, folded to `size` dimensions (latent semantic
    analysis), learned from the rows themselves. It sees words that are used alike in these rows; it knows no synonym otherwise."""

    def __init__(self, texts, size=128, seed=0):
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline

        self.model = make_pipeline(
            TfidfVectorizer(
                tokenizer=tokens, token_pattern=None, ngram_range=(1, 2), sublinear_tf=True
            ),
            TruncatedSVD(max(2, min(size, len(texts) - 1)), random_state=seed),
        )
        self.model.fit(texts)

    def encode(self, inputs, **_):
        return self.model.transform(list(inputs)).astype(np.float32)


def semantic(pilot, threshold=0.9, encoder=None):
    """Rows close in meaning to an earlier one (semhash, cosine >= threshold). `encoder` is anything with encode(list of texts) ->
    array (texts, dimensions), such as a sentence-transformers model; by default `Latent`, fitted on the rows.

    Not in the standard pipeline. With Latent on the inbox's 260 messages it took one, all of 25 near copies, but only 3 of 10 pairs
    that say the same in other words; among 5,000 questions of CLINC150, many on one subject, it took a quarter. Memory: all texts.
    """

    def judge(rows):
        from semhash import SemHash

        texts = rows[pilot.text]
        records = [{"text": text, "row": str(i)} for i, text in enumerate(texts)]
        model = encoder or Latent(texts)
        index = SemHash.from_embeddings(
            np.asarray(model.encode(texts), np.float32), records, model, columns=["text"]
        )
        found = {
            int(d.record["row"]): (int(d.duplicate_of["row"]), d.score)
            for d in index.self_deduplicate(threshold).filtered
        }
        names = (
            dict(zip(found, _names(rows, [first for first, _ in found.values()]))) if found else {}
        )
        return {
            i: f"means nearly the same as row {names[i]} (cosine {score:.2f})"
            for i, (_, score) in sorted(found.items())
        }

    return Filter(
        "semantic",
        judge,
        {"text": pilot.text, "threshold": threshold, "encoder": type(encoder).__name__},
        whole=True,
    )

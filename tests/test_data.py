"""The bundled pilot: its sizes, its traps, and no near-copies between or within the splits."""

import json
import random
import re
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT
from sklearn.feature_extraction.text import TfidfVectorizer

from helpers.core import public_sets, rows
from helpers.core.pilot import Pilot

TRAPS = (
    "two_problems",
    "typos",
    "urgency_trap",
    "two_orders",
    "phone_as_order",
    "signature_product",
    "unrelated_order",
    "no_details",
)


@pytest.fixture(scope="module")
def inbox():
    return rows.load(Pilot.load(ROOT / "data/inbox"))


def masked(text):
    """A message without its numbers and codes, as a template would leave it."""
    return re.sub(r"\b\S*\d\S*\b", "#", text.lower())


def test_sizes_and_balance(inbox):
    assert (len(inbox.train), len(inbox.test), len(inbox.ood)) == (60, 200, 60)
    [note] = inbox.notes  # the kind of a row out of domain is no field of the record
    assert note.startswith("columns that pilot.yaml does not name: kind;")
    for split in (inbox.train, inbox.test):
        counts = Counter(split["intent"])
        assert len(counts) == 8 and max(counts.values()) - min(counts.values()) <= 2
        assert set(split["urgency"]) == {"low", "normal", "high"}
        for field in ("product", "order_id"):
            assert 0.2 < np.mean([v is not None for v in split[field]]) < 0.8


def test_every_trap_is_in_the_test_set(inbox):
    tags = Counter(tag for row in inbox.test for tag in row["tags"].split(";"))
    missing = [trap for trap in TRAPS if not tags[trap]]
    assert not missing
    lengths = [len(m.split()) for m in inbox.test["message"]]
    assert min(lengths) <= 10 and max(lengths) >= 70


def test_no_near_copies_between_or_within_the_splits(inbox):
    """Cosine over character 5-grams without numbers and codes; 0.6 would be a reworded copy."""
    texts = [masked(m) for split in (inbox.train, inbox.test, inbox.ood) for m in split["message"]]
    vectors = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(5, 5), sublinear_tf=True
    ).fit_transform(texts)
    similar = (vectors @ vectors.T).toarray()
    np.fill_diagonal(similar, 0)
    i, j = np.unravel_index(similar.argmax(), similar.shape)
    assert similar.max() < 0.6, (similar.max(), texts[i], texts[j])
    copy = TfidfVectorizer(analyzer="char_wb", ngram_range=(5, 5), sublinear_tf=True).fit(texts)
    pair = copy.transform([texts[0], texts[0].replace("please", "kindly") + " thanks"])
    assert (pair[0] @ pair[1].T).toarray()[0, 0] > 0.6, "the measure would see a near-copy"


def test_openings_differ(inbox):
    openings = Counter(
        " ".join(re.findall(r"\w+", m.lower())[:3])
        for s in (inbox.train, inbox.test)
        for m in s["message"]
    )
    assert max(openings.values()) <= 2


def test_only_invented_contacts(inbox):
    text = "\n".join(m for split in (inbox.train, inbox.test, inbox.ood) for m in split["message"])
    for mail in re.findall(r"[\w.+-]+@[\w.-]+\w", text):
        assert mail.endswith(("@example.com", "@example.org")), mail
    for phone in re.findall(r"\(?\b\d{3}\)?[ -]\d{3}-\d{4}\b", text):
        assert "555-01" in phone, phone
    for phone in re.findall(r"\b0\d{4} \d{6}\b", text):
        assert phone.startswith("01632 960"), phone


def test_the_card_and_the_guide_say_what_they_must():
    card, guide = ((ROOT / "data/inbox" / name).read_text() for name in ("CARD.md", "GUIDE.md"))
    assert "written for this course" in card and "No customer sent these messages" in card
    for value in [
        v for f in Pilot.load(ROOT / "data/inbox").fields.values() for v in f.values or []
    ]:
        assert f"`{value}`" in guide


def test_the_ten_intents_of_clinc150_are_the_draw_of_seed_0():
    place = public_sets.local_copy("clinc150")
    if place is None:
        pytest.skip("no local copy of CLINC150")
    train = json.loads((place / "data_full.json").read_text(encoding="utf-8"))["train"]
    known = sorted({label for _, label in train} - {"oos"})
    values = Pilot.load(ROOT / "data/clinc150").fields["intent"].values
    assert values == sorted(random.Random(0).sample(known, 10))

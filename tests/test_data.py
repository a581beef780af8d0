"""The bundled pilot: its sizes, its traps, and no near-copies between or within the splits."""

import json
import random
import re
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT
from sklearn.feature_extraction.text import TfidfVectorizer

from helpers import CourseError
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


# The new rows: for one look --------------------------------------------------------------------


@pytest.fixture(scope="module")
def new_rows():
    """{file: its rows}, read as labels and texts only: no model answers them here."""
    pilot = Pilot.load(ROOT / "data/inbox")
    reworded = rows.read(ROOT / "data/inbox/new_wording.csv")
    return {"new": list(rows.load_new(pilot)), "new_wording": reworded}


def test_the_new_rows_are_of_the_same_kind_as_the_test_rows(inbox, new_rows):
    plain = re.compile(
        r"\b(urgent\w*|asap|today|tomorrow|down|stopped|stand\w*still|standstill)\b", re.I
    )

    def plainly(table):
        urgent = [row["message"] for row in table if row["urgency"] == "high"]
        return np.mean([bool(plain.search(message)) for message in urgent])

    for name, table in new_rows.items():
        assert len(table) == 200
        for field in ("intent", "urgency"):
            assert Counter(row[field] for row in table) == Counter(inbox.test[field]), (name, field)
        for field in ("product", "order_id"):
            given = sum(bool(row[field]) for row in table)
            assert given == sum(value is not None for value in inbox.test[field])
            assert all(row[field] in row["message"] for row in table if row[field])
        tags = Counter(tag for row in table for tag in (row["tags"] or "").split(";"))
        assert tags == Counter(tag for tags in inbox.test["tags"] for tag in tags.split(";"))
    assert plainly(new_rows["new"]) > 0.8 > 0.65 > plainly(new_rows["new_wording"])


def test_no_new_row_copies_another_row(inbox, new_rows):
    known = [m for split in (inbox.train, inbox.test, inbox.ood) for m in split["message"]]
    new = [row["message"] for table in new_rows.values() for row in table]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(5, 5), sublinear_tf=True)
    matrix = vectors.fit_transform([masked(text) for text in new + known])
    similar = (matrix[: len(new)] @ matrix.T).toarray()
    similar[np.arange(len(new)), np.arange(len(new))] = 0
    assert similar.max() < 0.7, np.unravel_index(similar.argmax(), similar.shape)
    text = "\n".join(new)
    assert all(
        m.endswith(("@example.com", "@example.org")) for m in re.findall(r"\S+@[\w.-]+\w", text)
    )
    assert all(phone.startswith("01632 960") for phone in re.findall(r"\b0\d{4} \d{6}\b", text))


def test_both_readings_of_the_new_rows_agree(new_rows):
    second = {row["id"]: row for row in rows.read(ROOT / "data/inbox/second_reading.csv")}
    for table in new_rows.values():
        for row in table:
            for field in ("intent", "urgency", "product", "order_id"):
                assert (row[field] or "") == (second[row["id"]][field] or "")


def test_only_the_one_look_reads_the_new_rows():
    """Neither a study nor a benchmark nor another chapter may open them."""
    allowed = {
        "helpers/core/rows.py",
        "helpers/agree/sealed.py",
        "helpers/pilot/judged.py",  # holds what chapter 08 wrote down against the bar once more
        "helpers/readme.py",  # one message of them, for everybody to see
        "helpers/studies/recipe_study.py",
        "notebooks/02_the_bar.ipynb",
        "notebooks/08_good_enough.ipynb",
        "notebooks/10_does_it_pay.ipynb",
    }
    places = ("helpers/**/*.py", "benchmarks/**/*.py", "notebooks/*.ipynb")
    for path in (p for place in places for p in ROOT.glob(place)):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        reads = re.search(r"new\.csv|new_wording|load_new|judged_rows", text)
        assert not reads or name in allowed, name


def test_a_new_row_that_stands_elsewhere_is_refused(tmp_path):
    for name in ("pilot.yaml", "train.csv", "test.csv"):
        (tmp_path / name).write_bytes((ROOT / "data/inbox" / name).read_bytes())
    assert rows.load_new(Pilot.load(tmp_path)) is None
    lines = (ROOT / "data/inbox/test.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "new.csv").write_text("\n".join(lines[:3]) + "\n", encoding="utf-8")
    with pytest.raises(CourseError, match="row 'test-001' also stands in the test rows"):
        rows.load_new(Pilot.load(tmp_path))


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

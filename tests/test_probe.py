"""The probe passes here, and stops in one sentence for each part that is broken on purpose."""

import json
import random
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT

from helpers import CourseError, probe
from helpers.ask import answers
from helpers.choose import known_answers
from helpers.core import rows, runtime
from helpers.core.pilot import Pilot
from helpers.core.runtime import PROFILES


def load_changed(base, place, change):
    """The embedded tokenizer from a folder whose tokenizer.json went through `change`."""
    from transformers import AutoTokenizer

    shutil.copytree(base.path, place, ignore=shutil.ignore_patterns("*.safetensors"))
    content = json.loads((place / "tokenizer.json").read_text())
    change(content)
    (place / "tokenizer.json").write_text(json.dumps(content))
    return AutoTokenizer.from_pretrained(place)


@pytest.fixture
def inbox():
    pilot = Pilot.load(ROOT / "data/inbox")
    return pilot, rows.load(pilot, PROFILES["smoke"])


def test_it_passes_here_and_asks_each_set_of_parts_once(inbox, embedded, monkeypatch):
    pilot, data = inbox
    here = runtime.detect()
    monkeypatch.setattr(probe, "_hash_of_code", lambda: "the same code")
    runtime.set_seeds(0)
    wanted = [torch.rand(1).item(), random.random(), np.random.rand()]
    runtime.set_seeds(0)
    assert probe.check_parts(pilot, data, here).startswith("probe: known answers given, 24 right")

    assert wanted == [torch.rand(1).item(), random.random(), np.random.rand()]

    def again(*args):
        raise AssertionError("the same parts were asked twice")

    monkeypatch.setattr(probe, "check_environment", again)
    monkeypatch.setattr(probe, "check_pilot", again)
    assert "known answers" in probe.check_parts(pilot, data, here)
    # another library is another environment
    monkeypatch.setattr(probe, "versions", lambda: {"transformers": "5.17.0"})
    with pytest.raises(AssertionError, match="asked twice"):
        probe.check_parts(pilot, data, here)


def test_another_end_token(embedded, tokenizer):
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(embedded.path, eos_token="<|im_start|>")
    with pytest.raises(CourseError, match="its eos_token is '<|im_start|>', not '<|im_end|>'.*pip"):
        known_answers.check_tokenizer(other)
    pilot = Pilot.load(ROOT / "data/inbox")
    with pytest.raises(CourseError, match="template ends an answer with '<.im_end.>'"):
        probe.check_template(pilot, other)
    probe.check_template(pilot, tokenizer)


def test_bytes_that_are_encoded_twice(embedded, tokenizer, tmp_path):
    def twice(content):
        step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        first = content["pre_tokenizer"]
        again = {**step, "use_regex": False}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [first, again]}

    other = load_changed(embedded, tmp_path / "twice", twice)
    with pytest.raises(CourseError, match="its ids of the text 'Where is PO"):
        known_answers.check_tokenizer(other)
    texts = ['{"product": "Größe 42"}']
    with pytest.raises(CourseError, match="every answer would break"):
        probe.check_round_trip(other, texts)
    probe.check_round_trip(tokenizer, texts)


def test_a_tokenizer_whose_bytes_only_the_grammar_reads_wrongly(tokenizer, monkeypatch):
    class Wrong:
        def decode_bytes(self, ids):
            return "Ġ".join(tokenizer.decode(ids).split(" ")).encode()

    monkeypatch.setattr(answers, "vocabulary", lambda _: Wrong())
    with pytest.raises(CourseError, match="read by the grammar"):
        probe.check_round_trip(tokenizer, ['{"intent": "quote"}'])


def test_a_padded_vocabulary(tokenizer, monkeypatch):
    probe.check_closed_ids(tokenizer, len(tokenizer) + 271)

    class Open(answers.HoldToGrammar):
        def __call__(self, input_ids, scores):
            padding = scores[:, len(tokenizer) :].clone()
            held = super().__call__(input_ids, scores)
            held[:, len(tokenizer) :] = padding  # as if nobody masked it
            return held

    monkeypatch.setattr(answers, "HoldToGrammar", Open)
    with pytest.raises(CourseError, match="tokenizer has 49152 tokens only"):
        probe.check_closed_ids(tokenizer, len(tokenizer) + 271)


def tiny_trainer(tiny, tokenizer, folder, **arguments):
    from helpers.tune import training

    here = runtime.detect()
    model = training.load_base(tiny, here, four_bit=False)
    settings = {"max_steps": 3, "logging_steps": 1, "learning_rate": 1e-2, **arguments}
    return training.build_trainer(
        model, tokenizer, probe.LESSON, here, folder, training.lora_config(), **settings
    )


def test_an_adapter_that_does_not_move(tiny, tokenizer, tmp_path):
    probe.check_training(tiny_trainer(tiny, tokenizer, tmp_path / "good"))
    with pytest.raises(CourseError, match="Only 0 of .* numbers of the adapter moved in 3 steps"):
        probe.check_training(tiny_trainer(tiny, tokenizer, tmp_path / "still", learning_rate=0.0))


def test_a_loss_that_does_not_fall(tiny, tokenizer, tmp_path):
    trainer = tiny_trainer(tiny, tokenizer, tmp_path / "wrong")
    loss = trainer.compute_loss

    def uphill(*args, **more):
        value = loss(*args, **more)
        return 2 * value.detach() - value  # the same number, its gradient turned round

    trainer.compute_loss = uphill
    with pytest.raises(CourseError, match="does not lower the loss"):
        probe.check_training(trainer)


def test_a_loss_mask_with_the_prompt_in_it(tiny, tokenizer, tmp_path):
    trainer = tiny_trainer(tiny, tokenizer, tmp_path / "good")
    probe.check_loss_mask(trainer, probe.LESSON)
    other = tiny_trainer(tiny, tokenizer, tmp_path / "all", completion_only_loss=False)
    with pytest.raises(CourseError, match="not on exactly the answer and its end token"):
        probe.check_loss_mask(other, probe.LESSON)


def test_a_prompt_without_the_instruction(tokenizer, monkeypatch):
    pilot = Pilot.load(ROOT / "data/inbox")
    monkeypatch.setattr(answers, "prompt", lambda pilot, tokenizer, text, **_: f"user: {text}")
    with pytest.raises(CourseError, match="drops the instruction"):
        probe.check_template(pilot, tokenizer)


def test_a_right_record_that_the_grammar_refuses(tokenizer, inbox):
    pilot, data = inbox
    row = {**data.train[0], "order_id": "PO-0000"}
    with pytest.raises(CourseError, match=f"grammar of row {row['id']} refuses its right record"):
        probe.check_grammar(pilot, tokenizer, [row])


def test_another_answer_of_the_model(tiny, tokenizer):
    from helpers.tune import training

    model = training.load_base(tiny, runtime.detect(), four_bit=False)
    with pytest.raises(CourseError, match="to a fixed prompt, not 'The days of the week are"):
        probe.check_first_tokens(model, tokenizer)


def test_transformers_without_the_converter(embedded, tmp_path, monkeypatch):
    import transformers

    from helpers.choose import models

    monkeypatch.setattr(transformers, "GgufConfig", None)
    with pytest.raises(CourseError, match="transformers .* cannot convert .*; python -m pip"):
        models._convert(tmp_path)


def test_weights_that_are_not_the_known_ones(tiny):
    from pathlib import Path

    with pytest.raises(CourseError, match="its hash over the weights is"):
        known_answers.check_weights(Path(tiny))

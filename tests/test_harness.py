"""lm-eval on local task files, without a network: its figure is computed again from the model."""

import json
import socket

import numpy as np
import pytest
import yaml
from conftest import ROOT

from helpers import CourseError
from helpers.ask import answers
from helpers.ask.likelihood import log_likelihoods
from helpers.core import rows, runtime
from helpers.core.pilot import Pilot
from helpers.measure import harness
from helpers.tune import students


@pytest.fixture
def model(tiny):
    from transformers import AutoModelForCausalLM

    runtime.quiet()
    return AutoModelForCausalLM.from_pretrained(tiny, dtype="float32").eval()


def test_lm_eval_offline_gives_the_figure_that_we_compute_ourselves(
    model, tokenizer, folder, tmp_path, monkeypatch
):
    def no_network(*_):
        raise AssertionError("lm-eval asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    pilot = Pilot.load(folder)
    docs = harness.label_docs(
        pilot,
        rows.load(pilot).test,
        tokenizer,
    )
    files = [
        harness.write_task(tmp_path / "tasks", "label", docs),
        harness.write_task(tmp_path / "tasks", "general", harness.general_docs()[:10]),
    ]
    found = harness.run_harness(model, tokenizer, files)
    for name, documents in (("label", docs), ("general", harness.general_docs()[:10])):
        texts = [(d["prompt"], choice) for d in documents for choice in d["choices"]]
        sums = [
            logp.sum() for logp, _ in log_likelihoods(model, tokenizer, *map(list, zip(*texts)))
        ]
        best = np.array(sums).reshape(len(documents), -1).argmax(1)
        ours = best == [d["answer"] for d in documents]
        assert harness.by_hand(model, tokenizer, documents).tolist() == ours.tolist(), (
            "with and without shared keys and values"
        )
        assert found[name].right.tolist() == ours.tolist() and found[name].acc == pytest.approx(
            ours.mean()
        )
        assert found[name].stderr == pytest.approx(ours.std(ddof=1) / np.sqrt(ours.size)), (
            "the standard error of a mean, n - 1"
        )


def test_a_task_file_is_plain_yaml_that_lm_eval_reads_by_itself(tokenizer, folder, tmp_path):
    from lm_eval.tasks import TaskManager

    pilot = Pilot.load(folder)
    docs = harness.label_docs(pilot, rows.load(pilot).test, tokenizer)
    path = harness.write_task(tmp_path / "tasks", "label", docs)
    task = yaml.safe_load(path.read_text())
    assert task["output_type"] == "multiple_choice" and task["metric_list"] == [{"metric": "acc"}]
    assert TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False).all_tasks == [
        "label"
    ]
    assert [
        json.loads(line) for line in (tmp_path / "tasks/label.jsonl").read_text().splitlines()
    ] == docs


def begun_answer(pilot, tokenizer, row, doc):
    """What stands in a document's prompt behind the prompt that the tuned model knows."""
    asked = answers.prompt(pilot, tokenizer, row["message"], full=False)
    assert doc["prompt"].startswith(asked)
    return doc["prompt"].removeprefix(asked)


def test_the_choices_are_the_labels_as_the_model_would_write_them(tokenizer, folder):
    pilot = Pilot.load(folder)
    test = rows.load(pilot).test
    doc = harness.label_docs(pilot, test, tokenizer)[0]
    assert begun_answer(pilot, tokenizer, test[0], doc) == '{"intent":'
    assert doc["choices"] == [' "order",', ' "quote",'] and doc["answer"] == 1
    second = pilot.model_copy(update={"fields": dict(reversed(pilot.fields.items()))})
    docs = harness.label_docs(second, test, tokenizer)
    begun = begun_answer(second, tokenizer, test[1], docs[1])
    assert begun == '{"order_id": "PO-1101", "product": "pump", "intent":', (
        "fields before it stand there with their right values"
    )
    assert docs[0]["choices"] == [' "order"}', ' "quote"}'], "the last field ends the record"


def test_a_choice_is_made_of_the_tokens_that_the_model_writes(tokenizer, folder):
    """Begun answer and choice are the start of the record's own tokens."""
    pilot = Pilot.load(folder)
    test = rows.load(pilot).test
    for row, doc in zip(test, harness.label_docs(pilot, test, tokenizer)):
        answer = pilot.answer({name: row[name] for name in pilot.fields})
        written = begun_answer(pilot, tokenizer, row, doc) + doc["choices"][doc["answer"]]
        whole, begun, cut = tokenizer(
            [answer, written, written[:-1]], add_special_tokens=False
        ).input_ids
        assert begun == whole[: len(begun)]
        assert cut != whole[: len(cut)], "a choice that stops at the quote ends in another token"


def test_what_cannot_be_a_task_is_one_sentence(folder, tmp_path):
    pilot = Pilot.load(folder)
    with pytest.raises(CourseError, match="Row 1 has no label for intent"):
        harness.label_docs(pilot, [{"id": 1, "message": "x", "intent": None}], None)
    with pytest.raises(CourseError, match="no label field"):
        harness.label_docs(
            pilot.model_copy(update={"fields": {"product": pilot.fields["product"]}}), [], None
        )
    with pytest.raises(CourseError, match="has no rows"):
        harness.write_task(tmp_path, "empty", [])


def test_the_general_questions_are_forty_and_their_places_are_mixed():
    docs = harness.general_docs()
    assert len(docs) == 40 == len({d["prompt"] for d in docs}) == len({d["id"] for d in docs})
    assert all(len(set(d["choices"])) == 4 and d["prompt"].strip() for d in docs)
    places = np.bincount([d["answer"] for d in docs], minlength=4)
    assert places.min() >= 6 and places.max() <= 14
    assert (ROOT / "data/general/CARD.md").is_file()


def test_a_stored_adapter_is_loaded_on_its_base_and_can_be_switched_off(tiny, folder, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    pilot = Pilot.load(folder).model_copy(update={"base_model": str(tiny), "folder": folder})
    here = runtime.detect()
    with pytest.raises(CourseError, match="run the chapter that trains it"):
        students.load_student(pilot, tmp_path / "adapter", here)
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype="float32")
    get_peft_model(plain, lora).save_pretrained(tmp_path / "adapter")
    base, tokenizer, model = students.load_student(pilot, tmp_path / "adapter", here)
    ids = tokenizer("Where is it?", return_tensors="pt").input_ids
    with torch.inference_mode():
        tuned = model(ids).logits
        with model.disable_adapter():
            alone = model(ids).logits
    assert not model.training and base.path == str(tiny)
    assert not torch.allclose(tuned, alone)

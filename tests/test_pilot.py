"""pilot.yaml: every mistake has its sentence; the grammar lets the right answers through and no others."""

import json

import pytest
from conftest import PILOT, ROOT

from helpers import CourseError
from helpers.core.pilot import Pilot


def loaded(tmp_path, text):
    (tmp_path / "pilot.yaml").write_text(text, encoding="utf-8")
    return Pilot.load(tmp_path)


@pytest.mark.parametrize(
    "change, words",
    [
        (("fields:", "feilds:"), ["'feilds'", "did you mean 'fields'"]),
        (("optional: true}", "optinal: true}"), ["'optinal'", "did you mean 'optional'"]),
        (("values: [order, quote]", "value: [order, quote]"), ["'value'", "did you mean 'values'"]),
        (("text: message", ""), ["'text'", "missing"]),
        (("type: span", "type: spam"), ["'spam'", "did you mean 'span'"]),
        (("values: [order, quote]", "values: order"), ["must be a list"]),
        (("text: message", "\ttext: message"), ["line 3 has a tab"]),
        (("text: message", "text： message"), ["line 3", "full-width"]),
        (("values: [order, quote]", "values: [order]"), ["at least two"]),
        (("values: [order, quote]", "values: [order, order]"), ["listed twice"]),
        (("values: [order, quote]", "values: [yes, no]"), ["in quotes"]),
        (("PO-\\d{4}", "PO-(\\d{4}"), ["does not compile"]),
        (("name: small", "name: ../small"), ["letters, digits"]),
        (("name: small", "name: [small"), ["not valid YAML", "line"]),
    ],
)
def test_each_mistake_in_the_yaml_is_named(tmp_path, change, words):
    assert change[0] in PILOT
    with pytest.raises(CourseError) as problem:
        loaded(tmp_path, PILOT.replace(*change))
    for word in words:
        assert word in str(problem.value)
    assert "\n" not in str(problem.value)


def test_missing_and_empty_yaml(tmp_path):
    with pytest.raises(CourseError, match="no pilot.yaml"):
        Pilot.load(tmp_path)
    with pytest.raises(CourseError, match="empty"):
        loaded(tmp_path, "")


def test_the_bundled_pilots_load():
    assert list(Pilot.load(ROOT / "data/inbox").fields) == [
        "intent",
        "urgency",
        "product",
        "order_id",
    ]
    yaml = (ROOT / "data/clinc150/pilot.yaml").read_text()
    assert len(yaml.strip().splitlines()) <= 10


def accepts(tokenizer, grammar, answer):
    import llguidance.hf
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import gbnf_to_lark

    matcher = LLMatcher(llguidance.hf.from_tokenizer(tokenizer), gbnf_to_lark(grammar))
    assert not matcher.get_error()
    ids = tokenizer(answer, add_special_tokens=False).input_ids
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


MESSAGE = 'Hi,\nthe "HP-40" hydraulic pump on PO-1234 (not PO-99) leaks. 3/4" Ölfilter?'


@pytest.mark.parametrize(
    "intent, product, order_id, good",
    [
        ("order", "HP-40", "PO-1234", True),
        ("quote", None, None, True),
        ("order", "hydraulic pump", None, True),
        ("order", "Ölfilter", None, True),
        ("order", '3/4" Ölfilter', None, True),
        ("other", None, None, False),  # no such label
        ("order", "hydraulic pum", None, False),  # cut inside a word
        ("order", "pump hydraulic", None, False),  # not in this order
        ("order", None, "PO-9999", False),  # matches the pattern, but is invented
        ("order", None, "PO-99", False),  # stands there, but does not match
    ],
)
def test_the_grammar_only_lets_true_copies_through(
    folder, tokenizer, intent, product, order_id, good
):
    pilot = Pilot.load(folder)
    answer = pilot.answer({"intent": intent, "product": product, "order_id": order_id})
    assert accepts(tokenizer, pilot.grammar(MESSAGE), answer) is good


def test_llama_cpp_takes_the_same_grammar(folder, embedded):
    from helpers.ask import answers
    from helpers.core.runs import Journal

    pilot = Pilot.load(folder)
    rows = [{"id": "a", "message": MESSAGE}, {"id": "b", "message": "?!"}]
    with answers.llama_server(embedded.gguf, parallel=2, context=1024) as address:
        found = answers.ask(address, pilot, rows, Journal(folder / "j.jsonl"))
    first, second = map(json.loads, found)
    assert list(first) == list(pilot.fields) and first["intent"] in ("order", "quote")
    assert first["product"] is None or first["product"] in MESSAGE
    assert second["product"] is None and second["order_id"] is None


def test_a_shared_start_read_once_gives_the_same_answers(folder, tiny, tokenizer):
    """Instruction and examples are read once per call and copied to every row; padding then lies between them and the message."""
    import torch
    from transformers import AutoModelForCausalLM

    from helpers.ask import answers
    from helpers.core import rows

    pilot = Pilot.load(folder)
    data = rows.load(pilot)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    prompts = [
        answers.prompt(pilot, tokenizer, text, shots=list(data.train)[:3])
        for text in ("pump?", "What does the long belt cost?")
    ]
    shared, known = answers._inputs(model, tokenizer, prompts)
    assert known and len(known[0]) > 64
    alone, nothing = answers._inputs(model, tokenizer, prompts, shortest=10**9)
    assert nothing is None
    with torch.inference_mode():
        first = model.generate(**shared, max_new_tokens=8, do_sample=False)[
            :, shared["input_ids"].shape[1] :
        ]
        second = model.generate(**alone, max_new_tokens=8, do_sample=False)[
            :, alone["input_ids"].shape[1] :
        ]
        broken = {**shared, "attention_mask": torch.ones_like(shared["attention_mask"])}
        broken["past_key_values"] = answers._inputs(model, tokenizer, prompts)[0]["past_key_values"]
        third = model.generate(**broken, max_new_tokens=8, do_sample=False)[
            :, shared["input_ids"].shape[1] :
        ]
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_a_held_answer_is_always_a_whole_record(folder, tiny, tokenizer):
    """Even a model of random weights can only answer with a record of the right form, and nothing may follow it."""
    from transformers import AutoModelForCausalLM

    from helpers.ask import answers
    from helpers.core import rows
    from helpers.core.runs import Journal
    from helpers.measure import scoring

    pilot = Pilot.load(folder)
    data = rows.load(pilot)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    held = answers.generate(
        model,
        tokenizer,
        pilot,
        data.test,
        Journal(folder / "held.jsonl"),
        batch_size=6,
        max_new_tokens=80,
    )
    found = scoring.score(pilot, data.test, held)
    assert found.valid.all() and not found.invented.any()
    assert all(
        set(record) == set(pilot.fields) and record["intent"] in ("order", "quote")
        for record in found.records
    )
    free = answers.generate(
        model,
        tokenizer,
        pilot,
        data.test,
        Journal(folder / "free.jsonl"),
        hold=False,
        max_new_tokens=8,
    )
    assert not scoring.score(pilot, data.test, free).valid.any()

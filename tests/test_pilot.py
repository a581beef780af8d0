"""pilot.yaml: every mistake has its sentence; the grammar lets right answers through only."""

import json

import pytest
from conftest import PILOT, ROOT

from helpers import CourseError
from helpers.ask import answers
from helpers.core import rows
from helpers.core.pilot import Pilot
from helpers.make.grammar import record_grammar


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
        (("text: message", "text: message\ntext: mail"), ["line 4", "'text' stands there twice"]),
        (("'PO-\\d{4}'", '"\\bPO"'), ["control character", "single quotes"]),
        (("'PO-\\d{4}'", r"'(\w+\s?)*-\d+'"), ["order_id", "2 seconds", "write one repeat"]),
        (("product: {", "annotator: {"), ["'annotator' is taken"]),
        (
            ("type: pattern,", "type: pattern, whole_words: true,"),
            ["'whole_words' belongs to span"],
        ),
        (("[order, quote]", "[order, quote?]"), ["line 5", "needs quotes"]),
    ],
)
def test_each_mistake_in_the_yaml_is_named(tmp_path, change, words, monkeypatch):
    monkeypatch.setattr("helpers.core.pilot.REGEX_SECONDS", 2)
    assert change[0] in PILOT
    with pytest.raises(CourseError) as problem:
        loaded(tmp_path, PILOT.replace(*change))
    for word in words:
        assert word in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_regex_that_only_the_rows_lead_astray(folder, monkeypatch):
    """Nothing in pilot.yaml shows it: the values of the rows do."""
    monkeypatch.setattr("helpers.core.pilot.REGEX_SECONDS", 2)
    path = folder / "pilot.yaml"
    path.write_text(path.read_text().replace(r"PO-\d{4}", r"[P][O]-([\d]+)*"))
    assert rows.load(Pilot.load(folder)).test
    path.write_text(path.read_text().replace(r"[P][O]-([\d]+)*", r"[P][O]-([\d]+)*\b(?!\w|!)"))
    pilot = Pilot.load(folder)
    with pytest.raises(CourseError, match="order_id.*2 seconds"):
        rows.load(pilot)


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
    pilot.fields["product"].whole_words = True
    answer = pilot.answer({"intent": intent, "product": product, "order_id": order_id})
    assert answers.accepts(pilot, tokenizer, MESSAGE, answer) is good


def test_llama_cpp_takes_the_same_grammar(folder, embedded):
    import openai

    from helpers.ask.server import llama_server

    pilot = Pilot.load(folder)
    asked = [(MESSAGE, True), ("?!", True), (MESSAGE, False), ("私は東京に行きます。", False)]
    with llama_server(embedded.gguf, parallel=1, context=1024) as address:
        client = openai.OpenAI(base_url=address, api_key="none")
        for message, pilot.fields["product"].whole_words in asked:
            reply = client.chat.completions.create(
                model="default",
                messages=pilot.chat(message, full=False),
                temperature=0,
                max_tokens=160,
                extra_body={"grammar": record_grammar(pilot, message)},
            )
            record = json.loads(reply.choices[0].message.content)
            assert list(record) == list(pilot.fields) and record["intent"] in ("order", "quote")
            assert record["product"] is None or record["product"] in message
            if message == "?!":
                assert record["product"] is None and record["order_id"] is None


def test_a_shared_start_read_once_gives_the_same_answers(folder, tiny, tokenizer, monkeypatch):
    """They are read once per call and copied to every row; padding lies before the message."""
    import torch
    from transformers import AutoModelForCausalLM

    pilot = Pilot.load(folder)
    data = rows.load(pilot)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    prompts = [
        answers.prompt(pilot, tokenizer, text, shots=list(data.train)[:3])
        for text in ("pump?", "What does the long belt cost?")
    ]
    shared, known = answers._inputs(model, tokenizer, prompts)
    assert known and len(known[0]) > 64
    with monkeypatch.context() as longer:
        longer.setattr(answers, "SHARED_START", 10**9)
        alone, nothing = answers._inputs(model, tokenizer, prompts)
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


def test_a_place_for_keys_that_has_room(monkeypatch):
    """What is kept is what transformers would keep; nothing is copied until the room is used up."""
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer

    start = DynamicCache()
    start.layers = [DynamicLayer()]
    start.layers[0].update(torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4))
    [ours] = answers._copied(start, 3, room=4).layers
    theirs = DynamicLayer()
    theirs.update(
        *(kept.repeat(3, 1, 1, 1) for kept in (start.layers[0].keys, start.layers[0].values))
    )
    first = ours.keys.data_ptr()
    for tokens in (2, 1, 1, 1, 7):
        new = torch.randn(3, 2, tokens, 4), torch.randn(3, 2, tokens, 4)
        for mine, wanted in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(mine, wanted)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert (ours.keys.data_ptr() == first) == (ours.get_seq_length() <= 9)
    assert start.layers[0].keys.shape == (1, 2, 5, 4), "the start itself does not grow"


@pytest.fixture
def answering(folder, tiny, tokenizer):
    """(pilot, rows, model, ask): `ask(rows, **settings)` answers with a model of random weights."""
    from transformers import AutoModelForCausalLM

    pilot = Pilot.load(folder)
    model = AutoModelForCausalLM.from_pretrained(tiny)

    def ask(these, **settings):
        settings = {"max_new_tokens": 80, "batch_size": 6} | settings
        return answers.generate(model, tokenizer, pilot, these, folder / "answers/a", **settings)

    return pilot, [dict(row) for row in rows.load(pilot).test], model, ask


def test_batches_are_as_large_as_memory_allows(answering, monkeypatch):
    """Less memory makes smaller batches, never other answers."""
    from helpers.choose import memory

    _, test, model, ask = answering
    sizes, real = [], answers._greedy
    monkeypatch.setattr(answers, "_greedy", lambda *args: sizes.append(len(args[3])) or real(*args))
    plenty = ask(test, batch_size=5).texts
    assert sizes == [5, 5, 2]
    sizes.clear()
    one = memory.estimate(memory.shape_of(model.config), "inference", 150, 1, "float32")
    least = type("Memory", (), {"available": (one.total - one.weights) * 2.5 / 0.8})
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: least)
    assert ask(test, batch_size=5, max_new_tokens=81).texts == plenty
    assert 1 <= max(sizes) < 5 and sum(sizes) == 12


def test_a_held_answer_is_always_a_whole_record(answering):
    """A model of random weights can only answer with a whole record, and nothing after it."""
    from helpers.measure import scoring

    pilot, test, _, ask = answering
    scored = scoring.score(pilot, test, ask(test).texts)
    assert scored.valid.all() and not scored.invented.any()
    for record in scored.records:
        assert set(record) == set(pilot.fields) and record["intent"] in ("order", "quote")


def test_an_answer_belongs_to_its_text_and_to_nothing_else(answering, monkeypatch):
    """Other ids, another order, a row less: the same answers. Another text or weight: none."""
    import torch

    pilot, test, model, ask = answering
    first = ask(test)
    by_text = dict(zip([row["message"] for row in test], first.texts, strict=True))
    asked = []
    real = answers._greedy
    monkeypatch.setattr(answers, "_greedy", lambda *args: asked.append(len(args[3])) or real(*args))
    turned = [row | {"id": str(number)} for number, row in enumerate(reversed(test[1:]))]
    again = ask(turned)
    assert again.path == first.path and again.seconds == first.seconds and not asked
    assert again.texts == [by_text[row["message"]] for row in turned]
    swapped = [row | {"message": "Where is pump 7?"} for row in test[:2]]
    assert len(set(ask(swapped).texts)) == 1 and asked == [1], "one text is asked once"
    assert ask(test, shots=test[:1]).path != first.path
    assert ask(test[:1], max_new_tokens=8).path != first.path
    with torch.no_grad():
        model.lm_head.weight[5, 5] += 1
    assert ask(test[:1]).path != first.path


# PEFT asks transformers for an old name
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_an_adapter_counts_as_weights_switched_on_or_off(answering):
    import peft

    from helpers.ask.answers import hash_of_weights

    model = answering[2]
    plain = hash_of_weights(model)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    on = hash_of_weights(adapted)
    with adapted.disable_adapter():
        off = hash_of_weights(adapted)
    assert len({plain, on, off}) == 3 and hash_of_weights(adapted) == on


def test_a_model_that_scores_more_ids_than_its_tokenizer_has(answering, tokenizer):
    """Qwen2.5 has 151,936 rows of embeddings for 151,665 tokens: those beyond stay closed."""
    import torch

    from helpers.ask.answers import HoldToGrammar

    ids = torch.zeros((1, 3), dtype=torch.long)
    scores = torch.zeros((1, len(tokenizer) + 300))
    scores[0, len(tokenizer) + 200] = 50.0
    masked = HoldToGrammar(tokenizer, ['root ::= "yes"\n'], 3)(ids, scores)
    assert torch.isinf(masked[0, len(tokenizer) :]).all()
    assert tokenizer.decode(int(masked.argmax())) in "yes"


def test_a_tokenizer_without_a_pad_token(answering, tiny, tmp_path):
    from transformers import AutoTokenizer

    pilot, test, model, ask = answering
    bare = AutoTokenizer.from_pretrained(tiny)
    bare.pad_token = None
    assert bare.pad_token_id is None
    settings = {"max_new_tokens": 80, "batch_size": 6}
    texts = answers.generate(model, bare, pilot, test, tmp_path / "bare", **settings).texts
    assert texts == ask(test).texts

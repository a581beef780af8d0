"""The estimate counts what is there; bad configs are named; the measurement runs the real thing."""

import json

import pytest
from transformers import LlamaConfig

from helpers import CourseError
from helpers.choose import catalog, memory, models


def test_the_shape_counts_every_parameter(embedded):
    from transformers import AutoConfig

    shape = memory.shape_of(AutoConfig.from_pretrained(embedded.path))
    assert shape.parameters == 134515008 and memory.shape_of(embedded.path) == shape
    row = memory.shape_of_row(catalog.find("embedded"))
    assert row == shape, "the catalogue's sizes give the same model"


@pytest.mark.parametrize(
    "row",
    [r for r in catalog.models() if memory.shape_of_row(r) and r["parameters_basis"] == "config"],
    ids=lambda r: r["hub_id"],
)
def test_the_catalogues_sizes_add_up(row):
    shape = memory.shape_of_row(row)
    assert abs(shape.parameters / int(row["parameters"]) - 1) < 0.01


@pytest.mark.parametrize("tied", [True, False])
def test_against_a_model_that_torch_built(tied):
    from transformers import LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=999,
        hidden_size=48,
        intermediate_size=100,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    assert memory.shape_of(config).parameters == sum(
        p.numel() for p in LlamaForCausalLM(config).parameters()
    )


def test_more_of_anything_needs_more():
    shape = memory.shape_of_row(catalog.find("qwen2.5-1.5b"))

    def total(mode, **k):
        return memory.estimate(shape, mode, **k).total

    assert total("qlora") < total("lora") < total("full")
    assert (
        total("qlora", max_length=1024)
        > total("qlora", max_length=256)
        > total("qlora", max_length=256, checkpointing=True)
    )
    assert total("lora", r=64) > total("lora", r=8) and total("inference", batch_size=64) > total(
        "inference", batch_size=1
    )
    assert total("lora", dtype="float32") > total("lora")
    assert (
        total("full", dtype="float32") >= 16 * shape.parameters
    )  # weights, gradients and two states of four bytes


def test_bad_configs_in_a_sentence(tmp_path):
    with pytest.raises(CourseError, match="no file 'config.json' there"):
        memory.shape_of(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CourseError, match="not valid JSON"):
        memory.shape_of(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps({"n_embd": 768, "n_layer": 12, "vocab_size": 50257})
    )
    with pytest.raises(
        CourseError,
        match="lacks num_hidden_layers, hidden_size, num_attention_heads, intermediate_size",
    ):
        memory.shape_of(tmp_path)
    for odd in ([], None, 7):
        with pytest.raises(CourseError, match="content of a model's config.json"):
            memory.shape_of(odd)
    sizes = {
        "num_hidden_layers": 2,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 99,
    }
    with pytest.raises(CourseError, match="lacks hidden_size as whole numbers"):
        memory.shape_of({**sizes, "hidden_size": "8"})
    assert memory.shape_of({"text_config": sizes}) == memory.shape_of(
        sizes
    )  # a model that also reads pictures
    with pytest.raises(CourseError, match="whole numbers from 1 on"):
        memory.estimate(memory.shape_of(sizes), "lora", max_length=0)
    with pytest.raises(CourseError, match="num_local_experts: a mixture of experts"):
        memory.shape_of({"num_local_experts": 8})
    shape = memory.shape_of_row(catalog.find("embedded"))
    with pytest.raises(CourseError, match="mode can be"):
        memory.estimate(shape, "tuning")
    with pytest.raises(CourseError, match="dtype"):
        memory.estimate(shape, "lora", dtype="int8")
    for name in ("google/gemini", "openai/gpt-oss-20b", "LiquidAI/LFM2-1.2B"):
        assert memory.shape_of_row(catalog.find(name)) is None


def test_measuring_random_weights_of_a_config(tiny):
    seen = memory.measure_peak("qlora", max_length=64, config=tiny)
    guess = memory.estimate(memory.shape_of(tiny), "qlora", max_length=64)
    assert seen["device"] and 1e6 < seen["bytes"] < 2e9 and guess.total > 1e6
    with pytest.raises(CourseError, match="Measuring lora stopped"):
        memory.measure_peak("lora", config=tiny / "nowhere")


def test_surprise_is_low_for_what_the_model_would_write(tiny, tokenizer, folder):
    """Against a plain computation over the whole sequence, row by row."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    from helpers.ask import answers
    from helpers.core import rows
    from helpers.core.pilot import Pilot

    pilot = Pilot.load(folder)
    data = rows.load(pilot).train
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    bits = answers.surprise(model, tokenizer, pilot, data, batch_size=5)
    for row, found in zip(data, bits, strict=True):
        asked = tokenizer(
            answers.prompt(pilot, tokenizer, row[pilot.text]), add_special_tokens=False
        ).input_ids
        right = tokenizer(pilot.answer(row), add_special_tokens=False).input_ids
        with torch.inference_mode():
            logp = torch.log_softmax(model(torch.tensor([asked + right])).logits[0], -1)
        picked = sum(float(logp[len(asked) + i - 1, token]) for i, token in enumerate(right))
        assert found == pytest.approx(-picked / np.log(2) / len(pilot.answer(row)), rel=1e-3)


def test_a_base_model_by_its_catalogue_name_is_the_embedded_one():
    assert catalog.find("embedded")["hub_id"] == "HuggingFaceTB/SmolLM2-135M"
    assert catalog.find("HuggingFaceTB/SmolLM2-135M-Instruct")["licence"] == "apache-2.0"
    assert models.resolve("qwen2.5-0.5b").path == "Qwen/Qwen2.5-0.5B-Instruct"

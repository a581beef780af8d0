"""The estimate counts what is there; bad configs are named; the measurement runs the real thing."""

import sys

import pytest
from transformers import Gemma3Config, GPT2Config, LlamaConfig, MixtralConfig

from helpers import CourseError
from helpers.choose import catalog, memory, models


def test_the_shape_counts_every_parameter(embedded):
    from transformers import AutoConfig

    shape = memory.shape_of(AutoConfig.from_pretrained(embedded.path))
    assert shape.parameters == 134515008
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
    assert total("qlora", max_length=1024) > total("qlora", max_length=256)
    assert total("inference", batch_size=64) > total("inference", batch_size=1)
    assert total("lora", dtype="float32") > total("lora")
    # weights, gradients and two states of four bytes
    assert total("full", dtype="float32") >= 16 * shape.parameters


def test_bad_configs_in_a_sentence():
    with pytest.raises(CourseError, match="lacks hidden_size, vocab_size as whole numbers"):
        memory.shape_of(LlamaConfig(hidden_size=0, vocab_size=0, num_attention_heads=1))
    with pytest.raises(CourseError, match="lacks num_hidden_layers, .*, intermediate_size"):
        memory.shape_of(GPT2Config())
    with pytest.raises(CourseError, match="num_local_experts: a mixture of experts"):
        memory.shape_of(MixtralConfig())
    pictures = Gemma3Config()  # of a model that also reads pictures
    assert memory.shape_of(pictures).hidden == pictures.text_config.hidden_size


def test_odd_questions_in_a_sentence():
    shape = memory.shape_of_row(catalog.find("embedded"))
    with pytest.raises(CourseError, match="mode can be"):
        memory.estimate(shape, "tuning")
    with pytest.raises(CourseError, match="dtype"):
        memory.estimate(shape, "lora", dtype="int8")
    with pytest.raises(CourseError, match="whole numbers from 1 on"):
        memory.estimate(shape, "lora", max_length=0)
    for name in ("google/gemini", "openai/gpt-oss-20b", "LiquidAI/LFM2-1.2B"):
        assert memory.shape_of_row(catalog.find(name)) is None


def test_answers_at_once(embedded, monkeypatch):
    """The chapters' batches of 32 stay whole where 8 GB are; less memory, fewer rows."""
    from transformers import AutoConfig

    def free(gib):
        one = type("Memory", (), {"available": gib * memory.GIB})
        monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: one)

    config = AutoConfig.from_pretrained(embedded.path)
    free(6)
    for dtype, tokens in (("float32", 1250), ("bfloat16", 1250), ("float32", 600)):
        assert memory.answers_at_once(config, dtype, tokens, 32) == 32
    few = memory.answers_at_once(config, "float32", 4096, 32)
    assert 8 <= few < 32, "a long prompt in 32 bits"
    assert memory.answers_at_once(config, "bfloat16", 4096, 99) > few
    free(1)
    assert 1 <= memory.answers_at_once(config, "float32", 4096, 32) < few
    assert memory.answers_at_once(config, "float32", 10**6, 32) == 1, "never none"
    assert memory.answers_at_once(MixtralConfig(), "float32", 4096, 32) == 32, "no estimate"
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (15 * memory.GIB, 16 * memory.GIB))
    assert memory.answers_at_once(config, "float16", 4096, 32, cuda=True) == 32


def test_threads_that_wait_let_others_work():
    """OpenMP reads it once, with torch; what a user has set stays."""
    import os
    import subprocess

    from helpers import ROOT

    bare = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    say = "print(os.environ['GOMP_SPINCOUNT'], torch_was_there)"
    told = "import os, sys\nfrom helpers.core import runtime\n"
    told += "torch_was_there = 'torch' in sys.modules\nruntime.quiet()\n" + say
    command = "import sys; sys.argv = ['-m']; import os, benchmarks\n"
    command += "torch_was_there = 'torch' in sys.modules\n" + say
    own = bare | {"GOMP_SPINCOUNT": "7"}
    for code, environment, wanted in (
        (told, bare, "10000"),
        (command, bare, "10000"),
        (command, own, "7"),
    ):
        asked = [sys.executable, "-c", code]
        done = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout.split() == [wanted, "False"], done.stderr
    assert os.environ["GOMP_SPINCOUNT"], "the tests have it too"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's way")
def test_freed_memory_goes_back():
    """Between pieces that are still in use, too: the pages of those in between are given up."""
    from helpers.core.runtime import give_back_memory

    pieces = [b"x" * 100_000 for _ in range(2000)]
    kept = pieces[::100]
    before = memory.own_bytes()
    del pieces
    give_back_memory()
    assert before - memory.own_bytes() > 150_000_000 and len(kept) == 20


@pytest.mark.slow
def test_a_measurement_is_near_the_estimate():
    seen = memory.measure_peak("qlora", 64, 1, "float32")
    shape = memory.shape_of_row(catalog.find("embedded"))
    guess = memory.estimate(shape, "qlora", max_length=64, dtype="float32").total
    assert seen["device"] and seen["bytes"] == pytest.approx(guess, rel=0.3)


def test_a_measurement_that_dies_says_why():
    with pytest.raises(CourseError, match="Measuring lora stopped: .*invalid choice: 'int8'"):
        memory.measure_peak("lora", 64, 1, "int8")


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
    bits = answers.surprise(model, tokenizer, pilot, data)
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

"""A stored adapter as llama.cpp serves it: the same answers, the same bytes, and what is refused."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from helpers import CourseError
from helpers.ask import answers, server
from helpers.ask.engines import Server
from helpers.ask.teachers import Teacher
from helpers.core import rows, runtime
from helpers.core.pilot import Pilot
from helpers.make.grammar import record_grammar
from helpers.ship import adapter_gguf
from helpers.ship.adapter_gguf import write_adapter_gguf, write_merged_gguf
from helpers.tune import students

RECORDED = ROOT / "data/reference/inbox/05/adapter"
Q = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"


@pytest.fixture
def adapter(tiny, tmp_path):
    """A folder with an adapter of the tiny Llama: rank 3, every linear layer, random weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    config = LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, config).half().save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def change(adapter: Path, **settings) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def read(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


def test_the_file_says_what_llama_cpp_reads(adapter, tiny, tmp_path):
    target = write_adapter_gguf(adapter, tiny, tmp_path / "new/adapter.gguf")
    fields = gguf.GGUFReader(target).fields
    said = {name: fields[name].contents() for name in fields if not name.startswith("GGUF.")}
    assert said == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 7.0,
    }
    tensors = read(target)
    kinds = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    names = [f"blk.{i}.{kind}.weight.lora_{ab}" for i in (0, 1) for kind in kinds for ab in "ab"]
    assert sorted(tensors) == sorted(names)
    assert tensors["blk.1.attn_k.weight.lora_a"].shape == (3, 64)
    assert tensors["blk.1.attn_k.weight.lora_b"].shape == (32, 3)
    assert tensors["blk.0.ffn_down.weight.lora_a"].shape == (3, 128)
    assert {one.dtype for one in tensors.values()} == {np.dtype("float16")}
    assert [path.name for path in target.parent.iterdir()] == ["adapter.gguf"]


def test_the_rows_of_q_and_k_stand_in_pairs_and_no_others_move(adapter, tiny, tmp_path):
    tensors = read(write_adapter_gguf(adapter, tiny, tmp_path / "a.gguf"))
    stored = load_file(adapter / "adapter_model.safetensors")
    start = "base_model.model.model.layers.1"
    q = stored[f"{start}.self_attn.q_proj.lora_B.weight"].numpy()
    k = stored[f"{start}.self_attn.k_proj.lora_B.weight"].numpy()
    v = stored[f"{start}.self_attn.v_proj.lora_B.weight"].numpy()
    # heads of 16 rows: the second head of q, row 3 and its partner half a head below
    assert np.array_equal(tensors["blk.1.attn_q.weight.lora_b"][[16 + 6, 16 + 7]], q[[19, 27]])
    assert np.array_equal(tensors["blk.1.attn_k.weight.lora_b"][[16 + 6, 16 + 7]], k[[19, 27]])
    assert np.array_equal(tensors["blk.1.attn_v.weight.lora_b"], v)
    a = stored[f"{start}.self_attn.q_proj.lora_A.weight"].numpy()
    assert np.array_equal(tensors["blk.1.attn_q.weight.lora_a"], a)


def test_the_order_is_the_one_of_the_embedded_gguf(embedded):
    """The base is there in both forms: the same weights, so its rows say how they were moved."""
    config = AutoConfig.from_pretrained(embedded.path)
    served = {tensor.name: tensor for tensor in gguf.GGUFReader(embedded.gguf).tensors}
    with safe_open(f"{embedded.path}/model.safetensors", "pt") as file:
        for hub, ours in (("q_proj", "attn_q"), ("k_proj", "attn_k"), ("v_proj", "attn_v")):
            layer, tensor = f"model.layers.3.self_attn.{hub}", served[f"blk.3.{ours}.weight"]
            there = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type)).bfloat16()
            here = file.get_tensor(f"{layer}.weight")
            assert torch.equal(here[adapter_gguf._row_order(layer, len(here), config)], there)
            assert torch.equal(here, there) is (hub == "v_proj")


def test_a_qwen_keeps_its_order(adapter, tiny, tmp_path):
    base = tmp_path / "qwen"
    base.mkdir()
    config = json.loads((tiny / "config.json").read_text())
    config |= {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    (base / "config.json").write_text(json.dumps(config))
    target = write_adapter_gguf(adapter, base, tmp_path / "a.gguf")
    stored = load_file(adapter / "adapter_model.safetensors")
    assert gguf.GGUFReader(target).fields["general.architecture"].contents() == "qwen2"
    assert np.array_equal(read(target)["blk.1.attn_q.weight.lora_b"], stored[Q].numpy())


def test_the_same_adapter_gives_the_same_bytes(adapter, tiny, tmp_path):
    one = write_adapter_gguf(adapter, tiny, tmp_path / "one.gguf").read_bytes()
    assert write_adapter_gguf(adapter, tiny, tmp_path / "two.gguf").read_bytes() == one
    stored = load_file(adapter / "adapter_model.safetensors")
    save_file(stored | {Q: -stored[Q]}, adapter / "adapter_model.safetensors")
    assert write_adapter_gguf(adapter, tiny, tmp_path / "two.gguf").read_bytes() != one


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"modules_to_save": ["lm_head"]},
        {"alpha_pattern": {"q_proj": 3}},
        {"bias": "all"},
        {"init_lora_weights": "pissa"},
        {"peft_type": "IA3"},
        {"trainable_token_indices": [1]},
        {"a_later_invention": 1},
        {"lora_alpha": 0},
    ],
    ids=lambda one: next(iter(one)),
)
def test_more_than_plain_lora_is_refused(adapter, tiny, tmp_path, settings):
    change(adapter, **settings)
    with pytest.raises(CourseError, match=next(iter(settings))):
        write_adapter_gguf(adapter, tiny, tmp_path / "a.gguf")
    assert not list(tmp_path.glob("a.gguf*"))


def test_weights_that_do_not_fit_are_refused(adapter, tiny, tmp_path, embedded):
    target, weights = tmp_path / "a.gguf", adapter / "adapter_model.safetensors"
    with pytest.raises(CourseError, match="do not fit this base model"):
        write_adapter_gguf(adapter, Path(embedded.path), target)
    stored = load_file(weights)
    save_file({name: one for name, one in stored.items() if name != Q}, weights)
    with pytest.raises(CourseError, match="layers.1.self_attn.q_proj do not fit"):
        write_adapter_gguf(adapter, tiny, target)
    head = {"base_model.model.lm_head.lora_A.weight": stored[Q].clone()}
    save_file(stored | head, weights)
    with pytest.raises(CourseError, match="lm_head"):
        write_adapter_gguf(adapter, tiny, target)
    weights.write_bytes(b"cut")
    with pytest.raises(CourseError, match=r"no adapter_model.safetensors that can be read"):
        write_adapter_gguf(adapter, tiny, target)
    shutil.rmtree(adapter)
    with pytest.raises(CourseError, match=r"no adapter_config.json that can be read"):
        write_adapter_gguf(adapter, tiny, target)
    assert not list(tmp_path.glob("a.gguf*"))


def test_another_kind_of_base_is_refused(adapter, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    with pytest.raises(CourseError, match=r"base/ has no config.json"):
        write_adapter_gguf(adapter, base, tmp_path / "a.gguf")
    (base / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(CourseError, match="gpt2"):
        write_adapter_gguf(adapter, base, tmp_path / "a.gguf")


def test_llama_cpp_refuses_an_adapter_of_another_model(adapter, tiny, embedded, tmp_path):
    target = write_adapter_gguf(adapter, tiny, tmp_path / "small.gguf")
    for wrong in (target, tmp_path / "missing.gguf"):
        with pytest.raises(CourseError, match=f"Q4_1.gguf and {wrong.name}"):
            with server.llama_server(embedded.gguf, 1, 256, wrong):
                pass


@pytest.mark.slow
def test_llama_cpp_and_transformers_give_the_same_answers(embedded, tmp_path, monkeypatch):
    pilot = Pilot.load(ROOT / "data/inbox")
    test = list(rows.load(pilot).test)[:8]
    # beside another busy process two threads mostly wait for each other
    monkeypatch.setattr(server.os, "cpu_count", lambda: 1)
    model = students.shipped(pilot, RECORDED, runtime.detect("cpu"))
    _, tokenizer = answers.open_base(pilot)
    right = answers.generate(model, tokenizer, pilot, test, tmp_path / "told", batch_size=8).texts
    prompts = [answers.prompt(pilot, tokenizer, row[pilot.text], full=False) for row in test]
    lengths = [len(tokenizer(text, add_special_tokens=False).input_ids) for text in prompts]

    def equal(adapter: Path | None, base: Path = embedded.gguf) -> int:
        with server.llama_server(base, 8, 512, adapter) as address:
            served = Server(Teacher(address="embedded"), address)
            with ThreadPoolExecutor(8) as pool:
                replies = list(pool.map(lambda row: served.answer([asked(row)])[0], test))
        # llama.cpp renders the chat itself: the same prompt
        assert [reply["tokens_in"] for reply in replies] == lengths
        return sum(reply["text"] == text for reply, text in zip(replies, right))

    def asked(row) -> dict:
        message = row[pilot.text]
        request = {"messages": pilot.chat(message, full=False), "temperature": 0, "seed": 0}
        return request | {"grammar": record_grammar(pilot, message), "max_tokens": 160}

    target = write_adapter_gguf(RECORDED, Path(embedded.path), tmp_path / "adapter.gguf")
    assert equal(target) >= 7
    assert equal(None) <= 2
    merged = write_merged_gguf(
        RECORDED, Path(embedded.path), embedded.gguf, tmp_path / "merged.gguf"
    )
    assert equal(None, merged) >= 7


def test_merged_weights_are_those_of_the_base_plus_the_adapters(embedded, tmp_path):
    base = Path(embedded.path)
    beside = read(write_adapter_gguf(RECORDED, base, tmp_path / "adapter.gguf"))
    settings = json.loads((RECORDED / "adapter_config.json").read_text())
    whole = gguf.GGUFReader(embedded.gguf)
    target = write_merged_gguf(RECORDED, base, embedded.gguf, tmp_path / "new/merged.gguf")
    found = gguf.GGUFReader(target)
    assert [tensor.name for tensor in found.tensors] == [tensor.name for tensor in whole.tensors]
    assert set(found.fields) == set(whole.fields)
    for old, new in zip(whole.tensors, found.tensors):
        if old.name.split(".")[1] not in ("3", "weight"):  # one layer, and what has none
            continue
        was, now = (gguf.quants.dequantize(one.data, one.tensor_type) for one in (old, new))
        small = beside.get(f"{old.name}.lora_a")
        if small is not None:
            scale = settings["lora_alpha"] / settings["r"]
            change = scale * beside[f"{old.name}.lora_b"].astype(np.float32) @ small
            assert np.abs(change).max() > 1e-3
            was = was + change
        # of 32 numbers the largest is written as 127: half a step of it is rounded away
        largest = np.abs(was).max()
        assert np.abs(was - now).max() <= 0.51 * largest / 127
    assert not list(tmp_path.glob("**/*.part"))


@pytest.mark.parametrize("broken", ["kind", "place"])
def test_a_merged_file_that_cannot_be_written_is_one_sentence(embedded, tmp_path, broken):
    (tmp_path / "file").write_text("in the way")
    kind = "Q2_K" if broken == "kind" else "Q4_0"
    target = tmp_path / ("file/merged.gguf" if broken == "place" else "merged.gguf")
    said = "not as 'Q2_K'" if broken == "kind" else "could not be written"
    with pytest.raises(CourseError, match=said):
        write_merged_gguf(RECORDED, Path(embedded.path), embedded.gguf, target, kind)
    assert not (tmp_path / "merged.gguf").exists()

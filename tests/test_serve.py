"""Adapters at an address: what each gives alone, what is refused, and what a load test counts."""

import dataclasses
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import gguf
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from helpers import CourseError, served
from helpers.ask import answers, server
from helpers.choose import models
from helpers.core import rows
from helpers.core.pilot import Pilot
from helpers.make.grammar import record_grammar
from helpers.ship import adapter_gguf, load_test, other_servers, records, registry, serve
from helpers.ship.load_test import Job

RECORDED = {name: ROOT / f"data/reference/inbox/{name}/adapter" for name in ("00", "05")}
MESSAGE = "What does the long belt of the third machine cost, and when can it be here?"
BETWEEN = "Please close the account of our other branch, nobody works there any more since May."


def write_gguf(place: Path, like: Path, target: Path) -> None:
    """A Llama in `place` as GGUF with 32-bit weights and the vocabulary of another file."""
    config = json.loads((place / "config.json").read_text())
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(8192)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    for name, field in gguf.GGUFReader(str(like)).fields.items():
        if name.startswith("tokenizer."):
            of = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=of)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    shape = adapter_gguf.AutoConfig.from_pretrained(place)
    for name, weight in load_file(place / "model.safetensors").items():
        layer, numbers = name.removesuffix(".weight"), weight.float().numpy()
        if numbers.ndim == 2:
            numbers = numbers[adapter_gguf._row_order(layer, len(numbers), shape)]
        writer.add_tensor(f"{names.get_name(layer)}.weight", numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def small(tiny, embedded, tmp_path_factory):
    """The tiny Llama as a base with a GGUF file."""
    place = tmp_path_factory.mktemp("base") / "small"
    shutil.copytree(tiny, place)
    write_gguf(place, embedded.gguf, place / "small.gguf")
    return models.resolve(str(place))


@pytest.fixture(scope="module")
def adapters(small, tmp_path_factory):
    """{name: folder} of two adapters with random weights that change every answer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    place = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(small.path)
        config = LoraConfig(
            r=3, lora_alpha=48, target_modules="all-linear", init_lora_weights=False
        )
        get_peft_model(model, config).half().save_pretrained(place / name)
    return {name: place / name for name in "ab"}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    # beside another busy process two threads mostly wait for each other
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def asked(text: str, **more) -> dict:
    chat = [{"role": "system", "content": "Answer."}, {"role": "user", "content": text}]
    return {"messages": chat, "temperature": 0.0, "seed": 0, "max_tokens": 24, **more}


def cold_of(server_of):
    return lambda job: server_of.ask(job.adapter, {**job.request, "cache_prompt": False})


def sent(address: str, body: bytes, path: str = "/chat/completions") -> tuple[int, dict]:
    """(status, page) of a request as any program may send it."""
    request = Request(address + path, body, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except HTTPError as refused:
        return refused.code, json.load(refused)


# The address -----------------------------------------------------------------------------------


def test_a_port_in_use_is_told_before_a_model_is_read(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CourseError, match=f"Port {port} is in use on this machine"):
            with server.llama_server(tmp_path / "no.gguf", 1, 256, port=port):
                pass
    for wrong in (-1, 70_000):
        with pytest.raises(CourseError, match="name another from 1024 to 65535"):
            with server.llama_server(tmp_path / "no.gguf", 1, 256, port=wrong):
                pass


def test_one_adapter_has_its_hash_for_a_name_and_the_port_is_free_again(small, adapters, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name = records.adapter_name(adapters["a"], small)
    for _ in range(2):
        with serve.serve_adapter(adapters["a"], small, tmp_path, 1, port=port) as (address, told):
            assert told == name and address == f"http://127.0.0.1:{port}/v1"
            assert served.open_server(address).teacher.name == name
            assert served.open_server(address).teacher.gbnf
    assert (tmp_path / f"{name}.gguf").is_file()
    with serve.serve_adapter(adapters["a"], small, tmp_path, 1, merged="Q8_0") as (address, told):
        assert told == f"{name}-Q8_0" and (tmp_path / f"{told}.gguf").is_file()
        assert served.open_server(address).teacher.name == told


def test_whatever_a_client_sends_the_next_one_is_answered(small, adapters, tmp_path):
    with serve.serve_adapter(adapters["a"], small, tmp_path, 1) as (address, _):
        plain = json.dumps(asked(MESSAGE)).encode()
        status, page = sent(address, plain)
        told = page["choices"][0]["message"]["content"]
        assert status == 200 and told
        long = json.dumps(asked("belt " * 20_000)).encode()
        assert len(long) > 100_000
        for body, says in ((b'{"messages": [', "parse"), (b"\xff\xfe", "parse"), (long, "context")):
            status, page = sent(address, body)
            assert status == 400 and says in page["error"]["message"]
        grammar = json.dumps(asked(MESSAGE, grammar="root ::= (")).encode()
        assert sent(address, grammar)[0] == 400
        # a plain request that nobody waits for is answered to its end, and the next one waits
        for more in ({"max_tokens": 300}, {"max_tokens": 4000, "stream": True}):
            hang_up(address, json.dumps(asked(MESSAGE, ignore_eos=True, **more)).encode())
            status, page = sent(address, plain)
            assert status == 200 and page["choices"][0]["message"]["content"] == told


def test_a_client_that_hangs_up_while_it_streams_is_written_for_no_more(small, adapters, tmp_path):
    with serve.serve_adapter(adapters["a"], small, tmp_path, 1) as (address, _):
        body = asked(MESSAGE, ignore_eos=True, max_tokens=4000, stream=True)
        hang_up(address, json.dumps(body).encode())
        written = 0
        while (now := slot_of(address))["is_processing"]:
            written = now["next_token"][0]["n_decoded"]
            time.sleep(0.02)
        assert written < 2000


def hang_up(address: str, body: bytes) -> None:
    """Ask for a long answer and close the connection while it is written."""
    host, port = address.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port))) as line:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}"
        line.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode() + body)
        end = time.perf_counter() + 60
        while not slot_of(address)["is_processing"]:
            assert time.perf_counter() < end, "the server never began"


def slot_of(address: str) -> dict:
    """What the server's only slot does."""
    with urlopen(f"{address.removesuffix('/v1')}/slots", timeout=60) as slots:
        return json.load(slots)[0]


def test_files_that_cannot_be_served_are_one_sentence_each(small, adapters, embedded, tmp_path):
    def refused(words: str, adapter: Path, base: models.Base, **more) -> None:
        with pytest.raises(CourseError, match=words):
            with serve.serve_adapter(adapter, base, tmp_path, 1, **more):
                pass

    refused(r"none/ has no adapter_model.safetensors", tmp_path / "none", small)
    refused("do not fit this base model", RECORDED["00"], small)
    refused("do not fit this base model", adapters["a"], embedded)
    refused("no GGUF file for llama.cpp", adapters["a"], dataclasses.replace(small, gguf=None))
    half = tmp_path / "half.gguf"
    half.write_bytes(small.gguf.read_bytes()[: small.gguf.stat().st_size // 2])
    refused("not start with half.gguf and", adapters["a"], dataclasses.replace(small, gguf=half))
    with pytest.raises(CourseError, match="no adapter to serve"):
        with serve.serve_adapters({}, small, tmp_path):
            pass
    cut = adapter_gguf.write_adapter_gguf(adapters["a"], Path(small.path), tmp_path / "cut.gguf")
    cut.write_bytes(cut.read_bytes()[:-1000])
    with pytest.raises(CourseError, match="small.gguf and cut.gguf: is each there and whole"):
        with server.llama_server(small.gguf, 1, 256, adapters=[cut]):
            pass


# Several adapters ------------------------------------------------------------------------------


def test_two_adapters_give_what_each_gives_alone(small, adapters, tmp_path):
    texts = [MESSAGE, BETWEEN]
    alone = {}
    for name, folder in adapters.items():
        with serve.serve_adapters({name: folder}, small, tmp_path, 1) as one:
            alone |= {(name, text): one.ask(name, asked(text))["text"] for text in texts}
    assert len(set(alone.values())) == 4
    again = {**adapters, "also b": adapters["b"]}
    with serve.serve_adapters(again, small, tmp_path, 2) as both:
        assert both.names == ["a", "b", "also b"] and both.address.endswith("/v1")
        for text in (MESSAGE, MESSAGE, BETWEEN, MESSAGE):
            for name in ("a", "b"):
                reply = both.ask(name, asked(text))
                assert reply["text"] == alone[name, text] and reply["tokens_out"] > 0
        assert both.ask("also b", asked(MESSAGE))["text"] == alone["b", MESSAGE]
        with pytest.raises(CourseError, match="under the name 'c'; ask for a or b or also b"):
            both.ask("c", asked(MESSAGE))
        failed = both.ask("a", asked("belt " * 20_000))
        assert failed["text"] is None and failed["reason"] == "the server answered with status 400"
    hashes = sorted(f"{records.adapter_name(folder, small)}.gguf" for folder in adapters.values())
    assert sorted(path.name for path in tmp_path.glob("*.gguf")) == hashes


@pytest.mark.parametrize("mended", [True, False])
def test_three_requests_show_the_fault_and_the_mend(small, adapters, tmp_path, mended):
    """A reads a message, B another one, B the first: its slot takes up what A has read."""
    texts = [
        MESSAGE,
        "Where is order PO-4711, which was to be here on Monday?",
        "Call me about it.",
    ]
    wrong = []
    with serve.serve_adapters(adapters, small, tmp_path, 1, mended) as both:
        for text in texts:
            for first, second in ("ab", "ba"):
                cold = both.ask(second, asked(text, cache_prompt=False))["text"]
                both.ask(first, asked(text))
                both.ask(second, asked(BETWEEN))
                wrong.append(both.ask(second, asked(text))["text"] != cold)
    # weights drawn by chance read little from a prompt: some answers stay as they are
    assert not any(wrong) if mended else sum(wrong) >= 2


@pytest.mark.parametrize("mended", [True, False])
def test_a_load_of_switching_requests_finds_the_fault(small, adapters, tmp_path, mended):
    jobs = [Job(name, asked(text)) for text in (MESSAGE, BETWEEN) for name in "ab"]
    with serve.serve_adapters(adapters, small, tmp_path, 1, mended) as both:
        ready = load_test.cold_answers(cold_of(both), jobs)
        result = load_test.run_load(
            lambda job: both.ask(job.adapter, job.request), ready, 1, 60, most=24
        )
    assert result.requests == result.telling == result.answered == 24
    assert (result.wrong_adapter + result.different == 0) is mended, str(result)


@pytest.mark.slow
def test_the_mended_server_never_gives_another_adapters_answer(embedded, tmp_path):
    pilot = Pilot.load(ROOT / "data/inbox")
    messages = [row[pilot.text] for row in rows.load(pilot).test][:12]

    def of(text: str) -> dict:
        chat = pilot.chat(text, full=False)
        return asked(text) | {
            "messages": chat,
            "grammar": record_grammar(pilot, text),
            "max_tokens": 24,  # up to the product
        }

    jobs = [Job(name, of(text)) for text in messages for name in RECORDED]
    with serve.serve_adapters(RECORDED, embedded, tmp_path, 1) as both:
        jobs = load_test.cold_answers(cold_of(both), jobs)
        result = load_test.run_load(
            lambda job: both.ask(job.adapter, job.request), jobs, 1, 600, 0, 24
        )
    assert result.telling >= 10 and not result.failed
    assert result.wrong_adapter == result.different == 0, str(result)
    wrong = []
    with serve.serve_adapters(RECORDED, embedded, tmp_path, 1, mended=False) as both:
        for place in (0, 1, 2):
            both.ask("05", of(messages[place]))
            both.ask("00", of(messages[3]))
            told = both.ask("00", of(messages[place]))["text"]
            wrong.append(told in jobs[2 * place].others and told != jobs[2 * place].own)
    assert any(wrong), "without the mend it finds another adapter's answers every time"


# A load test -----------------------------------------------------------------------------------


class Liar:
    """Answers by the number of the request: at known places it fails, or gives another answer."""

    def __init__(self, failing=(), wrong=(), different=()):
        self.failing, self.wrong, self.different = failing, wrong, different
        self.number, self.at_once, self.most_at_once = 0, 0, 0
        self.lock, self.order = threading.Lock(), []

    def ask(self, job):
        with self.lock:
            place, self.number = self.number, self.number + 1
            self.order.append((job.adapter, job.request["n"]))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.002)
        with self.lock:
            self.at_once -= 1
        if place in self.failing:
            if place % 2:
                raise ConnectionError("hung up\nand more")
            return {"text": None, "reason": "status 503"}
        if place in self.wrong:
            return {"text": job.others[0], "reason": None}
        return {"text": "rounded" if place in self.different else job.own, "reason": None}


def jobs_of(number=5, names=("a", "b")):
    jobs = [Job(name, {"n": n}) for n in range(number) for name in names]
    told = lambda job: {"text": f"{job.adapter}{job.request['n']}", "reason": None}  # noqa: E731
    return load_test.cold_answers(told, jobs)


@pytest.mark.parametrize("clients", [1, 4])
def test_a_load_counts_what_a_liar_did(clients):
    liar = Liar(failing=(3, 4, 10), wrong=(0, 20, 21, 39), different=(7, 8))
    result = load_test.run_load(liar.ask, jobs_of(), clients, 60, most=40)
    assert result.failed == {"hung up": 1, "status 503": 2} and result.requests == 40
    assert (result.wrong_adapter, result.different) == (4, 2)
    assert result.answered == result.telling == 37
    assert liar.most_at_once == clients == result.clients
    assert 0.002 <= result.p50 <= result.p95 < result.seconds
    assert result.per_second == pytest.approx(37 / result.seconds)
    said = str(result)
    assert "\n" not in said and f"40 requests by {clients} clients" in said
    assert "3 failed (" in said and "2 x status 503" in said
    assert "4 of 37 answered by another adapter, 2 different" in said


def test_the_order_is_drawn_and_the_same_for_a_seed():
    orders = []
    for seed in (0, 0, 1):
        liar = Liar()
        load_test.run_load(liar.ask, jobs_of(), 1, 60, seed, most=20)
        orders.append(liar.order)
    assert orders[0] == orders[1] != orders[2]
    every = sorted((name, n) for n in range(5) for name in "ab")
    assert sorted(orders[0][:10]) == sorted(orders[0][10:]) == every
    assert orders[0][:10] != orders[0][10:]


def test_a_load_ends_when_its_time_is_over():
    result = load_test.run_load(Liar().ask, jobs_of(), 2, 0.2)
    assert 0.2 <= result.seconds < 5 and result.requests > 5
    nothing = load_test.run_load(Liar(failing=range(9)).ask, jobs_of(), 1, 60, most=9)
    assert nothing.answered == 0 and nothing.p50 != nothing.p50
    assert "0.00 messages a second" in str(nothing)


def test_cold_answers_are_asked_once_each_and_must_be_there():
    asked_for = []

    def told(job):
        asked_for.append((job.adapter, job.request["n"]))
        return {"text": "same" if job.request["n"] else f"of {job.adapter}", "reason": None}

    jobs = [Job("a", {"n": 0}), Job("b", {"n": 0}), Job("a", {"n": 1})]
    ready = load_test.cold_answers(told, jobs)
    assert sorted(asked_for) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert [(job.own, job.others) for job in ready] == [
        ("of a", ("of b",)),
        ("of b", ("of a",)),
        ("same", ("same",)),
    ]
    result = load_test.run_load(told, ready, 1, 60, most=6)
    assert result.telling == 4 and result.wrong_adapter == result.different == 0
    with pytest.raises(CourseError, match=r"adapter a gave no answer .* \(gone\)"):
        load_test.cold_answers(lambda job: {"text": None, "reason": "gone"}, jobs)
    for bad in ([], jobs):
        with pytest.raises(CourseError, match="needs its cold answers"):
            load_test.run_load(told, bad, 1, 1)


# Other servers ---------------------------------------------------------------------------------


def test_the_command_for_vllm(small, adapters, tmp_path):
    command = other_servers.vllm_command(small, {"one": adapters["a"], "two": adapters["b"]})
    modules = f"one={adapters['a']} two={adapters['b']}"
    assert command == (
        f"vllm serve {small.path} --enable-lora --lora-modules {modules} --max-lora-rank 8"
    )
    spaced = tmp_path / "my adapter"
    spaced.mkdir()
    for rank, says in ((16, 16), (17, 32), (512, 512)):
        settings = {"r": rank, "rank_pattern": None}
        (spaced / "adapter_config.json").write_text(json.dumps(settings))
        command = other_servers.vllm_command(small, {"x": spaced})
        assert f" 'x={spaced}' --max-lora-rank {says}" in command
    (spaced / "adapter_config.json").write_text('{"r": 8, "rank_pattern": {"q_proj": 513}}')
    with pytest.raises(CourseError, match="rank 513, and vLLM takes 512"):
        other_servers.vllm_command(small, {"x": spaced})
    with pytest.raises(CourseError, match="no adapter_config.json"):
        other_servers.vllm_command(small, {"x": tmp_path / "none"})
    with pytest.raises(CourseError, match="no adapter to serve"):
        other_servers.vllm_command(small, {})


def test_the_modelfile_renders_a_chat_as_the_tokenizer_does(tokenizer):
    text = other_servers.ollama_modelfile(Path("/m/base.gguf"), Path("/m/a.gguf"), tokenizer)
    before, template, after = text.split('"""')
    assert before == "FROM /m/base.gguf\nADAPTER /m/a.gguf\nTEMPLATE "
    lines = after.strip().split("\n")
    assert lines == [
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1.0",
    ]
    pilot = Pilot.load(ROOT / "data/inbox")
    message = 'Where is  PO-1234?\n\n "Soon", you said: {{ .System }}'
    chat = pilot.chat(message, full=False)
    # Ollama leaves out what stands behind the answer while it is written
    asks, answer, end = template.partition("{{ .Response }}")
    filled = asks.replace("{{ .System }}", chat[0]["content"]).replace("{{ .Prompt }}", message)
    assert answer and filled == answers.chat_prompt(tokenizer, chat)
    whole = [*chat, {"role": "assistant", "content": "a record"}]
    assert f"{filled}a record{end}" == tokenizer.apply_chat_template(whole, tokenize=False)


# The command -----------------------------------------------------------------------------------


@pytest.fixture
def served_pilot(folder, small):
    """A pilot whose base is the tiny Llama."""
    with open(folder / "pilot.yaml", "a") as file:
        file.write(f"base_model: {small.path}\n")
    return folder


def test_what_the_command_cannot_serve_is_said_on_one_line(
    served_pilot, small, adapters, tmp_path, capsys
):
    def said(words: str, adapter: Path, *more: str, of: str = "--adapter") -> None:
        arguments = [of, str(adapter), "--pilot", str(served_pilot), *more]
        assert serve.serve_command(arguments) == 1
        out, err = capsys.readouterr()
        assert words in err and err.count("\n") == 1 and out == ""

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said(f"Port {port} is in use", adapters["a"], "--port", port)
    said("none/ has no adapter_model.safetensors and adapter_config.json", tmp_path / "none")
    said("do not fit this base model", RECORDED["00"])
    said("No adapter in none/ is in use; promote", tmp_path / "none", of="--registry")
    half = tmp_path / "half"
    shutil.copytree(small.path, half)
    with open(half / "small.gguf", "r+b") as file:
        file.truncate(small.gguf.stat().st_size // 2)
    (served_pilot / "pilot.yaml").write_text(
        (served_pilot / "pilot.yaml").read_text().replace(small.path, str(half))
    )
    said("llama.cpp could not start with small.gguf and", adapters["a"], "--port", "0")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal to another process there")
def test_the_command_serves_until_ctrl_c_and_ends_quietly(served_pilot, adapters, small, tmp_path):
    store = registry.Registry(tmp_path / "registry")
    about = {"data": "d", "prompt": "p", "grammar": "g", "evaluation": {"exact": 1}, "licence": "l"}
    store.promote(store.push(adapters["a"], small, about), "to be served")
    command = [sys.executable, "-m", "helpers.ship.serve", "--registry", str(store.root)]
    command += ["--pilot", str(served_pilot), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        name, address = process.stdout.readline().split(", ")[0].split(" answers at ")
        use = process.stdout.readline()
        assert name == records.adapter_name(adapters["a"], small)
        assert use.startswith("Use it: python -m helpers.answer mail.csv out.csv --served")
        assert f"--served {address} --tuned --pilot {served_pilot}" in use
        assert served.open_server(address).teacher.name == name
        assert sent(address, json.dumps(asked(MESSAGE)).encode())[0] == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        process.kill()

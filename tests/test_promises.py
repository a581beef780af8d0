"""What depends on a card's size, chosen by its memory; and the measurements of two promises."""

import contextlib
import importlib.util
from types import SimpleNamespace

import nbformat
import pytest
import torch
from transformers import BitsAndBytesConfig, LlamaConfig, MixtralConfig

from helpers.core.runtime import PROFILES, Runtime
from helpers.tune import training


def model_config(size):
    """The config of a model in NF4: (hidden size, layers, heads, key heads, width, vocabulary)."""
    hidden, layers, heads, key_heads, width, vocabulary = {
        "135M": (576, 30, 9, 3, 1536, 49_152),
        "1.5B": (1536, 28, 12, 2, 8960, 151_936),
        "8B": (4096, 32, 32, 8, 14_336, 128_256),
    }[size]
    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        intermediate_size=width,
        vocab_size=vocabulary,
        tie_word_embeddings=size != "8B",
        quantization_config=BitsAndBytesConfig(load_in_4bit=True),
    )


@pytest.fixture
def card(monkeypatch):
    """card(gib, liger): a fake one; its Runtime comes back. No kernel ever runs on it."""
    real = importlib.util.find_spec

    def make(gib, liger=False, dtype="bfloat16"):
        properties = SimpleNamespace(total_memory=int(gib * 2**30))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)

        def find(name, *more):
            if name == "liger_kernel":
                return liger or None
            return real(name, *more)

        monkeypatch.setattr(importlib.util, "find_spec", find)
        return Runtime("cuda", dtype, PROFILES["gpu"], "fake")

    return make


@pytest.mark.parametrize(
    ("size", "gib", "tokens", "recomputes"),
    [
        ("135M", 79, 8192, False),
        ("1.5B", 79, 8192, False),
        ("8B", 79, 8192, False),
        ("135M", 23.7, 8192, False),
        ("1.5B", 23.7, 4096, False),
        ("8B", 23.7, 8192, True),  # 2,048 tokens and nothing recomputed take 21 GiB
        ("135M", 14.7, 8192, False),
        ("1.5B", 14.7, 2048, False),
        ("8B", 14.7, 4096, True),
    ],
)
def test_packs_are_as_large_as_the_card_allows(card, size, gib, tokens, recomputes):
    here, config = card(gib), model_config(size)
    assert training.pack_length(here, config, [100] * 5000) == tokens
    arguments = training.hardware_arguments(here, config, tokens)
    assert arguments["activation_checkpointing"] is recomputes


def test_large_packs_never_take_the_updates_away(card):
    """Sixty short rows fit into one pack of 8,192: one step an epoch would teach nothing."""
    here, config = card(79), model_config("135M")
    assert training.pack_length(here, config, [100] * 60) == 256
    assert training.pack_length(here, config, [100] * 60 + [700]) == 700, "no row is cut"
    assert training.pack_length(here, config, [100] * 500) == 2048
    # on a processor it is what the recorded runs have
    cpu = Runtime("cpu", "bfloat16", PROFILES["cpu"], "")
    assert training.pack_length(cpu, config, [100] * 5000) == 256


def test_what_nothing_is_known_of_recomputes(card):
    here = card(79)
    assert training.hardware_arguments(here)["activation_checkpointing"]
    assert training.hardware_arguments(here, MixtralConfig(), 256)["activation_checkpointing"]
    assert training.pack_length(here, MixtralConfig(), [100] * 5000) == 256
    cpu = Runtime("cpu", "bfloat16", PROFILES["cpu"], "")
    assert not training.hardware_arguments(cpu, model_config("8B"), 8192)[
        "activation_checkpointing"
    ]


def test_ligers_kernels_where_they_are(card):
    assert "use_liger_kernel" not in training.hardware_arguments(card(79))
    assert training.hardware_arguments(card(79, liger=True))["use_liger_kernel"]
    t4 = card(14.7, liger=True, dtype="float16")
    assert "use_liger_kernel" not in training.hardware_arguments(t4)
    cpu = Runtime("cpu", "bfloat16", PROFILES["cpu"], "")
    assert "use_liger_kernel" not in training.hardware_arguments(cpu)


def test_a_kernels_peak_is_seen(tmp_path):
    from joblib.externals.loky import get_reusable_executor

    from benchmarks.promises import peak_of_chapter

    get_reusable_executor().shutdown(wait=True)  # processes of a test before would count
    cells = ["held = b'x' * 300_000_000\nimport time; time.sleep(0.5)", "del held"]
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    path, lines = tmp_path / "notebook.ipynb", []
    nbformat.write(notebook, path)
    top, minutes = peak_of_chapter(path, {}, lines.append)
    assert 300_000_000 < top < 1_000_000_000 and 0 < minutes < 1
    assert len(lines) == 2 and "GiB" in lines[1]


def test_a_busy_process_is_busy_and_ends():
    import psutil

    from benchmarks.promises import busy_process

    def busy():
        return [p for p in psutil.Process().children() if "torch.randn" in " ".join(p.cmdline())]

    with busy_process():
        [one] = busy()
        assert one.cpu_times().user > 3
        assert "GOMP_SPINCOUNT" not in one.environ()
    assert not busy()


def test_work_is_timed_alone_and_beside(tiny, monkeypatch):
    """The whole measurement, on a model of random weights: what it finds means nothing here."""
    from benchmarks import promises
    from helpers.choose import models

    base = SimpleNamespace(path=tiny)
    monkeypatch.setattr(models, "resolve", lambda *_: base)
    beside = []

    @contextlib.contextmanager
    def busy():
        beside.append("begins")
        yield
        beside.append("ends")

    monkeypatch.setattr(promises, "busy_process", busy)
    ratios = promises.measure_slowdown(rounds=1, steps=1, rows=2)
    assert set(ratios) == {"training", "answering", "both"} and min(ratios["both"]) > 0
    assert beside == ["begins", "ends"]


def test_a_busy_process_ends_with_a_parent_that_is_killed():
    """It would slow down whatever is measured next, and nobody would know."""
    import subprocess
    import sys
    import time

    import psutil
    from conftest import ROOT

    code = (
        "import psutil, time\n"
        "from benchmarks.promises import busy_process\n"
        "with busy_process():\n"
        "    print(psutil.Process().children()[0].pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        busy = psutil.Process(int(parent.stdout.readline()))
        assert busy.is_running()
        parent.kill()
    for _ in range(100):
        if not busy.is_running() or busy.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    else:
        busy.kill()
        pytest.fail("it went on without its parent")

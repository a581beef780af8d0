"""Shared pieces: a small pilot on disk, the embedded model, a place for runs to throw away."""

import os
import tempfile
import textwrap
import threading
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

os.environ.setdefault("COURSE_QUIET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("COURSE_PROFILE", "smoke")  # nbval runs the chapters in their small version
os.environ.setdefault("COURSE_RUNS", tempfile.mkdtemp(prefix="course-runs-"))

import pytest

from helpers import share_processor
from helpers.choose import models
from helpers.core import runtime

share_processor()  # before a test imports torch

ROOT = Path(__file__).resolve().parent.parent
REAL_DATA = ROOT.parent / "shared/real_data"

PILOT = """
name: small
text: message
fields:
  intent: {type: label, values: [order, quote]}
  product: {type: span, optional: true}
  order_id: {type: pattern, regex: 'PO-\\d{4}', optional: true}
"""


@contextmanager
def listening(handler):
    """A small HTTP server of this `handler` on a port of this machine; yields its address."""
    service = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    service.daemon_threads = True
    threading.Thread(target=service.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{service.server_port}/v1"
    finally:
        service.shutdown()
        service.server_close()


@pytest.fixture(autouse=True, scope="module")
def no_run_of_a_chapter_beside():
    """What a module's own fixtures read must not depend on a chapter that runs at the same time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_RUNS", tempfile.mkdtemp(prefix="course-runs-"))
        yield


@pytest.fixture(autouse=True)
def runs_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def folder(tmp_path):
    """A pilot folder with twelve training and twelve test rows; tests break it on purpose."""
    place = tmp_path / "small"
    place.mkdir()
    (place / "pilot.yaml").write_text(textwrap.dedent(PILOT))
    for split, offset in (("train", 0), ("test", 100)):
        lines = ["id,message,intent,product,order_id"]
        for i in range(12):
            n = i + offset
            lines.append(
                f'{split}-{i},"Where is pump number {n}, PO-{1000 + n}?",order,pump,PO-{1000 + n}'
                if i % 2
                else f"{split}-{i},What does belt {n} cost?,quote,belt,"
            )
        (place / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place


@pytest.fixture(scope="session")
def embedded():
    """The embedded base model; fetched once, as `make test` does before."""
    runtime.quiet()
    return models.resolve("embedded")


@pytest.fixture(scope="session")
def tokenizer(embedded):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(embedded.path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, tokenizer):
    """A folder with a Llama of random weights, very small, and the embedded tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=2,
        eos_token_id=2,
        bos_token_id=1,
    )
    place = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place

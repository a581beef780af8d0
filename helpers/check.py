"""Is this machine ready? `python -m helpers.check` prints OK or FAIL, and the cure."""

import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from helpers import CourseError, colab
from helpers.choose import models
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
    place = Requirement(True, "Google Colab", "yes" if colab.on_colab() else "no")
    return [python, *_packages(), *_room(), *_number_format(), place]


def _packages() -> Iterator[Requirement]:
    for name, wanted in colab.pinned().items():
        try:
            present = metadata.version(name)
        except metadata.PackageNotFoundError:
            present = "missing"
        ok: bool | None = present.split("+")[0] == wanted
        if not ok and colab.on_colab() and present != "missing":
            ok = None  # Colab keeps its own torch, numpy, pandas
        cure = "python -m pip install -r requirements.txt"
        yield Requirement(ok, f"{name} {wanted}", present, cure)


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
    here = models.is_present()
    cure = "python -m helpers.choose.models"
    yield Requirement(here, "the embedded model", "present" if here else "absent", cure)


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

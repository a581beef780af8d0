"""Is this machine ready? `python -m helpers.check` prints OK or FAIL for each requirement, and the cure."""

import importlib.metadata
import platform
import shutil
import sys

from helpers.choose import models
from helpers.core import runtime


def check():
    """List of (ok, requirement, what was found, fix); `ok` None means 'works, but know this'."""
    import psutil

    rows = [
        (
            sys.version_info >= (3, 11),
            "Python 3.11 or newer",
            platform.python_version(),
            "install Python 3.11+ and run 'make clean' once",
        )
    ]
    for name, wanted in runtime.requirements().items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        same = found.split("+")[0] == wanted
        relaxed = (
            None if runtime.on_colab() and found != "missing" else False
        )  # Colab keeps its own torch, numpy, pandas
        rows.append(
            (
                True if same else relaxed,
                f"{name} {wanted}",
                found,
                "python -m pip install -r requirements.txt",
            )
        )
    memory = psutil.virtual_memory().available / 2**30
    rows.append(
        (
            memory >= 3,
            "3 GiB of free memory",
            f"{memory:.1f} GiB",
            "close other notebooks and kernels",
        )
    )
    cache = models.cache_folder()
    place = next(p for p in (cache, *cache.parents) if p.exists())
    disk = shutil.disk_usage(place).free / 2**30
    rows.append(
        (
            disk >= 2,
            "2 GiB of free disk in the cache",
            f"{disk:.1f} GiB",
            "free some space or set COURSE_CACHE to another disk",
        )
    )
    rows.append(
        (
            models.is_present(),
            "the embedded model",
            "present" if models.is_present() else "absent",
            "python -m helpers.choose.models",
        )
    )
    try:
        here = runtime.detect()
        rows.append((True, "device and number format", str(here), ""))
        rows.append(
            (
                True if here.bf16 or here.fp16 else None,
                "half precision in hardware",
                "real" if here.bf16 or here.fp16 else "bf16 emulated",
                "nothing to do: float32 is used, about 1.5 times slower",
            )
        )
    except Exception as problem:
        rows.append((False, "device and number format", str(problem), "see the message"))
    rows.append((True, "Google Colab", "yes" if runtime.on_colab() else "no", ""))
    return rows


def main():
    runtime.quiet()
    rows = check()
    for ok, wanted, found, fix in rows:
        state = {True: "OK  ", False: "FAIL", None: "NOTE"}[ok]
        print(f"{state}  {wanted:34} {found}" + ("" if ok else f"   -> {fix}"))
    bad = sum(ok is False for ok, *_ in rows)
    print("Ready." if not bad else f"{bad} requirement(s) failed; the arrow says what to do.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

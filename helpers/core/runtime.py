"""What this machine can do: device, dtype, profile, seeds, and an environment check that names the fix.

`python -m helpers.core.runtime` prints OK or FAIL per requirement.
"""

import hashlib
import importlib.metadata
import os
import platform
import random
import re
import sys
from dataclasses import dataclass

from helpers import ROOT, CourseError


@dataclass(frozen=True)
class Profile:
    """How much work a chapter does. Rows are upper limits; a pilot with fewer rows uses them all."""

    name: str
    epochs: int
    train_rows: int
    test_rows: int
    ood_rows: int
    shots: int
    max_tokens: int  # window for one prompt in tokens; a longer message is cut
    batch_size: int = 8
    eval_batch_size: int = 32


PROFILES = {
    "smoke": Profile(
        "smoke", epochs=1, train_rows=16, test_rows=8, ood_rows=4, shots=2, max_tokens=256
    ),
    "cpu": Profile(
        "cpu", epochs=8, train_rows=200, test_rows=300, ood_rows=60, shots=8, max_tokens=512
    ),
    "t4": Profile(
        "t4", epochs=8, train_rows=2000, test_rows=1000, ood_rows=200, shots=8, max_tokens=1024
    ),
    "gpu": Profile(
        "gpu",
        epochs=8,
        train_rows=10000,
        test_rows=2000,
        ood_rows=500,
        shots=8,
        max_tokens=2048,
        batch_size=16,
        eval_batch_size=64,
    ),
}


@dataclass(frozen=True)
class Runtime:
    """Device and number format that really work here. `dtype` is the name of a torch dtype."""

    device: str
    dtype: str
    bf16: bool
    fp16: bool
    profile: Profile
    colab: bool
    note: str

    def __str__(self):
        return f"{self.device} · {self.dtype} · profile {self.profile.name} · {self.note}"

    @property
    def torch_dtype(self):
        import torch

        return getattr(torch, self.dtype)


def on_colab():
    return "COLAB_RELEASE_TAG" in os.environ or "COLAB_GPU" in os.environ


def bf16_on_cpu():
    """True when the processor multiplies bfloat16 in hardware (AVX512-BF16, AMX, or Arm's BF16)."""
    import torch

    caps = torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, "cpu") else ""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    real = any(getattr(torch.cpu, name, bool)() for name in checks)
    return bool(real or "BF16" in str(caps).upper())


def detect(profile=None):
    """Choose device, dtype and profile; `COURSE_PROFILE` or the argument overrides the profile.

    A T4 (compute capability 7.5) gets float16: torch reports bf16 as supported there, but emulates it.
    Raises CourseError for an unknown profile.
    """
    import torch

    name = profile or os.environ.get("COURSE_PROFILE") or ""
    if name and name not in PROFILES:
        raise CourseError(
            f"There is no profile {name!r}; COURSE_PROFILE can be {', '.join(PROFILES)}."
        )
    if torch.cuda.is_available() and name not in ("smoke", "cpu"):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        card = torch.cuda.get_device_name(0)
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        name = name or ("gpu" if bf16 and memory >= 20 else "t4")
        return Runtime(
            "cuda",
            "bfloat16" if bf16 else "float16",
            bf16,
            not bf16,
            PROFILES[name],
            on_colab(),
            f"{card}, {memory:.0f} GiB",
        )
    bf16 = bf16_on_cpu()
    note = f"{os.cpu_count()} cores, " + (
        "bfloat16 in hardware" if bf16 else "bfloat16 would be emulated, so float32"
    )
    return Runtime(
        "cpu",
        "bfloat16" if bf16 else "float32",
        bf16,
        False,
        PROFILES[name or "cpu"],
        on_colab(),
        note,
    )


def set_seeds(seed=0):
    """Seed Python, NumPy and torch (transformers.set_seed does all three)."""
    from transformers import set_seed

    random.seed(seed)
    set_seed(seed)
    return seed


def quiet():
    """Silence what would litter a stored notebook: progress bars of libraries and advice we have acted on."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*|.*lm_head.*tie.*|.*kernels.*")
    for name in ("bitsandbytes", "bitsandbytes.backends.cpu.ops", "httpx", "llguidance.torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def plain_errors():
    """In a notebook, show a CourseError as its one sentence; every other error keeps its traceback."""
    try:
        shell = get_ipython()  # noqa: F821 - exists only inside IPython
    except NameError:
        return

    def show(self, kind, value, trace, tb_offset=None):
        print(f"{value}", file=sys.stderr)
        return [f"{kind.__name__}: {value}"]

    shell.set_custom_exc((CourseError,), show)


def progress(things, title, total=None):
    """A progress bar for a person; silent in recorded runs and tests (`COURSE_QUIET=1`)."""
    from tqdm.auto import tqdm

    return tqdm(
        things, desc=title, total=total, leave=False, disable=bool(os.environ.get("COURSE_QUIET"))
    )


def sha256(path):
    """Hex SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def requirements():
    """{package: version} pinned in requirements.txt."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return dict(
        m.groups() for m in (re.match(r"([A-Za-z0-9_.-]+)==(\S+)", line) for line in lines) if m
    )


def versions():
    """{package: installed version} of the packages that shape results, and of Python."""
    names = (
        "torch",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "accelerate",
        "bitsandbytes",
        "xllamacpp",
        "llguidance",
        "scikit-learn",
        "numpy",
    )
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return {"python": platform.python_version(), **found}


def machine():
    """What a result should say about the machine it came from; nothing that identifies it."""
    import psutil

    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
    }

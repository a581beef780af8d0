"""What this machine can do and how much a chapter does on it: device, number format, profile."""

import contextlib
import ctypes
import logging
import os
import platform
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from helpers import CourseError, share_processor

# what a user may set to a folder or file of their own
FOLDERS = (
    *("COURSE_RUNS", "COURSE_CACHE", "COURSE_PILOT", "COURSE_DATASETS"),
    *("COURSE_WHEEL", "COURSE_ENCODER_WHEEL"),
)


@dataclass(frozen=True)
class Profile:
    """How much work a chapter does. Rows are upper limits; a pilot with fewer uses them all."""

    name: str
    epochs: int
    train_rows: int
    test_rows: int
    ood_rows: int
    shots: int
    max_length: int  # of one prompt in tokens; a longer message is cut
    batch_size: int = 8
    eval_batch_size: int = 32


PROFILES = {
    #                         epochs train  test  ood shots max_length batch_size eval_batch_size
    "smoke": Profile("smoke", 1, 16, 8, 4, 2, 256),
    "cpu": Profile("cpu", 8, 200, 300, 60, 8, 512),
    "t4": Profile("t4", 8, 2000, 1000, 200, 8, 1024),
    "gpu": Profile("gpu", 8, 10000, 2000, 500, 8, 2048, 16, 64),
}


@dataclass(frozen=True)
class Runtime:
    """Device and number format that really work here."""

    device: str
    dtype: str  # the name of a torch dtype
    profile: Profile
    note: str

    def __str__(self) -> str:
        return f"{self.device} · {self.dtype} · profile {self.profile.name} · {self.note}"

    @property
    def bf16(self) -> bool:
        """True where training and answers use bfloat16."""
        return self.dtype == "bfloat16"

    @property
    def fp16(self) -> bool:
        """True where they use float16, as on a T4."""
        return self.dtype == "float16"

    @property
    def torch_dtype(self) -> Any:
        """The torch dtype itself."""
        import torch

        return getattr(torch, self.dtype)


def _bf16_on_cpu() -> bool:
    import torch

    # AVX512-BF16, AMX or Arm's BF16: what multiplies bfloat16 in hardware
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    supported = any(getattr(torch.cpu, name)() for name in checks)
    return supported or "BF16" in str(torch.backends.cpu.get_cpu_capability()).upper()


def detect(profile: str | None = None) -> Runtime:
    """Choose device, number format and profile.

    `COURSE_PROFILE` or the argument names the profile, `COURSE_FLOAT32=1` forces 32 bits. Raises
    CourseError for an unknown profile.
    """
    import torch

    name = profile or os.environ.get("COURSE_PROFILE") or ""
    if name and name not in PROFILES:
        known = ", ".join(PROFILES)
        raise CourseError(f"There is no profile {name!r}; COURSE_PROFILE can be {known}.")
    # smoke and cpu stay on the processor: their numbers must not depend on a card
    if torch.cuda.is_available() and name not in ("smoke", "cpu"):
        device, without_bf16 = "cuda", "float16"
        # torch reports bf16 as supported on a T4 (compute capability 7.5), but only emulates it
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        name = name or ("gpu" if bf16 and memory >= 20 else "t4")
        note = f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
    else:
        device, without_bf16 = "cpu", "float32"
        bf16 = _bf16_on_cpu()
        name = name or "cpu"
        what = "in hardware" if bf16 else "would be emulated, so float32"
        note = f"{os.cpu_count()} cores, bfloat16 {what}"
    dtype = "bfloat16" if bf16 else without_bf16
    if os.environ.get("COURSE_FLOAT32", "0") not in ("", "0"):
        dtype, note = "float32", f"{note}; float32 by COURSE_FLOAT32"
    return Runtime(device, dtype, PROFILES[name], note)


def set_seeds(seed: int = 0) -> int:
    """Seed Python, NumPy and torch; returns the seed."""
    import transformers

    transformers.set_seed(seed)
    return seed


def give_back_memory() -> None:
    """Give freed memory back to the system, where glibc would keep it for later.

    It keeps it in pieces, none of which fits the next tensor that is a little larger.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no such call
            ctypes.CDLL(None).malloc_trim(0)


def make_folders_absolute() -> None:
    """Resolve relative COURSE_RUNS, COURSE_CACHE and their like once, where the user stands.

    A kernel stands in the notebook's folder: there it is the folder where its server was started.
    """
    stands = Path.cwd()
    server = os.environ.get("JPY_PARENT_PID", "")  # the kernel's starter; a handle on Windows
    if "ipykernel" in sys.modules and server and sys.platform != "win32":
        import psutil

        with contextlib.suppress(psutil.Error, OSError, ValueError):
            stands = Path(psutil.Process(int(server)).cwd())
    for name in FOLDERS:
        value = os.environ.get(name)
        if value:
            os.environ[name] = str((stands / Path(value).expanduser()).resolve())


def quiet() -> None:
    """Prepare a notebook or a command: folders, one GPU, no progress bars, no advice acted on.

    Call it before torch is imported: the choice of the GPU, and of how threads wait, works only
    then.
    """
    make_folders_absolute()
    share_processor()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # the course trains on one GPU
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*|.*lm_head.*tie.*|.*kernels.*")
    # on import bitsandbytes asks for a package that the course does without
    for name in ("bitsandbytes", "bitsandbytes.backends.cpu.ops", "httpx", "llguidance.torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import datasets
    import pandas
    import transformers

    pandas.set_option("display.html.use_mathjax", False)  # prices in dollars are no mathematics
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def plain_errors() -> None:
    """In a notebook, show a CourseError as its one sentence; other errors keep their traceback."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:  # a plain script
        return

    def show_sentence(self, kind, value, trace, tb_offset=None):
        print(f"{value}", file=sys.stderr)  # stderr: course.py keeps it out of stored outputs
        return [f"{kind.__name__}: {value}"]

    shell.set_custom_exc((CourseError,), show_sentence)


def versions() -> dict[str, str]:
    """{package: installed version} of the packages that shape results, and of Python.

    A package that is not installed is left out: not every machine can have every one.
    """
    names = ["torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes"]
    names += ["xllamacpp", "llguidance", "scikit-learn", "numpy"]
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def machine() -> dict[str, Any]:
    """What a result should say about its machine; nothing that identifies it."""
    import psutil

    memory = round(psutil.virtual_memory().total / 2**30)
    kind = {"system": platform.system(), "processor": platform.machine()}
    return {**kind, "cores": os.cpu_count(), "memory_gib": memory}

"""The first cell of every chapter: on Google Colab it installs what is missing, else nothing.

Only the standard library is imported here: this runs before anything else is installed.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

# Colab's own, built for its GPU driver
KEEP = ["torch", "numpy", "pandas", "requests", "transformers", "peft", "accelerate"]
# what Colab brings itself, or a reader there does not need
SKIP = ["playwright", "jupyterlab", "ipykernel", "ipywidgets", "nbclient", "nbval", "pytest"]
SKIP += ["jupytext", "nbformat"]


def on_colab() -> bool:
    """True on Google Colab."""
    return "COLAB_RELEASE_TAG" in os.environ or "COLAB_GPU" in os.environ


def pinned() -> dict[str, str]:
    """{package: version} of requirements.txt."""
    path = Path(__file__).resolve().parent.parent / "requirements.txt"
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", path.read_text(encoding="utf-8"), re.M))


def missing_packages(installed: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(packages to install, constraints): pins that Colab lacks, and what must stay as it is."""
    constraints = [f"{name}=={installed[name]}" for name in KEEP if name in installed]
    wanted = []
    for name, version in pinned().items():
        stays = name in SKIP or (name in KEEP and name in installed)
        if not stays and installed.get(name) != version:
            wanted.append(f"{name}=={version}")
    return wanted, constraints


def prepare(run: Callable = subprocess.run) -> list[str] | None:
    """Install on Colab what is missing; returns what was installed."""
    if not on_colab():
        return None
    installed = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    wanted, constraints = missing_packages(installed)
    pip = [sys.executable, "-m", "pip"]
    if "torchao" in installed:  # its old version makes PEFT refuse a plain LoRA
        run([*pip, "uninstall", "-q", "-y", "torchao"], check=True)
    if wanted:
        limits = Path(tempfile.gettempdir()) / "course-constraints.txt"
        limits.write_text("\n".join(constraints) + "\n")
        run([*pip, "install", "-q", "-c", str(limits), *wanted], check=True)
    return wanted or None

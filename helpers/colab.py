"""The first cell of every chapter: on Google Colab it installs what is missing, elsewhere it does nothing.

Only the standard library is imported here: this runs before anything else is installed.
"""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

KEEP = (
    "torch",
    "numpy",
    "pandas",
    "requests",
    "transformers",
    "peft",
    "accelerate",
)  # Colab's own, built for its GPU driver
SKIP = (
    "playwright",
    "jupyterlab",
    "ipykernel",
    "ipywidgets",
    "nbclient",
    "nbval",
    "pytest",
    "jupytext",
    "nbformat",
)  # Colab brings its own


def plan(requirements, installed):
    """(packages to install, constraints): the pins of requirements.txt that Colab lacks, and what must stay as it is.

    `requirements` is the text of requirements.txt, `installed` {name: version}.
    """
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", requirements, re.M))
    constraints = [f"{name}=={installed[name]}" for name in KEEP if name in installed]
    wanted = [
        f"{name}=={version}"
        for name, version in pins.items()
        if name not in SKIP
        and not (name in KEEP and name in installed)
        and installed.get(name) != version
    ]
    return wanted, constraints


def prepare(run=subprocess.run):
    """Install on Colab and take torchao out, whose old version makes PEFT refuse a plain LoRA; returns what was installed."""
    if not ("COLAB_RELEASE_TAG" in os.environ or "COLAB_GPU" in os.environ):
        return None
    root = Path(__file__).resolve().parent.parent
    installed = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    wanted, constraints = plan((root / "requirements.txt").read_text(encoding="utf-8"), installed)
    pip = [sys.executable, "-m", "pip"]
    if "torchao" in installed:
        run([*pip, "uninstall", "-q", "-y", "torchao"], check=True)
    if wanted:
        limits = Path("/tmp" if os.name != "nt" else ".") / "course-constraints.txt"
        limits.write_text("\n".join(constraints) + "\n")
        run([*pip, "install", "-q", "-c", str(limits), *wanted], check=True)
    return wanted or None

"""Refuse files over 2 MB before a commit: `python tests/large_files.py FILE...`."""

import sys
from pathlib import Path

MOST = 2_000_000  # bytes; weights, pictures and runs do not belong into the repository
KEPT = {"adapter_model.safetensors"}  # the recorded adapter, in 16 bits


def too_large(names: list[str]) -> list[str]:
    """The names of files over MOST bytes."""
    paths = [Path(name) for name in names]
    return [str(p) for p in paths if p.is_file() and p.stat().st_size > MOST and p.name not in KEPT]


if __name__ == "__main__":
    large = too_large(sys.argv[1:])
    for name in large:
        print(f"{name} is over 2 MB; keep it out of the repository.")
    sys.exit(bool(large))

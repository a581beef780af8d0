"""The small package behind the course. Importing it changes nothing on the machine."""

import os
import sys
from pathlib import Path

__version__ = "0.1.0"
ROOT = Path(__file__).resolve().parent.parent  # the folder of the course

# OpenMP's threads wait for each other in a loop; beside a busy process that is all they do. Here
# they soon go to sleep. OpenMP reads this once, with torch: so it stands before every import.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # GNU's OpenMP, in turns of the loop
os.environ.setdefault("KMP_BLOCKTIME", "1")  # Intel's and LLVM's, in milliseconds


class CourseError(Exception):
    """Something the reader can put right, in one sentence: what is wrong, where, what to do."""


if sys.argv[:1] == ["-m"]:  # a command such as `python -m helpers.check` is about to begin

    def _ended(kind, problem, trace) -> None:
        if issubclass(kind, KeyboardInterrupt):
            kept = "What was finished is kept; run the same command again."
            print(f"\nStopped. {kept}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, problem, trace)

    sys.excepthook = _ended

"""The small package behind the course. Importing it changes nothing on the machine."""

import os
import sys
from pathlib import Path

__version__ = "0.13.0"
ROOT = Path(__file__).resolve().parent.parent  # the folder of the course


class CourseError(Exception):
    """Something the reader can put right, in one sentence: what is wrong, where, what to do."""


def share_processor() -> None:
    """Let OpenMP's threads go to sleep soon when they wait for each other.

    By default they turn in a loop, and beside a busy process that is all they do. OpenMP reads this
    once, with torch: call it before. What the user has set stays.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # GNU's, in turns of the loop
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # Intel's and LLVM's, in milliseconds


if sys.argv[:1] == ["-m"]:  # a command such as `python -m helpers.check` is about to begin
    share_processor()

    def _ended(kind, problem, trace) -> None:
        if issubclass(kind, KeyboardInterrupt):
            kept = "What was finished is kept; run the same command again."
            print(f"\nStopped. {kept}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, problem, trace)

    sys.excepthook = _ended

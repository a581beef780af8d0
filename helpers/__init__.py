"""The small package behind the course. Importing it changes nothing on the machine."""

import sys
from pathlib import Path

__version__ = "0.1.0"
ROOT = Path(__file__).resolve().parent.parent  # the folder of the course


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

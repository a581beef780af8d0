"""The small package behind the course. Importing it changes nothing on the machine."""

from pathlib import Path

__version__ = "0.1.0"
ROOT = Path(__file__).resolve().parent.parent  # the folder of the course


class CourseError(Exception):
    """Something the reader can put right, in one sentence: what is wrong, where, what to do."""

"""The small package behind the course. Rooms import only from floors below their own."""

import logging
import os
from pathlib import Path

os.environ.setdefault(
    "CUDA_VISIBLE_DEVICES", "0"
)  # the course trains on one GPU; set it to choose another
# on import bitsandbytes asks for a package that the course does without
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"
ROOT = Path(__file__).resolve().parent.parent  # the folder of the course


class CourseError(Exception):
    """Something the reader can put right. The message is one plain sentence: what is wrong, where, what to do."""

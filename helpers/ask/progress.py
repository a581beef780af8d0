"""A bar for a person who waits for answers."""

import os
from collections.abc import Iterable

from tqdm import tqdm


def progress(things: Iterable | None, title: str, total: int | None = None) -> tqdm:
    """A progress bar; silent in recorded runs and tests (`COURSE_QUIET=1`)."""
    silent = "COURSE_QUIET" in os.environ
    return tqdm(things, desc=title, total=total, leave=False, disable=silent)

"""A bar for a person who waits."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


class NotebookLine:
    """A line of a notebook's output that tqdm writes and at its end wipes, for its `file`.

    What goes to stderr stands there on red, and what goes to stdout is stored with the notebook.
    """

    encoding = "utf-8"  # tqdm draws with letters otherwise

    def __init__(self) -> None:
        self.shown: Any = None

    def write(self, text: str) -> None:
        """Put the text, without what moves a terminal's cursor, in the line's place."""
        from IPython.display import display

        bundle = {"text/plain": text.strip("\r\n ")}
        if self.shown:
            self.shown.update(bundle, raw=True)
        elif bundle["text/plain"]:
            self.shown = display(bundle, raw=True, display_id=True)

    def flush(self) -> None:
        """Nothing waits here."""


DELAY = 1.0  # seconds; who waits less sees none


def progress(things: Iterable | None, title: str, total: int | None = None, **options: Any) -> tqdm:
    """A progress bar that leaves nothing behind; silent in recorded runs (`COURSE_QUIET=1`).

    `options` are further ones of tqdm.
    """
    silent = "COURSE_QUIET" in os.environ
    out = NotebookLine() if in_notebook() else sys.stderr
    options |= {"disable": silent, "leave": False, "file": out, "delay": DELAY}
    return tqdm(things, title, total, **options)


def in_notebook() -> bool:
    """Does this code run in a notebook's kernel?"""
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")

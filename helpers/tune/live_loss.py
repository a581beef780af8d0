"""The loss curve, drawn in the cell while the Trainer runs."""

import time
from pathlib import Path
from typing import Any

from IPython.display import display
from transformers import TrainerCallback

from helpers.core.plots import new_axes, plt


class LiveLoss(TrainerCallback):
    """Redraws the loss in the cell while the Trainer runs, and saves it at the end to `path`.

    The title tells the last values and the tokens a second since the first log of this start
    (TRL counts the tokens). A resumed run shows its earlier piece too.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = path
        self.handle = None  # the picture in the notebook's cell
        self.logs_drawn = 0
        self.first_log: tuple[float, float] | None = None  # (tokens, time)
        self.speed = ""

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer has written a line of its log."""
        newest = state.log_history[-1] if state.log_history else {}
        if "loss" in newest and newest.get("num_tokens"):
            tokens, now = newest["num_tokens"], time.perf_counter()
            if self.first_log is None:
                self.first_log = (tokens, now)
            elif tokens > self.first_log[0]:
                rate = (tokens - self.first_log[0]) / (now - self.first_log[1])
                self.speed = f", {rate:.0f} tokens/s"
        if len(state.log_history) > self.logs_drawn:
            self._draw(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer is done: draw once more and save the picture."""
        self._draw(state, save=True)

    def _draw(self, state: Any, save: bool = False) -> None:
        self.logs_drawn = len(state.log_history)
        losses, held_out = _logged(state, "loss"), _logged(state, "eval_loss")
        if not losses:
            return
        figure, axes = new_axes()
        axes.plot(*zip(*losses, strict=True), marker="o", markersize=3, label="training")
        title = f"step {losses[-1][0]}: loss {losses[-1][1]:.3f}"
        if held_out:
            axes.plot(*zip(*held_out, strict=True), marker="s", markersize=4, label="held out")
            axes.legend()
            title += f", held out {held_out[-1][1]:.3f}"
        axes.set(xlim=(0, state.max_steps), ylim=(0, None), title=title + self.speed)
        axes.set_xlabel(f"optimizer step (of {state.max_steps})")
        axes.set_ylabel("loss on the answer's tokens")
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)  # in place, not one below the other
        if save and self.path:
            figure.savefig(self.path)
        plt.close(figure)  # or the cell would show it a second time


def _logged(state: Any, name: str) -> list[tuple[int, float]]:
    """(step, value) of every log line that has this value."""
    return [(log["step"], log[name]) for log in state.log_history if name in log]

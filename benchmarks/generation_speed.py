"""Rows a minute: the course's generation against the loop that tutorials show, on the same prompts.

    python -m benchmarks.generation_speed [--model embedded] [--rows 64] [--out file.json]

The loop calls `model.generate` for one prompt at a time, with the model as `from_pretrained` gives
it, and once more in float32. The ways take turns within one process, each after a short turn that
warms it up. The speed-up is the smaller of two ratios, rows a minute and tokens a second, so that
no way wins by writing less.
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from helpers import ROOT
from helpers.ask import answers, teachers
from helpers.choose import models
from helpers.core import rows, runtime
from helpers.core.files import Journal
from helpers.core.pilot import Pilot
from helpers.make import recipes

FIGURES = ("rows_per_minute", "tokens_per_second", "tokens_per_row")
Way = Callable[[Sequence[dict]], tuple[float, int]]  # requests to (seconds, tokens written)


def plain_loop(base: models.Base, **loading: Any) -> Way:
    """A function (requests) -> (seconds, tokens) that generates one prompt after the other."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    model: Any = AutoModelForCausalLM.from_pretrained(base.path, **loading)

    def run(requests: Sequence[dict]) -> tuple[float, int]:
        started, tokens = time.perf_counter(), 0
        for request in requests:
            text = answers.chat_prompt(tokenizer, request["messages"])
            inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
            out = model.generate(
                **inputs,
                max_new_tokens=request["max_tokens"],
                do_sample=True,
                temperature=request["temperature"],
                top_k=request["top_k"],
                top_p=request["top_p"],
            )
            new = out[0, inputs.input_ids.shape[1] :]
            tokenizer.decode(new, skip_special_tokens=True)
            tokens += len(new)
        return time.perf_counter() - started, tokens

    run.dtype = str(model.dtype).removeprefix("torch.")
    return run


def collected(engine: Any) -> Way:
    """The same through `teachers.collect`, journal included."""

    def run(requests: Sequence[dict]) -> tuple[float, int]:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            bill = teachers.collect(requests, engine, Journal(Path(folder) / "journal.jsonl"))
            return time.perf_counter() - started, bill.tokens_out

    return run


def measure(
    teacher: teachers.Teacher, requests: Sequence[dict], rounds: int = 3, tokens: int = 60
) -> dict[str, dict[str, float]]:
    """{way: {rows_per_minute, tokens_per_second, tokens_per_row}}, medians over the rounds.

    `requests` are chats without a grammar, answered with at most `tokens` tokens each.
    """
    import torch

    asked = [request | {"max_tokens": tokens} for request in requests]
    base, few = models.resolve(teacher.model), max(4, len(asked) // 16)
    measured: dict[str, list] = {}

    def turn(name: str, run: Way, count: int) -> None:
        run([request | {"max_tokens": 4} for request in asked[:2]])  # warms up
        # the slow ways get fewer of the same prompts, spread over all lengths
        seconds, written = run(asked[:: max(1, len(asked) // count)][:count])
        per_round = (60 * count / seconds, written / seconds, written / count)
        measured.setdefault(name, []).append(per_round)

    for _ in range(rounds):
        # one model at a time in memory: three of a larger one would not fit
        for loading in ({}, {"dtype": torch.float32}):
            loop = plain_loop(base, **loading)
            turn(f"plain loop, {loop.dtype}", loop, few)
            del loop
            gc.collect()
        with teachers.opened(teacher) as engine:
            turn("batches of 32", collected(engine), len(asked))
        del engine
        gc.collect()
    medians = {}
    for name, per_round in measured.items():
        values = [statistics.median(column) for column in zip(*per_round)]
        medians[name] = dict(zip(FIGURES, values))
    return medians


def speedup(measured: dict[str, dict[str, float]], loop: str | None = None) -> float:
    """Batches against a plain loop; without a name against the faster of the two."""
    if loop is None:
        return min(speedup(measured, name) for name in measured if name.startswith("plain loop"))
    slow, fast = measured[loop], measured["batches of 32"]
    return min(fast[name] / slow[name] for name in ("rows_per_minute", "tokens_per_second"))


def _main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    os.environ.setdefault("COURSE_QUIET", "1")
    runtime.quiet()
    pilot = Pilot.load(ROOT / "data/inbox")
    plans = recipes.attributes(pilot, list(rows.load(pilot).train), arguments.rows)
    teacher = teachers.Teacher(model=arguments.model, licence="Apache-2.0")
    requests = [plan["request"] for plan in plans]
    measured = measure(teacher, requests, arguments.rounds)
    ratio = speedup(measured)
    for name, figures in measured.items():
        print(
            f"{name:28}{figures['rows_per_minute']:8.1f} rows/min "
            f"{figures['tokens_per_second']:8.1f} tokens/s "
            f"{figures['tokens_per_row']:6.1f} tokens/row"
        )
    print(f"generation.speedup {ratio:.1f}")
    if arguments.out:
        result = {"ways": measured, "generation.speedup": ratio, "machine": runtime.machine()}
        Path(arguments.out).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    _main()

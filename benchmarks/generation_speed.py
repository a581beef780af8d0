"""Rows a minute: the course's generation against the loop that tutorials show, on the same prompts.

    python -m benchmarks.generation_speed [--rows 64] [--out file.json]

The loop calls `model.generate` for one prompt at a time, with the model as `from_pretrained` gives
it, and once more in float32. The ways take turns within one process; a first, short turn warms them
up. The speed-up is the smaller of two ratios, rows a minute and tokens a second, so that no way
wins by writing less.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from helpers import ROOT
from helpers.ask import teachers
from helpers.choose import models
from helpers.core import rows, runtime
from helpers.core.files import Journal
from helpers.core.pilot import Pilot
from helpers.make import recipes

SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 0}
FIGURES = ("rows_per_minute", "tokens_per_second", "tokens_per_row")


def plain_loop(base, **loading):
    """A function (requests) -> (seconds, tokens) that generates one prompt after the other."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    model = AutoModelForCausalLM.from_pretrained(base.path, **loading)

    def run(requests):
        started, tokens = time.perf_counter(), 0
        for request in requests:
            inputs = tokenizer(request["prompt"], return_tensors="pt")
            out = model.generate(**inputs, max_new_tokens=request["max_tokens"], **SAMPLING)
            new = out[0, inputs.input_ids.shape[1] :]
            tokenizer.decode(new, skip_special_tokens=True)
            tokens += len(new)
        return time.perf_counter() - started, tokens

    run.dtype = str(model.dtype).removeprefix("torch.")
    return run


def collected(engine):
    """The same through `teachers.collect`, journal included."""

    def run(requests):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            bill = teachers.collect(requests, engine, Journal(Path(folder) / "journal.jsonl"))
            return time.perf_counter() - started, bill.tokens_out

    return run


def measure(number, rounds=3, tokens=60):
    """{way: {rows_per_minute, tokens_per_second, tokens_per_row}}, medians over the rounds."""
    import torch

    pilot, base = Pilot.load(ROOT / "data/inbox"), models.resolve("embedded")
    requests = []
    for plan in recipes.lamini(pilot, list(rows.load(pilot).train), number):
        requests.append({**plan["request"], "max_tokens": tokens, "stop": None})
    few = max(4, number // 16)  # the slow ways get fewer of the same prompts
    as_given, exact = plain_loop(base), plain_loop(base, dtype=torch.float32)
    embedded = teachers.Teacher(licence="Apache-2.0")
    server = teachers.Teacher(address="embedded", licence="Apache-2.0", parallel=16)
    with teachers.opened(embedded) as in_process, teachers.opened(server) as llama:
        ways = {
            f"plain loop, {as_given.dtype}": (as_given, few),
            "plain loop, float32": (exact, few),
            "batches of 32": (collected(in_process), number),
            "llama.cpp, 16 in parallel": (collected(llama), number),
        }
        measured = {name: [] for name in ways}
        for run, _ in ways.values():
            run(requests[:2])
        for _ in range(rounds):
            for name, (run, count) in ways.items():
                seconds, written = run(requests[:count])
                per_round = (60 * count / seconds, written / seconds, written / count)
                measured[name].append(per_round)
    medians = {}
    for name, per_round in measured.items():
        values = [statistics.median(column) for column in zip(*per_round)]
        medians[name] = dict(zip(FIGURES, values))
    return medians


def speedup(measured, loop=None):
    """Batches against a plain loop (the one as `from_pretrained` gives it unless named)."""
    slow, fast = measured[loop or next(iter(measured))], measured["batches of 32"]
    return min(fast[name] / slow[name] for name in ("rows_per_minute", "tokens_per_second"))


def _main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    os.environ.setdefault("COURSE_QUIET", "1")
    runtime.quiet()
    measured = measure(arguments.rows, arguments.rounds)
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

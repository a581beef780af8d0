"""Rows a minute: the course's generation against the loop that tutorials show, side by side, same prompts and sampling.

    python -m benchmarks.generation_speed [--rows 64] [--out file.json]

The loop calls `model.generate` for one prompt at a time, with the model as `from_pretrained` gives it. Each way runs in turns
within one process (a first, short turn warms it up). The speed-up is the smaller of two ratios, rows a minute and tokens a second, so
that a way cannot win by writing less.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("COURSE_QUIET", "1")

from helpers import ROOT
from helpers.ask import teachers
from helpers.ask.engines import RowJournal
from helpers.choose import models
from helpers.core import rows, runtime
from helpers.core.pilot import Pilot
from helpers.make import recipes


def plain_loop(base, dtype=None):
    """A function (requests) -> (seconds, tokens) that generates one prompt after the other as tutorials do."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    model = AutoModelForCausalLM.from_pretrained(base.path, **({"dtype": dtype} if dtype else {}))

    def run(requests):
        started, tokens = time.perf_counter(), 0
        for request in requests:
            inputs = tokenizer(request["prompt"], return_tensors="pt")
            out = model.generate(
                **inputs,
                max_new_tokens=request["max_tokens"],
                do_sample=True,
                temperature=0.7,
                top_p=0.95,
                top_k=0,
            )
            tokenizer.decode(out[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
            tokens += out.shape[1] - inputs.input_ids.shape[1]
        return time.perf_counter() - started, tokens

    run.dtype = str(model.dtype).removeprefix("torch.")
    return run


def ours(engine):
    """The same through `teachers.collect`, journal included."""

    def run(requests):
        with tempfile.TemporaryDirectory() as place:
            started = time.perf_counter()
            found = teachers.collect(requests, engine, RowJournal(Path(place) / "journal.jsonl"))
            return time.perf_counter() - started, found.tokens_out

    return run


def measure(number, rounds=3, tokens=60):
    """{way: {rows_per_minute, tokens_per_second, tokens_per_row}}; medians over rounds in which the ways take turns."""
    import torch

    pilot, base = Pilot.load(ROOT / "data/inbox"), models.resolve("embedded")
    seeds = list(rows.load(pilot).train)
    requests = [
        {**plan["request"], "max_tokens": tokens, "stop": None}
        for plan in recipes.lamini(pilot, seeds, number)
    ]
    few = max(4, number // 16)  # the slow ways get fewer of the same prompts
    loop, single = plain_loop(base), plain_loop(base, torch.float32)
    embedded = teachers.Teacher(licence="Apache-2.0")
    server = teachers.Teacher(address="embedded", licence="Apache-2.0", parallel=16)
    with teachers.opened(embedded) as in_process, teachers.opened(server) as llama:
        in_process.size = 32
        ways = {
            f"plain loop, {loop.dtype}": (loop, few),
            "plain loop, float32": (single, few),
            "batches of 32": (ours(in_process), number),
            "llama.cpp, 16 in parallel": (ours(llama), number),
        }
        taken = {name: [] for name in ways}
        for run, _ in ways.values():
            run(requests[:2])
        for _ in range(rounds):
            for name, (run, count) in ways.items():
                seconds, tokens = run(requests[:count])
                taken[name].append((60 * count / seconds, tokens / seconds, tokens / count))
    return {
        name: dict(
            zip(
                ("rows_per_minute", "tokens_per_second", "tokens_per_row"),
                map(statistics.median, zip(*found)),
            )
        )
        for name, found in taken.items()
    }


def speedup(found):
    """The smaller of two ratios, rows a minute and tokens a second: batches against the plain loop as `from_pretrained` gives it."""
    slow, fast = next(iter(found.values())), found["batches of 32"]
    return min(fast[k] / slow[k] for k in ("rows_per_minute", "tokens_per_second"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    runtime.quiet()
    found = measure(arguments.rows, arguments.rounds)
    ratio = speedup(found)
    for name, figures in found.items():
        print(
            f"{name:28}{figures['rows_per_minute']:8.1f} rows/min {figures['tokens_per_second']:8.1f} tokens/s "
            f"{figures['tokens_per_row']:6.1f} tokens/row"
        )
    print(f"generation.speedup {ratio:.1f}")
    if arguments.out:
        Path(arguments.out).write_text(
            json.dumps(
                {"ways": found, "generation.speedup": ratio, "machine": runtime.machine()}, indent=1
            )
        )


if __name__ == "__main__":
    main()

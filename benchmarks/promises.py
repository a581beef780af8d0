"""Two promises of the README, measured: memory of each chapter, speed beside a busy process.

    python -m benchmarks.promises --slowdown
    python -m benchmarks.promises --peaks [--chapters 00 02] [--float32] [--beside]

Both write into data/reference/results/robust.json. A chapter runs whole, in profile cpu, from
nothing but data/reference/. Its memory does not depend on what runs beside, its minutes do.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.everywhere import RESULTS, add_figures
from helpers import ROOT
from helpers.core import runtime

ROBUST = RESULTS.with_name("robust.json")
SPINNING = "300000"  # GNU OpenMP's own default, in turns of its waiting loop
BUSY = """
import os, torch
torch.set_num_threads(2)
a, parent = torch.randn(600, 600), os.getppid()
while os.getppid() == parent:  # it ends with whoever started it, also where that was killed
    a @ a
"""


# Memory of a chapter --------------------------------------------------------------------------


class ChildrenPeak:
    """The largest memory of all processes under this one within a block: `.top`, in bytes.

    The system's resident set size, with the libraries that are mapped into each process.
    """

    def __init__(self, every: float = 0.1) -> None:
        self.every, self.top = every, 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self.stop.wait(self.every):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it has just ended
                    continue
            self.top = max(self.top, total)

    def __enter__(self) -> "ChildrenPeak":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def peak_of_chapter(
    notebook: Path, environment: Mapping[str, str], say: Any = print
) -> tuple[int, float]:
    """(peak in bytes, minutes) of a notebook in a kernel of its own, with `environment` added."""
    from helpers import course

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs, ChildrenPeak() as peak:

        def told(line: str) -> None:
            say(f"{line}  {peak.top / 2**30:5.2f} GiB")

        started = time.perf_counter()
        quiet = {"COURSE_RUNS": runs, "COURSE_QUIET": "1"}
        course.run_chapter(notebook, told, {**os.environ, **quiet, **environment})
        minutes = (time.perf_counter() - started) / 60
    return peak.top, minutes


def record_peaks(numbers: list[str], float32: bool, beside: bool = False) -> None:
    """Run the chapters one after another; each one's two figures are written as it ends.

    With `beside` other work runs on the machine, and the minutes are left out.
    """
    from helpers import course

    environment = {"COURSE_PROFILE": "cpu", "COURSE_PILOT": str(ROOT / "data/inbox")}
    if float32:
        environment["COURSE_FLOAT32"] = "1"
    for number, path in course.chapters():
        if number not in numbers:
            continue
        top, minutes = peak_of_chapter(path, environment)
        dtype = "float32" if float32 else "bf16"
        how = f"whole chapter, profile cpu, {dtype}, once"
        figures: list[dict] = [
            {"name": f"peak_bytes.{number}.{dtype}", "value": top, "unit": "bytes"},
            {"name": f"minutes.{number}.{dtype}", "value": minutes, "unit": "minutes"},
        ]
        figures[0]["how"] = f"{how}: largest resident memory of the kernel and its children"
        figures[1]["how"] = how
        settings = {"seconds": 60 * minutes, "threads": os.environ.get("OMP_NUM_THREADS", "all")}
        add_figures(f"peaks.{number}.{dtype}", figures[: 1 if beside else 2], settings, ROBUST)
        print(f"{number} {dtype}: {top / 2**30:.2f} GiB, {minutes:.1f} minutes", flush=True)


# Beside a busy process ------------------------------------------------------------------------


@contextmanager
def busy_process() -> Iterator[None]:
    """Within the block another process multiplies matrices on two threads, as torch does alone."""
    own = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
    plain = {name: value for name, value in os.environ.items() if name not in own}
    process = subprocess.Popen([sys.executable, "-c", BUSY], env=plain)
    try:
        while psutil.Process(process.pid).cpu_times().user < 4:  # torch is loaded, the loop runs
            time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


class Work:
    """Training steps and answers of the embedded model, as chapter 00 does them."""

    def __init__(self, folder: Path, steps: int, rows: int) -> None:
        from transformers import AutoTokenizer

        from benchmarks.training_speed import benchmark_rows
        from helpers.choose import models
        from helpers.core.pilot import Pilot
        from helpers.core.rows import load
        from helpers.tune import training

        self.pilot, self.folder, self.turn = Pilot.load(ROOT / "data/inbox"), folder, 0
        here, base = runtime.detect("cpu"), models.resolve(self.pilot.base_model)
        self.rows = list(load(self.pilot).train)[:rows]
        self.tokenizer = AutoTokenizer.from_pretrained(base.path)
        self.trainer = training.build_trainer(
            training.load_base(base.path, here, four_bit=True),
            self.tokenizer,
            benchmark_rows(self.pilot, base, 24),
            here,
            folder,
            training.lora_config(),
            packing=True,
            max_length=256,
            per_device_train_batch_size=1,
            max_steps=steps,
            learning_rate=1e-3,
        )
        self.seconds()  # the first time loads what later ones find

    def seconds(self) -> dict[str, float]:
        """{"training", "answering"}: how long each takes now."""
        started = time.perf_counter()
        self.trainer.train()
        return {"training": time.perf_counter() - started, "answering": self.answering()}

    def answering(self) -> float:
        """How long the answers take now."""
        from helpers.ask import answers

        self.turn += 1
        at, started = self.folder / f"answers{self.turn}", time.perf_counter()
        answers.generate(self.trainer.model, self.tokenizer, self.pilot, self.rows, at)
        return time.perf_counter() - started


def measure_slowdown(rounds: int = 3, steps: int = 8, rows: int = 16) -> dict[str, list[float]]:
    """{"training", "answering", "both"}: seconds beside a busy process over seconds alone.

    A ratio for each round; in a round the two ways follow each other.
    """
    ratios: dict[str, list[float]] = {"training": [], "answering": [], "both": []}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        work = Work(Path(folder), steps, rows)
        for _ in range(rounds):
            alone = work.seconds()
            with busy_process():
                beside = work.seconds()
            for name in alone:
                ratios[name].append(beside[name] / alone[name])
            ratios["both"].append(sum(beside.values()) / sum(alone.values()))
            print({name: round(values[-1], 2) for name, values in ratios.items()}, flush=True)
    return ratios


def spinning_slowdown(limit: float = 150) -> tuple[float, str]:
    """(seconds beside / alone of two answers, a word), threads waiting as OpenMP has them.

    Stopped after `limit` seconds: then the ratio is the least that it can be, and the word says so.
    """
    command = [sys.executable, "-m", "benchmarks.promises", "--spinning"]
    own = {**os.environ, "GOMP_SPINCOUNT": SPINNING}
    with subprocess.Popen(
        command, cwd=ROOT, env=own, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        alone = float(process.stdout.readline())
        with busy_process():
            stop = threading.Timer(limit, process.kill)
            stop.start()
            process.stdin.write("now\n")
            process.stdin.flush()
            beside = process.stdout.readline()  # empty once it is killed
            stop.cancel()
    if beside:
        return float(beside) / alone, "two answers"
    return limit / alone, f"at least: two answers were stopped after {limit:.0f} s"


def _answers_when_asked() -> None:
    """Seconds of two answers alone, and of the same two after a line was read."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        work = Work(Path(folder), steps=1, rows=2)
        print(work.answering(), flush=True)
        sys.stdin.readline()
        print(work.answering(), flush=True)


def record_slowdown(rounds: int, spinning: bool = True) -> None:
    """Measure as the course waits and, once, as OpenMP does by default; write both."""
    started = time.perf_counter()
    ratios = measure_slowdown(rounds)
    how = "seconds beside a process of two threads / alone"
    figures: list[dict] = []
    for name, values in ratios.items():
        figure = {"name": f"slowdown.beside_busy.{name}", "value": median(values), "unit": "ratio"}
        figure |= {"low": min(values), "high": max(values), "n": len(values)}
        words = f"{how}, training steps and answers in turns: median, lowest and highest round"
        figures.append(figure | {"how": words})
    figures[-1]["name"] = "slowdown.beside_busy"  # both together is what is promised
    add_figures("slowdown", figures, {"seconds": time.perf_counter() - started}, ROBUST)
    if spinning:
        value, word = spinning_slowdown()
        figure = {"name": "slowdown.beside_busy.spinning", "value": value, "unit": "ratio", "n": 1}
        figure["how"] = f"{how}, OpenMP waiting as it does by default; {word}"
        figures.append(figure)
        add_figures("slowdown.spinning", [figure], {}, ROBUST)
    for figure in figures:
        print(f"{figure['name']:36}{figure['value']:6.2f}")


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promises")
    parser.add_argument("--slowdown", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spinning", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peaks", action="store_true")
    parser.add_argument("--chapters", nargs="+", default=["00", "08", "03", "05", "04"])
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--beside", action="store_true", help="other work runs: no minutes")
    options = parser.parse_args()
    runtime.quiet()
    if options.spinning:
        _answers_when_asked()
    if options.slowdown:
        record_slowdown(options.rounds)
    if options.peaks:
        record_peaks(options.chapters, options.float32, options.beside)


if __name__ == "__main__":
    _main()

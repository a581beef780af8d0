"""How fast a file is answered, and in how much memory: the streaming alone, and the real system.

    python -m benchmarks.answering [--rows 100000] [--real 64] [--pilot FOLDER]

The streaming is measured with a stand-in that answers at once, in a process of its own, on a short
file and on one of `--rows` rows: memory must not grow with the file. Then the pilot's own system
answers `--real` of its test rows (0 leaves that out). Prints the figures; writes none down.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers import ROOT
from helpers.ask.file_answers import Answer, answer_file
from helpers.choose.memory import PeakMemory
from helpers.core.pilot import Pilot

SHORT = 2_000  # rows of the file that the long one is compared with


class StandIn:
    """Answers at once, the same for every message: what is left is the reading and writing."""

    identity = "stand-in"

    def __init__(self, pilot: Pilot) -> None:
        self.pilot = pilot
        fields = list(pilot.fields)
        values = dict.fromkeys(fields, "some value")
        self.one = Answer(values, dict.fromkeys(fields, 0.987), dict.fromkeys(fields, "way"), False)

    def answers(self, messages: Sequence[str]) -> list[Answer]:
        """The one answer, for each message."""
        return [self.one] * len(messages)


def streamed(rows: int, pilot: Path) -> dict[str, Any]:
    """{"rows", "seconds", "bytes"} of so many short rows in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.answering", "--one", str(rows)]
    done = subprocess.run(
        [*command, "--pilot", str(pilot)],
        cwd=ROOT,
        env={**os.environ, "COURSE_QUIET": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def streamed_here(rows: int, pilot: Pilot) -> dict[str, Any]:
    """The measurement behind `streamed`, in this process: `bytes` of it at its largest."""
    with tempfile.TemporaryDirectory() as place:
        mail, out = Path(place) / "mail.csv", Path(place) / "out.csv"
        with open(mail, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", pilot.text])
            for n in range(rows):
                writer.writerow(
                    [n, f"Where is my order PO-{n % 10_000:04}? It was due on day {n}."]
                )
        started = time.perf_counter()
        with PeakMemory(False, every=0.02) as peak:
            tally = answer_file(mail, out, StandIn(pilot))
        seconds = time.perf_counter() - started
    return {"rows": tally.rows, "seconds": seconds, "bytes": peak.top}


def real(rows: int, pilot: Pilot) -> dict[str, Any]:
    """{"rows", "open_seconds", "seconds"} of the pilot's system on its first test rows."""
    from helpers.core import runtime

    runtime.quiet()
    from helpers import at_work
    from helpers.core import rows as labelled

    here = runtime.detect()
    started = time.perf_counter()
    reader = at_work.open_system(pilot, here)
    opened = time.perf_counter()
    texts = labelled.load(pilot, here.profile).test[pilot.text][:rows]
    with tempfile.TemporaryDirectory() as place:
        mail, out = Path(place) / "mail.jsonl", Path(place) / "out.csv"
        lines = [json.dumps({pilot.text: text}) for text in texts]
        mail.write_text("\n".join(lines), encoding="utf-8")
        begun = time.perf_counter()
        tally = answer_file(mail, out, reader)
    seconds = time.perf_counter() - begun
    return {"rows": tally.rows, "open_seconds": opened - started, "seconds": seconds}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answering", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--real", type=int, default=64)
    parser.add_argument("--pilot", default=str(ROOT / "data/inbox"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    pilot = Pilot.load(options.pilot)
    if options.one:
        print(json.dumps(streamed_here(options.one, pilot)))
        return 0
    for number in (SHORT, options.rows):
        one = streamed(number, pilot.folder.resolve())
        speed, megabytes = one["rows"] / one["seconds"], one["bytes"] / 1e6
        print(f"stand-in: {one['rows']:,} rows, {speed:,.0f} a second, at most {megabytes:.0f} MB")
    if options.real:
        one = real(options.real, pilot)
        speed = one["rows"] / one["seconds"]
        print(
            f"system: {one['rows']} rows, {speed:.2f} a second, {one['open_seconds']:.0f} s to open"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

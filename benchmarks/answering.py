"""How fast a file is answered, and in how much memory: the streaming alone, and the real system.

    python -m benchmarks.answering [--rows 100000] [--real 60] [--pilot FOLDER] [--record]

The streaming is measured with a stand-in that answers at once, in a process of its own, on a short
file and on one of `--rows` rows, CSV and workbook: the memory for a CSV must not grow with it. Then
the pilot's own system answers `--real` of its test rows (0 leaves that out). Prints the figures;
`--record` writes them into data/reference/results/answering.json.
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

import xlsxwriter

from benchmarks.everywhere import add_figures
from helpers import ROOT
from helpers.ask.file_answers import Answer, answer_file
from helpers.choose.memory import PeakMemory
from helpers.core.pilot import Pilot

SHORT = 2_000  # rows of the file that the long one is compared with
KINDS = ("csv", "xlsx")
RESULTS = ROOT / "data/reference/results/answering.json"


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


def streamed(rows: int, pilot: Path, kind: str = "csv") -> dict[str, Any]:
    """{"rows", "seconds", "bytes"} of so many short rows in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.answering", "--one", str(rows), "--kind", kind]
    done = subprocess.run(
        [*command, "--pilot", str(pilot)],
        cwd=ROOT,
        env={**os.environ, "COURSE_QUIET": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def streamed_here(rows: int, pilot: Pilot, kind: str = "csv") -> dict[str, Any]:
    """The measurement behind `streamed`, in this process: `bytes` of it at its largest."""
    with tempfile.TemporaryDirectory() as place:
        mail, out = Path(place) / f"mail.{kind}", Path(place) / f"out.{kind}"
        write_mail(mail, rows, pilot)
        started = time.perf_counter()
        with PeakMemory(False, every=0.02) as peak:
            tally = answer_file(mail, out, StandIn(pilot))
        seconds = time.perf_counter() - started
    return {"rows": tally.rows, "seconds": seconds, "bytes": peak.top}


def write_mail(path: Path, rows: int, pilot: Pilot) -> None:
    """So many short messages, no two alike, as CSV or as a workbook."""
    lines: list[list] = [["id", pilot.text]]
    for n in range(rows):
        lines.append([n, f"Where is my order PO-{n % 10_000:04}? It was due on day {n}."])
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)
        return
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet()
        for n, cells in enumerate(lines):
            sheet.write_row(n, 0, cells)


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


def streaming_figures(rows: int, pilot: Path) -> list[dict[str, Any]]:
    """Rows a second and peak memory with the stand-in, for each kind, short and long."""
    figures = []
    for kind in KINDS:
        for size, number in (("short", SHORT), ("long", rows)):
            one = streamed(number, pilot, kind)
            how = f"{number:,} short rows, {kind} to {kind}, a stand-in that answers at once"
            for name, value, unit in (
                ("rows_per_second", one["rows"] / one["seconds"], "per second"),
                ("peak_mb", one["bytes"] / 1e6, "MB"),
            ):
                figure = {"name": f"stand_in.{kind}.{size}.{name}", "value": value, "unit": unit}
                figures.append(figure | {"n": one["rows"], "how": how})
    return figures


def system_figures(rows: int, pilot: Pilot) -> list[dict[str, Any]]:
    """Rows a second of the pilot's own system, and the seconds until it can be asked."""
    one = real(rows, pilot)
    how = f"the system of {pilot.name} on its first test rows, jsonl to csv"
    speed = {"name": "system.rows_per_second", "value": one["rows"] / one["seconds"]}
    opening = {"name": "system.open_seconds", "value": one["open_seconds"], "unit": "s"}
    figures = [speed | {"unit": "per second"}, opening]
    return [figure | {"n": one["rows"], "how": how} for figure in figures]


def main() -> int:
    """Measure, print, and write down where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answering", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--real", type=int, default=60)
    parser.add_argument("--pilot", default=str(ROOT / "data/inbox"))
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kind", default="csv", help=argparse.SUPPRESS)
    options = parser.parse_args()
    pilot = Pilot.load(options.pilot)
    if options.one:
        print(json.dumps(streamed_here(options.one, pilot, options.kind)))
        return 0
    started = time.perf_counter()
    figures = streaming_figures(options.rows, pilot.folder.resolve())
    if options.real:
        figures += system_figures(options.real, pilot)
    for figure in figures:
        print(f"{figure['name']:36}{figure['value']:10,.2f} {figure['unit']}")
    if options.record:
        seconds = round(time.perf_counter() - started, 1)
        # what else this machine had to do: other work makes every figure slower
        load = round(os.getloadavg()[0], 2)
        add_figures("answering", figures, {"seconds": seconds, "load_average": load}, RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())

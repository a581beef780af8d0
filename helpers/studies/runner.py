"""The long studies behind the chapters: `make study`, or `python -m helpers.studies 04`. Hours on two cores; a kill loses one student.

A study is a module studies_NN with `prepare` (what all students share), `students` (train what is missing) and `report` (the figures).
On a CPU two processes with one thread each train 1.4 times as many students an hour as one with two.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers import ROOT, CourseError
from helpers.core import files, rows, runs, runtime
from helpers.core.pilot import Pilot
from helpers.studies import curation_study, qlora_study

STUDIES = {"04": curation_study, "05": qlora_study}
KNOWN = tuple(STUDIES)


def start(number, pilot, profile=None):
    """(module, Run, rows) of a study; its files lie in runs/<pilot>/studies/NN/."""
    if number not in KNOWN:
        raise CourseError(f"There is no study {number!r}; there are {', '.join(KNOWN)}.")
    here = runtime.detect(profile)
    return STUDIES[number], runs.Run(pilot, f"studies/{number}", here), rows.load(pilot)


def work(number, pilot, part, parts, profile=None, say=print):
    """Make every `parts`-th student, starting with `part`; with parts=1 all of them."""
    module, run, data = start(number, pilot, profile)
    module.train_students(pilot, data, run, say, part, parts)


def finish(number, pilot, profile=None):
    """Collect the finished students into results.json; returns its path. Raises CourseError when one is missing."""
    module, run, data = start(number, pilot, profile)
    settings = module.report(pilot, data, run)
    path = run.finish(settings)
    result = json.loads(path.read_text()) | {"chapter": number}
    seconds = [
        json.loads(line)["seconds"]
        for file in run.folder.rglob("cells.jsonl")
        for line in file.read_text().splitlines()
        if line
    ]
    files.write_text(path, json.dumps(result | {"seconds": round(sum(seconds), 1)}, indent=1))
    return path


def record(number, run_folder, pilot):
    """Copy results.json to data/reference/results/NN_study.json and the small files that the study keeps beside the chapter's."""
    shutil.copy(run_folder / "results.json", ROOT / f"data/reference/results/{number}_study.json")
    place = ROOT / "data/reference" / pilot.name / number
    place.mkdir(parents=True, exist_ok=True)
    for name in json.loads((run_folder / "manifest.json").read_text()):
        if (run_folder / name).is_file() and (run_folder / name).stat().st_size < 1_500_000:
            shutil.copy(run_folder / name, place / name)


def main(arguments=None):
    ask = argparse.ArgumentParser(prog="python -m helpers.studies", description=__doc__)
    ask.add_argument("numbers", nargs="*", default=list(KNOWN), help="chapters, for example 04")
    ask.add_argument("--pilot", default=os.environ.get("COURSE_PILOT") or str(ROOT / "data/inbox"))
    ask.add_argument("--record", action="store_true", help="make this the reference")
    ask.add_argument("--part", type=int, help=argparse.SUPPRESS)
    options = ask.parse_args(arguments)
    try:
        pilot = Pilot.load(Path(options.pilot).resolve())
        runtime.quiet()
        cpu = runtime.detect().device == "cpu"
        parts = 2 if cpu and (os.cpu_count() or 1) > 1 else 1
        for number in options.numbers or KNOWN:
            if options.part is not None:
                work(number, pilot, options.part, parts)
                continue
            module, run, data = start(number, pilot)
            module.prepare(pilot, data, run)
            command = [
                sys.executable,
                "-m",
                "helpers.studies",
                number,
                "--pilot",
                str(pilot.folder),
            ]
            threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if parts > 1 else {}
            jobs = [
                subprocess.Popen(
                    [*command, "--part", str(i)], cwd=ROOT, env={**os.environ, **threads}
                )
                for i in range(parts)
            ]
            try:
                failed = [job.wait() for job in jobs]
            except KeyboardInterrupt:
                [job.terminate() for job in jobs]
                raise
            if any(failed):
                raise CourseError(
                    f"Study {number} stopped; finished students are kept, the same command goes on from there."
                )
            path = finish(number, pilot)
            if options.record:
                record(number, path.parent, pilot)
            print(
                f"Study {number}: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}"
            )
    except CourseError as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nStopped. Finished students are kept; the same command goes on from there.",
            file=sys.stderr,
        )
        return 130
    return 0

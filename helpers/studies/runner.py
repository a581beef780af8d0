"""The long studies behind the chapters: `make study`, or `python -m helpers.studies 04`.

Hours on two cores; a kill loses the students at work, and the same command goes on from there.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from helpers import ROOT, CourseError
from helpers.core import rows, runtime
from helpers.core.files import write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.studies import (
    curation_study,
    episodes_figures,
    episodes_study,
    methods_study,
    pilots_study,
    qlora_study,
    recipe_study,
    shipping_study,
)
from helpers.tune.students import train_students

# 06 asks a model that is fetched, 11 reads files that are
STUDIES = ("04", "05", "recipe", "methods", "06", "09", "11")


def run_study(
    number: str, pilot: Pilot, profile: str | None = None, n_jobs: int = 1, say: Callable = print
) -> Path:
    """Train every missing student and enter the figures; returns the path of results.json.

    The study's files lie in runs/<pilot>/studies/NN/. Raises CourseError for an unknown study.
    """
    if number not in STUDIES:
        raise CourseError(f"There is no study {number!r}; there are {', '.join(STUDIES)}.")
    run = Run(pilot, f"studies/{number}", runtime.detect(profile))
    data = rows.load(pilot)
    if number == "recipe":
        jobs = recipe_study.recipe_jobs(pilot, data, run)
        cells = recipe_study.train_all(pilot, data, run, jobs, say, n_jobs)
    elif number == "methods":
        cells = methods_study.train_methods(pilot, data, run, say, n_jobs)
    elif number == "06":
        cells = episodes_study.play_all(run, say, n_jobs)
        episodes_study.keep_recordings(run)
    elif number == "09":
        cells = shipping_study.ship_all(pilot, data, run, say)
    elif number == "11":
        cells = pilots_study.measure_pilots(run, say)
    else:
        prepare_jobs = curation_study.curation_jobs if number == "04" else qlora_study.qlora_jobs
        jobs = prepare_jobs(pilot, data, run, say)
        cells = train_students(pilot, jobs, run.runtime, run.path("students"), say, n_jobs)
    # every answer, right or wrong
    write_text(run.path("study_cells.jsonl"), "".join(json.dumps(cell) + "\n" for cell in cells))
    run.keep("study_cells.jsonl", {"students": len(cells)})
    if number == "04":
        figures = curation_study.curation_figures(pilot, data, cells)
        settings = curation_study.curation_settings(data, jobs)
    elif number == "recipe":
        figures = recipe_study.recipe_figures(pilot, cells)
        settings = recipe_study.recipe_settings(pilot, data, run)
    elif number == "06":
        timed = json.loads(run.path("timed.json").read_text(encoding="utf-8"))
        figures = episodes_figures.play_figures(cells, timed)
        settings = episodes_figures.play_settings(cells)
    elif number == "09":
        figures = shipping_study.ship_figures(cells)
        settings = shipping_study.ship_settings(cells)
    elif number == "11":
        figures = pilots_study.pilot_figures(cells)
        settings = pilots_study.pilot_settings(cells)
    elif number == "methods":
        figures = methods_study.method_figures(pilot, cells)
        settings = methods_study.method_settings(pilot, cells)
    else:
        figures = qlora_study.qlora_figures(cells, qlora_study.method_peaks(pilot, run))
        settings = qlora_study.qlora_settings(pilot, data, run, cells)
    for figure in figures:
        run.figure(**vars(figure))
    path = run.finish(settings)
    # the students' own seconds: they worked side by side, over several starts
    result = json.loads(path.read_text(encoding="utf-8"))
    result |= {
        "chapter": number,
        "seconds": round(sum(cell.get("seconds") or 0 for cell in cells), 1),
    }
    write_text(path, json.dumps(result, indent=1))
    return path


def record_study(number: str, run_folder: Path, pilot: Pilot) -> None:
    """Copy results.json to data/reference/results and the study's small files beside it."""
    shutil.copy(run_folder / "results.json", ROOT / f"data/reference/results/{number}_study.json")
    # what chapter 08 needs of the recipe's students lies where a run of one's own has it
    within = number if number.isdigit() else f"studies/{number}"
    place = ROOT / "data/reference" / pilot.name / within
    place.mkdir(parents=True, exist_ok=True)
    for name in json.loads((run_folder / "manifest.json").read_text()):
        if (run_folder / name).is_file() and (run_folder / name).stat().st_size < 2_500_000:
            shutil.copy(run_folder / name, place / name)


def study_command(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.studies", description=__doc__)
    parser.add_argument("numbers", nargs="*", help="chapters, for example 04")
    folder = os.environ.get("COURSE_PILOT") or str(ROOT / "data/inbox")
    parser.add_argument("--pilot", default=folder)
    parser.add_argument("--record", action="store_true", help="make this the reference")
    words = "the students of `recipe` read the new rows: the one look, after the bar is frozen"
    parser.add_argument("--look", action="store_true", help=words)
    options = parser.parse_args(arguments)
    try:
        pilot = Pilot.load(Path(options.pilot).resolve())
        runtime.quiet()
        # a GPU trains one student at a time
        side_by_side = runtime.detect().device == "cpu" and (os.cpu_count() or 1) > 1
        for number in options.numbers or STUDIES:
            path = run_study(number, pilot, n_jobs=2 if side_by_side else 1)
            if options.record:
                record_study(number, path.parent, pilot)
            if options.look and number == "recipe":
                run = Run(pilot, "studies/recipe", runtime.detect())
                looked = recipe_study.read_new_rows(pilot, rows.load(pilot), run)
                if options.record:
                    place = ROOT / "data/reference" / pilot.name / "08"
                    shutil.copy(looked, place / looked.name)
            print(f"Study {number}: {os.path.relpath(path, ROOT)}")
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

"""Run the chapters in order, a progress line each, and end with the report: `python -m helpers.course`."""

import argparse
import json
import logging
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from helpers import ROOT, CourseError
from helpers.agree import sealed
from helpers.core import pages, rows
from helpers.core.pilot import Pilot
from helpers.core.files import write_text
from helpers.core.runs import clear
from helpers.core.runtime import PROFILES


def chapters():
    """The notebooks in order: [(number, path)]."""
    return [(p.name[:2], p) for p in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]


def run_chapter(path, say, environment):
    """Execute a notebook from top to bottom with these environment variables; returns the executed notebook.

    Raises CourseError with the failing cell's words.
    """
    notebook = nbformat.read(path, as_version=4)
    total, started = sum(c.cell_type == "code" for c in notebook.cells), time.perf_counter()
    done = 0

    def after(cell, cell_index, **_):
        nonlocal done
        if cell.cell_type == "code":
            done += 1
            say(f"{path.stem:20} cell {done:2}/{total}  {time.perf_counter() - started:5.0f} s")

    for name in (
        "asyncio",
        "tornado.application",
        "traitlets",
    ):  # their tracebacks after Ctrl-C say nothing to a reader
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        on_cell_executed=after,
        extra_arguments=["--log-level=CRITICAL"],
        resources={"metadata": {"path": str(path.parent)}},
    )

    def interrupted():  # nbclient answers Ctrl-C by putting its kernel away, and then trips over the missing kernel in several ways
        return getattr(client, "_async_cleanup_kernel_future", None) is not None

    try:
        client.execute(env=environment)
    except CellExecutionError as problem:
        if interrupted():
            raise KeyboardInterrupt from None
        words = re.sub(r"\x1b\[[0-9;]*m", "", problem.evalue or str(problem))
        raise CourseError(
            f"{path.stem} stopped: {words}"
            if problem.ename == "CourseError"
            else f"{path.stem} stopped with {problem.ename}: {words}"
        ) from None
    except AssertionError:
        if interrupted() or client.km is None:
            raise KeyboardInterrupt from None
        raise
    except DeadKernelError:
        if interrupted():
            raise KeyboardInterrupt from None
        raise CourseError(
            f"{path.stem}: the kernel died, most often because memory ran out; close other programs and run the "
            "same command again: finished work is kept."
        ) from None
    return notebook


def tidy(notebook):
    """A notebook as it is stored: no stderr, no widget state, no timings in the metadata."""
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def record(number, path, notebook, folder):
    """Make this run the reference: stored outputs, data/reference/results/NN.json and the answers."""
    results = ROOT / "data/reference/results"
    results.mkdir(parents=True, exist_ok=True)
    found = json.loads((folder / number / "results.json").read_text())
    bundled = found["pilot"] == "inbox"
    if bundled:
        nbformat.write(tidy(notebook), path)
        for other in sorted(
            results.glob(f"{number}_*.json")
        ):  # other pilots of the chapter lend their label figures
            lent = json.loads(other.read_text())
            found["figures"] += [
                {
                    **f,
                    "name": f["name"].replace(f["name"].split(".")[0], lent["pilot"], 1),
                    "how": f"{f['how']}, pilot {lent['pilot']}",
                }
                for f in lent["figures"]
                if re.fullmatch(r"\w+\.label\.\w+", f["name"])
            ]
    name = number if bundled else f"{number}_{found['pilot']}"
    write_text(results / f"{name}.json", json.dumps(found, indent=1) + "\n")
    answers = ROOT / "data/reference" / found["pilot"] / number / "answers"
    shutil.rmtree(answers, ignore_errors=True)
    answers.parent.mkdir(parents=True, exist_ok=True)
    if (folder / number / "answers").is_dir():  # a chapter without a model has none
        shutil.copytree(folder / number / "answers", answers)
    manifest = folder / number / "manifest.json"
    for name in (
        json.loads(manifest.read_text()) if manifest.is_file() else ()
    ):  # small files that the chapter keeps, for later chapters
        kept = folder / number / name
        if kept.is_file() and kept.stat().st_size < 1_000_000:
            shutil.copy(kept, answers.parent)
    for page in folder.glob("bar*") if number == "02" else ():  # the frozen bar and its ledger
        shutil.copy(page, answers.parent)


def readme_table():
    """The README's map of chapters, from the notebooks' first cells and data/reference/results/."""
    lines = ["| chapter | question | minutes | measured |", "|---|---|---|---|"]
    for number, path in chapters():
        head = nbformat.read(path, as_version=4).cells[0].source
        title = re.search(r"^# (.+)$", head, re.M).group(1)
        question = (
            re.search(r"\*\*The question\.\*\* (.+?)(?:\n\n|$)", head, re.S)
            .group(1)
            .replace("\n", " ")
        )
        stored = ROOT / "data/reference/results" / f"{number}.json"
        minutes = measured = ""
        if stored.is_file():
            result = json.loads(stored.read_text())
            minutes, measured = (
                f"{result['seconds'] / 60:.0f}",
                "; ".join(result["settings"].get("lead", [])),
            )
        lines.append(f"| [{title}](notebooks/{path.name}) | {question} | {minutes} | {measured} |")
    return "\n".join(lines)


def write_readme():
    """Refresh the generated part of the README."""
    path = ROOT / "README.md"
    text = re.sub(
        r"(<!-- chapters -->\n).*?(<!-- /chapters -->)",
        lambda m: m[1] + readme_table() + "\n" + m[2],
        path.read_text(encoding="utf-8"),
        flags=re.S,
    )
    write_text(path, text)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m helpers.course", description=__doc__)
    parser.add_argument(
        "--pilot",
        default=os.environ.get("COURSE_PILOT") or str(ROOT / "data/inbox"),
        help="a folder with a pilot.yaml",
    )
    parser.add_argument(
        "--profile",
        choices=list(PROFILES),
        help="smoke, cpu, t4 or gpu; chosen by the machine when left out",
    )
    parser.add_argument("--only", help="one chapter number, for example 00")
    parser.add_argument(
        "--fresh", action="store_true", help="begin from nothing instead of going on"
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="make this run the reference (stored outputs, results)",
    )
    parser.add_argument("--readme", action="store_true", help="only refresh the README's table")
    options = parser.parse_args(arguments)
    if options.readme:
        write_readme()
        return 0
    live = sys.stdout.isatty()

    def say(line, end=False):
        print(
            f"\r{line:76}" if live else line, end="" if live and not end else "\n", flush=True
        ) if live or end else None

    try:
        pilot = Pilot.load(Path(options.pilot).resolve())
        if pilot.name == "inbox" and pilot.folder != ROOT / "data/inbox":
            raise CourseError(
                "pilot.yaml: the name 'inbox' belongs to the bundled pilot; give yours a name of its own."
            )
        notes = rows.load(
            pilot
        ).notes  # mistakes in the rows are said at once, before a kernel starts
        environment = {**os.environ, "COURSE_PILOT": str(pilot.folder), "COURSE_QUIET": "1"}
        if options.profile:
            environment["COURSE_PROFILE"] = options.profile
        runs = Path(os.environ.get("COURSE_RUNS") or ROOT / "runs")
        smoke = environment.get("COURSE_PROFILE") == "smoke"
        folder = runs / pilot.name / "smoke" if smoke else runs / pilot.name
        chosen = [(n, p) for n, p in chapters() if options.only in (None, n)]
        if not chosen:
            raise CourseError(
                f"There is no chapter {options.only!r}; there are {', '.join(n for n, _ in chapters())}."
            )
        for number, path in chosen:
            profile = PROFILES.get(options.profile)
            if (
                number == "00"
                and pilot.name not in ("inbox", "clinc150")
                and sealed.first_sealed(sealed.places(pilot, profile)) is None
            ):
                print(
                    "No bar is frozen for this pilot: run `make bar PILOT=...` first if the result is meant to count.",
                    flush=True,
                )
            if options.fresh:
                clear(folder / number)
            clock = time.perf_counter()
            notebook = run_chapter(path, say, environment)
            nbformat.write(notebook, folder / number / path.name)
            if options.record:
                record(number, path, notebook, folder)
            result = json.loads((folder / number / "results.json").read_text())
            say(
                f"{path.stem:20} done in {time.perf_counter() - clock:.0f} s, {len(result['figures'])} figures",
                end=True,
            )
        for note in notes:
            print(f"Note: {note}")
        page = pages.build_report(folder)
        print(f"Report: {page.relative_to(ROOT) if page.is_relative_to(ROOT) else page}")
        for chapter in sorted(folder.glob("*/results.json")):
            for line in json.loads(chapter.read_text())["settings"].get("lead", []):
                print(f"  {line}")
    except CourseError as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nStopped. Finished answers and checkpoints are kept; the same command goes on from there.",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

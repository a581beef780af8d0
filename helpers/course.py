"""Run the chapters in order, a progress line each, and end with the report: `make course`."""

import argparse
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from helpers import ROOT, CourseError
from helpers.agree import sealed
from helpers.agree.bar import Bar
from helpers.core import rows
from helpers.core.files import locked, write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import make_runs_folder, runs_folder
from helpers.core.runtime import PROFILES, Profile, make_folders_absolute
from helpers.measure import pages


def chapters() -> list[tuple[str, Path]]:
    """The notebooks in order: [(number, path)]; a part of a chapter is 08a."""
    paths = sorted((ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
    return [(path.name.split("_")[0], path) for path in paths]


def run_chapter(path: Path, say: Callable[[str], None], environment: dict) -> NotebookNode:
    """Execute a notebook from top to bottom with these environment variables; returns it.

    Raises CourseError with the failing cell's words, KeyboardInterrupt after Ctrl-C.
    """
    notebook = nbformat.read(path, as_version=4)
    total, started = sum(cell.cell_type == "code" for cell in notebook.cells), time.perf_counter()
    done = 0

    def after(cell: NotebookNode, cell_index: int, **_: object) -> None:
        nonlocal done
        if cell.cell_type == "code":
            done += 1
            say(f"{path.stem:20} cell {done:2}/{total}  {time.perf_counter() - started:5.0f} s")

    for name in ("asyncio", "tornado.application", "traitlets"):
        # their tracebacks after Ctrl-C say nothing to a reader
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        on_cell_executed=after,
        extra_arguments=["--log-level=CRITICAL"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute(env=environment)
    except (CellExecutionError, DeadKernelError, AssertionError) as problem:
        # nbclient answers Ctrl-C by putting its kernel away, and then trips over the missing one
        interrupted = getattr(client, "_async_cleanup_kernel_future", None) is not None
        no_kernel = isinstance(problem, AssertionError) and client.km is None
        if interrupted or no_kernel:
            raise KeyboardInterrupt from None
        if isinstance(problem, AssertionError):
            raise
        raise CourseError(_stopped(path.stem, problem)) from None
    return notebook


def _stopped(chapter: str, problem: CellExecutionError | DeadKernelError) -> str:
    if isinstance(problem, DeadKernelError):
        cure = "close other programs and run the same command again: finished work is kept"
        return f"{chapter}: the kernel died, most often because memory ran out; {cure}."
    words = re.sub(r"\x1b\[[0-9;]*m", "", problem.evalue or str(problem))
    if problem.ename == "CourseError":
        return f"{chapter} stopped: {words}"
    return f"{chapter} stopped with {problem.ename}: {words}"


# Making a run the reference -------------------------------------------------------------------


def tidy(notebook: NotebookNode) -> NotebookNode:
    """A notebook as it is stored: no stderr, no widget state, no timings in the metadata."""
    for cell in notebook.cells:
        cell.metadata = {name: cell.metadata[name] for name in cell.metadata if name == "tags"}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return notebook


def record_chapter(number: str, path: Path, notebook: NotebookNode, folder: Path) -> None:
    """Make this run the reference: stored outputs, data/reference/results/NN.json, its files."""
    results = ROOT / "data/reference/results"
    result = _read_json(folder / number / "results.json")
    name = f"{number}_{result['pilot']}"
    if result["pilot"] == "inbox":  # the bundled pilot's outputs are the ones that readers see
        name = number
        nbformat.write(tidy(notebook), path)
        result["figures"] += _lent_figures(results, number)
    write_text(results / f"{name}.json", json.dumps(result, indent=1) + "\n")
    reference = ROOT / "data/reference" / result["pilot"] / number
    _keep_files(folder / number, reference)
    if number == "02":
        for page in folder.glob("bar*"):  # the frozen bar and its ledger
            shutil.copy(page, reference)


def _lent_figures(results: Path, number: str) -> list[dict]:
    """Label figures of other pilots of this chapter, under a name that begins with the pilot's."""
    lent = []
    for path in sorted(results.glob(f"{number}_*.json")):
        other = _read_json(path)
        for figure in other["figures"]:
            if re.fullmatch(r"\w+\.label\.\w+", figure["name"]):
                figure["name"] = re.sub(r"^\w+", other["pilot"], figure["name"])
                figure["how"] += f", pilot {other['pilot']}"
                lent.append(figure)
    return lent


def _keep_files(run: Path, reference: Path) -> None:
    """Copy all recorded answers, the small files that the run keeps, and folders kept before."""
    shutil.rmtree(reference / "answers", ignore_errors=True)
    reference.mkdir(parents=True, exist_ok=True)
    if (run / "answers").is_dir():  # a chapter without a model has none
        shutil.copytree(run / "answers", reference / "answers")
    manifest = run / "manifest.json"
    if not manifest.is_file():
        return
    for name in _read_json(manifest):
        kept = run / name
        if kept.is_file() and kept.stat().st_size < 1_000_000:
            shutil.copy(kept, reference)
        elif kept.is_dir() and (reference / name).is_dir():  # the adapter of these answers
            shutil.rmtree(reference / name)
            shutil.copytree(kept, reference / name, ignore=shutil.ignore_patterns("*.md"))
            config = reference / name / "adapter_config.json"
            # the base model lies elsewhere on every machine: its name is enough
            base = _read_json(run / "results.json")["settings"]["base"]
            named = _read_json(config) | {"base_model_name_or_path": base}
            write_text(config, json.dumps(named, indent=1, sort_keys=True) + "\n")


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


# The page of results --------------------------------------------------------------------------


def build_report(folder: str | Path, bar: str = "") -> Path:
    """Write report.html over every chapter with a results.json under `folder` (runs/<pilot>/).

    `bar`: a sentence about the agreed bar, where there is one. Returns the page's path.
    """
    folder = Path(folder)
    pilot, chapters = folder.name, []
    for path in sorted(folder.glob("*/results.json")):
        chapter = json.loads(path.read_text(encoding="utf-8"))
        chapter["pictures"] = []
        for picture in sorted(path.parent.glob("*.png")):  # their names begin with a number
            data = pages.embedded_picture(picture)
            chapter["pictures"].append({"name": picture.stem, "data": data})
        pilot = chapter["pilot"]
        chapters.append(chapter)
    page = pages.render("run_report.html", pilot=pilot, chapters=chapters, bar=bar)
    write_text(folder / "report.html", page)
    return folder / "report.html"


# The command ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run chapters as the options say; returns the exit status."""
    options = _options(arguments)
    try:
        if options.readme:
            from helpers import readme  # draws: a plain run need not load what draws

            readme.write(chapters())
        else:
            _run_alone(options)
    except CourseError as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = "finished answers and checkpoints are kept; the same command goes on from there"
        print(f"\nStopped. {kept.capitalize()}.", file=sys.stderr)
        return 130
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    make_folders_absolute()  # before any notebook, which runs in a folder of its own
    bundled = os.environ.get("COURSE_PILOT") or str(ROOT / "data/inbox")
    parser = argparse.ArgumentParser(prog="python -m helpers.course", description=__doc__)
    add = parser.add_argument
    add("--pilot", default=bundled, help="a folder with a pilot.yaml")
    add("--profile", choices=list(PROFILES), help="chosen by the machine when left out")
    add("--only", help="one chapter number, for example 00 or 08a")
    add("--fresh", action="store_true", help="begin from nothing instead of going on")
    add("--record", action="store_true", help="make this run the reference")
    add("--readme", action="store_true", help="only refresh the README's figures and its picture")
    return parser.parse_args(arguments)


def _run_alone(options: argparse.Namespace) -> None:
    """Run the chapters when no other process runs them for this pilot."""
    pilot = Pilot.load(Path(options.pilot).expanduser().resolve())
    if pilot.name == "inbox" and pilot.folder != ROOT / "data/inbox":
        taken = "the name 'inbox' belongs to the bundled pilot"
        raise CourseError(f"pilot.yaml: {taken}; choose another.")
    notes = rows.load(pilot).notes  # mistakes in the rows are said before a kernel starts
    environment = {**os.environ, "COURSE_PILOT": str(pilot.folder), "COURSE_QUIET": "1"}
    environment["COURSE_RUNS"] = str(runs_folder())
    if options.profile:
        environment["COURSE_PROFILE"] = options.profile
    profile = PROFILES.get(environment.get("COURSE_PROFILE", ""))
    folder = sealed.home(pilot, profile)
    make_runs_folder(folder)

    def waiting() -> None:
        what = f"Another run of this pilot is at work in {folder}"
        print(f"{what}; this one goes on when it has ended (Ctrl-C stops it).", flush=True)

    with locked(folder / ".lock", waiting):
        _run(options, pilot, folder, profile, environment)
    for note in notes:
        print(f"Note: {note}")
    page = build_report(folder, _bar_in_words(pilot, profile))  # 02 may have frozen one
    print(f"Report: {page.relative_to(ROOT) if page.is_relative_to(ROOT) else page}")
    for results in sorted(folder.glob("*/results.json")):
        for line in _read_json(results)["settings"].get("lead", []):
            print(f"  {line}")


def _run(
    options: argparse.Namespace,
    pilot: Pilot,
    folder: Path,
    profile: Profile | None,
    environment: dict,
) -> None:
    bar = _bar_in_words(pilot, profile)
    for number, path in _chosen(options.only):
        if number == "00" and not bar:
            hint = "run `make bar PILOT=...` first if the result is meant to count"
            print(f"No bar is frozen for this pilot: {hint}.", flush=True)
        if options.fresh:
            shutil.rmtree(folder / number, ignore_errors=True)
        started = time.perf_counter()
        notebook = run_chapter(path, _say_live, environment)
        seconds = time.perf_counter() - started
        nbformat.write(notebook, folder / number / path.name)
        if options.record:
            record_chapter(number, path, notebook, folder)
        figures = len(_read_json(folder / number / "results.json")["figures"])
        line = f"{path.stem:20} done in {seconds:.0f} s, {figures} figures"
        print(f"\r{line:76}" if sys.stdout.isatty() else line, flush=True)


def _chosen(only: str | None) -> list[tuple[str, Path]]:
    chosen = [(number, path) for number, path in chapters() if only in (None, number)]
    if not chosen:
        known = ", ".join(number for number, _ in chapters())
        raise CourseError(f"There is no chapter {only!r}; there are {known}.")
    return chosen


def _bar_in_words(pilot: Pilot, profile: Profile | None) -> str:
    """The agreed bar in a sentence, empty where none is frozen."""
    if not sealed.place_of_bar(pilot, profile):
        return ""
    try:
        return f"The {Bar.load(pilot, profile)}"
    except CourseError as problem:  # edited, or frozen on other rows: the page says so
        return str(problem)


def _say_live(line: str) -> None:
    """A line that the next one overwrites; nothing where output goes to a file."""
    if sys.stdout.isatty():
        print(f"\r{line:76}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Chapters opened alone on a machine with Google Colab's packages: `make colab`.

    python -m benchmarks.colab_run [--chapters 00 05] [--python python3.13] [--machine folder]

A fresh Python with exactly the packages of data/colab/versions.txt; a folder with nothing but the
notebook; the setup cell clones this repository's last commit and installs as it does on Colab, with
pip's own resolver, in a kernel that has imported what Colab's kernel imports when it starts. Then
the same chapter with the packages of this environment. Writes data/colab/log.txt and the `colab.`
and `pins.` figures of everywhere.json. Needs a network, Python 3.13, 12 GB of disk, a quarter of an
hour; the packages of the fresh Python are kept in the temporary folder for the next run.

What it cannot show: a GPU, and google.colab itself, which is in no package index.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from benchmarks.everywhere import add_figures
from helpers import ROOT, CourseError, colab
from helpers.core.files import fingerprint, write_text

LOG = ROOT / "data/colab/log.txt"
# google.colab imports these before the first cell (its __init__ and _reprs; matplotlib: inline)
AT_START = "import IPython, matplotlib.pyplot, numpy, PIL.Image, psutil, requests, tornado"
ARITHMETIC = """
import hashlib, torch
torch.manual_seed(0)
rows, weights = torch.randn(200, 576), torch.randn(1536, 576)
for kind in (torch.bfloat16, torch.float32):
    product = torch.nn.functional.linear(rows.to(kind), weights.to(kind))
    print(kind, hashlib.sha256(product.float().numpy().tobytes()).hexdigest())
"""
PIP = ["-m", "pip", "--disable-pip-version-check", "-q"]


def inputs() -> str:
    """Twelve digits of what a run depends on: what is installed on Colab and what stays there."""
    return fingerprint(*colab.packages_to_install(colab.tried()))


def build_machine(python: str, place: Path) -> Path:
    """A folder with a Python that has exactly the packages of the table; built once."""
    done = place / "complete"
    if done.is_file():
        return place
    print(f"Building a machine like Colab's in {place} ...", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([python, "-m", "venv", place], check=True)
    table = {name: version.split("+")[0] for name, version in colab.tried().items()}
    pip = f"pip=={table.pop('pip')}"
    lines = place / "versions.txt"
    lines.write_text("\n".join(f"{name}=={version}" for name, version in table.items()))
    own = place / "bin/python"
    # without a resolver: Colab's list does not satisfy all its own needs
    subprocess.run([own, *PIP, "install", "--no-deps", "-r", lines], check=True)
    torch = f"torch=={table['torch']}"  # with the CUDA libraries of this build
    subprocess.run([own, *PIP, "install", "-c", lines, torch], check=True)
    subprocess.run([own, *PIP, "install", pip], check=True)
    done.touch()
    return place


def packages(python: Path) -> dict[str, str]:
    """{package: version} of that Python."""
    done = subprocess.run([python, "-m", "pip", "freeze", "--all"], capture_output=True, text=True)
    return {_plain(name): version for name, version in colab.pinned(done.stdout).items()}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def unmet(python: Path) -> set[str]:
    """What `pip check` finds in that Python, a line each."""
    done = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True)
    return {*done.stdout.splitlines()} - {"No broken requirements found."}


def run_alone(chapter: str, python: Path, room: Path, repository: Path, on_colab: bool) -> dict:
    """Run one chapter of a repository in smoke in the folder `room` with that Python.

    The folder holds the notebook and nothing else. Returns outputs, seconds, results, answers.
    Raises CourseError with the cell that failed.
    """
    [path] = (repository / "notebooks").glob(f"{chapter}_*.ipynb")
    room.mkdir(parents=True)
    shutil.copy(path, room)
    notebook = nbformat.read(room / path.name, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []  # the recorded ones
    setup = notebook.cells[1]
    setup.source = colab.FIRST_CELL.sub(f'REPOSITORY = "{repository.as_uri()}"', setup.source)
    if on_colab:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(AT_START))
    environment = {}
    for name, value in os.environ.items():
        if not name.startswith(("COURSE_", "COLAB_", "PYTHON", "VIRTUAL_ENV", "HF_")):
            environment[name] = value
    environment["COURSE_PROFILE"] = "smoke"
    environment["COURSE_CACHE"] = str(room.with_name(f"{room.name}-cache"))
    if on_colab:
        environment["COLAB_RELEASE_TAG"] = "release-colab"
    client = NotebookClient(
        notebook,
        timeout=1800,
        kernel_name=_kernel(python, room.with_name(f"{room.name}-kernel")),
        resources={"metadata": {"path": str(room)}},
    )
    started = time.perf_counter()
    try:
        client.execute(env=environment)
    except CellExecutionError as problem:
        said = "\n".join(_said(notebook, room))
        raise CourseError(f"{said}\n{path.stem}: {problem.ename}: {problem.evalue}") from None
    seconds = time.perf_counter() - started
    folder = room / "course/runs/inbox/smoke" / chapter
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    answers = {}
    for journal in sorted((folder / "answers").glob("*.jsonl")):
        texts: list[str] = []
        for line in journal.read_text(encoding="utf-8").splitlines():
            texts += json.loads(line)["entries"].values()
        answers[re.split(r"[-_][0-9a-f]{12}", journal.stem)[0]] = texts
    said = _said(notebook, room)
    return {"said": said, "seconds": seconds, "results": results, "answers": answers}


def _kernel(python: Path, place: Path) -> str:
    """A kernel of that Python that this process can start; returns its name."""
    kernel = {"argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    kernel |= {"display_name": "alone", "language": "python"}
    write_text(place / "kernels/alone/kernel.json", json.dumps(kernel))
    os.environ["JUPYTER_PATH"] = str(place)
    return "alone"


def _said(notebook: nbformat.NotebookNode, room: Path) -> list[str]:
    """The last two lines of what every cell printed, without folders of this machine."""
    said = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        lines = []
        for output in cell.outputs:
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            lines += re.sub(r"\x1b\[[0-9;]*m", "", text).replace(str(room), "/content").splitlines()
        noise = ("it/s]", "?it/s", "is ignored")  # progress bars, pip on folders of this machine
        lines = [line for line in lines if line.strip() and not any(n in line for n in noise)]
        kept = lines[-8:] if "colab.prepare" in cell.source else lines[-2:]
        for line in kept:
            said.append(f"[{number:2}] {line.rstrip()[:200]}")
    return said


def compare(here: dict, there: dict) -> tuple[int, int]:
    """(how many answers are letter by letter the same, of how many); 0 of 0 without a model."""
    same = total = 0
    for name, texts in here["answers"].items():
        other = there["answers"].get(name, [])
        total += max(len(texts), len(other))
        same += sum(a == b for a, b in zip(texts, other, strict=False))
    return same, total


def arithmetic(there: Path, here: Path) -> str:
    """In a sentence: is a matrix product of two Pythons' torch the same, bit by bit?"""
    said = []
    for python in (there, here):
        command = [python, "-c", ARITHMETIC]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said.append(done.stdout.splitlines())
    words = []
    for one, other in zip(*said, strict=True):
        words.append(f"{one.split()[0]} {'the same' if one == other else 'other last bits'}")
    return f"-- a matrix product of the two versions of torch on this processor: {', '.join(words)}"


def main() -> int:
    """Build, run, compare, write; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = Path(tempfile.gettempdir()) / f"course-colab-{fingerprint(colab.tried())}"
    parser.add_argument("--chapters", nargs="+", default=["00", "05"])
    parser.add_argument("--python", default=shutil.which("python3.13") or "python3.13")
    parser.add_argument("--machine", type=Path, default=known, help="kept between runs")
    parser.add_argument("--try", action="store_true", dest="dry", help="write nothing down")
    options = parser.parse_args()
    machine = build_machine(options.python, options.machine)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="course-colab-run-") as place:
        copy = Path(place) / "machine"  # of links: pip replaces files and never writes into them
        shutil.copytree(machine, copy, symlinks=True, copy_function=os.link)
        try:
            lines, figures, versions = _compare_runs(options.chapters, copy, Path(place))
        except CourseError as problem:
            print(problem, file=sys.stderr)
            return 1
    print("\n".join(lines))
    if not options.dry:
        write_text(LOG, "\n".join(lines) + "\n")
        settings = {"profile": "smoke", "chapters": options.chapters, "inputs": inputs()}
        settings |= {"seconds": round(time.perf_counter() - started), "versions": versions}
        add_figures("colab", figures, settings)
    return 0


def _compare_runs(chapters: list[str], copy: Path, place: Path) -> tuple[list[str], list, dict]:
    python, repository = copy / "bin/python", place / "repository"
    # one state for all runs, and for the cell an address to clone like any other
    subprocess.run(["git", "clone", "-q", ROOT, repository], check=True)
    before, unmet_before = packages(python), unmet(python)
    runs = []
    for chapter in chapters:
        for on_colab, its in ((True, python), (False, Path(sys.executable))):
            print(f"chapter {chapter}, {'Colab' if on_colab else 'the pins'} ...", flush=True)
            room = place / f"{chapter}-{'content' if on_colab else 'pins'}"
            runs.append((chapter, run_alone(chapter, its, room, repository, on_colab)))
    after = packages(python)
    wanted, stays = colab.packages_to_install(colab.tried())
    lines = [f"# inputs {inputs()} · {time.strftime('%Y-%m-%d')} · profile smoke, empty runs/"]
    lines += ["# A run of benchmarks/colab_run.py: `make colab` makes it again.", ""]
    lines += ["The first cell installs: " + ", ".join(f"{n} {v}" for n, v in wanted.items())]
    changed = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, "none"), after.get(name, "none")
        if old != new and old != "none":
            changed.append(f"{name} {old} -> {new}")
    lines += ["What was there and changed: " + ", ".join(changed)]
    broken = sorted(unmet(python) - unmet_before)
    lines += ["Other packages that now miss a version: " + "; ".join(broken or ["none"])]
    kept = []
    for name in stays:
        version = after[_plain(name)]
        if version != before[_plain(name)]:
            raise CourseError(f"{name} should stay, and is {version} after the first cell.")
        kept.append(f"{name} {version}")
    lines += [f"What stays: {', '.join(kept)}"]
    figures = []
    for (chapter, there), (_, here) in zip(runs[::2], runs[1::2], strict=True):
        lines += ["", f"== chapter {chapter}, alone, Colab's packages: {there['seconds']:.0f} s =="]
        lines += there["said"]
        same, total = compare(here, there)
        alike = f"{same} of {total} answers are letter by letter those of the pins"
        lines += [f"-- the same chapter on the pins: {here['seconds']:.0f} s; {alike}"]
        figures += _figures(chapter, there, here, same, total, lines)
    lines += ["", arithmetic(python, Path(sys.executable))]
    return lines, figures, runs[0][1]["results"]["versions"]


def _figures(
    chapter: str, there: dict, here: dict, same: int, total: int, lines: list[str]
) -> list[dict]:
    suffix = "" if chapter == "00" else f".chapter_{chapter}"
    figures = []
    for place, run in (("colab", there), ("pins", here)):
        packages = "Colab's packages" if place == "colab" else "the pins"
        for figure in run["results"]["figures"]:
            if figure["name"] in ("exact.tuned", "exact.few_shot", "exact.merged"):
                name = f"{place}.{figure['name'].replace('.', '_')}{suffix}"
                how = f"chapter {chapter} in smoke, empty runs/, {packages}: {figure['how']}"
                figures.append({**figure, "name": name, "how": how})
                lines += [f"-- {name} {figure['value']:.4f} (n = {figure['n']})"]
    if total:
        name = f"colab.same_answers{suffix}"
        how = f"answers of chapter {chapter} in smoke that are letter by letter those of the pins"
        figures.append({"name": name, "value": round(same / total, 6), "n": total, "how": how})
        lines += [f"-- {name} {same / total:.4f} (n = {total})"]
    return figures


if __name__ == "__main__":
    sys.exit(main())

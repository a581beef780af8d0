"""A pilot's folder in one step: written beside its place, checked, and only then put there."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import ValidationError

from helpers import CourseError
from helpers.core import rows
from helpers.core.files import write_csv, write_text
from helpers.core.pilot import FieldSpec, Pilot
from helpers.core.rows import Rows
from helpers.pilot.mending import WHY, Row
from helpers.pilot.splitting import ASIDE
from helpers.pilot.to_label import SAMPLE_FILE

# what a new pilot consists of; other files of a replaced folder are kept
WRITTEN = {
    *("pilot.yaml", "train.csv", "test.csv", "approve.html", "approve.md", "FOUND.md", SAMPLE_FILE),
    *(f"{name}.csv" for name in ASIDE),
}


def check_place(folder: Path, fresh: bool, source: Path) -> None:
    """Raises CourseError where no pilot can be put there; asked before a file is read.

    A name that is none, a folder above that is not there, a folder that exists. Only one with a
    pilot.yaml in it is ever replaced, and only with `fresh`; never with one of its own files as the
    `source`, which would be gone.
    """
    name = folder.name
    _tidy(folder)
    try:
        Pilot(name=name, text="text", fields={"part": FieldSpec(type="span")})
    except ValidationError:
        what = "letters, digits, - and _ only, a letter first"
        raise CourseError(f"{name!r} cannot be the name of a pilot; take {what}.") from None
    above = folder.parent
    if above.exists() and not above.is_dir():
        raise CourseError(f"{above.name} is a file, so nothing can be put into it.")
    if not above.exists():
        cure = "make it first, or give the new pilot another place"
        raise CourseError(f"There is no folder {above.name}/ for {name}; {cure}.")
    if not folder.exists():
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if not (folder / "pilot.yaml").is_file():
        what = "exists and is no pilot, so it is left alone; take another name"
        raise CourseError(f"{name} {what}.")
    if not fresh:
        what = "exists; take another name, or replace it with --fresh"
        raise CourseError(f"{name}/ {what}.")
    if source.name in WRITTEN and source.resolve().parent == folder.resolve():
        what = f"{source.name} is a part of {name}/, which would be replaced"
        raise CourseError(f"{what}; copy the file to another place first.")


def _tidy(folder: Path) -> None:
    """Take away what a killed run left beside the folder, and put an old one back that it moved."""
    for left in folder.parent.glob(f".{folder.name}.*.*"):
        pid, end = left.name.removeprefix(f".{folder.name}.").rsplit(".", 1)
        if end not in ("part", "old") or not pid.isdigit() or psutil.pid_exists(int(pid)):
            continue
        if end == "old" and not folder.exists():
            os.rename(left, folder)
        else:
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def placed(folder: Path) -> Iterator[Path]:
    """A folder to write into; when all went well it takes the place of `folder`, else it is gone.

    Files of a replaced folder that no new pilot has (labels, notes) are copied into the new one.
    Raises CourseError where nothing can be written.
    """
    half = folder.parent / f".{folder.name}.{os.getpid()}.part"
    try:
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        yield half
        _keep_others(folder, half)
        _swap(folder, half)
    except OSError as problem:
        why = problem.strerror or type(problem).__name__
        raise CourseError(f"{folder.name}/ could not be written ({why}).") from None
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _keep_others(folder: Path, half: Path) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in WRITTEN:
            continue
        if path.is_dir():
            shutil.copytree(path, half / path.name)
        else:
            shutil.copy2(path, half / path.name)


def _swap(folder: Path, half: Path) -> None:
    """The old folder goes only when the new one is in its place."""
    old = folder.parent / f".{folder.name}.{os.getpid()}.old"
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(half, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_rows(folder: Path, parts: Mapping[str, Sequence[Row]]) -> None:
    """Each part that has rows as a CSV file of its name."""
    for name, some in parts.items():
        if some:
            clean = [{key: value for key, value in row.items() if key != WHY} for row in some]
            write_csv(folder / f"{name}.csv", clean)


def write_sample(folder: Path, pilot: Pilot, sample: Sequence[Row]) -> None:
    """The rows to label first: id and text, nothing that could tell the label."""
    if sample:
        shown = [{"id": row["id"], pilot.text: row[pilot.text]} for row in sample]
        write_csv(folder / SAMPLE_FILE, shown)


def checked_pilot(folder: Path, source: str, yaml: str) -> Pilot:
    """Write pilot.yaml and read it as the course does; CourseError is about the source file."""
    write_text(folder / "pilot.yaml", yaml)
    try:
        return Pilot.load(folder)
    except CourseError as problem:
        raise CourseError(f"{source} gave no pilot that can be used: {problem}") from None


def checked_rows(pilot: Pilot, source: str) -> Rows:
    """The rows as the chapters read them; CourseError is about the source file."""
    try:
        return rows.load(pilot)
    except CourseError as problem:
        raise CourseError(f"{source} gave no rows that can be used: {problem}") from None

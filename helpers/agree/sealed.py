"""A YAML file that was agreed on: sealed with a hash, with a ledger of its versions.

This stops a slip; whoever rewrites file and ledger is stopped only by a copy of both in git.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import yaml
from datasets import Dataset

from helpers import ROOT, CourseError
from helpers.core import rows
from helpers.core.files import append_entry, read_entries, read_yaml, write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import runs_folder
from helpers.core.runtime import Profile

FILE, LEDGER = "bar.yaml", "bar_ledger.jsonl"
HEAD = "# Sealed with the hash below: an edit is refused; a revision with a reason is not.\n"


def seal(folder: Path, content: dict, row_hashes: list[str], note: str) -> None:
    """Enter `content` into the ledger, then write bar.yaml; CourseError on a full disk."""
    kept = len(read_entries(folder / LEDGER))  # reading cuts off half a line that a kill left
    time = datetime.now().isoformat(timespec="seconds")
    entry = {"time": time, "sha256": _digest(content), "content": content}
    entry |= {"rows": row_hashes, "note": note}  # so that added rows are told from changed ones
    append_entry(folder / LEDGER, entry, "The bar's ledger", kept)
    _write(folder, entry)


def _digest(content: dict) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _write(folder: Path, entry: dict) -> None:
    content = {**entry["content"], "sha256": entry["sha256"]}
    # people read this file, so its keys keep their order
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    write_text(folder / FILE, HEAD + text)


def unseal(folder: Path, keys: Iterable[str]) -> dict:
    """The content of bar.yaml, checked against the ledger; a deleted file is restored from there.

    Raises CourseError when it lacks one of `keys` or differs from what was sealed.
    """
    versions = read_entries(folder / LEDGER)
    if not (folder / FILE).is_file():
        _write(folder, versions[-1])
    cure = f"restore {FILE} from a copy"
    if versions:
        cure = f"delete {FILE} to have it restored from the ledger beside it"
    content = read_yaml(folder / FILE)
    if not isinstance(content, dict):
        raise CourseError(f"{FILE} is empty or not a list of 'key: value' lines; {cure}.")
    for key in (*keys, "sha256"):
        if key not in content:
            raise CourseError(f"{FILE} lacks the key {key!r}; put it back, or {cure}.")
    claimed = content.pop("sha256")
    # without a ledger the file must at least match its own hash: a copy that travelled alone
    hashes = [entry["sha256"] for entry in versions] or [claimed]
    if _digest(content) == hashes[-1]:
        return content
    if not versions:
        raise CourseError(f"{FILE} does not match its own hash, and has no ledger; {cure}.")
    newest, frozen = versions[-1]["content"], versions[-1]["time"][:10]
    if _digest(content) in hashes:
        raise CourseError(f"{FILE} is an older version than the one frozen on {frozen}; {cure}.")
    differ = [key for key in {**newest, **content} if newest.get(key) != content.get(key)]
    verb = "differ" if len(differ) > 1 else "differs"
    edited = f"{FILE} was edited after it was frozen on {frozen}: {', '.join(differ)} {verb}"
    raise CourseError(f"{edited}; {cure}, or revise it in the open with a reason.")


# The rows it was agreed on, and where it lies --------------------------------------------------


def judged_rows(pilot: Pilot) -> Dataset:
    """The rows that a bar is held against: those of new.csv, where there are none the test rows."""
    new = rows.load_new(pilot)
    return rows.load(pilot).test if new is None else new


def row_hashes(pilot: Pilot) -> list[str]:
    """SHA-256 of each judged row's id, text and labels, sorted: whichever program saved it."""
    keys = ("id", pilot.text, *pilot.fields)  # notes beside a row change nothing that is judged
    hashes = []
    for row in judged_rows(pilot):
        line = json.dumps([row[key] for key in keys], ensure_ascii=False)
        hashes.append(hashlib.sha256(line.encode()).hexdigest())
    return sorted(hashes)


def rows_hash(pilot: Pilot) -> str:
    """One SHA-256 over all judged rows."""
    return hashlib.sha256("\n".join(row_hashes(pilot)).encode()).hexdigest()


def has_only_more_rows(folder: Path, pilot: Pilot) -> bool:
    """True when all test rows of the newest version are still there, and others beside them."""
    newest = read_entries(folder / LEDGER)[-1:]
    before = set(newest[0].get("rows", ())) if newest else set()
    return bool(before) and before < set(row_hashes(pilot))


def is_seen_before(pilot: Pilot) -> bool:
    """True when what a tuned model reads in the judged rows is stored: the page comes late."""
    # the recorded answers count, too: whoever cloned the course has seen them
    files = ["[0-9][0-9]/answers/tuned-*.jsonl", "11/readings.jsonl"]
    if rows.load_new(pilot) is not None:
        files = [f"08/{rows.NEW_READINGS}"]
    folders = (ROOT / "data/reference" / pilot.name, runs_folder() / pilot.name)
    return any(any(folder.glob(name)) for folder in folders for name in files)


def home(pilot: Pilot, profile: Profile | None = None) -> Path:
    """The folder of this pilot's runs; smoke has one of its own."""
    name = profile.name if profile else os.environ.get("COURSE_PROFILE")
    return runs_folder() / pilot.name / ("smoke" if name == "smoke" else "")


def place_of_bar(pilot: Pilot, profile: Profile | None = None, own: bool = False) -> Path | None:
    """The folder that holds this pilot's bar, or a ledger from which it can be restored.

    First the pilot's folder, then its runs, then the course's reference copy. `own`: only where
    this run may freeze one.
    """
    folders = [pilot.folder, home(pilot, profile)]
    if home(pilot, profile) != runs_folder() / pilot.name:  # a smoke run never touches a real bar
        folders = [home(pilot, profile)] if own else folders[::-1]
    if not own:
        folders.append(ROOT / "data/reference" / pilot.name / "02")
    for folder in folders:
        if (folder / FILE).is_file() or read_entries(folder / LEDGER):
            return folder
    return None

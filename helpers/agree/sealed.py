"""A YAML file that was agreed on: sealed with a hash, with a ledger of its versions.

An edit is refused, a revision with a reason is not. This stops a slip and makes a change of mind
visible. It does not stop somebody who rewrites file and ledger; keep both in git for that.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from helpers import ROOT, CourseError
from helpers.core import rows
from helpers.core.files import append_entry, read_entries, read_yaml, write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import runs_folder
from helpers.core.runtime import Profile

FILE, LEDGER = "bar.yaml", "bar_ledger.jsonl"
HEAD = (
    "# Agreed on and sealed with the hash below: an edit is refused; "
    "a revision with a reason is not.\n"
)


def digest(content: dict) -> str:
    """SHA-256 over a dict of plain values, independent of the order of its keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def ledger(folder: Path) -> list[dict]:
    """The versions sealed so far, oldest first: [{"time", "sha256", "content"}]."""
    return read_entries(folder / LEDGER)


def seal(folder: Path, content: dict, **beside: Any) -> None:
    """Enter `content` and what stands `beside` it into the ledger, then write bar.yaml.

    Raises CourseError when the disk is full.
    """
    versions = ledger(folder)  # reading cuts off half a line that a kill left
    time = datetime.now().isoformat(timespec="seconds")
    entry = {"time": time, "sha256": digest(content), "content": content, **beside}
    append_entry(folder / LEDGER, entry, "The bar's ledger", len(versions))
    _write(folder, entry)


def _write(folder: Path, entry: dict) -> None:
    sealed = {**entry["content"], "sha256": entry["sha256"]}
    # sorted by meaning, not by the alphabet: people read this file
    text = yaml.safe_dump(sealed, sort_keys=False, allow_unicode=True, width=100)
    write_text(folder / FILE, HEAD + text)


def unseal(folder: Path, keys: Iterable[str]) -> dict:
    """The content of bar.yaml, checked against the ledger; a deleted file is restored from there.

    Raises CourseError when it is no YAML, lacks one of `keys`, or differs from what was sealed.
    """
    versions = ledger(folder)
    if not (folder / FILE).is_file():
        _write(folder, versions[-1])
        return versions[-1]["content"]
    cure = f"restore {FILE} from a copy"
    if versions:
        cure = f"delete {FILE} to have it restored from the ledger beside it"
    content = _read(folder / FILE, keys, cure)
    claimed = content.pop("sha256")
    # without a ledger the file must at least match its own hash: a copy that travelled alone
    hashes = [entry["sha256"] for entry in versions] or [claimed]
    if digest(content) == hashes[-1]:
        return content
    if not versions:
        raise CourseError(
            f"{FILE} does not match its own hash and has no ledger beside it to say what "
            f"changed; {cure}."
        )
    newest, frozen = versions[-1]["content"], versions[-1]["time"][:10]
    if digest(content) in hashes:
        raise CourseError(f"{FILE} is an older version than the one frozen on {frozen}; {cure}.")
    differ = [key for key in {**newest, **content} if newest.get(key) != content.get(key)]
    verb = "differ" if len(differ) > 1 else "differs"
    raise CourseError(
        f"{FILE} was edited after it was frozen on {frozen}: {', '.join(differ)} {verb}; "
        f"{cure}, or revise it in the open with a reason."
    )


def _read(path: Path, keys: Iterable[str], cure: str) -> dict:
    try:
        content = read_yaml(path)
    except CourseError as problem:
        raise CourseError(f"{str(problem).removesuffix('.')}; {cure}.") from None
    if not isinstance(content, dict):
        raise CourseError(f"{FILE} is empty or not a list of 'key: value' lines; {cure}.")
    for key in (*keys, "sha256"):
        if key not in content:
            raise CourseError(f"{FILE} lacks the key {key!r}; put it back, or {cure}.")
    return content


# The rows it was agreed on, and where it lies --------------------------------------------------


def row_hashes(pilot: Pilot) -> list[str]:
    """SHA-256 of every test row's id, text and labels, sorted: no matter which program saved it."""
    # without tags and other columns: notes beside a row change nothing that is judged
    keys = ("id", pilot.text, *pilot.fields)
    hashes = []
    for row in rows.load(pilot).test:
        line = json.dumps([row[key] for key in keys], ensure_ascii=False)
        hashes.append(hashlib.sha256(line.encode()).hexdigest())
    return sorted(hashes)


def rows_hash(pilot: Pilot) -> str:
    """One SHA-256 over all test rows."""
    return hashlib.sha256("\n".join(row_hashes(pilot)).encode()).hexdigest()


def is_seen_before(pilot: Pilot) -> bool:
    """True when answers of a tuned model to this pilot's test rows exist: the page comes late."""
    # the recorded answers count, too: whoever cloned the course has seen them
    for base in (ROOT / "data/reference", runs_folder()):
        if any((base / pilot.name).glob("[0-9][0-9]/answers/tuned-*.jsonl")):
            return True
    return False


def own_places(pilot: Pilot, profile: Profile | None = None) -> list[Path]:
    """Where this pilot's bar may be frozen; a smoke run never touches a real one."""
    if _is_smoke(profile):
        return [home(pilot, profile)]
    return [pilot.folder, home(pilot, profile)]


def places(pilot: Pilot, profile: Profile | None = None) -> list[Path]:
    """Where a bar is looked for, in this order; the course's reference copy comes last."""
    reference = ROOT / "data/reference" / pilot.name / "02"
    return [*own_places(pilot, profile), pilot.folder, reference]


def first_sealed(folders: Iterable[Path]) -> Path | None:
    """The first folder that has a bar, or a ledger from which it can be restored."""
    for folder in folders:
        if (folder / FILE).is_file() or ledger(folder):
            return folder
    return None


def home(pilot: Pilot, profile: Profile | None = None) -> Path:
    """The folder of this pilot's runs; smoke has one of its own."""
    return runs_folder() / pilot.name / ("smoke" if _is_smoke(profile) else "")


def _is_smoke(profile: Profile | None) -> bool:
    return (profile.name if profile else os.environ.get("COURSE_PROFILE")) == "smoke"

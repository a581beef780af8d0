"""A YAML file that was agreed on: sealed with a hash, with a ledger of its versions; an edit is refused.

This stops a slip and makes a change of mind visible. It does not stop somebody who rewrites file and ledger; keep both in git for that.
"""

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path

import yaml

from helpers import ROOT, CourseError
from helpers.core import rows
from helpers.core.files import write_text

HEAD = "# Agreed on and sealed with the hash below: an edit is refused; a revision with a reason is not.\n"


def digest(content):
    """SHA-256 over a dict of plain values, independent of the order of its keys."""
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, ensure_ascii=False, default=str).encode()
    ).hexdigest()


def ledger(folder, name):
    """The versions sealed so far, oldest first: [{"time", "sha256", "content"}]; half a last line is ignored."""
    path, entries = folder / f"{name}_ledger.jsonl", []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                break
    return entries


def exists(folder, name):
    return (folder / f"{name}.yaml").is_file() or bool(ledger(folder, name))


def seal(folder, name, content, **beside):
    """Enter `content` and what stands `beside` it into the ledger, then write name.yaml with its hash.

    Raises CourseError when the disk is full.
    """
    entry = {
        "time": datetime.now().isoformat(timespec="seconds"),
        "sha256": digest(content),
        "content": content,
        **beside,
    }
    lines = [json.dumps(e, ensure_ascii=False) + "\n" for e in (*ledger(folder, name), entry)]
    write_text(folder / f"{name}_ledger.jsonl", "".join(lines))
    _write(folder, name, entry)


def _write(folder, name, entry):
    text = yaml.safe_dump(
        {**entry["content"], "sha256": entry["sha256"]},
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    write_text(folder / f"{name}.yaml", HEAD + text)


def unseal(folder, name, keys):
    """The content of name.yaml after checking it against the newest entry of the ledger; a deleted file is restored from there.

    Raises CourseError when it is no YAML, lacks one of `keys`, or differs from what was sealed, naming the keys that differ.
    """
    path, entries = folder / f"{name}.yaml", ledger(folder, name)
    if not path.is_file():
        _write(folder, name, entries[-1])
        return entries[-1]["content"]
    again = (
        f"delete {path.name} to have it restored from the ledger beside it"
        if entries
        else f"restore {path.name} from a copy"
    )
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, yaml.YAMLError) as problem:
        line = getattr(getattr(problem, "problem_mark", None), "line", 0) + 1
        raise CourseError(
            f"{path.name} is not valid YAML in UTF-8 near line {line}; {again}."
        ) from None
    if not isinstance(raw, dict):
        raise CourseError(f"{path.name} is empty or not a list of 'key: value' lines; {again}.")
    missing = [key for key in (*keys, "sha256") if key not in raw]
    if missing:
        raise CourseError(f"{path.name} lacks the key {missing[0]!r}; put it back, or {again}.")
    claimed = raw.pop("sha256")
    sealed = entries[-1]["sha256"] if entries else claimed
    if digest(raw) == sealed:
        return raw
    if any(digest(raw) == e["sha256"] for e in entries):
        raise CourseError(
            f"{path.name} is an older version than the one frozen on {entries[-1]['time'][:10]}; {again}."
        )
    was = next((e for e in entries if e["sha256"] == claimed), entries[-1] if entries else None)
    if was is None:
        raise CourseError(
            f"{path.name} does not match its own hash and has no ledger beside it to say what changed; {again}."
        )
    differ = [key for key in {**was["content"], **raw} if was["content"].get(key) != raw.get(key)]
    raise CourseError(
        f"{path.name} was edited after it was frozen on {was['time'][:10]}: {', '.join(differ) or 'sha256'} "
        f"{'differ' if len(differ) > 1 else 'differs'}; {again}, or revise it in the open with a reason."
    )


# The rows it was agreed on, and where it lies ----------------------------------------------------------------


def row_hashes(pilot):
    """SHA-256 of every test row's id, text and labels, sorted: the same after another program has saved the file."""
    keys = ("id", pilot.text, *pilot.fields)
    found = (
        json.dumps([row[k] for k in keys], ensure_ascii=False) for row in rows.load(pilot).test
    )
    return sorted(hashlib.sha256(line.encode()).hexdigest() for line in found)


def rows_hash(pilot):
    """One SHA-256 over all test rows."""
    return hashlib.sha256("\n".join(row_hashes(pilot)).encode()).hexdigest()


def seen_before(pilot):
    """True when answers of a tuned model to this pilot's test rows exist already: then a page comes late, and says so."""
    places = [
        ROOT / "data/reference" / pilot.name,
        Path(os.environ.get("COURSE_RUNS") or ROOT / "runs") / pilot.name,
    ]
    return any(list(place.glob("[0-9][0-9]/answers/tuned-*.jsonl")) for place in places)


def home(pilot, profile=None):
    """The folder of this pilot's runs; smoke has one of its own."""
    smoke = (profile.name if profile else os.environ.get("COURSE_PROFILE")) == "smoke"
    return (
        Path(os.environ.get("COURSE_RUNS") or ROOT / "runs")
        / pilot.name
        / ("smoke" if smoke else "")
    )


def places(pilot, profile=None):
    """Where a page may lie, in the order they are asked: the pilot's folder, its runs (first in smoke), the reference copy."""
    runs = home(pilot, profile)
    return [
        *([runs, pilot.folder] if runs.name == "smoke" else [pilot.folder, runs]),
        ROOT / "data/reference" / pilot.name / "02",
    ]

"""A YAML file that was agreed on: sealed with a hash, every version kept in a ledger beside it, an edit named and refused.

This stops a slip and makes a change of mind visible. It does not stop somebody who rewrites file and ledger; keep both in git for that.
"""

import hashlib
import json
from datetime import datetime

import yaml

from helpers import CourseError
from helpers.runs import write_text

HEAD = "# Agreed on and sealed with the hash below: an edit is refused; a revision with a reason is not.\n"


def digest(content):
    """SHA-256 over a dict of plain values, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


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


def seal(folder, name, content):
    """Enter `content` into the ledger, then write name.yaml with its hash. Raises CourseError when the disk is full."""
    entry = {"time": datetime.now().isoformat(timespec="seconds"), "sha256": digest(content), "content": content}
    lines = [json.dumps(e, ensure_ascii=False) + "\n" for e in (*ledger(folder, name), entry)]
    write_text(folder / f"{name}_ledger.jsonl", "".join(lines))
    _write(folder, name, entry)


def _write(folder, name, entry):
    text = yaml.safe_dump({**entry["content"], "sha256": entry["sha256"]}, sort_keys=False, allow_unicode=True, width=100)
    write_text(folder / f"{name}.yaml", HEAD + text)


def unseal(folder, name, keys):
    """The content of name.yaml after checking it against the newest entry of the ledger; a deleted file is restored from there.

    Raises CourseError when it is no YAML, lacks one of `keys`, or differs from what was sealed, naming the keys that differ.
    """
    path, entries = folder / f"{name}.yaml", ledger(folder, name)
    if not path.is_file():
        _write(folder, name, entries[-1])
        return entries[-1]["content"]
    again = f"delete {path.name} to have it restored from the ledger beside it" if entries else f"restore {path.name} from a copy"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, yaml.YAMLError) as problem:
        line = getattr(getattr(problem, "problem_mark", None), "line", 0) + 1
        raise CourseError(f"{path.name} is not valid YAML in UTF-8 near line {line}; {again}.") from None
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
        raise CourseError(f"{path.name} is an older version than the one frozen on {entries[-1]['time'][:10]}; {again}.")
    was = next((e for e in entries if e["sha256"] == claimed), entries[-1] if entries else None)
    if was is None:
        raise CourseError(f"{path.name} does not match its own hash and has no ledger beside it to say what changed; {again}.")
    differ = [key for key in {**was["content"], **raw} if was["content"].get(key) != raw.get(key)]
    raise CourseError(f"{path.name} was edited after it was frozen on {was['time'][:10]}: {', '.join(differ) or 'sha256'} "
                      f"{'differ' if len(differ) > 1 else 'differs'}; {again}, or revise it in the open with a reason.")

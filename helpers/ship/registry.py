"""A registry of adapters: a folder of plain files, with hashes, promotions and a way back.

`python -m helpers.ship.registry --folder registry list` shows what is in it; `diff A B`, `promote A
--reason "..."`, `rollback --reason "..."`, `verify` and `history` are the other commands.
"""

import argparse
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from helpers import CourseError
from helpers.choose import models
from helpers.core.files import locked
from helpers.ship import records

PROMOTIONS = "promotions.json"
ENTRY = ("hash", "date", "reason", "action")  # of a promotion
LONG = 3600.0  # seconds: no push takes longer
COMMANDS = {"list": 0, "diff": 2, "promote": 1, "rollback": 0, "verify": 0, "history": 0}  # hashes


class Registry:
    """Adapters in a folder, each named by the first 12 hex digits of its content's SHA-256.

    objects/<hash>/ holds the two files of one and record.json, promotions.json what was promoted,
    staging/ what is half made. A kill at any moment leaves all that is stored as it was.
    """

    def __init__(self, folder: str | Path) -> None:
        self.root = Path(folder).absolute()

    def push(self, adapter: Path, base: models.Base, about: Mapping[str, Any]) -> str:
        """Store the PEFT adapter in the folder `adapter`, trained on `base`; returns its hash.

        `about`: hashes of data, prompt and grammar, evaluation {figure: value}, the verdict on the
        licence, and whatever else JSON can hold. The same content again changes nothing, its first
        record stays. Raises CourseError for pickled weights, for an adapter that cannot be read, is
        not finite or does not fit `base`, and where nothing can be written.
        """
        record = records.adapter_record(Path(adapter), base, about)
        place = self._place(record["hash"])
        with self._changing() as staged:
            self.sweep()
            if not place.exists() or records.faults(place):
                records.fill_folder(staged, Path(adapter), record)
                place.parent.mkdir(exist_ok=True)
                _take_place(staged, place)
        return place.name

    def sweep(self) -> int:
        """Remove what processes that were killed have left in staging/; returns how many."""
        folder = self.root / "staging"
        dead = [left for left in folder.iterdir() if _is_dead(left)] if folder.is_dir() else []
        for left in dead:
            shutil.rmtree(left, ignore_errors=True)
        return len(dead)

    def entries(self) -> list[dict[str, Any]]:
        """The records of all adapters, oldest first; CourseError where one cannot be read."""
        every = [records.read_record(self._place(name)) for name in self._names()]
        return sorted(every, key=lambda record: (record["date"], record["hash"]))

    def record(self, name: str) -> dict[str, Any]:
        """The record of an adapter; `name`: 4 or more digits that only its hash begins with.

        Raises CourseError for a name that is unknown or fits several, and for a changed record.
        """
        return records.read_record(self.folder(name))

    def folder(self, name: str) -> Path:
        """Where an adapter lies, unchecked (`open` checks it); `name` as in `record`."""
        return self._place(self._find(name))

    def diff(self, one: str, other: str) -> list[tuple[str, Any, Any]]:
        """(dotted name, value in `one`, in `other`) of all that differs; None: it is not there."""
        return records.differences(self.record(one), self.record(other))

    def promote(self, name: str, reason: str) -> None:
        """Make an adapter the current one; CourseError for a damaged one or an empty reason."""
        with self._changing() as staged:
            self._enter(staged, "promote", name, reason)

    def rollback(self, reason: str) -> str:
        """Make the adapter before the current one current again; returns its hash.

        A second rollback goes back one more: what was rolled back comes again only by a promotion.
        Raises CourseError where none was promoted before.
        """
        with self._changing() as staged:
            earlier = _in_use(self.history())[:-1]
            if not earlier:
                raise CourseError("Nothing was in use before the current adapter; promote one.")
            self._enter(staged, "rollback", earlier[-1], reason)
        return earlier[-1]

    def _enter(self, staged: Path, action: str, name: str, reason: str) -> None:
        if not reason.strip():
            raise CourseError("The reason is empty; say why this adapter comes into use.")
        entry = dict(zip(ENTRY, (self._sound(name), records.now(), reason.strip(), action)))
        half = staged / PROMOTIONS
        half.write_bytes(records.json_bytes([*self.history(), entry], "The reason"))
        os.replace(half, self.root / PROMOTIONS)

    def current(self) -> str | None:
        """The hash of the adapter in use; None before the first promotion."""
        history = self.history()
        return history[-1]["hash"] if history else None

    def history(self) -> list[dict[str, str]]:
        """{hash, date and time in UTC, reason, action: promote or rollback}, oldest first.

        Raises CourseError for a promotions.json that is damaged.
        """
        path = self.root / PROMOTIONS
        try:
            entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
            return [{key: str(entry[key]) for key in ENTRY} for entry in entries]
        except (OSError, ValueError, TypeError, KeyError):
            cure = "bring back a copy, or delete it and promote an adapter"
            raise CourseError(f"{PROMOTIONS} cannot be read; {cure}.") from None

    def open(self, name: str | None, base: models.Base) -> Path:
        """The folder of an adapter to answer with on `base`; None: of the current one.

        Raises CourseError where its bytes are not those that were pushed, where `base` has other
        weights than those it was trained on, and where nothing was promoted.
        """
        chosen = self.current() if name is None else name
        if chosen is None:
            raise CourseError(f"No adapter in {self.root.name}/ is in use; promote or name one.")
        chosen = self._sound(chosen)
        trained_on = records.read_record(self._place(chosen))["base"]
        if records.weights_hash(base) != trained_on["sha256"]:
            what = f"The adapter {chosen} was trained on other weights than those of {base.name}"
            raise CourseError(f"{what}; open it with its own base, {trained_on['name']}.")
        return self._place(chosen)

    def verify(self) -> list[str]:
        """One sentence for each thing that is wrong; an empty list is a sound registry."""
        try:  # before the names, since another process may push and promote meanwhile
            wrong, promoted = [], self.history()
        except CourseError as problem:
            wrong, promoted = [str(problem)], []
        names = self._names()
        for name in names:
            wrong += records.faults(self._place(name))
        for name in dict.fromkeys(entry["hash"] for entry in promoted):
            if name not in names:
                wrong.append(f"{PROMOTIONS} names {name}, which objects/ has not; {records.AGAIN}.")
        return wrong

    def push_to_hub(self, name: str, repo_id: str, private: bool = True, api: Any = None) -> None:
        """Upload a sound adapter to `repo_id` on the hub; what is public there already stays so.

        `api`: an HfApi of your own. Raises CourseError for a damaged adapter or a failed upload.
        """
        from httpx import HTTPError
        from huggingface_hub import HfApi

        folder, api = self._place(self._sound(name)), api or HfApi()
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder)
        except (OSError, ValueError, HTTPError) as problem:
            what = f"{folder.name} was not uploaded to {repo_id} ({type(problem).__name__})"
            raise CourseError(f"{what}; check that name, your token, the network.") from problem

    @contextmanager
    def _changing(self) -> Iterator[Path]:
        """An empty folder for what is half made, while no other process changes the registry."""
        staged = self.root / "staging" / f"{os.getpid()}-{secrets.token_hex(4)}"
        try:
            staged.mkdir(parents=True)
            with locked(self.root / ".lock"):
                yield staged
        except OSError as problem:
            why = problem.strerror or problem
            what = f"{self.root.name}/ could not be changed ({why}); the registry is as it was"
            raise CourseError(f"{what}: free some space or name another folder.") from None
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _place(self, name: str) -> Path:
        return self.root / "objects" / name

    def _names(self) -> list[str]:
        folder = self.root / "objects"
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(path.name for path in found if not path.name.startswith("."))

    def _find(self, name: str) -> str:
        """The 12 digits that are meant by the beginning of a hash."""
        start = name.lower()
        if len(start) < 4:
            raise CourseError(f"{name!r} is too short for a hash; write 4 of its digits or more.")
        found = [one for one in self._names() if one.startswith(start[:12])]
        if start[12:]:  # more digits than a folder's name has
            found = [one for one in found if self.record(one)["sha256"].startswith(start)]
        if len(found) > 1:
            raise CourseError(f"{name!r} fits {' and '.join(found)}; write more of its digits.")
        if not found:
            raise CourseError(f"{self.root.name}/ has no adapter {name!r}; list the hashes.")
        return found[0]

    def _sound(self, name: str) -> str:
        """The 12 digits of an adapter whose bytes are those that were pushed."""
        found = self._find(name)
        for fault in records.faults(self._place(found)):
            raise CourseError(fault)
        return found


def _take_place(staged: Path, place: Path) -> None:
    if not place.exists():
        os.replace(staged, place)  # in one step: no reader sees a part of it
        return
    for file in sorted(staged.iterdir()):  # the adapter there is damaged
        os.replace(file, place / file.name)


def _in_use(history: Sequence[Mapping[str, str]]) -> list[str]:
    """What was current one after the other, without what a rollback has taken back."""
    names: list[str] = []
    for entry in history:
        if entry["action"] == "rollback":
            del names[-1:]
        elif names[-1:] != [entry["hash"]]:
            names.append(entry["hash"])
    return names


def _is_dead(staged: Path) -> bool:
    """Whether the process that made a folder of staging/ has ended."""
    try:
        made = staged.stat().st_mtime
        process = psutil.Process(int(staged.name.partition("-")[0]))
        # a number is given again: then its process is younger than the folder
        return time.time() - made > LONG and process.create_time() > made
    except psutil.NoSuchProcess:
        return True
    except (OSError, ValueError, psutil.Error):  # gone meanwhile, or none of ours
        return False


def _said(registry: Registry, command: str, names: list[str], reason: str) -> list[str]:
    """Run one command; returns the lines that it prints."""
    if len(names) != COMMANDS[command]:
        raise CourseError(f"{command} takes {COMMANDS[command]} hashes, not {len(names)}.")
    if not registry.root.is_dir():
        raise CourseError(f"There is no folder {registry.root}; name a registry with --folder.")
    if command == "diff":
        return [f"{name}: {here} | {there}" for name, here, there in registry.diff(*names)]
    if command == "history":
        return ["  ".join(entry.values()) for entry in registry.history()]
    if command == "verify":
        wrong = registry.verify()
        if wrong:
            raise CourseError("\n".join(wrong))
        return [f"All {len(registry.entries())} adapters are as they were pushed."]
    if command == "promote":
        registry.promote(names[0], reason)
    elif command == "rollback":
        registry.rollback(reason)
    current, lines = registry.current(), []
    for record in registry.entries():
        mark = "*" if record["hash"] == current else " "
        lines.append(f"{mark} {record['hash']}  {record['date']}  {record['base']['name']}")
    return lines


def registry_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command of a registry; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.ship.registry", description=__doc__)
    parser.add_argument("--folder", type=Path, default="registry")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("hashes", nargs="*", help="or how they begin")
    parser.add_argument("--reason", default="", help="of promote and rollback")
    chosen = parser.parse_intermixed_args(arguments)
    registry = Registry(chosen.folder)
    try:
        lines = _said(registry, chosen.command, chosen.hashes, chosen.reason)
    except CourseError as problem:
        print(problem, file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(registry_command())

"""Where a run keeps what it made: artifacts with manifests, answers that survive a kill, results.json."""

import csv
import hashlib
import json
import os
import shutil
import time
from datetime import date
from pathlib import Path

from helpers import ROOT, CourseError
from helpers.core.runtime import machine, sha256, versions


def write_text(path, text):
    """Write a file in one step: a kill or a full disk leaves the old file, never half a new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8", newline="")
        os.replace(part, path)
    except OSError as problem:
        part.unlink(missing_ok=True)
        raise CourseError(
            f"{path.name} could not be written ({problem.strerror}); what was there before is untouched."
        ) from None


def write_csv(path, rows):
    """Rows (dicts) as UTF-8 CSV; a cell that a spreadsheet would run as a formula gets an apostrophe in front."""
    import io

    rows, out = list(rows), io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    k: f"'{v}"
                    if isinstance(v, str) and v.startswith(("=", "+", "-", "@", "\t"))
                    else v
                    for k, v in row.items()
                }
            )
    write_text(path, "\ufeff" + out.getvalue())  # the mark makes Excel read UTF-8


def fingerprint(*things):
    """Twelve hex digits over settings, rows or paths' hashes: the same inputs give the same name."""
    return hashlib.sha256(json.dumps(things, sort_keys=True, default=str).encode()).hexdigest()[:12]


class Run:
    """One chapter of one pilot: `folder` is runs/<pilot>/<chapter>/.

    figures go in with `figure()`, files with `keep()`, answers through `journal()`; `finish()` writes results.json.
    """

    def __init__(self, pilot, chapter, runtime, seed=0):
        self.pilot, self.chapter, self.runtime, self.seed = pilot, chapter, runtime, seed
        base = Path(os.environ.get("COURSE_RUNS") or ROOT / "runs")
        self.folder = (
            base / pilot.name / ("smoke" if runtime.profile.name == "smoke" else "") / chapter
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.started, self.figures = time.perf_counter(), []

    def path(self, name):
        return self.folder / name

    def keep(self, name, settings=None, inputs=(), seconds=None):
        """Enter a file or folder of this run into manifest.json with its hash, its inputs' hashes, settings, seed, versions."""
        path = self.path(name)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        manifest = self._manifest()
        manifest[name] = {
            "sha256": {f.relative_to(self.folder).as_posix(): sha256(f) for f in files},
            "bytes": sum(f.stat().st_size for f in files),
            "inputs": {str(i): self._hash(i) for i in inputs},
            "settings": settings or {},
            "seed": self.seed,
            "versions": versions(),
            "seconds": seconds,
            "date": date.today().isoformat(),
        }
        write_text(self.path("manifest.json"), json.dumps(manifest, indent=1))
        return path

    def have(self, name, settings):
        """The manifest entry of an intact artifact made with the same settings, or None."""
        entry = self._manifest().get(name)
        if not entry or fingerprint(entry["settings"]) != fingerprint(settings):
            return None
        intact = all(
            (self.folder / f).is_file() and sha256(self.folder / f) == h
            for f, h in entry["sha256"].items()
        )
        return entry if intact else None

    def _manifest(self):
        try:
            return json.loads(self.path("manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _hash(self, name):
        place = self.path(name)
        return (
            sha256(place) if place.is_file() else self._manifest().get(name, {}).get("sha256", "")
        )

    def need(self, chapter, name):
        """A file that another chapter made: from this pilot's run, else the reference copy. Start anywhere."""
        for place in (
            self.folder.parent / chapter / name,
            ROOT / "data/reference" / self.pilot.name / chapter / name,
        ):
            if place.exists():
                return place
        raise CourseError(
            f"{name} is made by chapter {chapter}; run that chapter once for the pilot {self.pilot.name!r}."
        )

    def journal(self, name, *settings):
        """Answers of one strategy, kept row by row under a name that depends on the settings."""
        return Journal(self.path("answers") / f"{name}-{fingerprint(settings)}.jsonl")

    def looks(self):
        """How many differently made sets of answers of tuned models to the test set this run has seen."""
        return len(list(self.path("answers").glob("tuned-*.jsonl")))

    def figure(self, name, value, low=None, high=None, n=None, unit="share", how="", seeds=None):
        """Enter a figure for results.json; a Share or a Comparison fills interval and n by itself. `seeds`: where not the run's own."""
        if hasattr(value, "difference"):
            value, low, high, n, unit = (
                value.difference,
                value.low,
                value.high,
                value.n,
                "difference",
            )
        elif hasattr(value, "value"):
            value, low, high, n = value.value, value.low, value.high, value.n
        self.figures = [f for f in self.figures if f["name"] != name]
        rounded = [None if x is None else float(f"{x:.6g}") for x in (value, low, high)]
        self.figures.append(
            {
                "name": name,
                "value": rounded[0],
                "low": rounded[1],
                "high": rounded[2],
                "n": n,
                "unit": unit,
                "seeds": [self.seed] if seeds is None else list(seeds),
                "how": how,
            }
        )

    def scored(self, name, scored):
        """Enter a strategy's Scored: `exact.<name>` and one `<field>.<type>.<name>` per field, Wilson intervals."""
        name = name.replace("-", "_").lower()
        self.figure(f"exact.{name}", scored.share, how="exact record on test, Wilson 95 %")
        for field, share in scored.shares.items():
            kind = self.pilot.fields[field].type
            self.figure(f"{field}.{kind}.{name}", share, how=f"{field} on test, Wilson 95 %")

    def versus(self, name, comparison):
        """Enter the paired comparison of the tuned model with another strategy: difference and exact McNemar p."""
        name = name.replace("-", "_").lower()
        self.figure(
            f"exact.tuned_minus_{name}", comparison, how="paired difference on test, bootstrap 95 %"
        )
        self.figure(
            f"mcnemar_p.tuned_{name}",
            comparison.p,
            n=comparison.n,
            unit="p",
            how="exact McNemar test",
        )

    def finish(self, settings=None):
        """Write results.json and return its path."""
        result = {
            "chapter": self.chapter,
            "pilot": self.pilot.name,
            "profile": self.runtime.profile.name,
            "seconds": round(time.perf_counter() - self.started, 1),
            "figures": self.figures,
            "settings": settings or {},
            "versions": versions(),
            "machine": machine(),
        }
        write_text(self.path("results.json"), json.dumps(result, indent=1))
        return self.path("results.json")


def read_entries(path):
    """Entries of a JSONL file that grows line by line, as a list; what a kill left of a last line is cut off the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries, whole = [], 0
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        try:
            entry = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            entry = None
        if not isinstance(entry, dict):  # the line that a kill cut short
            break
        entries.append(entry)
        whole += len(line)
    if path.is_file() and path.stat().st_size > whole:
        with open(path, "r+b") as file:
            file.truncate(whole)
    return entries


def append_entry(path, entry, what, kept):
    """Add one line; raises CourseError when it cannot be written, naming `what` it was and how many are `kept`."""
    try:
        with open(path, "ab") as file:
            file.write((json.dumps(entry, ensure_ascii=False) + "\n").encode())
    except OSError as problem:
        raise CourseError(
            f"{what} could not be written ({problem.strerror}); {kept} are kept. Free some space "
            "and run the cell again: it goes on where it stopped."
        ) from None


class Journal:
    """Answers by row id in a JSONL file that is appended to as they arrive; half a last line is ignored.

    `seconds` adds up the working time over every start.
    """

    def __init__(self, path):
        self.path, self.answers, self.seconds = Path(path), {}, 0.0
        for entry in read_entries(self.path):
            self.answers.update(entry["answers"])
            self.seconds += entry["seconds"]

    def missing(self, rows):
        return [row for row in rows if row["id"] not in self.answers]

    def add(self, answers, seconds):
        """Append {id: answer text} and the seconds they took. Raises CourseError when the disk is full."""
        seconds = round(seconds, 3)
        append_entry(
            self.path, {"answers": answers, "seconds": seconds}, "Answers", len(self.answers)
        )
        self.answers.update(answers)
        self.seconds += seconds

    def of(self, rows):
        return [self.answers[row["id"]] for row in rows]


def clear(folder):
    """Remove a chapter's run so that the next start begins from nothing."""
    shutil.rmtree(folder, ignore_errors=True)

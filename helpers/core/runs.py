"""Where a run keeps what it made: artifacts with manifests, recorded answers, results.json."""

import glob
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from helpers import ROOT, CourseError
from helpers.core.files import Journal, fingerprint, locked, sha256, write_text
from helpers.core.pilot import Pilot
from helpers.core.runtime import Runtime, machine, versions


@dataclass(frozen=True)
class StoredAnswers:
    """Answers that a chapter recorded: one text per row, the seconds they took, the file."""

    texts: list[str]
    seconds: float
    path: Path


def runs_folder() -> Path:
    """The folder of all runs: `COURSE_RUNS`, else runs/ in the course; always absolute."""
    return Path(os.environ.get("COURSE_RUNS") or ROOT / "runs").resolve()


def make_runs_folder(folder: Path) -> None:
    """Make a folder of runs. Raises CourseError where this user may not write."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        what = f"The folder {folder} cannot be made ({problem.strerror})"
        raise CourseError(f"{what}; set COURSE_RUNS to a folder of your own.") from None


class Run:
    """One chapter of one pilot; `folder` is runs/<pilot>/<chapter>/."""

    def __init__(self, pilot: Pilot, chapter: str, runtime: Runtime, seed: int = 0) -> None:
        self.pilot, self.chapter, self.runtime, self.seed = pilot, chapter, runtime, seed
        smoke = "smoke" if runtime.profile.name == "smoke" else ""  # never beside real numbers
        self.folder = runs_folder() / pilot.name / smoke / chapter
        make_runs_folder(self.folder)
        self.started = time.perf_counter()  # results.json says how long a chapter took
        self.figures: list[dict] = []

    def path(self, name: str) -> Path:
        """Where the file `name` of this run lies."""
        return self.folder / name

    def keep(
        self, name: str, settings: Mapping | None = None, seconds: float | None = None
    ) -> Path:
        """Enter a file or folder into manifest.json with its hashes, settings, seed, versions."""
        path = self.path(name)
        files = [file for file in (path, *sorted(path.rglob("*"))) if file.is_file()]
        entry = {
            "sha256": {file.relative_to(self.folder).as_posix(): sha256(file) for file in files},
            "bytes": sum(file.stat().st_size for file in files),
            "settings": settings or {},
            "seed": self.seed,
            "versions": versions(),
            "seconds": seconds,
            "date": date.today().isoformat(),
        }
        with locked(self.path(".lock")):  # another notebook may enter something of its own
            manifest = self._manifest() | {name: entry}
            write_text(self.path("manifest.json"), json.dumps(manifest, indent=1))
        return path

    def have(self, name: str, settings: Mapping) -> dict | None:
        """The manifest entry of an intact artifact made with the same settings, or None."""
        entry = self._manifest().get(name)
        if not entry or fingerprint(entry["settings"]) != fingerprint(settings):
            return None
        for name, known in entry["sha256"].items():
            if not self.path(name).is_file() or sha256(self.path(name)) != known:
                return None
        return entry

    def _manifest(self) -> dict:
        path = self.path("manifest.json")
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _folders_of(self, chapter: str) -> tuple[Path, Path]:
        reference = ROOT / "data/reference" / self.pilot.name
        return self.folder.parent / chapter, reference / chapter

    def need(self, chapter: str, name: str) -> Path:
        """A file that another chapter made: this pilot's, else the reference; or CourseError."""
        for folder in self._folders_of(chapter):
            if (folder / name).exists():
                return folder / name
        cure = f"run that chapter once for the pilot {self.pilot.name!r}"
        raise CourseError(f"{name} is made by chapter {chapter}; {cure}.")

    def made_with(self, chapter: str, name: str) -> dict | None:
        """The settings of what `chapter` of this very run made as `name`; None where it has not."""
        path = self.folder.parent / chapter / "manifest.json"
        if not path.is_file():
            return None
        return json.loads(path.read_text(encoding="utf-8")).get(name, {}).get("settings")

    def stored_answers(self, chapter: str, name: str, texts: Sequence[str]) -> StoredAnswers:
        """The answers `name` that another chapter recorded to these texts; or CourseError."""
        for folder in self._folders_of(chapter):
            digest, place = "[0-9a-f]" * 12, folder / "answers"
            paths = list(place.glob(f"{glob.escape(name)}-{digest}.jsonl"))
            # a student of a chapter has the digest of its recipe in the name, too
            paths += place.glob(f"{glob.escape(name)}_{digest}-{digest}.jsonl")
            for path in sorted(paths, key=os.path.getmtime, reverse=True):
                # the hash of model, adapter and settings: see helpers.ask.answers.generate
                made_from = path.stem.rsplit("-", 1)[1]
                keys = [fingerprint(made_from, text) for text in texts]
                journal = Journal(path)
                if not journal.missing(keys):
                    return StoredAnswers(journal.of(keys), journal.seconds, path)
        what = f"no answers {name!r} to all of these {len(texts)} texts"
        cure = f"run that chapter once for the pilot {self.pilot.name!r}"
        raise CourseError(f"Chapter {chapter} has recorded {what}; {cure}.")

    def looks(self) -> int:
        """How many differently made sets of answers of tuned models to the test set there are."""
        return len(list(self.path("answers").glob("tuned-*.jsonl")))

    def figure(
        self,
        name: str,
        value: Any,
        low: float | None = None,
        high: float | None = None,
        n: int | None = None,
        unit: str = "share",
        how: str = "",
        seeds: Iterable[int] | None = None,
    ) -> None:
        """Enter a figure for results.json; a Share or a Comparison fills interval and n by itself.

        The same name again replaces the figure. `seeds`: where they are not the run's own.
        """
        # by their attributes, since core knows nothing of helpers.measure
        if hasattr(value, "difference"):
            unit = "difference"
            value, low, high, n = value.difference, value.low, value.high, value.n
        elif hasattr(value, "value"):
            value, low, high, n = value.value, value.low, value.high, value.n
        self.figures = [figure for figure in self.figures if figure["name"] != name]
        numbers = {"value": _rounded(value), "low": _rounded(low), "high": _rounded(high), "n": n}
        seeds = [self.seed] if seeds is None else list(seeds)
        self.figures.append({"name": name, **numbers, "unit": unit, "seeds": seeds, "how": how})

    def scored(self, name: str, scored: Any) -> None:
        """Enter a strategy's Scored: `exact.<name>`, `<field>.<type>.<name>`, Wilson intervals."""
        name = _plain(name)
        self.figure(f"exact.{name}", scored.share, how="exact record on test, Wilson 95 %")
        for field, share in scored.shares.items():
            kind = self.pilot.fields[field].type
            self.figure(
                f"{_plain(field)}.{kind}.{name}", share, how=f"{field} on test, Wilson 95 %"
            )

    def versus(self, name: str, comparison: Any) -> None:
        """Enter the tuned model against another strategy: difference and exact McNemar p."""
        name, p, n = _plain(name), comparison.p, comparison.n
        how = "paired difference on test, bootstrap 95 %"
        self.figure(f"exact.tuned_minus_{name}", comparison, how=how)
        self.figure(f"mcnemar_p.tuned_{name}", p, n=n, unit="p", how="exact McNemar test")

    def finish(self, settings: Mapping | None = None) -> Path:
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


def _plain(name: str) -> str:
    return re.sub(r"[ +]+|-", "_", name).lower()


def _rounded(value: float | None) -> float | None:
    """Six significant digits: what is printed never depends on the last bits of a sum."""
    return None if value is None else float(f"{value:.6g}")

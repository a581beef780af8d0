"""Which model made the readings that are judged, and does it differ from the one of this run?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import ROOT
from helpers.core.runs import Run
from helpers.measure.system import Reading

REFERENCE = ROOT / "data/reference"
CHAPTER_05 = "those of chapter 05, with the rows of chapter 04"
SETTINGS = {"studies/recipe": CHAPTER_05, "05": CHAPTER_05, "00": "those of chapter 00"}
NAMES = {"studies/recipe": "the recipe study", "05": "chapter 05", "00": "chapter 00"}
# how the study calls what the trainer of chapter 05 calls otherwise
TRAINER_NAMES = {"steps": "max_steps", "batch_size": "per_device_train_batch_size"}
COMPARED = ("learning_rate", "r", "lora_alpha", "max_length", "packing", *TRAINER_NAMES)
OF_THE_MACHINE = {"bf16", "fp16", "optim", "trained_in", "lead", "notes"}


@dataclass(frozen=True)
class ReadingModel:
    """The model of some readings. `remark` is a sentence where it is not this run's, else ""."""

    name: str
    labelled: int
    profile: str
    settings: str
    remark: str

    def adapter(self, seed: int) -> str:
        """How a page names it."""
        return f"seed {seed} of {self.name}" if self.remark else f"seed {seed}"


def is_recorded(path: Path) -> bool:
    """Does a file or folder belong to the recorded run?"""
    return REFERENCE.resolve() in path.resolve().parents


def who_read(run: Run, reading: Reading, labelled: int) -> ReadingModel:
    """The model of a stored reading, beside this run with `labelled` training rows.

    This run's is another where profile, number of labelled rows, or the settings and rows of its
    own chapter 05 differ.
    """
    home = reading.home or run.folder
    chapter = "studies/recipe" if home.parent.name == "studies" else home.name
    result = _result(home)
    profile = result.get("profile", run.runtime.profile.name)
    taught = result.get("settings", {}).get("labelled", labelled)
    name, remark = NAMES.get(chapter, f"chapter {chapter}"), ""
    if is_recorded(home):
        name = f"the recorded {name.removeprefix('the ')}"
    differs = []
    if profile != run.runtime.profile.name:
        differs.append(f"profile {profile}, this run {run.runtime.profile.name}")
    if taught != labelled:
        differs.append(f"{taught} labelled messages, this run {labelled}")
    if others := _other_settings(run, home, result.get("settings", {})):
        differs.append(f"chapter 05 of this run has other {', '.join(others)}")
    if differs:
        what = f"What the tuned model reads here is of {name}, not of a model of this run"
        remark = f"{what}: {'; '.join(differs)}."
    return ReadingModel(name, taught, profile, SETTINGS.get(chapter, "not known"), remark)


def of_decisions(run: Run) -> str:
    """The remark of the readings behind the decisions that this run has of chapter 08, or ""."""
    own = run.made_with("08", "decisions.jsonl")
    if own is not None:
        return own.get("remark", "")
    profile = _result(REFERENCE / run.pilot.name / "08").get("profile")
    if profile == run.runtime.profile.name:
        return ""
    what = f"The decisions of chapter 08 are the recorded ones (profile {profile})"
    return f"{what}, not of a model of this run (profile {run.runtime.profile.name})."


def _result(home: Path) -> dict[str, Any]:
    """results.json of a chapter's or a study's folder; {} where it has not finished."""
    path = home / "results.json"
    if is_recorded(home):
        name = f"{home.name}_study" if home.parent.name == "studies" else home.name
        path = REFERENCE / f"results/{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _other_settings(run: Run, home: Path, study: Mapping[str, Any]) -> list[str]:
    """In what this run's chapter 05 differs from the model of `home`, where both are known."""
    own = run.made_with("05", "adapter")
    if own is None or home.resolve() == (run.folder.parent / "05").resolve():
        return []
    known: dict[str, Any] = {}
    if is_recorded(home):
        known = _result(REFERENCE / run.pilot.name / "05").get("settings", {})
    elif "student" in study:
        told = {**study["student"], "steps": study["steps"]}
        known = {TRAINER_NAMES.get(name, name): told[name] for name in COMPARED}
    shared = (own.keys() & known.keys()) - OF_THE_MACHINE
    return sorted(name for name in shared if str(own[name]) != str(known[name]))

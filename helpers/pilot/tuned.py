"""The tuned model of a pilot: what earlier chapters have made of it, else trained here."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.core.rows import Rows
from helpers.core.runs import Run
from helpers.measure import baselines, system
from helpers.measure.system import Reading
from helpers.tune import students
from helpers.tune.live_loss import LiveLoss

# the first of these that has read the texts at hand
UNSEEN_FROM = {"studies/recipe": "unseen", "11": "unseen", "00": "unseen"}
TUNED_FROM = {"05": "tuned", "11": "tuned", "00": "tuned"}
RECIPE_HERE: dict[str, Any] = {"answer_only": True}  # beside students.SETTINGS, as chapter 05
HALVES = 2  # students that read the training rows which they did not learn
ADAPTER = "adapter_model.safetensors"


@dataclass(frozen=True)
class TunedReadings:
    """What a tuned model reads: `unseen` training rows by students that did not learn them, `test`.

    `adapter`: the folder of the adapter that read the test rows, made by `chapter`.
    """

    unseen: Reading
    test: Reading
    adapter: Path
    chapter: str

    @property
    def trained_here(self) -> bool:
        """Whether chapter 11 has tuned it."""
        return self.chapter == "11"


def stored_tuned(run: Run, data: Rows) -> TunedReadings | None:
    """What earlier chapters have made for these rows, or None where anything is missing."""
    text = run.pilot.text
    try:
        unseen = system.stored_reading(run, UNSEEN_FROM, [row[text] for row in data.train])
        test = system.stored_reading(run, TUNED_FROM, [row[text] for row in data.test])
        chapter = (test.home or run.folder).name
        adapter = run.need(chapter, f"adapter/{ADAPTER}").parent
    except CourseError:
        return None
    return TunedReadings(unseen, test, adapter, chapter)


def train_tuned(run: Run, data: Rows, watched: bool = False) -> TunedReadings:
    """Train a model on all labelled rows and HALVES students on parts of them; keep all of it.

    A kill loses the student at work. `watched`: draw the loss as it falls. The readings and the
    adapter lie in the run's folder, where `helpers.answer` finds them.
    """
    pilot, here, train = run.pilot, run.runtime, list(data.train)

    def student(learnt: list[dict], texts: list[str]) -> Reading:
        return students.student_reading(
            pilot,
            learnt,
            texts,
            here,
            run.path("students"),
            run.seed,
            RECIPE_HERE,
            callbacks=[LiveLoss()] if watched else [],
        )

    fold = baselines.folds(pilot, train, HALVES, run.seed)
    unseen = system.out_of_fold_reading(pilot, train, fold, student)
    texts = [row[pilot.text] for row in data.test]
    test = student(train, texts)
    _keep(run, data, unseen, test)
    _place_adapter(run, train, texts)
    kept = stored_tuned(run, data)
    if kept is None:  # a disk that forgets
        raise CourseError("What the tuned model read could not be read back; run the cell again.")
    return kept


def _keep(run: Run, data: Rows, unseen: Reading, test: Reading) -> None:
    text, path = run.pilot.text, run.path(system.READINGS)
    system.keep_reading(path, "unseen", [row[text] for row in data.train], unseen)
    system.keep_reading(path, "tuned", [row[text] for row in data.test], test)


def _place_adapter(run: Run, train: list[dict], texts: list[str]) -> None:
    """Copy the adapter of all rows to where the other commands look for it."""
    pilot, settings = run.pilot, RECIPE_HERE
    rows = [{pilot.text: text} for text in texts]
    epochs = run.runtime.profile.epochs
    job = students.job_of_epochs(pilot, train, run.seed, epochs, rows, settings)
    source = run.path("students") / job.key(pilot) / "adapter"
    shutil.copytree(source, run.path("adapter"), dirs_exist_ok=True)
    run.keep("adapter", {**job.all_settings(), "steps": job.steps, "labelled": len(train)})

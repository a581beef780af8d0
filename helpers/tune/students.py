"""Students for a comparison: a model per job, all measured alike; a kill loses those at work.

Without settings of its own a job has chapter 00's. Students of one comparison take the same number
of steps, so that rows compete, not work.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import joblib
import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import TrainerCallback
from trl import pack_dataset

from helpers import CourseError
from helpers.ask import answers
from helpers.choose import models
from helpers.core import rows as labelled_rows
from helpers.core import runtime
from helpers.core.files import Journal, fingerprint, sha256
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.measure import intervals, scoring, system
from helpers.tune import examples, training

SETTINGS: dict[str, Any] = {
    "method": "qlora",  # or "lora" (dense base) or "full" (every weight in float32, no adapter)
    "r": 16,
    "lora_alpha": 32,
    "target_modules": "all-linear",
    "learning_rate": 1e-3,
    "max_length": 256,  # tokens of a pack, or of the longest row where that is more
    "max_prompt_length": 512,  # a longer message is cut
    "max_new_tokens": 64,  # or what the longest answer in training takes, and some more
    "packing": True,
    "batch_size": 1,
    "answer_only": False,  # see training.AnswerSFTTrainer
    "activation_checkpointing": False,
    "load": None,  # the dtype that the base is loaded in; None is the machine's
    "guards": True,
    "start": None,  # the key of another student, whose adapter this one goes on from
    "data_seed": None,  # of the order of rows alone; None is the job's seed
    "average_last": 0.0,  # share of the steps, from the end, whose weights are averaged
}


@dataclass(frozen=True)
class StudentJob:
    """One student to train and measure: its arm, its rows, `settings` that differ from SETTINGS.

    `sets` is {name: labelled rows} to answer; `free`: the first also without having to copy.
    """

    arm: str
    rows: Sequence[Mapping[str, Any]]
    seed: int
    steps: int
    sets: Mapping[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    free: bool = False
    study: str = ""

    def all_settings(self) -> dict[str, Any]:
        """SETTINGS with this job's own; raises CourseError for an unknown one, or no rows."""
        for name in self.settings:
            if name not in SETTINGS:
                raise CourseError(f"There is no setting {name!r}; a student takes {[*SETTINGS]}.")
        settings = SETTINGS | self.settings
        if settings["method"] not in ("qlora", "lora", "full"):
            raise CourseError(f"method can be qlora, lora or full, not {settings['method']!r}.")
        if not self.rows:
            raise CourseError(
                f"The arm {self.arm!r} has no rows (everything rejected?); "
                "there is nothing to train on."
            )
        return settings

    def key(self, pilot: Pilot) -> str:
        """A fingerprint of everything the trained student is made from."""
        # without the columns that say where a row comes from: they are not trained on
        taught = [[row[name] for name in (pilot.text, *pilot.fields)] for row in self.rows]
        asked = {name: [row[pilot.text] for row in rows] for name, rows in self.sets.items()}
        chat, settings = pilot.chat("", full=False), self.all_settings()
        for name in ("data_seed", "average_last"):  # newer than the recorded students
            if settings[name] == SETTINGS[name]:
                del settings[name]
        run = [self.seed, self.steps, self.free, settings, pilot.base_model]
        return fingerprint(taught, asked, chat, run)


class InventingPilot(Pilot):
    """The same pilot, but a span may be any words: shows what a student invents when it may."""

    copies: ClassVar[bool] = False


class AverageLast(TrainerCallback):
    """Puts the mean over the last `share` of the steps in place of the last trained weights."""

    def __init__(self, model: Any, share: float) -> None:
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.sums: list[torch.Tensor] = []
        self.share, self.count = share, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the weights of this step."""
        if state.global_step > (1 - self.share) * state.max_steps:
            if not self.sums:
                self.sums = [torch.zeros_like(weight) for weight in self.weights]
            for total, weight in zip(self.sums, self.weights):
                total += weight.detach()
            self.count += 1

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put the means in."""
        for weight, total in zip(self.weights, self.sums):
            weight.data.copy_(total / self.count)


def train_student(
    pilot: Pilot,
    job: StudentJob,
    here: runtime.Runtime,
    folder: str | Path,
    held_out: Sequence[Mapping[str, Any]] = (),
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[Any, Any, dict[str, Any]]:
    """(model in training form, tokenizer, facts) of one student of the pilot's base model.

    The loss on the labelled rows `held_out` is logged after each epoch, for `callbacks` to see.
    Facts: seconds, trained (weights), ship_bytes (these in 16 bits), loss (mean, nats a token).
    """
    settings, folder = job.all_settings(), Path(folder)
    base, tokenizer = answers.open_base(pilot)
    four_bit, full = settings["method"] == "qlora", settings["method"] == "full"
    load = settings["load"] or ("float32" if full else here.dtype)
    with base.loading():
        model = training.load_base(base.path, here, four_bit, getattr(torch, load))
    length = settings["max_prompt_length"]
    rows, _ = examples.training_rows(pilot, job.rows, tokenizer, length)
    unseen = [examples.training_row(pilot, row, tokenizer, length) for row in held_out]
    # the words of LoraConfig and of SFTConfig, as the settings have them
    names = ("r", "lora_alpha", "target_modules")
    adapter = training.lora_config(**{name: settings[name] for name in names})
    arguments: dict[str, Any] = {"max_steps": job.steps, "seed": job.seed, "warmup_steps": 0.05}
    for name in ("packing", "max_length", "learning_rate"):
        arguments[name] = settings[name]
    for name in ("activation_checkpointing", "data_seed"):
        if settings[name]:
            arguments[name] = settings[name]
    trainer = training.build_trainer(
        model,
        tokenizer,
        rows,
        here,
        folder / "trainer",
        adapter=None if full else adapter,
        guards=settings["guards"],
        answer_only=settings["answer_only"],
        per_device_train_batch_size=settings["batch_size"],
        held_out=unseen,
        **arguments,
    )
    for callback in callbacks:
        trainer.add_callback(callback)
    if settings["start"]:
        training.load_adapter(trainer.model, folder.parent / settings["start"] / "adapter")
    average = AverageLast(trainer.model, settings["average_last"])
    if settings["average_last"]:
        trainer.add_callback(average)
    facts = {"seconds": round(training.fit(trainer), 1)}
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    facts |= {"trained": trained, "ship_bytes": 2 * trained}
    facts["loss"] = trainer.state.log_history[-1].get("train_loss")
    return trainer.model, tokenizer, facts


def load_student(
    pilot: Pilot, adapter: str | Path, here: runtime.Runtime, four_bit: bool = True
) -> tuple[models.Base, Any, Any]:
    """(base, tokenizer, model) of a stored adapter beside its base, ready to be measured.

    `four_bit`: the base that it was trained beside (chapter 00), else the one it ships on (05).

    `model.disable_adapter()` gives the base alone. Raises CourseError without the adapter.
    """
    if not (Path(adapter) / "adapter_model.safetensors").is_file():
        raise CourseError(
            "The adapter that gave these answers is not beside them; run the chapter that trains "
            "it (05, or 00) once more."
        )
    base, tokenizer = answers.open_base(pilot)
    with base.loading():
        # the 4-bit weights written out in 16 bits: the same model, read several times faster
        dense = training.load_base(base.path, here, four_bit=four_bit)
        if four_bit:
            dense = dense.dequantize()
    model = PeftModel.from_pretrained(dense, str(adapter), autocast_adapter_dtype=False)
    return base, tokenizer, model.eval()


def job_of_epochs(
    pilot: Pilot,
    rows: Sequence[Mapping[str, Any]],
    seed: int,
    epochs: int,
    test: Any,
    settings: Mapping[str, Any] | None = None,
) -> StudentJob:
    """Chapter 00's student with another seed: as many steps as its packs of rows make epochs."""
    job = StudentJob("chapter 00", rows, seed, 0, {"test": test}, dict(settings or {}))
    own = job.all_settings()
    _, tokenizer = answers.open_base(pilot)
    taught, _ = examples.training_rows(pilot, rows, tokenizer, own["max_prompt_length"])
    packs: Any = taught
    if own["packing"]:
        ids = []
        for row in taught:
            text = row["prompt"] + row["completion"]
            ids.append(tokenizer(text).input_ids + [tokenizer.eos_token_id])
        longest = max(own["max_length"], *map(len, ids))
        packs = pack_dataset(Dataset.from_dict({"input_ids": ids}), longest, "bfd")
    return replace(job, steps=epochs * math.ceil(len(packs) / own["batch_size"]))


def student_reading(
    pilot: Pilot,
    train: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    here: runtime.Runtime,
    folder: str | Path,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    held_out: Sequence[Mapping[str, Any]] = (),
    callbacks: Sequence[TrainerCallback] = (),
) -> system.Reading:
    """What a student of `train` makes of `texts`: its records, and how sure it is of each label.

    Adapter and answers are kept in `folder` under what made them. `settings` differ from SETTINGS;
    `held_out` and `callbacks` are those of train_student.
    """
    rows = [{pilot.text: text} for text in texts]
    job = job_of_epochs(pilot, train, seed, here.profile.epochs, rows, settings)
    place = Path(folder) / job.key(pilot)
    if not (place / "adapter/adapter_model.safetensors").is_file():
        trained, _, _ = train_student(pilot, job, here, place, held_out, callbacks)
        training.save_adapter(trained, place / "adapter")
        del trained
    _, tokenizer, model = load_student(pilot, place / "adapter", here)
    limits = here.profile.max_length, _room_for_an_answer(pilot, tokenizer, job)
    return read_with(model, tokenizer, pilot, rows, place / "answers", here, *limits)[1]


def _room_for_an_answer(pilot: Pilot, tokenizer: Any, job: StudentJob) -> int:
    """Tokens that an answer may take; records in Japanese take twice as many as in English."""
    longest = max(len(tokenizer(pilot.answer(row)).input_ids) for row in job.rows)
    return max(job.all_settings()["max_new_tokens"], longest + 16)


def scored_answers(
    pilot: Pilot,
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    at: str | Path,
    here: runtime.Runtime,
    max_length: int,
    max_new_tokens: int,
) -> tuple[list[str], scoring.Scored]:
    """(answers held to the pilot's grammar, their score); kept at `at`, see answers.generate."""
    limits: dict[str, Any] = {"max_length": max_length, "max_new_tokens": max_new_tokens}
    batch = here.profile.eval_batch_size
    told = answers.generate(model, tokenizer, pilot, rows, at, batch_size=batch, **limits)
    return told.texts, scoring.score(pilot, rows, told.texts)


def same_answers(texts: Sequence[str], others: Sequence[str]) -> intervals.Share:
    """Share of rows to which two models give the same answer, with a Wilson 95 % interval."""
    return intervals.share([text == other for text, other in zip(texts, others, strict=True)])


def measure_student(
    pilot: Pilot, job: StudentJob, here: runtime.Runtime, folder: str | Path
) -> dict[str, Any]:
    """Train one student in `folder`, named by its key, and let it answer; returns its cell.

    A cell: key, arm, study, seed, steps, rows, settings, machine, versions, facts, and `right`
    {what: bools, one per row}: the exact record of each set, each field of the first one; with
    `free` the rows with an invented value. The adapter is merged into the dense base before it
    answers.
    """
    runtime.quiet()  # a process of its own has not been told yet
    folder, settings = Path(folder), job.all_settings()
    model, tokenizer, facts = train_student(pilot, job, here, folder)
    if settings["method"] == "full":
        model = model.to(here.torch_dtype)
    else:
        training.save_adapter(model, folder / "adapter")
        model = shipped(pilot, folder / "adapter", here)

    def scored(asked: Pilot, rows: Any, name: str) -> scoring.Scored:
        limits = settings["max_prompt_length"], _room_for_an_answer(pilot, tokenizer, job)
        at = folder / name
        _, result = scored_answers(asked, model, tokenizer, rows, at, here, *limits)
        return result

    right, first = {}, next(iter(job.sets))
    for name, rows in job.sets.items():
        result = scored(pilot, rows, name)
        right[name] = result.exact.tolist()
        if name == first:
            for label, values in result.right.items():
                right[f"{first}.{label}"] = values.tolist()
    if job.free:
        inventing = InventingPilot.model_construct(**dict(pilot))
        result = scored(inventing, job.sets[first], f"{first}.invented")
        right[f"{first}.invented"] = result.invented.tolist()
        right[f"{first}.exact_free"] = result.exact.tolist()
    cell = {"key": folder.name, "arm": job.arm, "study": job.study, "seed": job.seed}
    cell |= {"steps": job.steps, "rows": len(job.rows), "settings": job.settings}
    cell |= {"machine": here.note, "versions": runtime.versions()}
    return cell | facts | {"right": right}


def shipped(pilot: Pilot, adapter: str | Path, here: runtime.Runtime) -> Any:
    """The model as it ships: see merged."""
    return merged(models.resolve(pilot.base_model, pilot.folder), adapter, here)


def merged(base: models.Base, adapter: str | Path, here: runtime.Runtime) -> Any:
    """A stored adapter merged into its dense base, in 16 bits on most machines."""
    with base.loading():
        dense = training.load_base(base.path, here, four_bit=False)
    return PeftModel.from_pretrained(dense, str(adapter)).merge_and_unload()


def shipped_reading(
    pilot: Pilot,
    job: StudentJob,
    rows: Sequence[Mapping[str, Any]],
    here: runtime.Runtime,
    folder: str | Path,
    name: str,
) -> system.Reading:
    """What a trained student, merged as it ships, makes of `rows`: see system.model_reading.

    `folder` is that of train_students; answers are kept beside the student as `name`.
    """
    place = Path(folder) / job.key(pilot)
    model, (_, tokenizer) = shipped(pilot, place / "adapter", here), answers.open_base(pilot)
    limits = {
        "max_length": job.all_settings()["max_prompt_length"],
        "max_new_tokens": _room_for_an_answer(pilot, tokenizer, job),
    }
    _, reading = read_with(model, tokenizer, pilot, rows, place / name, here, **limits)
    return reading


def read_with(
    model: Any,
    tokenizer: Any,
    pilot: Pilot,
    rows: Sequence[Mapping[str, Any]],
    at: str | Path,
    here: runtime.Runtime,
    max_length: int,
    max_new_tokens: int,
) -> tuple[list[str], system.Reading]:
    """(answers to `rows` held to the pilot's grammar, the model's Reading of them); kept at `at`.

    Rows need no labels. The two may differ in a label: the Reading takes the likeliest whole one.
    """
    limits: dict[str, Any] = {"max_length": max_length, "max_new_tokens": max_new_tokens}
    batch = here.profile.eval_batch_size
    texts = answers.generate(model, tokenizer, pilot, rows, at, batch_size=batch, **limits).texts
    labels = Path(at).with_name(f"{Path(at).name}_labels")
    reading = system.model_reading(model, tokenizer, pilot, rows, texts, labels, max_length)
    return texts, reading


def new_reading(
    run: Run, rows: Sequence[Mapping[str, Any]], here: runtime.Runtime, seed: int
) -> system.Reading:
    """What the student of `seed` reads in new rows: stored for chapter 08, else asked now and kept.

    Asked is the adapter of chapter 05, seed 0, as it ships. Raises CourseError where that is
    missing, and for another seed that nobody asked.
    """
    pilot, texts = run.pilot, [row[run.pilot.text] for row in rows]
    try:
        path = run.need("08", labelled_rows.NEW_READINGS)
        reading = system.kept_reading(path, f"qlora {seed}", texts)
        return replace(reading, home=path.parent.parent / "studies/recipe")
    except CourseError:
        if seed != 0:
            raise CourseError(
                f"The student of seed {seed} has not read these rows; `python -m helpers.studies "
                "recipe --look` trains every seed and has them read."
            ) from None
        adapter = run.need("05", "adapter")
    # another adapter is another look
    way = f"adapter {sha256(adapter / 'adapter_model.safetensors')[:12]}"
    with contextlib.suppress(CourseError):
        reading = system.kept_reading(run.need("08", labelled_rows.NEW_READINGS), way, texts)
        return replace(reading, home=adapter.parent)
    model, (_, tokenizer) = shipped(pilot, adapter, here), answers.open_base(pilot)
    longest = max(len(tokenizer(pilot.answer(row)).input_ids) for row in rows)
    room, length = max(SETTINGS["max_new_tokens"], longest + 16), here.profile.max_length
    at = run.path("answers/new")
    _, reading = read_with(model, tokenizer, pilot, rows, at, here, length, room)
    system.keep_reading(run.path(labelled_rows.NEW_READINGS), way, texts, reading)
    return replace(reading, home=adapter.parent)


def train_students(
    pilot: Pilot,
    jobs: Sequence[StudentJob],
    here: runtime.Runtime,
    folder: str | Path,
    say: Callable[[str], None] = print,
    n_jobs: int = 1,
) -> list[dict[str, Any]]:
    """Train and measure what students.jsonl in `folder` lacks; returns a cell per job, in order.

    With n_jobs=2, two processes of one thread each work side by side: on two cores that trains 1.4
    times as many students an hour as one process of two threads.
    """
    folder = Path(folder)
    journal = Journal(folder / "students.jsonl", "A student")
    jobs_by_key = {job.key(pilot): job for job in jobs}
    missing = journal.missing(jobs_by_key)
    while missing:
        calls = []
        for key in missing:
            job = jobs_by_key[key]
            if job.settings.get("start") not in missing:  # else its start has to be trained first
                calls.append(joblib.delayed(measure_student)(pilot, job, here, folder / key))
        threads = 1 if n_jobs > 1 else None
        with joblib.parallel_config("loky", n_jobs=n_jobs, inner_max_num_threads=threads):
            for cell in joblib.Parallel(return_as="generator_unordered")(calls):
                journal.add({cell["key"]: cell}, cell["seconds"])
                shares = [f"{name} {np.mean(v):.1%}" for name, v in cell["right"].items()]
                start = f"{cell['arm']:24} seed {cell['seed']}  {cell['seconds']:5.0f} s  "
                say(start + "  ".join(shares))
        missing = journal.missing(jobs_by_key)
    # two arms of the same rows are one student
    named = [{"arm": job.arm, "study": job.study} for job in jobs]
    cells = journal.of([job.key(pilot) for job in jobs])
    return [cell | names for cell, names in zip(cells, named)]

"""The lm-eval harness, offline: local task files, its figure, and the rows behind it."""

import contextlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from helpers import ROOT, CourseError
from helpers.ask import answers
from helpers.ask.likelihood import evaluating, log_likelihoods
from helpers.core.files import read_yaml, write_text
from helpers.core.pilot import Pilot


@dataclass(frozen=True)
class Harness:
    """What lm-eval found on one task."""

    acc: float
    stderr: float  # one standard error of acc
    right: np.ndarray  # bools of shape (rows,), from its logged samples

    def __str__(self) -> str:
        return f"acc {self.acc:.1%} ± {self.stderr:.1%} (one standard error), n={self.right.size}"


def label_docs(pilot: Pilot, rows: Sequence[dict], tokenizer, max_length: int = 512) -> list[dict]:
    """Multiple-choice documents (id, prompt, choices, answer) for the first label field.

    The answer is begun up to the field, with the right values of the fields before it. Raises
    CourseError without a label field or a label.
    """
    if not pilot.labels:
        raise CourseError(
            "This pilot has no label field, so there is nothing to choose from; lm-eval is left "
            "out."
        )
    name, fields = pilot.labels[0], list(pilot.fields)
    values: list = list(pilot.fields[name].values)
    if pilot.fields[name].optional:
        values.append(None)
    # a choice goes on to the mark behind the value: many tokenizers write the closing quote and
    # the comma as one token, so that the model never writes the quote alone
    mark = "}" if name == fields[-1] else ","
    choices = [f" {json.dumps(value, ensure_ascii=False)}{mark}" for value in values]
    docs = []
    for row in rows:
        if row[name] not in values:
            raise CourseError(
                f"Row {row['id']} has no label for {name}; lm-eval needs labelled rows."
            )
        text = row[pilot.text]
        begun = answers.prompt(pilot, tokenizer, text, full=False, max_length=max_length) + "{"
        before = {field: row[field] for field in fields[: fields.index(name)]}
        # written as Pilot.answer writes it, names in any script, too
        known = json.dumps(before | {name: None}, ensure_ascii=False)
        prompt = begun + known.removeprefix("{").removesuffix(" null}")
        answer = values.index(row[name])
        docs.append({"id": str(row["id"]), "prompt": prompt, "choices": choices, "answer": answer})
    return docs


def general_docs() -> list[dict]:
    """Forty general questions as documents; data/general/CARD.md says what they are not."""
    docs = []
    lines = (ROOT / "data/general/questions.jsonl").read_text(encoding="utf-8").splitlines()
    for entry in map(json.loads, lines):
        prompt = f"Question: {entry['question']}\nAnswer:"
        choices = [f" {choice}" for choice in entry["choices"]]
        answer = entry["choices"].index(entry["answer"])
        docs.append({"id": entry["id"], "prompt": prompt, "choices": choices, "answer": answer})
    return docs


def write_task(folder: str | Path, name: str, docs: Sequence[dict]) -> Path:
    """A task of lm-eval in `folder`: <name>.jsonl with the documents, <name>.yaml to read them."""
    if not docs:
        raise CourseError(f"The task {name!r} has no rows.")
    folder = Path(folder).resolve()
    rows = folder / f"{name}.jsonl"
    write_text(rows, "".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in docs))
    task = read_yaml(ROOT / "helpers/templates/lm_eval_task.yaml")
    task["task"], task["dataset_kwargs"]["data_files"]["test"] = name, rows.as_posix()
    write_text(folder / f"{name}.yaml", yaml.safe_dump(task, sort_keys=False, allow_unicode=True))
    return folder / f"{name}.yaml"


def run_harness(model, tokenizer, files: Sequence[Path]) -> dict[str, Harness]:
    """{task: Harness} of a loaded model on task files of write_task; no network is used."""
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    for name in ("lm_eval", "lm-eval"):  # it spells the names of its loggers in two ways
        logging.getLogger(name).setLevel(logging.ERROR)
    with contextlib.ExitStack() as around:
        around.enter_context(evaluating(model))
        # on Windows a file that is still mapped cannot be removed
        scratch = around.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        if os.environ.get("COURSE_QUIET"):  # no progress bars
            around.enter_context(contextlib.redirect_stderr(io.StringIO()))
        tasks = [read_yaml(Path(path)) for path in files]
        for task in tasks:
            task["dataset_kwargs"]["cache_dir"] = scratch
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16, max_length=1024)
        loaded = TaskManager(include_defaults=False).load(tasks)
        output = evaluator.evaluate(wrapped, task_dict=loaded)
    results = {}
    for name, figures in output["results"].items():
        # the samples come in the order in which they were asked
        samples = sorted(output["samples"][name], key=lambda sample: sample["doc_id"])
        right = np.array([sample["acc"] > 0 for sample in samples])
        results[name] = Harness(figures["acc,none"], figures["acc_stderr,none"], right)
    return results


def by_hand(model, tokenizer, docs: Sequence[dict]) -> np.ndarray:
    """Is the likeliest choice the right one? Bools of shape (rows,), with nothing of lm-eval."""
    prompts, choices = [], []
    for doc in docs:
        prompts += [doc["prompt"]] * len(doc["choices"])
        choices += doc["choices"]
    read = iter(log_likelihoods(model, tokenizer, prompts, choices))
    right = []
    for doc in docs:
        # sums over the tokens, not means, as `acc` has it
        sums = [next(read)[0].sum() for _ in doc["choices"]]
        right.append(int(np.argmax(sums)) == doc["answer"])
    return np.array(right)

"""The lm-eval harness, offline: local task files over one's own rows, its figure and standard error, and the rows behind them."""

import contextlib
import io
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from helpers import ROOT, CourseError
from helpers.core.files import write_text


@dataclass(frozen=True)
class Harness:
    """What lm-eval said: `acc`, its standard error `stderr`, and `right`, a bool array of shape (rows,) from its logged samples."""

    acc: float
    stderr: float
    right: np.ndarray

    def __str__(self):
        return f"acc {self.acc:.1%} ± {self.stderr:.1%} (one standard error), n={self.right.size}"


def label_docs(pilot, rows, ask, name=None):
    """Multiple-choice documents for a label field (the first unless named): dicts with id, prompt, choices, answer (a number).

    `ask(text)` gives the prompt to the tuned model; the answer is begun up to the field, with the right values of the fields before
    it. A choice goes on to the comma (or the closing brace) behind the value: many tokenisers write the quote and what follows as one
    token, and a choice that stops at the quote would ask for a token that the model never writes there. Raises CourseError for a pilot
    without a label field, and for rows without a label.
    """
    if not pilot.labels:
        raise CourseError(
            "This pilot has no label field, so there is nothing to choose from; lm-eval is left out."
        )
    name, docs = name or pilot.labels[0], []
    before = list(pilot.fields)[: list(pilot.fields).index(name)]
    end = "}" if name == list(pilot.fields)[-1] else ","
    values = [*pilot.fields[name].values, *([None] if pilot.fields[name].optional else [])]
    for row in rows:
        if row[name] not in values:
            raise CourseError(
                f"Row {row['id']} has no label for {name}; lm-eval needs labelled rows."
            )
        begun = "".join(
            f"{json.dumps(f)}: {json.dumps(row[f], ensure_ascii=False)}, " for f in before
        )
        docs.append(
            {
                "id": str(row["id"]),
                "prompt": f"{ask(row[pilot.text])}{{{begun}{json.dumps(name)}:",
                "choices": [f" {json.dumps(v, ensure_ascii=False)}{end}" for v in values],
                "answer": values.index(row[name]),
            }
        )
    return docs


def general_docs(path=ROOT / "data/general/questions.jsonl"):
    """The general check as documents. The questions were written for this course; data/general/CARD.md says what they are not."""
    docs = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            q = json.loads(line)
            choices = [f" {choice}" for choice in q["choices"]]
            if (
                len(set(choices)) < 2
                or q["answer"] not in q["choices"]
                or not q["question"].strip()
            ):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CourseError(
                f"{Path(path).name} line {number} is no question: it needs question, two or more different choices, and "
                "an answer that is one of them."
            ) from None
        docs.append(
            {
                "id": q["id"],
                "prompt": f"Question: {q['question']}\nAnswer:",
                "choices": choices,
                "answer": q["choices"].index(q["answer"]),
            }
        )
    return docs


def write_task(folder, name, docs):
    """A task of lm-eval as two files in `folder`: <name>.jsonl with the documents, <name>.yaml that says how to read them."""
    if not docs:
        raise CourseError(f"The task {name!r} has no rows.")
    folder = Path(folder).resolve()
    write_text(
        folder / f"{name}.jsonl",
        "".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in docs),
    )
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": (folder / f"{name}.jsonl").as_posix()}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    write_text(folder / f"{name}.yaml", yaml.safe_dump(task, sort_keys=False, allow_unicode=True))
    return folder / f"{name}.yaml"


def run(model, tokenizer, files, batch_size=16, max_length=1024):
    """{task name: Harness} of a loaded transformers model on task files of write_task; no network is used.

    The samples are put back into the order of the file. Raises CourseError when lm-eval is not installed.
    """
    try:
        from lm_eval import evaluator
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise CourseError(
            "lm-eval is not installed; run: python -m pip install -r requirements.txt"
        ) from None
    for name in (
        "lm_eval",
        "lm-eval",
        "lm_eval.evaluator",
        "lm_eval.api.task",
        "lm_eval.models.huggingface",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    was_training, found = model.training, {}
    model.eval()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        tasks = []
        for path in files:
            task = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            task["dataset_kwargs"]["cache_dir"] = scratch
            tasks.append(task)
        wrapped = HFLM(
            pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length
        )
        quiet = (
            contextlib.redirect_stderr(io.StringIO())
            if os.environ.get("COURSE_QUIET")
            else contextlib.nullcontext()
        )
        with quiet:  # its progress bars
            said = evaluator.evaluate(
                wrapped, task_dict=TaskManager(include_defaults=False).load(tasks)
            )
    model.train(was_training)
    for task in tasks:
        name = task["task"]
        samples = sorted(said["samples"][name], key=lambda sample: sample["doc_id"])
        result = said["results"][name]
        found[name] = Harness(
            float(result["acc,none"]),
            float(result["acc_stderr,none"]),
            np.array([s["acc"] > 0 for s in samples]),
        )
    return found


def by_hand(model, tokenizer, docs):
    """Bool array (rows,): is the likeliest choice the right one? From the model's own log probabilities, with nothing of lm-eval.

    Each prompt is read once and its keys and values are shared by the choices; sums over tokens, not means, as `acc` has it.
    """
    import torch

    right, was_training = [], model.training
    model.eval()
    for doc in docs:
        start = tokenizer(doc["prompt"], add_special_tokens=False).input_ids
        tails = [
            tokenizer(doc["prompt"] + choice, add_special_tokens=False).input_ids[len(start) :]
            for choice in doc["choices"]
        ]
        width = max(map(len, tails))
        ids = torch.tensor(
            [tail + [tokenizer.pad_token_id] * (width - len(tail)) for tail in tails],
            device=model.device,
        )
        real = torch.tensor(
            [[1] * len(tail) + [0] * (width - len(tail)) for tail in tails], device=model.device
        )
        with torch.inference_mode():
            read = model(input_ids=torch.tensor([start], device=model.device), use_cache=True)
            read.past_key_values.batch_repeat_interleave(len(tails))
            mask = torch.cat(
                [torch.ones(len(tails), len(start), dtype=real.dtype, device=model.device), real], 1
            )
            logits = model(
                input_ids=ids, attention_mask=mask, past_key_values=read.past_key_values
            ).logits.float()
        before = torch.cat(
            [read.logits[:, -1:].float().expand(len(tails), -1, -1), logits[:, :-1]], 1
        )
        sums = (torch.log_softmax(before, -1).gather(-1, ids[..., None])[..., 0] * real).sum(1)
        right.append(int(sums.argmax()) == doc["answer"])
    model.train(was_training)
    return np.array(right)

"""What a training run is held to: rows that can teach, a loss that is a number, a checkpoint made with the same settings."""

import hashlib
import json
import os
from pathlib import Path

from helpers import CourseError
from helpers.ask import answers
from helpers.core.runs import write_text

# arguments of a Trainer that change what comes out; folders, logging and devices do not
SHAPING = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "packing",
    "seed",
    "data_seed",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "bf16",
    "fp16",
    "loss_type",
    "completion_only_loss",
    "neftune_noise_alpha",
)


def examples(pilot, rows, tokenizer, window):
    """(rows as prompt and completion, notes): a list of dicts for SFTTrainer, and sentences about what the reader should know.

    A message that makes its prompt longer than `window` tokens is cut, never the instruction or the answer, and a row whose span stood in
    the part that was cut is left out: its answer would teach to invent. Notes say how many. Raises CourseError for zero rows, when every
    label field has one value only (there is nothing to tell apart), and when no row is left.
    """
    rows = list(rows)
    if not rows:
        raise CourseError(
            "There are no rows to train on: train.csv is empty, or a filter rejected every row."
        )
    several = [f for f in pilot.labels if len(pilot.fields[f].values) > 1]
    single = {f: rows[0][f] for f in several if len({row[f] for row in rows}) == 1}
    notes = [
        f"all {len(rows)} training rows have {f} = {value!r}: the model learns to say so always."
        for f, value in single.items()
    ]
    if single and len(single) == len(several):
        field = next(iter(single))
        raise CourseError(
            f"All {len(rows)} training rows have {field} = {single[field]!r}: with one class there is nothing to tell "
            "apart; add rows of another one."
        )
    made, cut, lost = [], 0, 0
    spans = [f for f in pilot.fields if f not in pilot.labels]
    for row in rows:
        one = example(pilot, row, tokenizer, window)
        if row[pilot.text].strip() not in one["prompt"]:
            cut += 1
            if any(
                row[f] and row[f] in row[pilot.text] and row[f] not in one["prompt"] for f in spans
            ):
                lost += 1
                continue
        made.append(one)
    if lost == len(rows):
        raise CourseError(
            f"In all {len(rows)} rows the answer stands in the part of the message that the window of {window} tokens cuts "
            "off: raise it, or shorten them."
        )
    if cut:
        notes.append(
            f"{cut} of {len(rows)} messages are longer than the window of {window} tokens and were cut: raise it, or shorten "
            "them."
        )
    if lost:
        notes.append(
            f"{lost} of these were left out: the answer stood in the part that was cut off."
        )
    return made, notes


def example(pilot, row, tokenizer, window):
    """One row as {"prompt", "completion"} for SFTTrainer. It adds the start token of a tokenizer that has one: then the prompt has none."""
    asked = answers.prompt(pilot, tokenizer, row[pilot.text], full=False, max_tokens=window)
    if tokenizer.bos_token and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]:
        asked = asked.removeprefix(tokenizer.bos_token)
    return {"prompt": asked, "completion": pilot.answer(row)}


def describe(trainer):
    """{setting: value} of everything that shapes a run: arguments, adapter, number format, and a hash of the tokenised rows."""
    told = {name: getattr(trainer.args, name) for name in SHAPING if hasattr(trainer.args, name)}
    told = {name: str(getattr(value, "value", value)) for name, value in told.items()}
    for lora in (getattr(trainer.model, "peft_config", None) or {}).values():
        where = lora.target_modules
        told |= {
            "r": str(lora.r),
            "lora_alpha": str(lora.lora_alpha),
            "lora_dropout": str(lora.lora_dropout),
            "target_modules": where if isinstance(where, str) else ", ".join(sorted(where)),
        }
    if trainer.model.config.name_or_path:
        told["model"] = Path(trainer.model.config.name_or_path).name
    four_bit = getattr(trainer.model.config, "quantization_config", None)
    told["quantization"] = getattr(four_bit, "bnb_4bit_quant_type", None) or "none"
    trained = {
        str(p.dtype).removeprefix("torch.") for p in trainer.model.parameters() if p.requires_grad
    }
    told["trained_in"] = ", ".join(sorted(trained))
    digest = hashlib.sha256()
    for row in trainer.train_dataset:
        digest.update(json.dumps([row[c] for c in ("input_ids", "labels") if c in row]).encode())
    return told | {"rows": f"{len(trainer.train_dataset)} ({digest.hexdigest()[:8]})"}


def same_settings(trainer, resume):
    """Refuse to go on from checkpoint `resume` (a folder or None) when the settings beside it are others; writes them otherwise.

    Raises CourseError that names each difference. The checkpoint is left as it is.
    """
    path, now = Path(trainer.args.output_dir) / "settings.json", describe(trainer)
    if resume and path.is_file():
        then = json.loads(path.read_text(encoding="utf-8"))
        other = [
            f"{name} was {then.get(name)} and is {now.get(name)}"
            for name in sorted({*then, *now})
            if then.get(name) != now.get(name)
        ]
        if other:
            raise CourseError(
                f"{resume.name} was made with other settings: {'; '.join(other)}. Put them back to go on, or give another "
                "output_dir to begin anew; the checkpoint is kept."
            )
    write_text(path, json.dumps(now, indent=1))


def rows_of_step(trainer, inputs):
    """The rows of one step in words: a list of the first 70 characters of each, without the beginning that all rows share."""
    tokenizer, pieces = trainer.processing_class, []
    for i, ids in enumerate(inputs["input_ids"].tolist()):
        position = (
            inputs["position_ids"][i].tolist() if "position_ids" in inputs else [1] * len(ids)
        )
        starts = [k for k, p in enumerate(position) if p == 0] or [0]
        pieces += [
            tokenizer.decode(ids[a:b], skip_special_tokens=True)
            for a, b in zip(starts, [*starts[1:], len(ids)])
        ]
    known = [
        tokenizer.decode(row["input_ids"], skip_special_tokens=True)
        for row in trainer.train_dataset.select(range(min(50, len(trainer.train_dataset))))
    ]
    same = len(os.path.commonprefix(pieces + known)) if len(pieces + known) > 1 else 0
    return [" ".join(piece[same:].split())[:70] for piece in pieces]


def watch_loss(trainer):
    """Stop at the first step whose loss is not a number, before it reaches the weights, and name the rows of that step.

    The Trainer's own log never shows it: `logging_nan_inf_filter` puts the average of earlier steps in its place.
    """
    step = trainer.training_step

    def watched(model, inputs, *rest, **more):
        rows = {name: value for name, value in inputs.items()}
        loss = step(model, inputs, *rest, **more)
        if not bool(loss.isfinite()):
            named = rows_of_step(trainer, rows)
            shown = "; ".join(f"'{row}'" for row in named[:4]) + (
                f" and {len(named) - 4} more" if len(named) > 4 else ""
            )
            raise CourseError(
                f"The loss is not a number at step {trainer.state.global_step + 1}, on these {len(named)} rows: {shown}. "
                "Look at them, or lower learning_rate; the last checkpoint is kept."
            )
        return loss

    trainer.training_step = watched
    return step

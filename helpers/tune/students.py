"""Students for a comparison: train one model per arm and seed on that arm's rows, measure each the same way, lose at most one.

The settings are those of chapter 00 (NF4 QLoRA, packed rows); every arm takes the same number of steps, so that rows compete, not work.
"""

import json
import time
from pathlib import Path

import numpy as np

from helpers import CourseError
from helpers.ask import answers
from helpers.choose import models
from helpers.core.pilot import Pilot
from helpers.core.files import append_entry, fingerprint, read_entries
from helpers.measure import intervals, scoring
from helpers.tune import examples, training

SETTINGS = {"r": 16, "alpha": 32, "learning_rate": 1e-3, "pack": 256, "room": 64, "window": 512}

# What `settings` may override beside SETTINGS, and what stands there when it does not. They enter a cell's key only when given.
MORE = {
    "method": "qlora",  # or "lora" (dense base) or "full" (every weight in float32, no adapter)
    "target_modules": "all-linear",
    "loss": "all",  # "answer": see training.answer_loss
    "packing": True,
    "batch": 1,
    "checkpointing": None,
    "load": None,  # load: the dtype that the base is loaded in
    "guards": True,  # training.guard_4bit and guard_adapter
    "start": None,  # the key of another cell of the same folder, whose adapter this one goes on from
}


class Uncopied(Pilot):
    """The same pilot, but a span may be any words: shows what a student invents when the grammar does not stop it."""

    def grammar(self, text, copy=False):
        return super().grammar(text, copy=False)


def student(pilot, rows, steps, seed, here, place, settings=None):
    """(model, tokenizer, seconds) of a student of the pilot's base model after `steps` packs (or batches) of the arm's rows.

    `settings` overrides SETTINGS and MORE. Writes facts.json beside `place`: trained weights, bytes to ship in 16 bits, mean loss. Raises
    CourseError for a setting that does not exist.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        PrinterCallback,
    )
    from trl import SFTConfig, SFTTrainer

    s, place = _settings(settings), Path(place)
    base, full = models.resolve(pilot.base_model, pilot.folder), s["method"] == "full"
    dtype = getattr(torch, s["load"] or ("float32" if full else here.dtype))
    with models.loading(base):
        tokenizer = AutoTokenizer.from_pretrained(base.path)
        nf4 = (
            BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=here.torch_dtype,
            )
            if s["method"] == "qlora"
            else None
        )
        model = AutoModelForCausalLM.from_pretrained(
            base.path,
            dtype=dtype,
            quantization_config=nf4,
            device_map={"": 0} if here.device == "cuda" else None,
        )
    data, _ = examples.examples(pilot, rows, tokenizer, s["window"])
    longest = 1 + max(len(tokenizer(d["prompt"] + d["completion"]).input_ids) for d in data)
    hardware = training.hardware_arguments(here)
    if s["checkpointing"] is not None:
        hardware["activation_checkpointing"] = s["checkpointing"]
    arguments = SFTConfig(
        output_dir=str(place),
        packing=s["packing"],
        max_length=max(s["pack"], longest),
        per_device_train_batch_size=s["batch"],
        max_steps=steps,
        learning_rate=s["learning_rate"],
        lr_scheduler_type="linear",
        warmup_steps=0.05,
        seed=seed,
        save_strategy="no",
        logging_steps=20,
        report_to="none",
        disable_tqdm=True,
        **hardware,
    )
    torch.manual_seed(seed)  # the adapter's first values come from here
    lora = (
        None
        if full
        else LoraConfig(
            r=s["r"],
            lora_alpha=s["alpha"],
            lora_dropout=0.0,
            target_modules=s["target_modules"],
            task_type="CAUSAL_LM",
        )
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        peft_config=lora,
    )
    trainer.remove_callback(PrinterCallback)
    if s["guards"]:
        training.guard_4bit(trainer.model)
        training.guard_adapter(trainer.model)
    if s["loss"] == "answer":
        training.answer_loss(trainer)
    if s["start"]:
        set_peft_model_state_dict(
            trainer.model,
            load_file(place.parent.parent / s["start"] / "adapter/adapter_model.safetensors"),
        )
    seconds = training.fit(trainer)
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    facts = {
        "trained": trained,
        "ship_bytes": 2 * trained,
        "loss": trainer.state.log_history[-1].get("train_loss"),
    }
    (place.parent / "facts.json").write_text(json.dumps(facts))
    return trainer.model, tokenizer, seconds


def _settings(settings):
    known = SETTINGS | MORE
    wrong = [name for name in settings or {} if name not in known]
    if wrong:
        raise CourseError(f"There is no setting {wrong[0]!r}; a student takes {', '.join(known)}.")
    found = known | (settings or {})
    if found["method"] not in ("qlora", "lora", "full"):
        raise CourseError(f"method can be qlora, lora or full, not {found['method']!r}.")
    return found


def merged(pilot, model, here, place):
    """The dense base model in the machine's dtype with the adapter of `model` merged in; `place` keeps the adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model.save_pretrained(place)
    base = models.resolve(pilot.base_model, pilot.folder)
    with models.loading(base):
        dense = AutoModelForCausalLM.from_pretrained(base.path, dtype=here.torch_dtype).to(
            here.device
        )
    return PeftModel.from_pretrained(dense, place).merge_and_unload()


def cell(pilot, rows, steps, seed, here, sets, folder, free=True, settings=None):
    """Train and measure one student. `sets` is {name: labelled rows}; returns {name: bools per row}, with `<first name>.invented`.

    Exact record with copied spans for every set; with `free` invented values (answers held to the form only) for the first. The adapter
    is merged into the dense base before it answers, as it would be for shipping; a fully tuned model answers as it is.
    """
    folder, s = Path(folder), _settings(settings)
    model, tokenizer, seconds = student(
        pilot, rows, steps, seed, here, folder / "trainer", settings
    )
    model = (
        model.to(here.torch_dtype)
        if s["method"] == "full"
        else merged(pilot, model, here, folder / "adapter")
    )
    loose = Uncopied.model_construct(**dict(pilot))
    first, found = next(iter(sets)), {}
    asks = [(name, held, pilot) for name, held in sets.items()] + [
        (f"{first}.invented", sets[first], loose)
    ] * free
    for name, held, asked in asks:
        texts = answers.generate(
            model,
            tokenizer,
            asked,
            held,
            folder / name,
            max_length=s["window"],
            max_new_tokens=s["room"],
            batch_size=here.profile.eval_batch_size,
        ).texts
        scored = scoring.score(pilot, held, texts)
        found[name] = [bool(b) for b in (scored.invented if asked is loose else scored.exact)]
        if name == first:
            found |= {
                f"{first}.{field}": [bool(b) for b in right]
                for field, right in scored.right.items()
            }
        elif asked is loose:
            found[f"{first}.exact_free"] = [bool(b) for b in scored.exact]
    return found, seconds


def run_students(
    pilot,
    arms,
    seeds,
    steps,
    here,
    sets,
    folder,
    say=print,
    free=True,
    part=0,
    parts=1,
    settings=None,
):
    """Every arm ({name: rows}) with every seed; returns the list of cells. A finished cell stands in cells.jsonl and is not made again.

    A cell: arm, seed, steps, rows, seconds, right: {set: list of bools}; with `settings` (see MORE) also these and what facts.json says.
    With `parts` processes at work, this one makes every `parts`-th cell and leaves the others out. Raises CourseError for an arm without
    rows or an unknown setting.
    """
    _settings(settings)
    own = (
        {"settings": settings} if settings else {}
    )  # without any, calls and keys are what they were
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    empty = [name for name, rows in arms.items() if not len(rows)]
    if empty:
        raise CourseError(
            f"The arm {empty[0]!r} has no rows (everything rejected?); there is nothing to train on."
        )
    path, cells, number = folder / "cells.jsonl", [], -1
    done = {entry["key"]: entry for entry in read_entries(path)}
    for seed in seeds:  # seeds outside, so that a study stopped early has every arm
        for name, rows in arms.items():
            trained_on = [{n: row[n] for n in (pilot.text, *pilot.fields)} for row in rows]
            key = fingerprint(
                trained_on,
                {
                    n: list(
                        held[pilot.text]
                        if hasattr(held, "column_names")
                        else [r[pilot.text] for r in held]
                    )
                    for n, held in sets.items()
                },
                seed,
                steps,
                SETTINGS,
                pilot.base_model,
                *own.values(),
            )
            number += 1
            if key not in done and number % parts != part:
                continue
            if key not in done:
                started = time.perf_counter()
                right, seconds = cell(
                    pilot, trained_on, steps, seed, here, sets, folder / key, free, **own
                )
                done[key] = {
                    "key": key,
                    "arm": name,
                    "seed": seed,
                    "steps": steps,
                    "rows": len(rows),
                    "seconds": round(seconds, 1),
                    "right": right,
                }
                if own:
                    done[key] |= own | json.loads((folder / key / "facts.json").read_text())
                append_entry(path, done[key], "A student", len(done))
                say(
                    f"{name:24} seed {seed}  {time.perf_counter() - started:5.0f} s  "
                    + "  ".join(f"{n} {np.mean(v):.1%}" for n, v in right.items())
                )
            cells.append(done[key] | {"arm": name})
    return cells


def mean(cells, arm, what, seed=0):
    """Share over all seeds of an arm with a bootstrap 95 % interval over rows (each row's mean over the seeds is one draw)."""
    return _interval(_rows(cells, arm, what), seed)


def gap(cells, a, b, what, seed=0):
    """Arm a minus arm b on the same rows, seeds averaged: difference with its bootstrap 95 % interval over rows."""
    return _interval(_rows(cells, a, what) - _rows(cells, b, what), seed)


def _rows(cells, arm, what):
    found = [cell["right"][what] for cell in cells if cell["arm"] == arm]
    if not found:
        raise CourseError(f"There is no finished student of the arm {arm!r}.")
    return np.mean(np.array(found, float), axis=0)


def _interval(values, seed):
    draw = np.random.default_rng(seed)
    means = values[draw.integers(0, len(values), (10_000, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return intervals.Share(float(values.mean()), float(low), float(high), len(values))

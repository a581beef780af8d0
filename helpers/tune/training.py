"""What training needs and would hide the lesson: hardware-right arguments, guards against silent bugs, resuming."""

import contextlib
import json
import shutil
import time
from pathlib import Path

import torch

from helpers import CourseError
from helpers.tune import examples


def hardware_arguments(runtime):
    """SFTConfig arguments that depend on the machine and on nothing else.

    bf16 only where it is real (a T4 gets fp16), use_cpu on a CPU (SFTConfig raises without it), no pinned memory there.
    """
    return {
        "bf16": runtime.bf16,
        "fp16": runtime.fp16,
        "use_cpu": runtime.device == "cpu",
        "dataloader_pin_memory": runtime.device == "cuda",
        "activation_checkpointing": runtime.device == "cuda",
    }


def guard_4bit(model):
    """Keep gradients right in 4-bit on a CPU: returns the number of layers guarded.

    On a processor with AVX512-BF16, bitsandbytes repacks the weights at the first forward in eval mode; back in train mode
    that packed kernel has no gradient. Switching the packing off layer by layer costs a little speed in generation.
    """
    import bitsandbytes

    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def guard_adapter(model):
    """Cast every trainable parameter to float32: returns their number.

    TRL casts QLoRA adapters to bfloat16, where a small step rounds to no step, and a T4's GradScaler refuses them.
    """
    count = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            count += parameter.numel()
    return count


def last_checkpoint(folder):
    """The newest complete checkpoint of a Trainer, or None; one that a kill left half-written is removed.

    The Trainer writes trainer_state.json last, so a readable one marks a complete checkpoint.
    """
    found = []
    for place in Path(folder).glob("checkpoint-*"):
        try:
            found.append(
                (json.loads((place / "trainer_state.json").read_text())["global_step"], place)
            )
        except (OSError, ValueError, KeyError):
            shutil.rmtree(place, ignore_errors=True)
    return max(found)[1] if found else None


def answer_loss(trainer):
    """Compute the loss at trained positions only: the same loss and gradients, less work where few tokens of a row are trained.

    On a CPU, TRL 1.16 runs its language-model head over every position, forward and backward, and throws the masked ones away
    afterwards (on a GPU it does not, so nothing is changed there). `logits_to_keep` is the transformers argument for the same.
    """
    if trainer.args.device.type != "cpu":
        return trainer

    def compute_loss(model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs["labels"][:, 1:]
        kept = (
            (labels >= 0).any(0).nonzero()[:, 0]
        )  # the position before a trained token predicts it
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        out = model(**rest, use_cache=False, logits_to_keep=kept)
        total = torch.nn.functional.cross_entropy(
            out.logits.flatten(0, 1).float(),
            labels[:, kept].flatten(),
            reduction="sum",
            ignore_index=-100,
        )
        count = (
            (labels >= 0).sum()
            if num_items_in_batch is None
            else torch.as_tensor(num_items_in_batch)
        )
        loss = total / count.clamp(min=1)
        if trainer.model.training and hasattr(
            trainer, "_total_train_tokens"
        ):  # TRL counts in the method that this one stands for
            mask = inputs.get("attention_mask")
            trainer._total_train_tokens += (
                int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
            )
            trainer._metrics["train"]["num_tokens"] = [trainer._total_train_tokens]
        return (loss, out) if return_outputs else loss

    trainer.compute_loss = compute_loss
    return trainer


def fit(trainer):
    """trainer.train() that resumes from the newest complete checkpoint; returns seconds over all starts.

    Raises CourseError after Ctrl-C, when memory runs out, when the loss is no number (naming the rows), or when the checkpoint was
    made with other settings (naming them): the checkpoint is kept.
    """
    from peft.helpers import disable_input_dtype_casting
    from transformers import TrainerCallback

    folder = Path(trainer.args.output_dir)
    resume = last_checkpoint(folder)
    examples.same_settings(trainer, resume)
    clock_file = folder / "seconds.json"
    before = (
        json.loads(clock_file.read_text()).get(resume.name, 0.0)
        if resume and clock_file.is_file()
        else 0.0
    )
    started = time.perf_counter()

    class Clock(TrainerCallback):
        def on_save(self, args, state, control, **_):
            known = json.loads(clock_file.read_text()) if clock_file.is_file() else {}
            known[f"checkpoint-{state.global_step}"] = before + time.perf_counter() - started
            clock_file.write_text(json.dumps(known))

    clock = Clock()
    trainer.add_callback(clock)
    unwatched = examples.watch_loss(trainer)
    # autocast rounds to 16 bits anyway, so the way through float32 that PEFT takes before each adapter changes nothing but the time
    half = trainer.args.bf16 or trainer.args.fp16
    try:
        with disable_input_dtype_casting(trainer.model) if half else contextlib.nullcontext():
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except KeyboardInterrupt:
        kept = last_checkpoint(folder)
        where = (
            f"the checkpoint of step {kept.name.split('-')[1]} is kept; run the cell again to go on"
            if kept
            else "no checkpoint was due yet"
        )
        raise CourseError(
            f"Stopped at step {trainer.state.global_step} of {trainer.state.max_steps}: {where}."
        ) from None
    except (torch.OutOfMemoryError, MemoryError):
        raise _too_large(trainer) from None
    except RuntimeError as problem:
        if "not enough memory" in str(problem) or "can't allocate memory" in str(
            problem
        ):  # how torch says it on a CPU
            raise _too_large(trainer) from None
        raise
    finally:
        trainer.remove_callback(clock)
        trainer.training_step = unwatched
    return before + time.perf_counter() - started


def _too_large(trainer):
    """The CourseError for memory that ran out: the argument to lower is the one that is not at its least yet."""
    a = trainer.args
    if a.per_device_train_batch_size > 1:
        lower = (
            f"lower per_device_train_batch_size (now {a.per_device_train_batch_size}) and raise gradient_accumulation_steps "
            "by the same factor"
        )
    else:
        lower = f"lower max_length (now {getattr(a, 'max_length', None)}), set activation_checkpointing=True"
    return CourseError(
        f"The memory ran out while training: {lower}, or choose a smaller base_model; the last checkpoint is kept."
    )


def weight_bytes(model):
    """Bytes that the parameters and buffers of a model take, quantisation constants included."""
    total, seen = 0, set()

    def add(tensor):
        nonlocal total
        if torch.is_tensor(tensor) and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            total += tensor.numel() * tensor.element_size()

    for tensor in [*model.parameters(), *model.buffers()]:
        add(tensor)
        state = getattr(tensor, "quant_state", None)
        while state is not None:
            for part in (state.absmax, state.code, state.offset):
                add(part)
            state = state.state2
    return total

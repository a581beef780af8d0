"""Training that is right: one trainer, checkpoints that fit, an adapter stored as it ships."""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.helpers import disable_input_dtype_casting
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from helpers import CourseError
from helpers.choose import memory
from helpers.core.files import write_text
from helpers.core.runtime import Runtime, give_back_memory
from helpers.tune import examples
from helpers.tune import fused as fusing

# arguments of a Trainer that change what comes out; folders, logging and devices do not
# fmt: off
SHAPING = (
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size",
    "gradient_accumulation_steps", "max_length", "packing", "seed", "data_seed",
    "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim", "bf16", "fp16",
    "loss_type", "completion_only_loss", "neftune_noise_alpha",
)
# fmt: on


class AnswerSFTTrainer(SFTTrainer):
    """An SFTTrainer that leaves out work on a CPU and refuses a NaN loss.

    Each of the three gives the same loss and gradients, up to rounding, for less work; on a GPU
    they do nothing. `answer_only` computes logits only where a token is trained; TRL runs the
    output layer over the prompts too and throws that away. `share_start` reads the beginning that
    all rows of a step have in common once, where all of them see it. `fused` is fused.fuse.
    `short_look` leaves out the same work when the loss on held-out rows is taken, whichever of
    the three the training uses; TRL's entropy and accuracy of these rows are left out with it.
    """

    def __init__(
        self,
        *args: Any,
        answer_only: bool = True,
        share_start: bool = True,
        fused: bool = True,
        short_look: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        on_cpu = self.args.device.type == "cpu"
        # on a GPU, TRL 1.16 skips the masked positions itself
        self.answer_only = answer_only and on_cpu
        self.share_start = share_start and self.answer_only and fusing.sees_all(self.model)
        self.to_fuse = fused and on_cpu and isinstance(self.model, PeftModel)
        nothing_random = fusing.sees_all(self.model) and not self.args.neftune_noise_alpha
        self.short_look = short_look and on_cpu and nothing_random
        self.tokens_read = 0
        avoid_wrong_kernels(self.args.device)

    def compute_loss(
        self, model: Any, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean cross-entropy in nats over the trained tokens, as a scalar tensor."""
        if not self.answer_only:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.share_start and not self.args.neftune_noise_alpha:
            inputs = share_start(inputs, next(model.parameters()).dtype)
        labels = inputs["labels"][:, 1:]
        # the position before a trained token predicts it
        kept = (labels >= 0).any(0).nonzero()[:, 0]
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        outputs = model(**rest, use_cache=False, logits_to_keep=kept)
        logits, targets = outputs.logits.flatten(0, 1).float(), labels[:, kept].flatten()
        total = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        count = num_items_in_batch
        if count is None:
            count = (labels >= 0).sum()
        loss = total / torch.as_tensor(count).clamp(min=1)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: Any, inputs: dict, *args: Any, **more: Any) -> torch.Tensor:
        """One step; raises CourseError that names its rows when loss or gradient is not a number.

        The Trainer's own log never shows it: `logging_nan_inf_filter` puts the average of earlier
        steps in its place. It stops here before the optimizer moves a weight. In float16 the
        gradients may be infinite: the Trainer scales them, and leaves such a step out.
        """
        if self.to_fuse:
            self.to_fuse = False
            dtype = torch.bfloat16 if self.args.bf16 else torch.float32
            if not fusing.fuse(self.model, dtype):
                print("The layers of this model train unfused: the same result, more slowly.")
        step_inputs = dict(inputs)
        mask = inputs.get("attention_mask")  # a pack has none: nothing in it is padding
        self.tokens_read += inputs["input_ids"].numel() if mask is None else int(mask.sum())
        loss = super().training_step(model, inputs, *args, **more)
        if not bool(loss.isfinite()):
            raise self._no_number("The loss is not a number", step_inputs, "Look at them, or lower")
        if not self.args.fp16 and not gradients_are_numbers(self.model):
            what = "The loss is a number and its gradient is not"
            raise self._no_number(what, step_inputs, "A kernel computes wrongly here, or lower")
        return loss

    def prediction_step(
        self, model: Any, inputs: dict, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple:
        """(loss, logits, labels) of a batch of held-out rows; the loss alone with `short_look`."""
        if not (self.short_look and prediction_loss_only):
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        of_training = self.answer_only, self.share_start
        self.answer_only = self.share_start = True
        model.train()  # only then are its layers the fused ones, and nothing in them is random
        try:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        finally:
            model.eval()
            self.answer_only, self.share_start = of_training

    def _no_number(self, what: str, inputs: Mapping[str, torch.Tensor], cure: str) -> CourseError:
        names = self.rows_of_step(inputs)
        shown = "; ".join(f"'{name}'" for name in names[:4])
        if len(names) > 4:
            shown += f" and {len(names) - 4} more"
        return CourseError(
            f"{what} at step {self.state.global_step + 1}, on these {len(names)} rows: {shown}. "
            f"{cure} learning_rate; the last checkpoint is kept."
        )

    def log(self, logs: dict[str, float], *args: Any, **more: Any) -> None:
        """The Trainer's log, with `num_tokens`, the useful tokens of this start, as TRL has it."""
        if self.answer_only and "loss" in logs:
            logs["num_tokens"] = self.tokens_read
        super().log(logs, *args, **more)

    def rows_of_step(self, inputs: Mapping[str, torch.Tensor]) -> list[str]:
        """The first 70 characters of each row of a step, without the beginning all rows share."""
        rows = [ids for ids, _ in rows_apart(inputs)]
        others = self.train_dataset.select(range(min(50, len(self.train_dataset))))["input_ids"]
        decode = self.processing_class.batch_decode
        texts = decode(rows, skip_special_tokens=True)
        all_texts = texts + decode(list(others), skip_special_tokens=True)
        shared = len(os.path.commonprefix(all_texts)) if len(all_texts) > 1 else 0
        return [" ".join(text[shared:].split())[:70] for text in texts]


def avoid_wrong_kernels(device: torch.device) -> None:
    """Switch cuDNN's attention off on a card: in 16 bits its gradients can be NaN.

    torch prefers it on an H100 and H200; flash or memory-efficient attention takes its place.
    github.com/pytorch/pytorch/issues/196678 reports it for 64, 192, 320, ... tokens and a mask. It
    fits what was seen on an H200 with torch 2.11, where Qwen2.5 stopped at certain packs in
    bfloat16; with the kernel off it has not been tried there.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def gradients_are_numbers(model: torch.nn.Module) -> bool:
    """Whether no gradient of the model is NaN or infinite."""
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    if not gradients:
        return True
    norms = torch.stack(torch._foreach_norm(gradients))
    return bool(norms.isfinite().all())


def rows_apart(inputs: Mapping[str, torch.Tensor]) -> list[tuple[list[int], list[int]]]:
    """(token ids, labels) of each row of a step, whether packed or padded."""
    mask, rows = inputs.get("attention_mask"), []
    for number, ids in enumerate(inputs["input_ids"].tolist()):
        labels = inputs["labels"][number].tolist()
        starts = [0]
        if "position_ids" in inputs:  # in a pack every row begins again at position 0
            positions = inputs["position_ids"][number].tolist()
            starts = [place for place, position in enumerate(positions) if position == 0]
        elif mask is not None:
            real = mask[number].tolist()
            ids = [token for token, kept in zip(ids, real) if kept]
            labels = [label for label, kept in zip(labels, real) if kept]
        for start, end in zip(starts, [*starts[1:], len(ids)]):
            rows.append((ids[start:end], labels[start:end]))
    return rows


def share_start(inputs: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The rows of a step as one sequence in which the beginning they all have stands once.

    Every row sees the beginning and itself, and goes on from the position after it: the logits
    of its tokens are what they were. `inputs` come back as they are where that saves nothing.
    """
    rows = rows_apart(inputs)
    shared = len(os.path.commonprefix([ids for ids, _ in rows]))
    for _, labels in rows:  # what stands before a trained token differs from row to row
        trained = [place for place, label in enumerate(labels) if label >= 0]
        shared = min([shared, *(place - 1 for place in trained[:1])])
    if len(rows) < 2 or shared < 1:
        return inputs
    ids, labels, positions = rows[0][0][:shared], [-100] * shared, list(range(shared))
    owners = [0] * shared
    for number, (row, row_labels) in enumerate(rows, start=1):
        ids = ids + row[shared:]
        labels += row_labels[shared:]
        positions += range(shared, len(row))
        owners += [number] * (len(row) - shared)
    owner = torch.tensor(owners)
    seen = (owner[:, None] == owner[None]) | (owner[None] == 0)
    mask = torch.zeros(len(ids), len(ids), dtype=dtype).masked_fill_(~seen.tril(), -torch.inf)
    return {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([labels]),
        "position_ids": torch.tensor([positions]),
        "attention_mask": mask[None, None],
    }


LARGE_PACK = 8192  # tokens; 2,048 keep a fast card waiting for the next kernel
UPDATES_AN_EPOCH = 20  # about what 60 rows in packs of 256 give

# Building a trainer ---------------------------------------------------------------------------


def hardware_arguments(here: Runtime, config: Any = None, tokens: int = 0) -> dict[str, bool]:
    """SFTConfig arguments that depend on the machine, and on a card on the model's size as well.

    bf16 only where it is real (a T4 gets fp16), use_cpu on a CPU (SFTConfig raises without it). On
    a card activations are recomputed, unless steps of `tokens` tokens of a model of this `config`
    fit without; and Liger's kernels are used where they are installed.
    """
    on_card, mode = here.device == "cuda", "lora"
    if getattr(config, "quantization_config", None):
        mode = "qlora"
    fits = on_card and bool(tokens) and memory.fits_on_card(config, mode, tokens, here.dtype)
    arguments = {
        "bf16": here.bf16,
        "fp16": here.fp16,
        "use_cpu": here.device == "cpu",
        "dataloader_pin_memory": on_card,
        "activation_checkpointing": on_card and not fits,
    }
    # its kernels are written for cards with bfloat16
    if on_card and here.bf16 and importlib.util.find_spec("liger_kernel"):
        arguments["use_liger_kernel"] = True
    return arguments


def pack_length(here: Runtime, config: Any, lengths: Sequence[int], least: int = 256) -> int:
    """Tokens a pack, for rows of these lengths: as many as they need, and at least `least`.

    On a card up to LARGE_PACK, which keep it busy: as far as its memory allows, first without
    recomputing, and as an epoch keeps the updates that the recipe needs.
    """
    short = max(least, *lengths)
    if here.device == "cpu":
        return short
    mode = "qlora" if getattr(config, "quantization_config", None) else "lora"
    for recompute in (False, True):
        for tokens in (LARGE_PACK, LARGE_PACK // 2, LARGE_PACK // 4):
            enough = short < tokens <= sum(lengths) / UPDATES_AN_EPOCH
            if enough and memory.fits_on_card(config, mode, tokens, here.dtype, recompute):
                return tokens
    return short


def load_base(
    path: str | Path, here: Runtime, four_bit: bool, dtype: Any = None, compute_dtype: Any = None
) -> Any:
    """A base model in NF4 with double quantisation, or dense; both torch dtypes are `here`'s."""
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype or here.torch_dtype,
    )
    return AutoModelForCausalLM.from_pretrained(
        path,
        dtype=dtype or here.torch_dtype,
        quantization_config=nf4 if four_bit else None,
        device_map={"": 0} if here.device == "cuda" else None,
    )


def lora_config(**changes: Any) -> LoraConfig:
    """The course's adapter, rank 16 beside every linear layer and no dropout, with `changes`."""
    adapter = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
    return LoraConfig(**adapter | changes, task_type="CAUSAL_LM")


def build_trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    here: Runtime,
    folder: str | Path,
    adapter: LoraConfig | None,
    guards: bool = True,
    answer_only: bool = True,
    share_start: bool = True,
    fused: bool = True,
    held_out: Sequence[Mapping[str, Any]] = (),
    **arguments: Any,
) -> AnswerSFTTrainer:
    """A silent trainer over `rows` ({"prompt", "completion"} or {"input_ids"}), guarded.

    `arguments` are SFTConfig's and go before the defaults here. `max_length` is raised to the
    longest row, so that no answer is cut off. The loss on `held_out` rows, which are not trained
    on, is logged after each epoch.
    """
    quiet = {"save_strategy": "no", "logging_steps": 20, "report_to": "none", "disable_tqdm": True}
    settings = {**quiet, "seed": 0, **arguments}
    longest = max(examples.row_length(tokenizer, row) for row in rows)
    settings["max_length"] = max(settings.get("max_length", longest), longest)
    # a longer one would be cut: to look on must not change how the others are trained
    seen = [r for r in held_out if examples.row_length(tokenizer, r) <= settings["max_length"]]
    if seen:
        # nothing is kept for a gradient: there is room for several packs at once
        batch = 4 * settings.get("per_device_train_batch_size", 8)
        settings = {"eval_strategy": "epoch", "per_device_eval_batch_size": batch, **settings}
    tokens = settings["max_length"] * settings.get("per_device_train_batch_size", 8)
    settings = {**hardware_arguments(here, model.config, tokens), **settings}
    torch.manual_seed(settings["seed"])  # the adapter's first values come from here
    trainer = AnswerSFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(folder), **settings),
        train_dataset=Dataset.from_list([dict(row) for row in rows]),
        eval_dataset=Dataset.from_list([dict(row) for row in seen]) if seen else None,
        processing_class=tokenizer,
        peft_config=adapter,
        answer_only=answer_only,
        share_start=share_start,
        fused=fused,
    )
    trainer.remove_callback(PrinterCallback)
    if guards:  # as chapters 00 and 05 write them out
        for layer in linear4bit_layers(trainer.model):
            layer.support_avx512bf16_for_cpu = False
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return trainer


def linear4bit_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The 4-bit layers of a model, whose packing on a CPU has to be switched off before training.

    On a processor with AVX512-BF16, bitsandbytes repacks the weights at the first forward in eval
    mode; back in train mode that kernel has no gradient. Raises CourseError without that switch.
    """
    import bitsandbytes

    switch, layer_class = "support_avx512bf16_for_cpu", bitsandbytes.nn.Linear4bit
    layers = [layer for layer in model.modules() if isinstance(layer, layer_class)]
    if not all(hasattr(layer, switch) for layer in layers):
        raise CourseError(
            f"bitsandbytes {bitsandbytes.__version__} has no {switch} any more, so its 4-bit "
            "layers cannot be guarded; install the version in requirements.txt."
        )
    return layers


# Going on after an interruption ---------------------------------------------------------------


def training_settings(trainer: SFTTrainer) -> dict[str, str]:
    """Everything that shapes a run: arguments, adapter, number formats, a hash of its rows."""
    settings = {}
    for name in SHAPING:
        value = getattr(trainer.args, name, None)
        settings[name] = str(getattr(value, "value", value))
    for lora in (getattr(trainer.model, "peft_config", None) or {}).values():
        for name in ("r", "lora_alpha", "lora_dropout"):
            settings[name] = str(getattr(lora, name))
        settings["target_modules"] = str(lora.target_modules)
        if not isinstance(lora.target_modules, str):
            settings["target_modules"] = ", ".join(sorted(lora.target_modules))
    config = trainer.model.config
    settings["model"] = Path(config.name_or_path).name
    four_bit = getattr(config, "quantization_config", None)
    settings["quantization"] = getattr(four_bit, "bnb_4bit_quant_type", None) or "none"
    dtypes = {str(p.dtype) for p in trainer.model.parameters() if p.requires_grad}
    settings["trained_in"] = ", ".join(sorted(dtypes)).replace("torch.", "")
    digest = hashlib.sha256()
    for row in trainer.train_dataset:
        columns = [row[column] for column in ("input_ids", "labels") if column in row]
        digest.update(json.dumps(columns).encode())
    settings["rows"] = f"{len(trainer.train_dataset)} ({digest.hexdigest()[:8]})"
    return settings


def refuse_other_settings(trainer: SFTTrainer, checkpoint: Path | None) -> None:
    """Raise CourseError that names each setting in which `checkpoint` differs from the trainer.

    Otherwise writes the settings beside the checkpoints. The checkpoint is left as it is.
    """
    path, now = Path(trainer.args.output_dir) / "settings.json", training_settings(trainer)
    if checkpoint and path.is_file():
        then = json.loads(path.read_text(encoding="utf-8"))
        names = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
        other = [f"{name} was {then.get(name)} and is {now.get(name)}" for name in names]
        if other:
            raise CourseError(
                f"{checkpoint.name} was made with other settings: {'; '.join(other)}. Put them "
                "back to go on, or give another output_dir to begin anew; the checkpoint is kept."
            )
    write_text(path, json.dumps(now, indent=1))


def last_checkpoint(folder: str | Path) -> Path | None:
    """The newest complete checkpoint of a Trainer; one that a kill left half-written is removed.

    The Trainer writes trainer_state.json last, so a readable one marks a complete checkpoint.
    """
    complete = []
    for place in Path(folder).glob("checkpoint-*"):
        try:
            state = json.loads((place / "trainer_state.json").read_text())
            complete.append((state["global_step"], place))
        except (OSError, ValueError, KeyError):
            shutil.rmtree(place, ignore_errors=True)
    return max(complete)[1] if complete else None


class _Clock(TrainerCallback):
    """Keeps the seconds of training up to each checkpoint, over every start."""

    def __init__(self, folder: Path, resumed: Path | None) -> None:
        self.path, self.seconds_at = folder / "seconds.json", {}
        if self.path.is_file():
            self.seconds_at = json.loads(self.path.read_text())
        self.before = self.seconds_at.get(resumed.name, 0.0) if resumed else 0.0
        self.started = time.perf_counter()

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds_at[f"checkpoint-{state.global_step}"] = self.seconds()
        self.path.write_text(json.dumps(self.seconds_at))


def fit(trainer: AnswerSFTTrainer) -> float:
    """trainer.train() from the newest complete checkpoint; returns the seconds over all starts.

    Raises CourseError after Ctrl-C, when memory runs out, when the loss is no number (naming the
    rows) and when the checkpoint was made with other settings; the checkpoint is kept.
    """
    folder = Path(trainer.args.output_dir)
    checkpoint = last_checkpoint(folder)
    refuse_other_settings(trainer, checkpoint)
    clock = _Clock(folder, checkpoint)
    trainer.add_callback(clock)
    casting = contextlib.nullcontext()
    if trainer.args.bf16 or trainer.args.fp16:
        # PEFT takes each adapter's input through float32, which autocast rounds to 16 bits anyway
        casting = disable_input_dtype_casting(trainer.model)
    try:
        with casting:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt:
        raise _stopped(trainer) from None
    except (torch.OutOfMemoryError, MemoryError):
        raise _too_large(trainer) from None
    except RuntimeError as problem:
        # how torch says it on a CPU
        if "not enough memory" in str(problem) or "can't allocate memory" in str(problem):
            raise _too_large(trainer) from None
        raise
    finally:
        trainer.remove_callback(clock)
        give_back_memory()
    return clock.seconds()


def _stopped(trainer: SFTTrainer) -> CourseError:
    kept, state = last_checkpoint(trainer.args.output_dir), trainer.state
    where = "no checkpoint was due yet"
    if kept:
        step = kept.name.split("-")[1]
        where = f"the checkpoint of step {step} is kept; run the cell again to go on"
    return CourseError(f"Stopped at step {state.global_step} of {state.max_steps}: {where}.")


def _too_large(trainer: SFTTrainer) -> CourseError:
    """Names the argument to lower: the batch while it is above one, then the length."""
    batch_size = trainer.args.per_device_train_batch_size
    lower = f"lower max_length (now {trainer.args.max_length}), set activation_checkpointing=True"
    if batch_size > 1:
        lower = (
            f"lower per_device_train_batch_size (now {batch_size}) and raise "
            "gradient_accumulation_steps by the same factor"
        )
    return CourseError(
        f"The memory ran out while training: {lower}, or choose a smaller base_model; "
        "the last checkpoint is kept."
    )


# What ships -----------------------------------------------------------------------------------


def save_adapter(model: PeftModel, folder: str | Path) -> None:
    """Store the adapter in 16 bits and load what was stored: the model that answers is what ships.

    float16, the finer of the two 16-bit formats for numbers as small as an adapter's.
    """
    halves = {}
    for name, weight in model.state_dict().items():
        if "lora_" in name:
            halves[name] = weight.half()
            if not halves[name].isfinite().all():
                raise CourseError(
                    f"The weight {name} is too large for 16 bits, so the adapter is not stored; "
                    "lower learning_rate and train again."
                )
    model.save_pretrained(str(folder), state_dict=halves)
    load_adapter(model, folder)


def load_adapter(model: PeftModel, folder: str | Path) -> None:
    """Put the stored weights of an adapter of the same shape into a model, in the model's dtype."""
    stored = load_file(Path(folder) / "adapter_model.safetensors")
    missing = sorted(set(get_peft_model_state_dict(model)) ^ set(stored))
    if missing:
        raise CourseError(f"The adapter in {Path(folder).name} is of another shape: {missing[0]}.")
    set_peft_model_state_dict(model, stored)


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes that parameters and buffers of a model take, quantisation constants included."""
    tensors = [*model.parameters(), *model.buffers()]
    for tensor in list(tensors):
        state = getattr(tensor, "quant_state", None)
        while state is not None:  # double quantisation: the constants have constants of their own
            tensors += [state.absmax, state.code, state.offset]
            state = state.state2
    sizes = {}
    for tensor in tensors:
        if torch.is_tensor(tensor):
            # tied weights lie at the same place and count once
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    return sum(sizes.values())

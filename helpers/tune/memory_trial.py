"""One measurement of memory, alone in its process: `python -m helpers.tune.memory_trial`."""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from helpers.choose import memory, models
from helpers.core import runtime
from helpers.tune import training


@dataclass(frozen=True)
class Trial:
    """What is measured of the embedded model."""

    mode: str  # one of memory.MODES
    max_length: int
    batch_size: int
    dtype: str


def peak_of_trial(trial: Trial) -> dict[str, object]:
    """Load the model, train three steps or answer once; the growth at the peak in `bytes`.

    Nothing is written but a temporary folder.
    """
    runtime.quiet()
    here, dtype = runtime.detect(), getattr(torch, trial.dtype)
    cuda = here.device == "cuda"
    # the buffers of the library itself are not the model's
    torch.randn(64, 64, dtype=dtype) @ torch.randn(64, 64, dtype=dtype)
    base = models.resolve("embedded")
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    before = 0 if cuda else memory.own_bytes()
    model = training.load_base(base.path, here, trial.mode == "qlora", dtype, dtype)
    if not cuda and trial.mode != "qlora":
        # loaded weights are a view of the file; a copy makes them the process's own
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    ids = torch.randint(3, model.config.vocab_size, (trial.batch_size, trial.max_length))
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        memory.PeakMemory(cuda) as peak,
    ):
        if trial.mode == "inference":
            _answer(model, ids)
        else:
            _train(trial, model, tokenizer, ids, here, Path(scratch))
    device = torch.cuda.get_device_name(0) if cuda else "cpu"
    return {**asdict(trial), "device": device, "bytes": peak.top - before}


def _answer(model: Any, ids: torch.Tensor) -> None:
    ids = ids.to(model.device)
    with torch.inference_mode():
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=16,
            min_new_tokens=16,
            do_sample=False,
        )


def _train(
    trial: Trial,
    model: PreTrainedModel,
    tokenizer: object,
    ids: torch.Tensor,
    here: runtime.Runtime,
    folder: Path,
) -> None:
    full = trial.mode == "full"
    trainer = training.build_trainer(
        model,
        tokenizer,
        [{"input_ids": row} for row in ids.tolist() * 4],
        here,
        folder,
        adapter=None if full else training.lora_config(),
        guards=not full,  # they would put all weights of a full tuning into float32
        # the estimate is about the plain way: on a CPU the fused one keeps the four bits unpacked
        answer_only=False,
        share_start=False,
        fused=False,
        max_length=trial.max_length,
        per_device_train_batch_size=trial.batch_size,
        max_steps=3,
        logging_strategy="no",
        bf16=trial.dtype == "bfloat16",
        fp16=trial.dtype == "float16",
        activation_checkpointing=False,
    )
    trainer.train()


def _main() -> None:
    """One measurement in this process; prints one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m helpers.tune.memory_trial")
    parser.add_argument("--mode", choices=memory.MODES, required=True)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--dtype", choices=list(memory.BYTES), default="bfloat16")
    print(json.dumps(peak_of_trial(Trial(**vars(parser.parse_args())))))


if __name__ == "__main__":
    _main()

"""One measurement of memory in a process of its own: `python -m helpers.tune.memory_trial --mode qlora`."""

import argparse
import json

import torch

from helpers.choose import memory, models
from helpers.core import runtime
from helpers.tune.training import build_trainer, load_base, lora_config


def memory_trial(mode, tokens, rows, dtype, config, own_memory, watch):
    """Load the embedded model (or random weights of a config) and train four steps or answer once; for helpers.choose.memory.

    Returns (bytes before loading, peak bytes while working, device). Nothing is written but a temporary folder.
    """
    import tempfile

    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    runtime.quiet()
    here = runtime.detect()
    number = getattr(torch, dtype)
    tokenizer = AutoTokenizer.from_pretrained(models.resolve("embedded").path)
    torch.randn(64, 64, dtype=number) @ torch.randn(
        64, 64, dtype=number
    )  # the library's own buffers are not the model's
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        place = models.resolve("embedded").path
        if config:
            place = scratch + "/random"
            AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(config), dtype=number
            ).save_pretrained(place)
        cuda = here.device == "cuda"
        before = 0 if cuda else own_memory()
        four_bit = mode == "qlora"
        model = load_base(place, here, four_bit, number, number)
        if (
            not cuda and not four_bit
        ):  # loaded weights are a view of the file; a copy makes them count as the process's own
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
        ids = torch.randint(3, model.config.vocab_size, (rows, tokens))
        with watch(cuda) as peak:
            if mode == "inference":
                with torch.inference_mode():
                    model.generate(
                        ids.to(model.device),
                        attention_mask=torch.ones_like(ids).to(model.device),
                        max_new_tokens=16,
                        min_new_tokens=16,
                        do_sample=False,
                    )
            else:
                adapter = None if mode == "full" else lora_config()
                trainer = build_trainer(
                    model,
                    tokenizer,
                    [{"input_ids": row} for row in ids.tolist() * 4],
                    here,
                    scratch,
                    adapter,
                    answer_only=False,
                    per_device_train_batch_size=rows,
                    max_steps=3,
                    logging_strategy="no",
                    bf16=dtype == "bfloat16",
                    fp16=dtype == "float16",
                    activation_checkpointing=False,
                )
                trainer.train()
    return before, peak.top, torch.cuda.get_device_name(0) if cuda else "cpu"


def _main(arguments=None):
    """One measurement in this process; prints one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m helpers.tune.memory_trial")
    parser.add_argument("--mode", choices=memory.MODES, required=True)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--dtype", choices=list(memory.BYTES), default="bfloat16")
    parser.add_argument(
        "--config", help="random weights of this config.json instead of the embedded model"
    )
    a = parser.parse_args(arguments)
    before, peak, device = memory_trial(
        a.mode, a.max_length, a.batch_size, a.dtype, a.config, memory.own_bytes, memory.PeakMemory
    )
    print(
        json.dumps(
            {
                "mode": a.mode,
                "max_length": a.max_length,
                "batch_size": a.batch_size,
                "dtype": a.dtype,
                "device": device,
                "bytes": peak - before,
            }
        )
    )


if __name__ == "__main__":
    _main()

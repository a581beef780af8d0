"""One measurement of memory in a process of its own: `python -m helpers.tune.memory_trial --mode qlora --tokens 256`."""

import argparse
import json

import torch

from helpers.choose import memory, models
from helpers.core import runtime
from helpers.tune.training import guard_4bit, guard_adapter, hardware_arguments


def memory_trial(mode, tokens, rows, dtype, config, own_memory, watch):
    """Load the embedded model (or random weights of a config) and train four steps or answer once; for helpers.choose.memory.

    Returns (bytes before loading, peak bytes while working, device). Nothing is written but a temporary folder.
    """
    import tempfile

    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

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
        nf4 = (
            BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=number,
            )
            if mode == "qlora"
            else None
        )
        model = AutoModelForCausalLM.from_pretrained(
            place, dtype=number, quantization_config=nf4, device_map={"": 0} if cuda else None
        )
        if (
            not cuda and not nf4
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
                lora = (
                    None
                    if mode == "full"
                    else LoraConfig(
                        r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
                    )
                )
                hardware = {
                    **hardware_arguments(here),
                    "bf16": dtype == "bfloat16",
                    "fp16": dtype == "float16",
                    "activation_checkpointing": False,
                }
                arguments = SFTConfig(
                    output_dir=scratch,
                    max_length=tokens,
                    per_device_train_batch_size=rows,
                    max_steps=3,
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    logging_strategy="no",
                    **hardware,
                )
                data = Dataset.from_dict({"input_ids": ids.tolist() * 4})
                trainer = SFTTrainer(
                    model=model,
                    args=arguments,
                    train_dataset=data,
                    processing_class=tokenizer,
                    peft_config=lora,
                )
                guard_4bit(trainer.model)
                guard_adapter(trainer.model) if lora else None
                trainer.train()
    return before, peak.top, torch.cuda.get_device_name(0) if cuda else "cpu"


def main(arguments=None):
    """One measurement in this process; prints one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m helpers.tune.memory_trial")
    parser.add_argument("--mode", choices=memory.MODES, required=True)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--dtype", choices=list(memory.BYTES), default="bfloat16")
    parser.add_argument(
        "--config", help="random weights of this config.json instead of the embedded model"
    )
    a = parser.parse_args(arguments)
    before, peak, device = memory_trial(
        a.mode, a.tokens, a.rows, a.dtype, a.config, memory.own, memory.Peak
    )
    print(
        json.dumps(
            {
                "mode": a.mode,
                "tokens": a.tokens,
                "rows": a.rows,
                "dtype": a.dtype,
                "device": device,
                "bytes": peak - before,
            }
        )
    )


if __name__ == "__main__":
    main()

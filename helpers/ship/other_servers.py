"""The same adapters for other servers: what to type for vLLM, what to write for Ollama."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.ask.answers import chat_prompt
from helpers.choose import models
from helpers.ship.adapter_gguf import read_settings

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank may be


def vllm_command(base: models.Base, adapters: Mapping[str, Path]) -> str:
    """The command by which vLLM serves the base and the PEFT adapters {name: folder}.

    A request chooses by its `model`: the name of an adapter. As vLLM's documentation has it; there
    is no vLLM on this machine, so it was not tried. Raises CourseError: no adapters, one without
    settings, a rank that vLLM does not take.
    """
    if not adapters:
        raise CourseError("There is no adapter to serve; name one or more.")
    modules, rank = [], 0
    for name, adapter in adapters.items():
        settings = read_settings(Path(adapter))
        ranks = [settings.get("r", 0), *(settings.get("rank_pattern") or {}).values()]
        rank = max(rank, *ranks)
        modules.append(shlex.quote(f"{name}={adapter}"))
    room = next((one for one in RANKS if one >= rank), None)
    if room is None:
        what = f"An adapter has rank {rank}, and vLLM takes {RANKS[-1]} at most"
        raise CourseError(f"{what}; train one of a smaller rank.")
    start = f"vllm serve {shlex.quote(base.path)} --enable-lora"
    return f"{start} --lora-modules {' '.join(modules)} --max-lora-rank {room}"


def ollama_modelfile(base_gguf: Path, adapter_gguf: Path, tokenizer: Any) -> str:
    """The Modelfile by which Ollama serves an adapter on its base, both as GGUF files.

    Save it and run `ollama create NAME -f Modelfile`. Its template is the tokenizer's own, for a
    system message, a message and the answer. As Ollama's documentation has it; there is no Ollama
    on this machine, so it was not tried. Ollama takes no grammar of ours: its answers may be
    no record. Raises CourseError for a tokenizer without a chat template that keeps messages.
    """
    asked = [
        {"role": "system", "content": "{{ .System }}"},
        {"role": "user", "content": "{{ .Prompt }}"},
    ]
    template = f"{chat_prompt(tokenizer, asked)}{{{{ .Response }}}}"
    end = tokenizer.eos_token
    return "\n".join(
        [
            f"FROM {Path(base_gguf).as_posix()}",
            f"ADAPTER {Path(adapter_gguf).as_posix()}",
            f'TEMPLATE """{template}{end}\n"""',
            f'PARAMETER stop "{end}"',
            "PARAMETER temperature 0",
            "PARAMETER repeat_penalty 1.0\n",  # earlier versions hold what is copied against it
        ]
    )

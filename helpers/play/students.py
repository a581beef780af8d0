"""Students that act: a small model tuned on episodes, merged here or served by llama.cpp."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from helpers.ask import engines, teachers
from helpers.ask.server import llama_server
from helpers.choose import models
from helpers.core import runtime
from helpers.core.files import sha256
from helpers.play import episode_filter
from helpers.play.episodes import Episode
from helpers.play.rollouts import Way
from helpers.ship.adapter_gguf import write_merged_gguf
from helpers.tune import training
from helpers.tune.students import merged

BASE = "embedded"
LAST = 8  # turns that a student sees
SERVED = "Q8_0"  # rounding of merged weights for llama.cpp: nearest to what was trained
STUDENT: dict[str, Any] = {
    "r": 16,
    "lora_alpha": 32,
    "learning_rate": 1e-3,
    "max_length": 1024,  # tokens of a pack
    "batch_size": 1,
}


def student_base() -> tuple[models.Base, Any]:
    """(base, tokenizer) of every student here."""
    base = models.resolve(BASE)
    with base.loading():
        return base, AutoTokenizer.from_pretrained(base.path)


def student_way(name: str = "student", **changes: Any) -> Way:
    """A tuned model: no rules, no examples, the newest turns."""
    return Way(name, last=LAST, **changes)


def train_player(
    episodes: Sequence[Episode], seed: int, steps: int, here: runtime.Runtime, folder: Path
) -> tuple[Any, Any, dict[str, Any]]:
    """(merged model in the machine's number format, tokenizer, facts) of one QLoRA student.

    Started again after a kill, it goes on from the last checkpoint in `folder`.
    """
    base, tokenizer = student_base()
    rows = episode_filter.teaching_rows(episodes, tokenizer, LAST)
    with base.loading():
        model = training.load_base(base.path, here, four_bit=True)
    adapter = training.lora_config(r=STUDENT["r"], lora_alpha=STUDENT["lora_alpha"])
    trainer = training.build_trainer(
        model,
        tokenizer,
        rows,
        here,
        folder / "trainer",
        adapter,
        max_steps=steps,
        seed=seed,
        packing=True,
        max_length=STUDENT["max_length"],
        learning_rate=STUDENT["learning_rate"],
        per_device_train_batch_size=STUDENT["batch_size"],
        warmup_steps=0.05,
        completion_only_loss=True,
        save_strategy="steps",
        save_steps=max(1, steps // 6),
        save_total_limit=1,
    )
    seconds = training.fit(trainer)
    facts = {"seconds": round(seconds, 1), "rows": len(rows)}
    facts["loss"] = trainer.state.log_history[-1].get("train_loss")
    training.save_adapter(trainer.model, folder / "adapter")
    return merged(base, folder / "adapter", here), tokenizer, facts


def engine_of(model: Any, tokenizer: Any) -> engines.Batches:
    """An engine for a model that is in this process already."""
    own = teachers.Teacher(model=BASE, licence="Apache-2.0")
    size = 128 if model.device.type == "cuda" else 32  # requests that are answered together
    return engines.Batches(own, size, loaded=(model, tokenizer))


@contextmanager
def student_engine(
    adapter: Path, gguf: Path, parallel: int = 1, kind: str = SERVED
) -> Iterator[engines.Server]:
    """A student served by llama.cpp: base and adapter merged, written to `gguf` as `kind`."""
    base = models.resolve(BASE)
    write_merged_gguf(adapter, Path(base.path), base.gguf, gguf, kind)
    teacher = teachers.Teacher(address="embedded", parallel=parallel, licence="own")
    with llama_server(gguf, parallel) as address:
        engine = engines.Server(teacher, address)
        engine.identity = [*engine.identity, sha256(gguf)]
        yield engine

"""Candidates for a base model as they come, with worked examples: right records, seconds, memory.

    python -m benchmarks.candidates [qwen2.5-coder-1.5b ...] [--record]

Each candidate answers a pilot's test rows in a process of its own, with the same worked examples,
held to the pilot's grammar. Without a name those that are on this machine; to name one fetches it.
Answers are written down as they arrive, so a kill loses none. `--record` puts the bundled inbox's
into data/reference/inbox/01/candidates.json, where chapter 01 finds them.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.promises import ChildrenPeak
from helpers import ROOT, CourseError
from helpers.ask import answers
from helpers.choose import gguf_parts, models
from helpers.core import rows, runtime
from helpers.core.files import fingerprint, write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import runs_folder
from helpers.pay import prices
from helpers.tune import training

# provider and model of genai-prices, and the day whose list prices are meant
HOSTED = {
    "gpt-6.1-sol": ("openai", "2026-11-22"),
    "claude-haiku-5-5": ("anthropic", "2026-11-22"),
    "gemini-3.5-flash-lite": ("google", "2026-11-22"),
}
LADDER = ("embedded", *gguf_parts.PARCELS)
RECORDED = ROOT / "data/reference/inbox/01/candidates.json"


def at_hand(here: runtime.Runtime | None = None) -> list[str]:
    """The names of LADDER whose files are on this machine; in smoke the smallest alone."""
    if here and here.profile.name == "smoke":
        return ["embedded"]
    cache = models.cache_folder()
    return [n for n in LADDER if n == "embedded" or gguf_parts.is_fetched(n, cache)]


def worked_examples(pilot: Pilot, data: rows.Rows, here: runtime.Runtime) -> list[dict]:
    """The training rows that stand in every candidate's prompt, the labels in turns."""
    return rows.spread([dict(row) for row in data.train], pilot.labels, here.profile.shots, 0)


def asked_with(pilot: Pilot, shots: Sequence[Mapping], texts: Sequence[str]) -> str:
    """What shapes the answers beside the model: instruction, examples, fields, messages; a hash."""
    fields = pilot.model_dump(mode="json")["fields"]
    return fingerprint(pilot.chat("", list(shots), True), fields, list(texts))


def measure(name: str, pilot: Pilot, here: runtime.Runtime, folder: Path) -> dict[str, Any]:
    """Answer the test rows in a process of its own; {"texts", "seconds", "bytes", ...}.

    `seconds` a message, `bytes` of memory at its peak (on a processor of the whole process with
    its libraries; the largest of the starts that ended), `file_bytes` on disk,
    `parameters`, `prompt_tokens` and `answer_tokens` of the first row, `bits` a character of the
    right answers of training rows, `tokens` of twelve parallel messages by language, `asked`: see
    `asked_with`. Raises CourseError with the process's own words when it fails, also for a model
    that cannot be had.
    """
    out = folder / f"{re.sub('[^A-Za-z0-9.-]+', '_', name)[-80:]}.json"
    command = [sys.executable, "-m", "benchmarks.candidates", "--one", name, "--out", str(out)]
    command += ["--pilot", str(pilot.folder), "--profile", here.profile.name]
    threshold = {"MALLOC_MMAP_THRESHOLD_": "131072", "COURSE_QUIET": "1"}
    environment = {**os.environ, **threshold}
    known = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    with ChildrenPeak(0.05) as peak:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it was killed, short of memory"])[-1]
        raise CourseError(f"{name} could not be measured: {last[:300]}")
    facts = json.loads(out.read_text(encoding="utf-8"))
    top = peak.top
    if known.get("asked") == facts["asked"]:  # kept answers take no memory the second time
        top = max(top, known.get("bytes", 0))
    facts = {"bytes": top} | facts  # on a card the process itself says what it took there
    write_text(out, json.dumps(facts, ensure_ascii=False))
    return facts


def measured_here(
    name: str, pilot: Pilot, data: rows.Rows, here: runtime.Runtime, out: Path
) -> dict[str, Any]:
    """The measurement behind `measure`, in this process."""
    shots, texts = worked_examples(pilot, data, here), data.test[pilot.text][:]
    base, tokenizer = answers.open_base(pilot.model_copy(update={"base_model": name}))
    model = training.load_base(base.path, here, four_bit=False)
    longest = max(len(tokenizer(pilot.answer(row)).input_ids) for row in data.train)
    told = answers.generate(
        model,
        tokenizer,
        pilot,
        data.test,
        out.with_suffix(""),
        shots=shots,
        full=True,
        max_length=8 * here.profile.max_length,
        max_new_tokens=longest + 16,
    )
    first = answers.prompt(pilot, tokenizer, texts[0], shots, True)
    prompt_tokens = len(tokenizer(first, add_special_tokens=False).input_ids)
    answer_tokens = len(tokenizer(told.texts[0], add_special_tokens=False).input_ids)
    shown = {shot["id"] for shot in shots}
    unseen = [dict(row) for row in data.train if row["id"] not in shown]
    bits = answers.surprise(model, tokenizer, pilot, unseen, max_length=1024)
    pairs = pd.read_csv(ROOT / "data/catalog/parallel.csv")
    tokens = {}
    for language in ("en", "ja"):
        ids = tokenizer(list(pairs[language]), add_special_tokens=False).input_ids
        tokens[language] = sum(map(len, ids)) / len(ids)
    return {
        "name": name,
        "model": base.name,
        "licence": base.licence,
        "parameters": models.shape_of_model(name, pilot.folder).parameters,
        "file_bytes": Path(base.gguf).stat().st_size if base.gguf else None,
        "asked": asked_with(pilot, shots, texts),
        "texts": told.texts,
        "seconds": told.seconds / len(set(texts)),
        "prompt_tokens": prompt_tokens,
        "answer_tokens": answer_tokens,
        "bits": bits.round(4).tolist(),
        "tokens": tokens,
        "machine": runtime.machine(),
        "dtype": here.dtype,
        **({"bytes": torch.cuda.max_memory_allocated()} if here.device == "cuda" else {}),
    }


def hosted(tokens_in: float, tokens_out: float) -> dict[str, dict[str, Any]]:
    """{model: {"usd", "source"}} of 1,000 messages at the list prices of HOSTED, not measured."""
    priced = {}
    for model, (provider, day) in HOSTED.items():
        price = prices.hosted(provider, model, day)
        usd = (tokens_in * price["usd_in"] + tokens_out * price["usd_out"]) / 1000
        priced[model] = {"usd": usd, "source": price["source"], "date": day}
    return priced


def recorded(pilot: Pilot, asked: str) -> dict[str, dict[str, Any]]:
    """{name: what `measure` gave} of a recorded run on these rows with these examples, else {}."""
    if not RECORDED.is_file():
        return {}
    found = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {name: facts for name, facts in found.items() if facts["asked"] == asked}


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.candidates", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(LADDER)}")
    parser.add_argument("--pilot", default=str(ROOT / "data/inbox"))
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    runtime.quiet()
    pilot, here = Pilot.load(options.pilot), runtime.detect(options.profile)
    try:
        if options.one:
            data = rows.load(pilot, here.profile)
            facts = measured_here(options.one, pilot, data, here, options.out)
            write_text(options.out, json.dumps(facts, ensure_ascii=False))
            return
        folder = runs_folder() / f"candidates/{pilot.name}"
        folder.mkdir(parents=True, exist_ok=True)
        found = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.is_file() else {}
        for name in options.names or at_hand():
            facts = found[name] = measure(name, pilot, here, folder)
            print(
                f"{name:20}{facts['seconds']:6.2f} s a message, {facts['bytes'] / 2**30:5.2f} GiB",
                flush=True,
            )
            if options.record:
                write_text(RECORDED, json.dumps(found, ensure_ascii=False, indent=1))
    except CourseError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    _main()

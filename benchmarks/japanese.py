"""The Japanese pilot in figures, cheap ways and two bases: `python -m benchmarks.japanese`.

One seed, 60 rows to learn from, 100 to be tested on, no choice made on the test rows. The embedded
model gets chapter 00's recipe, but beside the dense base instead of four bits. Qwen2.5-Coder-0.5B
gets the one that was written down for it on the English inbox before: the same, with the loss on
the answers and half the rate.
"""

import argparse
import time

import numpy as np

from benchmarks.everywhere import RESULTS, add_figures
from benchmarks.promises import ROBUST
from helpers import ROOT
from helpers.ask import answers
from helpers.choose import models
from helpers.core import rows, runtime
from helpers.core.pilot import Pilot
from helpers.core.runs import runs_folder
from helpers.measure import baselines, intervals, scoring
from helpers.tune import examples, students, training

FOLDER = ROOT / "data/inbox_ja"
NAMES = {"用件": "request", "緊急度": "urgency", "商品": "product", "注文番号": "order_id"}
BASES = {  # {name in the figures: base model, settings of the student}
    "embedded": ("embedded", {"method": "lora"}),
    "qwen05b": (
        "qwen2.5-coder-0.5b",
        {"method": "lora", "learning_rate": 5e-4, "answer_only": True},
    ),
}


def figures_of(way: str, right: dict, how: str) -> list[dict]:
    """Figures with Wilson intervals; `right` is {"exact" or a field: bools, one per test row}."""
    figures = []
    for field, values in right.items():
        share = intervals.share(np.array(values, bool))
        name = f"japanese.{NAMES.get(field, field)}.{way}"
        figure = {"name": name, "value": share.value, "low": share.low, "high": share.high}
        figures.append(figure | {"n": share.n, "how": how})
    return figures


def of_score(scored: scoring.Scored) -> dict:
    """{"exact" and every field: bools} of a score."""
    return {"exact": scored.exact, **scored.right}


def cheap(pilot: Pilot, data: rows.Rows) -> list[dict]:
    """Rules, word counts, and the best cheap way of each field, chosen on training rows."""
    figures, train = [], list(data.train)
    ways = {"rules": baselines.rules, "tf_idf": baselines.tf_idf, "best": baselines.best_cheap}
    for name, way in ways.items():
        scored = scoring.score(pilot, data.test, way(pilot, train, data.test[pilot.text][:]))
        print(name, scored, sep="\n", flush=True)
        figures += figures_of(name, of_score(scored), "60 training rows, on test")
    return figures


def few_shot(pilot: Pilot, data: rows.Rows, name: str, here: runtime.Runtime) -> list[dict]:
    """The base as it comes, with eight worked examples in the prompt and the grammar."""
    base, tokenizer = answers.open_base(pilot)
    model = training.load_base(base.path, here, four_bit=False)
    train = list(data.train)
    shots = rows.spread(train, pilot.labels, here.profile.shots, 0)
    longest = max(len(tokenizer(pilot.answer(row)).input_ids) for row in train)
    told = answers.generate(
        model,
        tokenizer,
        pilot,
        data.test,
        runs_folder() / f"japanese/few_shot_{name}",
        shots=shots,
        full=True,
        max_length=8 * here.profile.max_length,
        max_new_tokens=longest + 16,
        batch_size=here.profile.eval_batch_size,
    )
    scored = scoring.score(pilot, data.test, told.texts)
    print(name, "few-shot", scored, sep="\n", flush=True)
    how = f"{base.name}, {len(shots)} examples in the prompt, on test"
    return figures_of(f"few_shot_{name}", of_score(scored), how)


def tuned(pilot: Pilot, data: rows.Rows, name: str, here: runtime.Runtime) -> list[dict]:
    """A student of the 60 rows, merged into its dense base, as it ships."""
    settings, train = BASES[name][1], list(data.train)
    of_epochs = students.job_of_epochs(pilot, train, 0, here.profile.epochs, data.test)
    job = students.StudentJob(name, train, 0, of_epochs.steps, of_epochs.sets, settings)
    [cell] = students.train_students(pilot, [job], here, runs_folder() / f"japanese/{name}")
    right = {"exact": cell["right"]["test"]}
    for field in pilot.fields:
        right[field] = cell["right"][f"test.{field}"]
    base = models.resolve(pilot.base_model).name
    how = f"{base}, {len(train)} rows, {job.steps} steps, dense LoRA, seed 0"
    figures = figures_of(f"tuned_{name}", right, f"{how}, on test")
    took = {"value": cell["seconds"], "unit": "s", "how": f"training, {how}"}
    return [*figures, {"name": f"japanese.training_seconds.{name}", **took}]


def label_ways(pilot: Pilot, data: rows.Rows, seeds: int = 10) -> list[dict]:
    """Labels by word counts, by the vectors of the larger base, and by both; training rows only."""
    pilot = pilot.model_copy(update={"base_model": "qwen2.5-coder-0.5b"})
    train, figures = list(data.train), []
    for way in ("TF-IDF", *baselines.BY_ENCODER):
        right: dict[str, list[bool]] = {field: [] for field in pilot.labels}
        for seed in range(seeds):
            fold = baselines.folds(pilot, train, 5, seed)
            records = baselines.out_of_fold(pilot, train, baselines.WAYS[way], fold)
            for field, values in right.items():
                values += [record[field] == row[field] for record, row in zip(records, train)]
        for field, values in right.items():
            slug = way.lower().replace(" + ", "_and_").replace("-", "_")
            figure = {"name": f"labels.{NAMES[field]}.{slug}", "value": float(np.mean(values))}
            how = f"{len(train)} training rows, 5 folds, mean of {seeds} seeds of folds"
            reader = "characters" if way == "TF-IDF" else f"{pilot.base_model} reads"
            figures.append(figure | {"n": len(train), "how": f"{how}; {reader}"})
            print(figure, flush=True)
    return figures


def characters_per_token(pilot: Pilot, data: rows.Rows, name: str) -> list[dict]:
    """How many characters of a message one token of this base carries, and tokens of a record."""
    _, tokenizer = answers.open_base(pilot)
    texts = data.test[pilot.text][:]
    tokens = sum(len(tokenizer(text).input_ids) for text in texts)
    records = [len(tokenizer(pilot.answer(row)).input_ids) for row in data.test]
    characters = sum(map(len, texts)) / tokens
    how = f"{pilot.base_model}, test messages"
    longest, _ = examples.training_rows(pilot, list(data.train), tokenizer, 512)
    row = max(examples.row_length(tokenizer, taught) for taught in longest)
    return [
        {"name": f"japanese.characters_per_token.{name}", "value": characters, "unit": "characters"}
        | {"n": len(texts), "how": how},
        {"name": f"japanese.record_tokens.{name}", "value": float(np.mean(records))}
        | {"unit": "tokens", "n": len(records), "how": f"{how}: a right record"},
        {"name": f"japanese.longest_row.{name}", "value": row, "unit": "tokens"}
        | {"how": f"{pilot.base_model}: longest training row"},
    ]


def main() -> None:
    """Measure what is asked for and write it down; finished students are not trained again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.japanese", description=__doc__)
    parser.add_argument(
        "--only", nargs="*", choices=[*BASES, "cheap", "labels"], help="these parts"
    )
    parser.add_argument("--few-shot", action="store_true", help="the untuned bases as well")
    parser.add_argument("--dry", action="store_true", help="smoke profile, nothing is written down")
    options = parser.parse_args()
    runtime.quiet()
    here, started = runtime.detect("smoke" if options.dry else "cpu"), time.perf_counter()
    pilot = Pilot.load(FOLDER)
    data = rows.load(pilot, here.profile)
    for part in options.only or ["cheap", *BASES]:
        figures = cheap(pilot, data) if part == "cheap" else []
        if part == "labels":
            figures = label_ways(pilot, data)
        elif part != "cheap":
            pilot.base_model = BASES[part][0]
            figures += characters_per_token(pilot, data, part)
            figures += tuned(pilot, data, part, here)
            if options.few_shot:
                figures += few_shot(pilot, data, part, here)
        seconds = round(time.perf_counter() - started, 1)
        about = {"seconds": seconds, "profile": here.profile.name, "dtype": here.dtype}
        if not options.dry:
            results = ROBUST if part == "labels" else RESULTS
            add_figures(part if part == "labels" else f"japanese.{part}", figures, about, results)


if __name__ == "__main__":
    main()

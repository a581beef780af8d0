"""Is the tuned model, or the system, ever worse than the cheap ways? Small public draws.

    python -m benchmarks.robust --sets FOLDER --choose   # what was tried, on rows for choosing
    python -m benchmarks.robust --sets FOLDER --judge    # the figures of robust.json
    python -m benchmarks.robust --sets FOLDER --record   # writes them

FOLDER holds the clones named in benchmarks/public_draws.py. A kill loses the student at work; the
same command goes on from there. `--judge` reads published test rows that `--choose` never does.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.everywhere import RESULTS, add_figures
from benchmarks.public_draws import Draw, draws_to_choose_by, draws_to_judge_by
from helpers.core import runtime
from helpers.core.files import Journal, fingerprint
from helpers.core.pilot import Pilot
from helpers.core.runs import runs_folder
from helpers.measure import baselines, intervals, system
from helpers.tune import students, training

ROBUST = RESULTS.with_name("robust.json")
CHEAP = ["rules", "TF-IDF", "embeddings"]
NAMES = {"TF-IDF": "tfidf", "embeddings + TF-IDF": "embeddings_tfidf"}
SHARED: dict[str, Any] = {"answer_only": True}  # the same loss, computed faster
EPOCHS = 8
SPARE = (1,)  # seeds that only some draws have
# draws whose labels are also read as the model writes them, which takes twice as long as training
GREEDY = ("hwu_orders", "clinc_travel", "snips_tested")
# one thing changed at a time; what each was worth stands in robust.json
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "dense_base": {"method": "lora"},
    "rows_4": {"packing": False, "batch_size": 4},
    "packs_128": {"max_length": 128},
    "listed": {"listed": True},
    "epochs_16": {"epochs": 16},
    "half_rate_epochs_16": {"epochs": 16, "learning_rate": 5e-4},
    "double_rate": {"learning_rate": 2e-3},
    "average_last_half": {"average_last": 0.5},
}


class ListedPilot(Pilot):
    """The same pilot, its short instruction with the labels of every field in it."""

    def instruction(self, full: bool = True) -> str:
        """The system message."""
        if full:
            return super().instruction(full)
        lines = [super().instruction(full)]
        for name in self.labels:
            lines.append(f"{name}: one of {', '.join(self.fields[name].values)}.")
        return " ".join(lines)


def tables_of(
    draw: Draw,
    variant: str,
    seed: int,
    here: runtime.Runtime,
    folder: Path,
    train: Sequence[Mapping[str, Any]] | None = None,
    asked: Sequence[str] | None = None,
    greedy: bool = False,
    stored_only: bool = False,
) -> dict[str, Any] | None:
    """{"probabilities": [...], "seconds", "steps", ...} of one student; kept in a journal.

    With `greedy` also the labels as the model writes them under the grammar. With `stored_only`
    None for a student that is not in the journal.
    """
    settings = SHARED | VARIANTS[variant]
    epochs, pilot = settings.pop("epochs", EPOCHS), draw.pilot
    if settings.pop("listed", False):
        pilot = ListedPilot.model_construct(**dict(pilot))
    train = list(train or draw.train)
    texts = list(asked or [row["text"] for row in draw.test])
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    job = students.job_of_epochs(pilot, train, seed, epochs, rows, settings)
    key = fingerprint(job.key(pilot), draw.name, greedy)
    journal = Journal(folder / f"{draw.name}.jsonl", "A student")
    if journal.missing([key]):
        if stored_only:
            return None
        clock = time.perf_counter()
        model, tokenizer, facts = students.train_student(pilot, job, here, folder / key)
        training.save_adapter(model, folder / key / "adapter")
        del model
        _, tokenizer, model = students.load_student(pilot, folder / key / "adapter", here)
        # the record has one field, so nothing that the model writes stands before its label
        blank = [pilot.answer({"intent": None})] * len(rows)
        read = system.model_reading(model, tokenizer, pilot, rows, blank, folder / key / "labels")
        entry = {"variant": variant, "seed": seed, "rows": len(train), "steps": job.steps}
        entry |= {"seconds": facts["seconds"], "loss": facts["loss"]}
        entry["probabilities"] = read.probabilities["intent"].tolist()
        if greedy:
            told, _ = students.scored_answers(
                pilot, model, tokenizer, draw.test, folder / key / "greedy", here, 512, 64
            )
            entry["greedy"] = [json.loads(text)["intent"] for text in told]
        journal.add({key: entry}, time.perf_counter() - clock)
    return journal.of([key])[0]


def places(draw: Draw, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The class numbers of the rows, shape (rows,)."""
    classes = baselines.label_classes(draw.pilot, "intent")
    return np.array([classes.index(row["intent"]) for row in rows])


def choose(draws: Sequence[Draw], names: Sequence[str], folder: Path, here: Any) -> None:
    """Train every variant on every draw and print its share of right labels."""
    for draw in draws:
        for name in names:
            found = tables_of(draw, name, 0, here, folder)
            right = np.array(found["probabilities"]).argmax(1) == places(draw, draw.test)
            print(
                f"{draw.name:12} {name:20} {right.mean():6.1%} {found['steps']:4} steps "
                f"{found['seconds']:5.0f} s",
                flush=True,
            )


def tried_figures(draws: Sequence[Draw], folder: Path, here: Any) -> list[dict]:
    """For each variant: points gained over the recipe, on the draws where both were trained."""
    figures = []
    for name in list(VARIANTS)[1:]:
        rights = []
        for draw in draws:
            truth, right = places(draw, draw.test), {}
            for variant in ("recipe", name):
                found = tables_of(draw, variant, 0, here, folder, stored_only=True)
                if found:
                    right[variant] = np.array(found["probabilities"]).argmax(1) == truth
            if len(right) == 2:
                rights.append(right)
        if rights:
            value, low, high = mean_difference(rights, name, "recipe")
            how = f"{VARIANTS[name]}: mean over draws for choosing, minus the recipe, 95 %"
            figure = {"name": f"tried.{name}", "value": value, "low": low, "high": high}
            figures.append(figure | {"n": len(rights), "how": how})
    return figures


def right_of(draw: Draw, seeds: Sequence[int], here: Any, folder: Path) -> dict[str, np.ndarray]:
    """{way: bools, one per test row} of cheap ways, tuned models and the system, one draw."""
    pilot, texts = draw.pilot, [row["text"] for row in draw.test]
    truth, tables, unseen = places(draw, draw.test), {}, {}
    for way in baselines.PROBABILITIES:
        tables[way] = baselines.label_probabilities(pilot, draw.train, texts, way)["intent"]
    fold = baselines.folds(pilot, draw.train, 3, 0)

    def cheap(way: str) -> Any:
        return lambda train, asked: system.cheap_reading(pilot, train, asked, way)

    def tuned(train: list[dict], asked: list[str]) -> system.Reading:
        found = tables_of(draw, "recipe", 0, here, folder, train, asked)
        records = [dict.fromkeys(pilot.fields) for _ in asked]
        return system.Reading(records, {"intent": np.array(found["probabilities"])})

    for way in CHEAP:
        unseen[way] = system.out_of_fold_reading(pilot, draw.train, fold, cheap(way))
    cheap_system = system.choose_system(pilot, draw.train, unseen)
    unseen["tuned"] = system.out_of_fold_reading(pilot, draw.train, fold, tuned)
    chosen = system.choose_system(pilot, draw.train, unseen)
    right = {way: table.argmax(1) == truth for way, table in tables.items()}
    by_seed = []
    for seed in seeds:
        greedy = seed == seeds[0] and draw.name in GREEDY
        found = tables_of(
            draw, "recipe", seed, here, folder, greedy=greedy, stored_only=seed in SPARE
        )
        if found is None:
            continue
        by_seed.append(np.array(found["probabilities"]))
        if greedy:
            said = [baselines.label_classes(pilot, "intent").index(x) for x in found["greedy"]]
            right["greedy"] = np.array(said) == truth
    tables["tuned"] = by_seed[0]
    right["tuned"] = by_seed[0].argmax(1) == truth
    for seed, table in zip(seeds[1:], by_seed[1:]):
        right[f"tuned_seed_{seed}"] = table.argmax(1) == truth
    if len(by_seed) > 1:
        right["tuned_seeds_averaged"] = sum(by_seed).argmax(1) == truth
    for name, mix in (("system", chosen), ("cheap_system", cheap_system)):
        ways = {way: tables[way] for way in mix.weights["intent"]}
        right[name] = system.pooled(ways, mix.weights["intent"]).argmax(1) == truth
    equal = dict.fromkeys(("TF-IDF", "embeddings", "tuned"), 1.0)
    right["plain_mean"] = sum(tables[way] for way in equal).argmax(1) == truth
    print(draw.name, str(chosen).removeprefix("intent: "), flush=True)
    return right


def mean_difference(
    rights: Sequence[Mapping[str, np.ndarray]], one: str, other: str, seed: int = 0
) -> tuple[float, float, float]:
    """(mean over draws of the paired difference, low, high): a bootstrap of rows in every draw."""
    chance, pairs = np.random.default_rng(seed), []
    for right in rights:
        if one not in right or other not in right:
            continue
        pairs.append(right[one].astype(float) - right[other].astype(float))
    drawn = np.zeros(10_000)
    for pair in pairs:
        drawn += pair[chance.integers(0, len(pair), (10_000, len(pair)))].mean(1) / len(pairs)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.mean([pair.mean() for pair in pairs])), float(low), float(high)


def judged_figures(rights: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict]:
    """Figures of every draw and way, and of the differences over all draws."""
    figures, every = [], list(rights.values())
    single = ["majority", "rules", "tfidf", "embeddings", "tuned"]
    for draw, right in rights.items():
        for way, values in right.items():
            share = intervals.share(values)
            name = f"robust.{draw}.{way}"
            figures.append({"name": name, **vars(share), "how": "right labels on test rows"})
        best = max(single, key=lambda way: right[way].mean())
        for one, other, named in (
            ("tuned", "tfidf", "tfidf"),
            ("system", "embeddings", "embeddings"),
            ("system", best, "best_single"),
        ):
            gap = intervals.compare(right[one], right[other])
            figures.append(
                {
                    "name": f"robust.{draw}.{one}_minus_{named}",
                    "value": gap.difference,
                    "low": gap.low,
                    "high": gap.high,
                    "n": gap.n,
                    "how": f"paired difference, {one} - {other}, bootstrap 95 %",
                }
            )
    for one, other in (
        ("tuned", "tfidf"),
        ("tuned", "embeddings"),
        ("system", "embeddings"),
        ("system", "tuned"),
        ("system", "cheap_system"),
        ("system", "plain_mean"),
        ("tuned", "greedy"),
        ("tuned_seeds_averaged", "tuned"),
    ):
        value, low, high = mean_difference(every, one, other)
        figures.append(
            {
                "name": f"robust.{one}_minus_{other}",
                "value": value,
                "low": low,
                "high": high,
                "n": sum(one in right and other in right for right in every),
                "how": "mean over draws of the paired difference, rows drawn anew, 95 %",
            }
        )
    return figures


def _unique(figures: list[dict]) -> list[dict]:
    return list({figure["name"]: figure for figure in figures}.values())


def main() -> None:
    """Train, or write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robust", description=__doc__)
    parser.add_argument("--sets", required=True, type=Path)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--draws", nargs="+")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    options = parser.parse_args()
    runtime.quiet()
    here, folder = runtime.detect("cpu"), runs_folder() / "robust"
    folder.mkdir(parents=True, exist_ok=True)
    if options.choose:
        draws = draws_to_choose_by(options.sets)
        draws = [draw for draw in draws if draw.name in (options.draws or [d.name for d in draws])]
        choose(draws, options.variants, folder, here)
    if options.judge or options.record:
        draws, rights = draws_to_judge_by(options.sets), {}
        for draw in draws:
            if not options.draws or draw.name in options.draws:
                found = right_of(draw, options.seeds, here, folder)
                rights[draw.name] = {NAMES.get(way, way): x for way, x in found.items()}
                shown = {way: f"{x.mean():.1%}" for way, x in rights[draw.name].items()}
                print(draw.name, shown, flush=True)
        if options.record:
            figures = _unique(judged_figures(rights))
            figures += tried_figures(draws_to_choose_by(options.sets), folder, here)
            settings = {
                "draws": list(rights),
                "recipe": students.SETTINGS | SHARED,
                "epochs": EPOCHS,
                "folds": 3,
            }
            settings |= {"seeds_of_training": options.seeds}
            add_figures("robust", figures, settings, ROBUST)


if __name__ == "__main__":
    main()

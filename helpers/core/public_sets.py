"""Public data sets by name: a local copy, else the hub. Nothing of them is stored here."""

import json
import os
import random
from pathlib import Path
from typing import Any

from helpers import ROOT, CourseError

Pairs = list[tuple[str, str]]


def local_copy(name: str) -> Path | None:
    """`COURSE_DATASETS`/name, or shared/real_data/name beside the repository, or None."""
    for place in (os.environ.get("COURSE_DATASETS"), ROOT.parent / "shared/real_data"):
        if place and (Path(place) / name).is_dir():
            return Path(place) / name
    return None


def splits_of(source: Any, text: str, label: str) -> dict[str, Pairs]:
    """{split: [(text, label), ...]} of CLINC150 or of any set that `load_dataset` reads.

    `text` and `label` name the columns. Raises CourseError when it cannot be loaded.
    """
    clinc = source.dataset in ("clinc150", "clinc/clinc_oos")
    here = local_copy("clinc150") if clinc else None
    if here:
        raw = json.loads((here / "data_full.json").read_text(encoding="utf-8"))
        return {"train": raw["train"], "test": raw["test"], "ood": raw["oos_test"]}
    name, config = source.dataset, source.config
    if name == "clinc150":
        name, config = "clinc/clinc_oos", "plus"
    data = _loaded(name, config)
    test = "test" if "test" in data else "validation"
    splits = {}
    for ours, theirs in (("train", "train"), ("test", test)):
        if theirs not in data or not {text, label} <= set(data[theirs].column_names):
            raise CourseError(
                f"{name} has no split {theirs!r} with the columns {text!r} and {label!r}."
            )
        labels = data[theirs][label]
        names = getattr(data[theirs].features[label], "names", None)
        if names:  # a ClassLabel stores numbers
            labels = [names[number] for number in labels]
        splits[ours] = list(zip(data[theirs][text], map(str, labels), strict=True))
    splits["ood"] = [pair for pair in splits["test"] if pair[1] == "oos"]
    return splits


def _loaded(name: str, config: str | None) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(name, config)
    except Exception as problem:  # the hub client raises a dozen kinds, all mean the same here
        words = " ".join(str(problem).split())[:120]
        raise CourseError(
            f"The data set {name} could not be loaded ({words}); check the name and the "
            "network, or put a copy into the folder that COURSE_DATASETS names."
        ) from problem


def sampled_values(source: Any, text: str, label: str, sample: Any) -> list[str]:
    """`sample.sample` labels of the set, drawn with `sample.seed` before any score is known."""
    splits = splits_of(source, text, label)
    known = sorted({value for _, value in splits["train"]} - {"oos"})
    if sample.sample > len(known):
        raise CourseError(
            f"{source.dataset} has {len(known)} labels; pilot.yaml wants to sample {sample.sample}."
        )
    return sorted(random.Random(sample.seed).sample(known, sample.sample))


def drawn_rows(source: Any, text: str, label: str, values: list[str]) -> dict[str, list[dict]]:
    """{split: rows}: `per_label` training rows of each value, `test_rows`, and up to 60 ood."""
    splits = splits_of(source, text, label)
    draw, tables = random.Random(source.seed), {"train": []}
    for value in values:
        texts = [words for words, known in splits["train"] if known == value]
        if len(texts) < source.per_label:
            raise CourseError(
                f"{source.dataset} has {len(texts)} training rows for {value!r}; "
                f"pilot.yaml asks for {source.per_label}."
            )
        tables["train"] += [(words, value) for words in draw.sample(texts, source.per_label)]
    pool = [pair for pair in splits["test"] if pair[1] in values]
    tables["test"] = draw.sample(pool, min(source.test_rows, len(pool)))
    if splits.get("ood"):
        drawn = draw.sample(splits["ood"], min(60, len(splits["ood"])))
        tables["ood"] = [(words, None) for words, _ in drawn]
    draw.shuffle(tables["train"])
    return {
        split: [
            {"id": f"{split}-{number}", text: words, label: value, "tags": ""}
            for number, (words, value) in enumerate(pairs)
        ]
        for split, pairs in tables.items()
    }

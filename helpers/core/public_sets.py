"""Public data sets by name: a local copy, else the hub. Nothing of them is stored here."""

import json
import os
import random
from pathlib import Path
from typing import Any

import datasets

from helpers import ROOT, CourseError
from helpers.core.pilot import Pilot, Source
from helpers.core.text import cleaned


def local_copy(name: str) -> Path | None:
    """`COURSE_DATASETS`/name, or shared/real_data/name beside the repository, or None."""
    for place in (os.environ.get("COURSE_DATASETS"), ROOT.parent / "shared/real_data"):
        if place and (Path(place) / name).is_dir():
            return Path(place) / name
    return None


def drawn_rows(pilot: Pilot, source: Source) -> dict[str, list[dict]]:
    """{split: rows}: `per_label` training rows of each value, `test_rows`, and up to 60 ood."""
    label = pilot.labels[0]
    values, splits = pilot.fields[label].values, _splits(source, pilot.text, label)
    # one generator for all draws, in this order: the rows are the same on every machine
    draw, tables = random.Random(source.seed), {"train": list[Any]()}
    for value in values:
        pairs = [pair for pair in splits["train"] if pair[1] == value]
        if len(pairs) < source.per_label:
            has = f"{source.dataset} has {len(pairs)} training rows for {value!r}"
            raise CourseError(f"{has}; pilot.yaml asks for {source.per_label}.")
        tables["train"] += draw.sample(pairs, source.per_label)
    pool = [pair for pair in splits["test"] if pair[1] in values]
    tables["test"] = draw.sample(pool, min(source.test_rows, len(pool)))
    if splits["ood"]:
        pairs = draw.sample(splits["ood"], min(60, len(splits["ood"])))
        tables["ood"] = [(text, None) for text, _ in pairs]
    draw.shuffle(tables["train"])
    rows: dict[str, list[dict]] = {split: [] for split in tables}
    for split, pairs in tables.items():
        for number, (text, value) in enumerate(pairs):
            row = {"id": f"{split}-{number}", pilot.text: cleaned(text), label: value}
            rows[split].append(row | {"tags": ""})
    return rows


def _splits(source: Source, text: str, label: str) -> dict[str, list[tuple[str, str]]]:
    """{split: [(text, label), ...]} of CLINC150 or of any set that `load_dataset` reads."""
    name, config = source.dataset, source.config
    if name in ("clinc150", "clinc/clinc_oos"):
        name, config = "clinc/clinc_oos", "plus"
        here = local_copy("clinc150")
        if here:
            raw = json.loads((here / "data_full.json").read_text(encoding="utf-8"))
            return {"train": raw["train"], "test": raw["test"], "ood": raw["oos_test"]}
    try:
        data, splits = datasets.load_dataset(name, config), {}
    except Exception as problem:  # the hub client raises a dozen kinds, all mean the same here
        what = f"could not be loaded ({' '.join(str(problem).split())[:120]})"
        cure = "check the name and the network, or put a copy into the folder that"
        raise CourseError(f"The data set {name} {what}; {cure} COURSE_DATASETS names.") from problem
    for ours, theirs in (("train", "train"), ("test", "test" if "test" in data else "validation")):
        if theirs not in data or not {text, label} <= set(data[theirs].column_names):
            wanted = f"no split {theirs!r} with the columns {text!r} and {label!r}"
            raise CourseError(f"{name} has {wanted}.")
        labels, feature = data[theirs][label], data[theirs].features[label]
        if isinstance(feature, datasets.ClassLabel):  # it stores numbers
            labels = feature.int2str(list(labels))
        splits[ours] = list(zip(data[theirs][text], map(str, labels), strict=True))
    return splits | {"ood": [pair for pair in splits["test"] if pair[1] == "oos"]}

"""Public data sets by name: a local copy where there is one, else the hub. Nothing of them is stored here."""

import json
import os
from pathlib import Path

from helpers import ROOT, CourseError


def local_copy(name):
    """A local copy of a public set: `COURSE_DATASETS`/name, or shared/real_data/name beside the repository, or None."""
    for place in (os.environ.get("COURSE_DATASETS"), ROOT.parent / "shared/real_data"):
        if place and (Path(place) / name).is_dir():
            return Path(place) / name
    return None


def splits_of(source, text, label):
    """{split: [(text, label), ...]} from the local copy of CLINC150 or from any set that `load_dataset` reads."""
    here = local_copy("clinc150") if source.dataset in ("clinc150", "clinc/clinc_oos") else None
    if here:
        raw = json.loads((here / "data_full.json").read_text(encoding="utf-8"))
        return {"train": raw["train"], "test": raw["test"], "ood": raw["oos_test"]}
    from datasets import load_dataset

    hub_id, config = (
        ("clinc/clinc_oos", "plus")
        if source.dataset == "clinc150"
        else (source.dataset, source.config)
    )
    try:
        data = load_dataset(hub_id, config)
    except (
        Exception
    ) as problem:  # the hub client raises a dozen kinds; all mean the same to the reader
        raise CourseError(
            f"The data set {hub_id} could not be loaded ({' '.join(str(problem).split())[:120]}); check the name and the "
            "network, or put a copy into the folder that COURSE_DATASETS names."
        ) from problem
    test = "test" if "test" in data else "validation"
    splits = {}
    for ours, theirs in (("train", "train"), ("test", test)):
        if theirs not in data or not {text, label} <= set(data[theirs].column_names):
            raise CourseError(
                f"{hub_id} has no split {theirs!r} with the columns {text!r} and {label!r}."
            )
        labels = data[theirs].features[label]
        names = getattr(labels, "names", None)
        splits[ours] = [
            (t, names[v] if names else str(v))
            for t, v in zip(data[theirs][text], data[theirs][label])
        ]
    splits["ood"] = [pair for pair in splits["test"] if pair[1] == "oos"]
    return splits

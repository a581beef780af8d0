"""Bad rows on purpose, ten kinds, to see what the filters of helpers/keep catch and miss.

    python -m benchmarks.planted_rows     # writes data/inbox/planted.jsonl

The texts were written for this course, before any filter was tried on them. They fit the bundled
inbox.
"""

import json
import random
import re
from pathlib import Path

from datasets import Dataset

from helpers import ROOT
from helpers.core.files import read_yaml, write_text
from helpers.core.pilot import Pilot
from helpers.core.rows import load

KINDS = (
    "swapped_label",
    "missing_span",
    "test_copy",
    "personal",
    "wrong_language",
    "leakage",
    "injection",
    "boilerplate",
    "empty",
    "truncated",
)
TEXTS = read_yaml(Path(__file__).with_suffix(".yaml"))


def rows(pilot, train, test, per_kind=25, seed=0):
    """Dataset of `per_kind` bad rows of each kind: the pilot's columns and `planted`, the kind.

    Made from training rows, from test rows (near-copies) and from the texts of planted_rows.yaml.
    For the bundled inbox or a copy of it.
    """
    draw, out = random.Random(seed), []
    own = [(text, intent) for intent, texts in TEXTS["written"].items() for text in texts]
    for kind in KINDS:
        pool = own if kind == "swapped_label" else list(test if kind == "test_copy" else train)
        if kind == "personal":  # what the message itself tells would be found, too
            pool = [
                row
                for row in pool
                if not re.search(r"@|\b(lane|street|road)\b", row[pilot.text], re.IGNORECASE)
            ]
        bases = draw.sample(pool, min(per_kind, len(pool)))
        for i in range(per_kind):
            base = bases[i % len(bases)]
            if kind == "swapped_label":
                base = {
                    pilot.text: base[0],
                    "intent": base[1],
                    "urgency": "normal",
                    "product": None,
                    "order_id": None,
                }
            row = {
                "id": f"{kind}-{i:02}",
                "tags": "",
                **{c: base[c] for c in (pilot.text, *pilot.fields)},
                "planted": kind,
            }
            row |= _spoil(kind, row, draw, i, pilot)
            out.append(row)
    draw.shuffle(out)
    return Dataset.from_list(out)


def _spoil(kind, row, draw, i, pilot):
    text = row[pilot.text]
    slots = {
        "text": text,
        "intent": row["intent"],
        "urgency": row["urgency"],
        "number": f"PO-{draw.randrange(1000, 9999)}",
        "d2": f"{draw.randrange(10, 99)}",
        "d3": f"{draw.randrange(100, 999)}",
    }
    if kind == "swapped_label":
        other = draw.choice([v for v in pilot.fields["intent"].values if v != row["intent"]])
        return {
            pilot.text: draw.choice(TEXTS["openers"]) + text + draw.choice(TEXTS["closers"]),
            "intent": other,
        }
    if kind == "missing_span":
        wrong = (
            ("order_id", slots["number"]),
            ("product", "spare part kit"),
            ("order_id", "PO-12"),
            ("order_id", "the usual number"),
            ("product", (row["product"] or "bearing").upper() + "S"),
            ("product", "1 " + (row["product"] or "pump")),
            ("order_id", slots["number"].replace("-", " ")),
            ("product", text[:12][::-1]),
        )
        name, value = wrong[i % len(wrong)]
        return {name: value}
    if kind == "test_copy":
        return {pilot.text: _copy(text, draw, i), "product": None, "order_id": None}
    if kind == "empty":
        return {
            pilot.text: TEXTS["empty"][i % len(TEXTS["empty"])],
            "product": None,
            "order_id": None,
        }
    if kind == "truncated":
        cut = max(12, int(len(text) * draw.uniform(0.35, 0.9)))
        cut = cut if i % 2 else text.rfind(" ", 0, cut)  # in the middle of a word, or after one
        new = text[:cut]
        return {
            pilot.text: new,
            **{f: row[f] if row[f] and row[f] in new else None for f in ("product", "order_id")},
        }
    if kind == "wrong_language":
        new = TEXTS["foreign"][i % len(TEXTS["foreign"])].format(**slots)
        return {
            pilot.text: draw.choice(("", "", "PS: ")) + new,
            "product": None,
            "order_id": slots["number"] if "PO-" in new else None,
        }
    if kind == "boilerplate":
        return {
            pilot.text: draw.choice(
                (
                    f"{text}\n\n--\n{TEXTS['boiler'][i % len(TEXTS['boiler'])]}",
                    f"{TEXTS['boiler'][i % len(TEXTS['boiler'])]}\n\n{text}",
                )
            )
        }
    forms = {
        "leakage": TEXTS["leaked"],
        "injection": TEXTS["injected"],
        "personal": TEXTS["personal"],
    }[kind]
    return {pilot.text: forms[i % len(forms)].format(**slots)}


def _copy(text, draw, i):
    words = text.split()
    way = i % 8
    if way == 0:
        return text.upper()
    if way == 1:
        return draw.choice(TEXTS["openers"]) + text
    if way == 2:
        return text + draw.choice(TEXTS["closers"])
    if way == 3:  # a word left out
        del words[draw.randrange(len(words))]
        return " ".join(words)
    if way == 4:  # two neighbours swapped
        k = draw.randrange(len(words) - 1)
        words[k], words[k + 1] = words[k + 1], words[k]
        return " ".join(words)
    if way == 5:  # every tenth word another one
        return " ".join("something" if k % 10 == 4 else w for k, w in enumerate(words))
    if way == 6:
        return (
            text.replace("please", "kindly")
            .replace("Please", "Kindly")
            .replace("order", "purchase")
            .replace("you", "your firm")
        )
    return "".join(
        draw.choice("abcdefgh") if c.isdigit() else c for c in text
    )  # other numbers and codes


def mixed(pilot, train, test, ood, per_kind=25, seed=0):
    """List of dicts: the labelled rows of `train` and `ood`, which are clean, and the bad ones."""
    bad = list(rows(pilot, train, test, per_kind, seed))
    columns = [name for name in bad[0] if name != "planted"]
    clean = [row for row in [*train, *ood] if row[pilot.labels[0]]]
    table = [{name: row[name] for name in columns} | {"planted": "clean"} for row in clean]
    return [row | {"intended": TEXTS["intended"].get(row["planted"], [])} for row in [*table, *bad]]


def _main():
    """Write data/inbox/planted.jsonl."""
    pilot = Pilot.load(ROOT / "data/inbox")
    data = load(pilot)
    lines = mixed(pilot, data.train, data.test, data.ood)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(ROOT / "data/inbox/planted.jsonl", text)


if __name__ == "__main__":
    _main()

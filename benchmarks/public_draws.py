"""Small pilots drawn from public sets of messages, for studies; nothing of them is stored here.

A folder with clones of three repositories, and CLINC150 as `data/clinc150` finds it:

    git clone https://github.com/snipsco/nlu-benchmark                  (CC0 1.0)
    git clone https://github.com/xliuhw/NLU-Evaluation-Data             (HWU64, CC BY 4.0)
    git clone https://github.com/sebischair/NLU-Evaluation-Corpora      (CC BY-SA 3.0)

Draws for choosing a recipe take their test rows from rows that are published for training; draws
for judging it take them from the published test rows. No intent of `data/clinc150` is used.
"""

import csv
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers import CourseError
from helpers.core.pilot import FieldSpec, Pilot
from helpers.core.public_sets import local_copy
from helpers.core.text import cleaned, same_message

Pair = tuple[str, str]  # (text, intent)
MOST = 200  # test rows of a draw
SNIPS = "nlu-benchmark/2017-06-custom-intent-engines"
HWU64 = (
    "NLU-Evaluation-Data/CrossValidation/autoGeneFromRealAnno/"
    "autoGene_2018_03_22-13_01_25_169/CrossValidation/KFold_1"
)
# drawn by data/clinc150
# fmt: off
TAKEN = {
    "book_hotel", "maybe", "nutrition_info", "pto_used", "report_fraud", "restaurant_suggestion",
    "routing", "timer", "tire_change", "transfer",
}
SOUND = [
    "music_query", "play_music", "play_radio", "play_podcasts", "play_audiobook",
    "audio_volume_up", "audio_volume_mute", "play_game", "music_likeness", "audio_volume_down",
]
ORDERS = [
    "lists_createoradd", "lists_query", "lists_remove", "calendar_query", "calendar_remove",
    "calendar_set", "email_query", "email_querycontact", "email_sendemail", "takeaway_order",
]
# fmt: on


@dataclass(frozen=True)
class Draw:
    """A pilot of one label field with rows to learn from and to be tested on."""

    name: str
    pilot: Pilot
    train: list[dict]
    test: list[dict]


def _clinc150(split: str) -> dict[str, list[Pair]]:
    place = local_copy("clinc150")
    if place is None:
        raise CourseError("CLINC150 is not here: put data_full.json under COURSE_DATASETS.")
    raw = json.loads((place / "data_full.json").read_text(encoding="utf-8"))
    train, test = [], []
    for pairs, name in ((train, "train"), (test, split)):
        pairs += [(text, label) for text, label in raw[name] if label not in TAKEN]
    domains = json.loads((place / "domains.json").read_text(encoding="utf-8"))
    return {"train": train, "test": test, **domains}


def _halved(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Rows published for training, half of them to learn from and half to choose by."""
    shuffled = list(pairs)
    random.Random(0).shuffle(shuffled)
    half = len(shuffled) // 2
    return {"train": shuffled[:half], "test": shuffled[half:]}


def _read(path: Path) -> str:
    if not path.is_file():
        raise CourseError(f"{path.name} is not in the folder of clones: see the top of this file.")
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # some files of SNIPS


def _snips(clones: Path) -> dict[str, list[Pair]]:
    splits: dict[str, list[Pair]] = {"train": [], "test": []}
    for folder in sorted((clones / SNIPS).glob("*/")):
        intent = folder.name
        for split, file in (("train", f"train_{intent}_full"), ("test", f"validate_{intent}")):
            for query in json.loads(_read(folder / f"{file}.json"))[intent]:
                text = "".join(part["text"] for part in query["data"])
                splits[split].append((text.strip(), intent))
    return splits


def _hwu64(clones: Path) -> dict[str, list[Pair]]:
    splits: dict[str, list[Pair]] = {"train": [], "test": []}
    for split, under in (("train", "trainset"), ("test", "testset/csv")):
        for path in sorted((clones / HWU64 / under).glob("*.csv")):
            for row in csv.DictReader(_read(path).splitlines(), delimiter=";"):
                if row["answer_from_user"]:
                    splits[split].append((row["answer_from_user"], path.stem))
    return splits


def _corpus(clones: Path, name: str) -> dict[str, list[Pair]]:
    splits: dict[str, list[Pair]] = {"train": [], "test": []}
    content = json.loads(_read(clones / f"NLU-Evaluation-Corpora/{name}.json"))
    for sentence in content["sentences"]:
        split = "train" if sentence["training"] else "test"
        splits[split].append((sentence["text"], sentence["intent"]))
    return splits


def _draw(
    name: str, splits: dict[str, list[Pair]], labels: Sequence[str], seed: int, each: int
) -> Draw:
    """`each` rows of every label to learn from, at most MOST to be tested on."""
    chance, train, test = random.Random(seed), [], []
    labels = sorted(labels)
    for label in labels:
        pool = [pair for pair in splits["train"] if pair[1] == label]
        train += chance.sample(pool, min(each, len(pool)))
    known = {same_message(text) for text, _ in train}
    for text, label in splits["test"]:
        if label in labels and same_message(text) not in known:
            test.append((text, label))
    chance.shuffle(train)
    chance.shuffle(test)
    spec = FieldSpec(type="label", values=labels)
    pilot = Pilot(name=name, text="text", fields={"intent": spec})
    return Draw(name, pilot, _rows(train, "train"), _rows(test[:MOST], "test"))


def _rows(pairs: Sequence[Pair], split: str) -> list[dict]:
    rows = []
    for number, (text, label) in enumerate(pairs):
        rows.append({"id": f"{split}-{number}", "text": cleaned(text), "intent": label})
    return rows


def _some(splits: dict[str, list[Pair]], number: int, seed: int) -> list[str]:
    names = sorted({label for _, label in splits["train"]})
    return random.Random(seed).sample(names, number)


def draws_to_choose_by(clones: Path) -> list[Draw]:
    """Five draws of 60 rows whose test rows are published for training or validation."""
    clinc = _clinc150("val")
    hwu = _halved(_hwu64(clones)["train"])
    snips = _halved(_snips(clones)["train"])
    return [
        _draw("clinc_ten", clinc, _some(clinc, 10, 1), 1, 6),
        _draw("clinc_cards", clinc, clinc["credit_cards"][:10], 2, 6),
        _draw("hwu_ten", hwu, _some(hwu, 10, 3), 3, 6),
        _draw("hwu_sound", hwu, SOUND, 4, 6),
        _draw("snips_all", snips, _some(snips, 7, 5), 5, 8),
    ]


def draws_to_judge_by(clones: Path) -> list[Draw]:
    """Eight draws, scored on published test rows that no choice has seen."""
    clinc = _clinc150("test")
    hwu, snips = _hwu64(clones), _snips(clones)
    # intents that no draw above has taken by name
    travel = [label for label in clinc["travel"] if label not in TAKEN][:10]
    home = [label for label in clinc["home"] if label not in TAKEN][:10]
    draws = [
        _draw("clinc_ten_more", clinc, _some(clinc, 10, 11), 11, 6),
        _draw("clinc_travel", clinc, travel, 12, 6),
        _draw("clinc_home", clinc, home, 13, 6),
        _draw("hwu_ten_more", hwu, _some(hwu, 10, 14), 14, 6),
        _draw("hwu_orders", hwu, ORDERS, 15, 6),
        _draw("snips_tested", snips, _some(snips, 7, 16), 16, 8),
    ]
    for name in ("AskUbuntuCorpus", "ChatbotCorpus"):
        corpus = _corpus(clones, name)
        labels = {label for _, label in corpus["train"]} - {"None"}
        draws.append(_draw(name.removesuffix("Corpus").lower(), corpus, list(labels), 17, 30))
    return draws

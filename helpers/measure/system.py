"""The system: every field by the way that reads it best, or by several ways together.

What a way is worth is found on training rows that it did not learn from. For a label the ways are
pooled: the logarithms of their probabilities are added, each times a weight, and the weights are
those that make the right labels likeliest (stacking, Wolpert 1992; a logarithmic opinion pool). A
copied field comes from one way.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from helpers import CourseError
from helpers.ask import answers
from helpers.ask.likelihood import choice_log_likelihoods
from helpers.core.files import Journal, fingerprint
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.measure import baselines, confidence
from helpers.measure.scoring import parse, same_value

CHEAP = ("rules", "TF-IDF", "embeddings")  # ways without a language model that are pooled
LEAST = 1e-4  # a probability below it counts as it: no way may rule a label out alone
PULL = 1.0  # how many rows' worth of evidence pull a weight to its start
KEPT_TOGETHER = 64  # rows read before they are written down
READINGS = "readings.jsonl"  # where a chapter keeps what its model reads


@dataclass(frozen=True)
class Reading:
    """What one way makes of some texts: `records`, one each, and how sure it is of each label.

    `probabilities`: {label field: shape (texts, classes)}, classes as baselines.label_classes.
    `sure`: {copied field: shape (texts,)}, how likely a model finds the value that it copied.
    `home`: the folder of the chapter or study whose model read them, where they were stored.
    """

    records: list[dict]
    probabilities: dict[str, np.ndarray]
    sure: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    home: Path | None = None


def cheap_reading(pilot: Pilot, train: baselines.Rows, texts: Sequence[str], way: str) -> Reading:
    """A way of baselines.PROBABILITIES, learnt from `train`."""
    records = baselines.WAYS[way](pilot, train, texts)
    return Reading(records, baselines.label_probabilities(pilot, train, texts, way))


def cheap_readings(pilot: Pilot, train: baselines.Rows, texts: Sequence[str]) -> dict[str, Reading]:
    """{way: its Reading} of the CHEAP ways that this pilot has, learnt from `train`."""
    known = baselines.ways_for(pilot, train)
    return {way: cheap_reading(pilot, train, texts, way) for way in CHEAP if way in known}


def unseen_cheap_readings(
    pilot: Pilot, rows: baselines.Rows, fold: np.ndarray
) -> dict[str, Reading]:
    """The same, each row by ways that learned from the other folds only."""
    known, readings = baselines.ways_for(pilot, rows), {}
    for way in [way for way in CHEAP if way in known]:

        def read(train: list[dict], texts: list[str], way: str = way) -> Reading:
            return cheap_reading(pilot, train, texts, way)

        readings[way] = out_of_fold_reading(pilot, rows, fold, read)
    return readings


def out_of_fold_reading(
    pilot: Pilot,
    rows: baselines.Rows,
    fold: np.ndarray,
    read: Callable[[list[dict], list[str]], Reading],
) -> Reading:
    """Each row by `read(train, texts)` that learned from the other folds only."""
    rows = list(rows)
    records: list[dict] = [{} for _ in rows]
    tables: dict[str, np.ndarray] = {}
    sure: dict[str, np.ndarray] = {}
    for field in pilot.labels:
        tables[field] = np.zeros((len(rows), len(baselines.label_classes(pilot, field))))
    for number in np.unique(fold):
        train = [row for row, own in zip(rows, fold) if own != number]
        places = np.flatnonzero(fold == number)
        part = read(train, [rows[place][pilot.text] for place in places])
        for place, record in zip(places, part.records):
            records[place] = record
        for field in pilot.labels:
            tables[field][places] = part.probabilities[field]
        for field, values in part.sure.items():
            sure.setdefault(field, np.zeros(len(rows)))[places] = values
    return Reading(records, tables, sure)


def model_reading(
    model: Any,
    tokenizer: Any,
    pilot: Pilot,
    rows: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    at: str | Path,
    max_length: int = 512,
) -> Reading:
    """A language model's answers `texts` to `rows`, with each label read whole.

    The probability of every value of a label field, behind the model's own answer up to there; the
    records get the likeliest one. And how likely the model finds each value that it copied. Kept in
    `<at>-<made from>.jsonl` and `<at>_sure-<made from>.jsonl`, as answers.generate does it.
    """
    weights = answers.hash_of_weights(model)
    made_from = fingerprint(weights, tokenizer.chat_template, max_length, "labels")
    journal = Journal(f"{at}-{made_from}.jsonl", "Labels")
    asked, keys = {}, []
    for row, text in zip(rows, texts, strict=True):
        message = row[pilot.text]
        prompt = answers.prompt(pilot, tokenizer, message, full=False, max_length=max_length)
        keys.append(fingerprint(made_from, prompt, text))
        asked[keys[-1]] = prompt, text
    todo = journal.missing(keys)
    for start in range(0, len(todo), KEPT_TOGETHER):
        batch = todo[start : start + KEPT_TOGETHER]
        journal.add(_labels_read(model, tokenizer, pilot, {key: asked[key] for key in batch}))
    tables = {}
    for field in pilot.labels:
        tables[field] = np.array([entry[field] for entry in journal.of(keys)])
    records = []
    for place, text in enumerate(texts):
        record = parse(text) or dict.fromkeys(pilot.fields)
        for field in pilot.labels:
            classes = baselines.label_classes(pilot, field)
            record[field] = classes[int(tables[field][place].argmax())]
        records.append(record)
    copied = [name for name in pilot.fields if name not in pilot.labels]
    if not copied:
        return Reading(records, tables)
    each = confidence.of_answers(model, tokenizer, pilot, rows, texts, f"{at}_sure", max_length)
    sure = {name: np.array([one[name] for one in each]) for name in copied}
    return Reading(records, tables, sure)


def keep_reading(path: str | Path, name: str, texts: Sequence[str], reading: Reading) -> None:
    """Enter what the way `name` made of these texts into the journal `path`; the newest counts."""
    journal, entries = Journal(path, "Readings"), {}
    for place, text in enumerate(texts):
        entries[fingerprint(name, text)] = {
            "way": name,
            "record": reading.records[place],
            "probabilities": {
                field: [round(float(share), 4) for share in table[place]]
                for field, table in reading.probabilities.items()
            },
            "sure": {field: round(float(each[place]), 4) for field, each in reading.sure.items()},
        }
    changed = {key: one for key, one in entries.items() if journal.entries.get(key) != one}
    if changed:
        journal.add(changed)


def kept_reading(path: str | Path, name: str, texts: Sequence[str]) -> Reading:
    """The Reading that keep_reading stored; raises CourseError where a text is missing."""
    keys, journal = [fingerprint(name, text) for text in texts], Journal(path)
    if missing := journal.missing(keys):
        raise CourseError(
            f"{Path(path).name} lacks what {name!r} reads in {len(missing)} of {len(keys)} texts; "
            "run the chapter that makes it once for this pilot."
        )
    entries = journal.of(keys)
    tables = {}
    for part in ("probabilities", "sure"):
        tables[part] = {
            field: np.array([entry[part][field] for entry in entries]) for field in entries[0][part]
        }
    return Reading([entry["record"] for entry in entries], **tables, home=Path(path).parent)


def stored_reading(run: Run, ways: Mapping[str, str], texts: Sequence[str]) -> Reading:
    """The first Reading of these texts among `ways` {chapter: way in its READINGS}.

    Raises CourseError where no chapter of these has one.
    """
    for chapter, way in ways.items():
        try:
            return kept_reading(run.need(chapter, READINGS), way, texts)
        except CourseError:
            continue
    raise CourseError(
        f"Nothing is stored of what the tuned model reads in these {len(texts)} texts: run chapter "
        f"{list(ways)[-1]} once for the pilot {run.pilot.name!r}."
    )


def _labels_read(model: Any, tokenizer: Any, pilot: Pilot, asked: Mapping[str, tuple]) -> dict:
    """{key: {label field: probabilities}} of {key: (prompt, answer)}."""
    read: dict[str, dict[str, list[float]]] = {key: {} for key in asked}
    names = list(pilot.fields)
    for field in pilot.labels:
        prompts, choices = [], []
        # the mark behind a value belongs to it: without it "late" and "later" begin alike
        end = "}"
        if field != names[-1]:
            end = ", "
        ends = [
            json.dumps(v, ensure_ascii=False) + end for v in baselines.label_classes(pilot, field)
        ]
        for prompt, text in asked.values():
            record = parse(text) or {}
            before = {name: record.get(name) for name in names[: names.index(field)]}
            head = json.dumps(before, ensure_ascii=False)[:-1]
            if before:
                head += ", "
            start = head + json.dumps(field, ensure_ascii=False) + ": "
            prompts.append(prompt)
            choices.append([start + value for value in ends])
        for key, logs in zip(asked, choice_log_likelihoods(model, tokenizer, prompts, choices)):
            shares = np.exp(logs - logs.max())
            read[key][field] = [round(float(share), 6) for share in shares / shares.sum()]
    return read


@dataclass(frozen=True)
class System:
    """`weights`: {field: {way: weight}}; a field that is copied has one way of weight 1."""

    pilot: Pilot
    weights: dict[str, dict[str, float]]

    def probabilities(self, readings: Mapping[str, Reading]) -> dict[str, np.ndarray]:
        """{label field: shape (texts, classes)} of the pooled ways; each row sums to 1."""
        tables = {}
        for field in self.pilot.labels:
            ways = {way: readings[way].probabilities[field] for way in self.weights[field]}
            tables[field] = pooled(ways, self.weights[field])
        return tables

    def records(self, readings: Mapping[str, Reading]) -> list[dict]:
        """One record for each text of the `readings` ({way: Reading} of the same texts)."""
        tables = self.probabilities(readings)
        number = len(next(iter(readings.values())).records)
        records = []
        for place in range(number):
            record = {}
            for field in self.pilot.fields:
                if field in tables:
                    classes = baselines.label_classes(self.pilot, field)
                    record[field] = classes[int(tables[field][place].argmax())]
                else:
                    way = next(iter(self.weights[field]))
                    record[field] = readings[way].records[place].get(field)
            records.append(record)
        return records

    def __str__(self) -> str:
        lines = []
        for field, weights in self.weights.items():
            ways = ", ".join(f"{way} {weight:.2f}" for way, weight in weights.items())
            lines.append(f"{field}: {ways}")
        return "\n".join(lines)


def pooled(tables: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """The logarithmic pool of probabilities of shape (texts, classes), again summing to 1."""
    total = sum(weights[way] * np.log(np.maximum(tables[way], LEAST)) for way in tables)
    shares = np.exp(total - total.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def pool_weights(tables: Mapping[str, np.ndarray], truth: np.ndarray) -> dict[str, float]:
    """Weights of at least 0 that make `truth` (class numbers) likeliest, ways without one left out.

    The start, to which few rows are pulled back, is one vote shared by all ways.
    """
    ways = list(tables)
    start = np.full(len(ways), 1 / len(ways))
    rows = np.arange(len(truth))

    def cost(weights: np.ndarray) -> float:
        shares = pooled(tables, dict(zip(ways, weights)))
        evidence = -np.log(np.maximum(shares[rows, truth], LEAST)).sum()
        return float(evidence + PULL * ((weights - start) ** 2).sum())

    found = minimize(cost, start, bounds=[(0, 5)] * len(ways), method="L-BFGS-B")
    return {way: round(float(w), 3) for way, w in zip(ways, found.x) if w >= 0.005}


def choose_system(pilot: Pilot, rows: baselines.Rows, readings: Mapping[str, Reading]) -> System:
    """The system that reads `rows` best, of ways that did not learn from the rows they read.

    `readings`: {way: out_of_fold_reading of these rows}. Of two ways that copy equally well, the
    first is taken.
    """
    weights = {}
    for field in pilot.fields:
        if field in pilot.labels:
            place = {name: i for i, name in enumerate(baselines.label_classes(pilot, field))}
            truth = np.array([place[row[field] or None] for row in rows])  # an empty text is None
            tables = {way: reading.probabilities[field] for way, reading in readings.items()}
            weights[field] = pool_weights(tables, truth)
        else:
            right = {}
            for way, reading in readings.items():
                pairs = zip(reading.records, rows)
                right[way] = sum(same_value(record.get(field), row[field]) for record, row in pairs)
            weights[field] = {max(right, key=lambda way: right[way]): 1.0}
    return System(pilot, weights)

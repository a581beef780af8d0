"""A model as judge: two records compared in both orders, one record called right or wrong, and a gate that refuses a bad judge."""

import json
import re
from dataclasses import dataclass, field

import numpy as np

from helpers import CourseError
from helpers.ask import teachers
from helpers.measure.agreement import Agreement, kappa
from helpers.measure.intervals import Share, clustered_share, share

PAIR, ONE = 'root ::= "A" | "B"\n', 'root ::= "yes" | "no"\n'
FEWEST, AGREES, SURVIVES, PLACE, UNREAD = (
    30,
    0.6,
    0.5,
    0.15,
    0.1,
)  # what the gate asks for; see `calibrate`


def closer(pilot, person, a, b):
    """Which of two records a person's own record is closer to, by fields that are equal: 0 for `a`, 1 for `b`, None for a tie.

    A record without exactly the pilot's fields loses to one that has them.
    """

    def points(record):
        fits = isinstance(record, dict) and set(record) == set(pilot.fields)
        return (
            sum(type(record[f]) is type(person[f]) and record[f] == person[f] for f in pilot.fields)
            if fits
            else -1
        )

    return None if points(a) == points(b) else int(points(a) < points(b))


def pairs(pilot, rows, people, one, other, seed=0):
    """Pairs to judge, from two ways' records and people's labels of the same rows: dicts with id, text, records, better, longer.

    Which way stands first is drawn, ties are left out. `better` and `longer` are 0 or 1, `longer` -1 for equal length.
    """
    known, draw, made = {str(p["id"]): p for p in people}, np.random.default_rng(seed), []
    for row, a, b in zip(rows, one, other, strict=True):
        a, b = (b, a) if draw.random() < 0.5 else (a, b)
        better = closer(pilot, known[str(row["id"])], a, b) if str(row["id"]) in known else None
        if better is not None:
            sizes = [len(_shown(a)), len(_shown(b))]
            made.append(
                {
                    "id": str(row["id"]),
                    "text": row[pilot.text],
                    "records": [a, b],
                    "better": better,
                    "longer": -1 if sizes[0] == sizes[1] else int(sizes[0] < sizes[1]),
                }
            )
    return made


def _shown(record):
    return json.dumps(record, ensure_ascii=False) if isinstance(record, dict) else "(no record)"


def _request(pilot, text, task, end, grammar, max_tokens):
    return {
        "messages": [
            {"role": "system", "content": f"{task}\n{pilot.instruction()}"},
            {"role": "user", "content": f"Message:\n{text[:4000]}\n\n{end}"},
        ],
        "seed": 0,
        "temperature": 0.0,
        "max_tokens": max_tokens,
        "grammar": grammar,
    }


def pair_requests(pilot, pairs, max_tokens=2):
    """Two requests for each pair, the second with the places swapped. A judge that thinks aloud needs more `max_tokens`."""
    task = (
        "You compare two records that were made from one message. Say which one is better: answer with the letter A or B alone. "
        "Length does not count, only whether each value is right. The records were made to this instruction:"
    )
    return [
        _request(
            pilot,
            p["text"],
            task,
            f"Record A: {_shown(x)}\nRecord B: {_shown(y)}\n\nThe better record is",
            PAIR,
            max_tokens,
        )
        for p in pairs
        for x, y in (p["records"], p["records"][::-1])
    ]


def record_requests(pilot, rows, records, max_tokens=3):
    """One request for each record: is every field right, yes or no?"""
    task = (
        "You check a record that was made from a message. Answer yes when every value is right, else no. The record was made to "
        "this instruction:"
    )
    return [
        _request(
            pilot,
            row[pilot.text],
            task,
            f"Record: {_shown(record)}\n\nIs every value right, yes or no?",
            ONE,
            max_tokens,
        )
        for row, record in zip(rows, records, strict=True)
    ]


def ask(engine, requests, journal, budget=None):
    """The judge's texts, one per request, through teachers.collect: kept as they arrive, None where the judge failed."""
    return teachers.collect(requests, engine, journal, budget).texts


def read_pairs(texts):
    """Texts of pair_requests as an array (pairs, 2) of places: 0 for A, 1 for B, -1 when it names none or both."""
    return np.array([_one_of(text, "A", "B", 0) for text in texts]).reshape(-1, 2)


def read_records(texts):
    """Texts of record_requests as an array (rows,): 1 for yes, 0 for no, -1 when it says neither or both."""
    return np.array(
        [{0: 1, 1: 0}.get(_one_of(text, "yes", "no", re.IGNORECASE), -1) for text in texts]
    )


def _one_of(text, first, second, flags):
    said = set(re.findall(rf"(?<!\w)(?:{first}|{second})(?!\w)", text or "", flags))
    said = {word.lower() for word in said}
    return -1 if len(said) != 1 else int(said == {second.lower()})


def same_model(judge, *others):
    """Sentences that name what the judge shares with the model that filtered or made the data, or that is judged; [] for none.

    A judge prefers its own kind of text, and a filter judge that also evaluates grades its own choice.
    """
    return [
        f"the judge is the same model as {what} ({name})"
        for what, name in others
        if name and name == judge
    ]


@dataclass(frozen=True)
class Calibration:
    """A judge held against people. `agrees`: share of verdicts like people's, both orders, clustered by pair; `balanced`: the same,
    half from pairs whose longer record is better and half from those whose shorter one is; `survives`: pairs with one winner in both
    orders; `first`: how often the first place won; `kappa` of the first order; `reasons` to refuse, none for a usable judge; `labels`:
    whose labels it was held against.
    """

    n: int
    agrees: Share
    balanced: Share | None
    survives: Share
    first: Share | None
    kappa: Agreement
    unread: float
    reasons: list = field(default_factory=list)
    labels: str = "people"

    @property
    def refused(self):
        return bool(self.reasons)

    def __str__(self):
        lines = [
            f"agreement          {self.agrees} verdicts, with {self.labels}",
            f"   length balanced {self.balanced}" if self.balanced else "",
            f"survives a swap    {self.survives} pairs",
            f"first place wins   {self.first} verdicts" if self.first else "",
            f"kappa              {self.kappa.kappa:.2f} [{self.kappa.low:.2f}, {self.kappa.high:.2f}]"
            if self.kappa.kappa is not None
            else "",
            *(f"REFUSED: {reason}" for reason in self.reasons),
            "" if self.refused else "accepted",
        ]
        return "\n".join(line for line in lines if line)


def calibrate(places, better, longer, labels="people"):
    """Hold a judge's verdicts against people's and decide whether it may be used: a Calibration.

    `places`: array (pairs, 2) of read_pairs; `better`, `longer`: (pairs,) of pairs(). Both orders are judged, so whoever reads the
    records lets the first place win in half of them: anything else is position bias. It is accepted when all of this is *shown*, by
    the whole 95 % interval: agreement above 60 %, also balanced for length; more than half of the verdicts survive the swap (half of a
    coin's do); the first place wins between 35 % and 65 %; 30 pairs or more; at most 10 % unreadable. An unreadable verdict is wrong.
    `labels` names whose labels these are, for the printed lines: simulated ones are not people.
    """
    places, better, longer = (
        np.asarray(places, int),
        np.asarray(better, int),
        np.asarray(longer, int),
    )
    n = len(better)
    if places.shape != (n, 2) or longer.shape != (n,):
        raise CourseError(
            f"Every pair needs two verdicts, a better and a longer record; there are {len(places)}, {n} and {len(longer)}."
        )
    if n < 2:
        raise CourseError(
            f"A judge cannot be calibrated on {n} pair(s); have people label more rows where the two ways differ."
        )
    chosen = np.where(
        places < 0, -1, places ^ np.array([0, 1])
    )  # in the second order the places are swapped
    right, names = chosen == better[:, None], np.repeat(np.arange(n), 2)
    agrees, unread = clustered_share(right.ravel(), names), float((places < 0).mean())
    survives, read = (
        share((chosen[:, 0] == chosen[:, 1]) & (chosen[:, 0] >= 0)),
        places.ravel() >= 0,
    )
    some = len(set(names[read])) > 1
    first = clustered_share(places.ravel()[read] == 0, names[read]) if some else None
    parts = [
        clustered_share(right[w].ravel(), names.reshape(n, 2)[w].ravel()) if w.sum() > 1 else None
        for w in (longer == better, (longer != better) & (longer >= 0))
    ]
    balanced = _mean(*parts) if all(parts) else None
    said = ["unread" if x < 0 else x for x in chosen[:, 0].tolist()]
    reasons = [
        reason
        for bad, reason in (
            (n < FEWEST, f"only {n} pairs, {FEWEST} are the least to accept a judge"),
            (unread > UNREAD, f"{unread:.0%} of its answers name neither record or both"),
            (
                agrees.low <= AGREES,
                f"not shown to agree with {labels} in more than {AGREES:.0%} (interval from {agrees.low:.0%})",
            ),
            (
                balanced is None,
                "length and quality cannot be told apart: one of longer-is-better and shorter-is-better has under two pairs",
            ),
            (
                balanced is not None and balanced.low <= AGREES < agrees.low,
                "its agreement comes from the length of the records",
            ),
            (
                survives.low <= SURVIVES,
                f"not shown that more than half of its verdicts survive a swap (interval from {survives.low:.0%})",
            ),
            (
                first is None or first.low < 0.5 - PLACE or first.high > 0.5 + PLACE,
                "no verdict could be read"
                if first is None
                else f"the place decides: the first one wins {first.value:.0%}"
                if first.low > 0.5 or first.high < 0.5
                else "too few pairs to show that the place does not decide",
            ),
        )
        if bad
    ]
    return Calibration(
        n, agrees, balanced, survives, first, kappa(better.tolist(), said), unread, reasons, labels
    )


def _mean(a, b):
    """The mean of two independent shares; the interval from the distances of their limits (Zou and Donner 2008)."""
    value = (a.value + b.value) / 2
    low, high = (
        np.hypot(a.value - a.low, b.value - b.low) / 2,
        np.hypot(a.high - a.value, b.high - b.value) / 2,
    )
    return Share(value, float(value - low), float(value + high), a.n + b.n)


def skill(said, people):
    """(sensitivity Share, specificity Share) of yes-or-no verdicts against people's (bools); an unreadable one (-1) is wrong.

    Raises CourseError when people call all records right, or all wrong.
    """
    said, people = np.asarray(said, int), np.asarray(people, bool)
    if people.all() or not people.any():
        word = "right" if people.all() else "wrong"
        raise CourseError(
            f"People called all of these records {word}; a judge's skill needs both kinds."
        )
    return share(said[people] == 1), share(said[~people] == 0)

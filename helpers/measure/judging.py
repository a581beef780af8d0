"""A model as judge of records, held against people, and a gate that refuses a bad one."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from transformers import AutoModelForCausalLM

from helpers import CourseError
from helpers.ask import answers, teachers
from helpers.ask.likelihood import log_likelihoods
from helpers.ask.teachers import Teacher
from helpers.choose import gguf_parts, models
from helpers.core.files import Journal, fingerprint, write_text
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.core.runtime import detect
from helpers.measure.agreement import Agreement, kappa
from helpers.measure.intervals import Bools, Share, clustered_share, share
from helpers.measure.pages import render
from helpers.measure.scoring import same_value

PAIR = 'root ::= "A" | "B"\n'  # the grammar of a verdict
Places = Sequence[int] | np.ndarray
# What the gate asks for
FEWEST_PAIRS = 30
LEAST_AGREEMENT = 0.6  # with people, also when balanced for length; an unreadable verdict is wrong
LEAST_SURVIVING = 0.5  # share of pairs with the same winner when the places are swapped
MOST_PLACE = 0.15  # both orders are judged, so the first place wins half unless it decides
MOST_UNREAD = 0.1


def closer(pilot: Pilot, person: dict, a: dict | None, b: dict | None) -> int | None:
    """Which record has more fields equal to a person's: 0 for `a`, 1 for `b`, None for a tie."""

    def points(record: dict | None) -> int:
        if not isinstance(record, dict) or set(record) != set(pilot.fields):
            return -1  # another form loses to every record
        return sum(same_value(record[name], person[name]) for name in pilot.fields)

    if points(a) == points(b):
        return None
    return int(points(a) < points(b))


def pairs(
    pilot: Pilot,
    rows: Sequence[dict],
    people: Sequence[dict],
    one: Sequence[dict | None],
    other: Sequence[dict | None],
    seed: int = 0,
) -> list[dict]:
    """Pairs to judge, from two ways' records and people's labels of the same rows, without ties.

    Dicts with id, text, records, and which of them is `better` and `longer` (0 or 1, -1: equal).
    """
    draw = np.random.default_rng(seed)
    label_of = {str(person["id"]): person for person in people}
    result = []
    for row, a, b in zip(rows, one, other, strict=True):
        if draw.random() < 0.5:  # nobody should know which way stands first
            a, b = b, a
        person = label_of.get(str(row["id"]))
        better = closer(pilot, person, a, b) if person else None
        if better is None:
            continue
        first, second = len(_written(a)), len(_written(b))
        longer = -1 if first == second else int(first < second)
        pair = {"id": str(row["id"]), "text": row[pilot.text], "records": [a, b]}
        result.append(pair | {"better": better, "longer": longer})
    return result


def _written(record: dict | None) -> str:
    if not isinstance(record, dict):
        return "(no record)"
    return json.dumps(record, ensure_ascii=False)


def pair_requests(pilot: Pilot, pairs: Sequence[dict]) -> list[dict]:
    """Two requests for each pair, the second with the places swapped."""
    settings = {"seed": 0, "temperature": 0.0, "max_tokens": 2, "grammar": PAIR}
    task = render("judge_task.txt", instruction=pilot.instruction())
    requests = []
    for pair in pairs:
        text = pair["text"][:4000]
        for a, b in (pair["records"], pair["records"][::-1]):
            question = render("judge_question.txt", text=text, a=_written(a), b=_written(b))
            messages = [{"role": "system", "content": task}, {"role": "user", "content": question}]
            requests.append({"messages": messages, **settings})
    return requests


def ask_judge(judge: Teacher, requests: Sequence[dict], path: str | Path) -> list[str | None]:
    """The judge's texts, kept in the journal at `path` as they arrive; None where it failed."""
    if not requests:
        return []
    # nothing it says is trained on, so the licence gate for teachers does not apply
    with teachers.opened(judge, lambda _: "allowed") as engine:
        return teachers.collect(requests, engine, Journal(path, "The judge's answers")).texts


def larger_judge(name: str, requests: Sequence[dict], run: Run) -> list[str | None] | None:
    """The texts of a larger model by name: as recorded for these very requests, else asked here.

    None where neither can be: nothing is fetched. What was asked is kept as `judge_<name>.json`.
    """

    def ask(path: Path) -> list[str | None]:
        return ask_judge(Teacher(model=name), list(requests), path)

    return _recorded_or_here("judge", name, requests, ask, run)


def read_alone(
    name: str, pilot: Pilot, pairs: Sequence[dict], run: Run
) -> list[list[float]] | None:
    """Log-likelihoods that a larger model gives the two records of each pair, each read alone.

    No record stands first, so no place can decide. Recorded or computed as in `larger_judge`.
    """
    asked = [[pair["text"], [_written(record) for record in pair["records"]]] for pair in pairs]

    def ask(path: Path) -> list[list[float]]:
        base, tokenizer = answers.open_base(pilot.model_copy(update={"base_model": name}))
        model = AutoModelForCausalLM.from_pretrained(base.path, dtype=detect("cpu").torch_dtype)
        journal, keys = Journal(path, "Log-likelihoods"), []
        for text, records in asked:
            prompt = answers.prompt(pilot, tokenizer, text)
            keys.append(fingerprint(name, prompt, records))
            if journal.missing(keys[-1:]):  # a kill loses one pair at most
                read = log_likelihoods(model, tokenizer, [prompt] * 2, records)
                journal.add({keys[-1]: [round(float(each.sum()), 4) for each, _ in read]})
        return journal.of(keys)

    return _recorded_or_here("read_alone", name, [pilot.instruction(), asked], ask, run)


def _recorded_or_here(
    kind: str, name: str, question: Sequence, ask: Callable[[Path], list], run: Run
) -> list | None:
    """What `ask` gave to this question in a recorded run, else gives here; None without a model."""
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower())
    file, asked = f"{kind}_{slug}.json", fingerprint(name, question)
    for chapter in (run.chapter, "08"):  # its own, then the place of the recorded ones
        with suppress(CourseError, ValueError):
            stored = json.loads(run.need(chapter, file).read_text(encoding="utf-8"))
            if stored["asked"] == asked:
                return stored["given"]
    smoke = run.runtime.profile.name == "smoke"  # which takes seconds, not minutes
    if smoke or not question or not gguf_parts.is_fetched(name, models.cache_folder()):
        return None
    told = ask(run.path(f"{kind}_{slug}.jsonl"))
    page = {"judge": name, "asked": asked, "given": told}
    write_text(run.path(file), json.dumps(page, indent=1))
    run.keep(file, {"asked": asked})
    return told


def why_not(name: str, run: Run) -> str:
    """Why a larger model gave nothing to a question that no recorded run has."""
    if run.runtime.profile.name == "smoke":
        return "not recorded for these pairs, and not asked in smoke"
    if gguf_parts.is_fetched(name, models.cache_folder()):
        return "nothing to ask"
    return "neither recorded for these pairs nor on this machine"


def places_of(logs: Sequence[Sequence[float]]) -> np.ndarray:
    """Log-likelihoods of read_alone as places, shape (pairs, 2), both orders; -1 for a tie."""
    first, second = np.asarray(logs, float).reshape(-1, 2).T
    better = np.where(first == second, -1, (second > first).astype(int))
    return np.stack([better, np.where(better < 0, -1, 1 - better)], axis=1)


def read_pairs(texts: Sequence[str | None]) -> np.ndarray:
    """Texts of pair_requests as places, shape (pairs, 2): 0 for A, 1 for B, -1 for none or both."""
    places = []
    for text in texts:
        letters = set(re.findall(r"(?<!\w)[AB](?!\w)", text or ""))
        places.append({"A": 0, "B": 1}.get("".join(letters), -1))
    return np.array(places, int).reshape(-1, 2)


def same_model(judge: str, *others: tuple[str, str | None]) -> list[str]:
    """Sentences that name the other models (what it does, name) that are the judge itself."""
    # a judge prefers its own kind of text; a filter that also evaluates grades its own choice
    same = "the judge is the same model as"
    return [f"{same} {what} ({judge})" for what, name in others if name == judge]


@dataclass(frozen=True)
class Calibration:
    """A judge held against people, both orders of each pair, clustered by pair."""

    n: int  # pairs
    agrees: Share  # verdicts like people's
    balanced: Share | None  # the same, half from pairs whose longer record is better
    survives: Share  # pairs with one winner in both orders
    first: Share | None  # verdicts for the first place
    kappa: Agreement  # of the first order
    unread: float  # share of verdicts that name neither record or both
    labels: str  # whose they were; simulated ones are not people
    reasons: list[str]  # to refuse the judge

    def __str__(self) -> str:
        lines = [f"agreement          {self.agrees} verdicts, with {self.labels}"]
        if self.balanced:
            lines.append(f"   length balanced {self.balanced}")
        lines.append(f"survives a swap    {self.survives} pairs")
        if self.first:
            lines.append(f"first place wins   {self.first} verdicts")
        if self.kappa.kappa is not None:
            interval = f"[{self.kappa.low:.2f}, {self.kappa.high:.2f}]"
            lines.append(f"kappa              {self.kappa.kappa:.2f} {interval}")
        lines += [f"REFUSED: {reason}" for reason in self.reasons] or ["accepted"]
        return "\n".join(lines)


def calibrate(
    places: Places, better: Places, longer: Places, labels: str = "people"
) -> Calibration:
    """Hold a judge's verdicts against people's and decide whether it may be used.

    `places`: shape (pairs, 2), of read_pairs; `better`, `longer`: shape (pairs,), of pairs().
    It is accepted when whole 95 % intervals *show* what stands at the top of this module.
    """
    places, better = np.asarray(places, int), np.asarray(better, int)
    longer = np.asarray(longer, int)
    n = len(better)
    if places.shape != (n, 2) or longer.shape != (n,):
        raise CourseError(
            "Every pair needs two verdicts, a better and a longer record; there are "
            f"{len(places)}, {n} and {len(longer)}."
        )
    if n < 2:
        raise CourseError(
            f"A judge cannot be calibrated on {n} pair(s); have people label more rows where the "
            "two ways differ."
        )
    read = places >= 0
    chosen = np.where(read, places ^ np.array([0, 1]), -1)  # the second order has them swapped
    right = chosen == better[:, None]
    pair_of = np.repeat(np.arange(n), 2).reshape(n, 2)
    first = None
    if len(set(pair_of[read])) > 1:
        first = clustered_share(places[read] == 0, pair_of[read])
    result = Calibration(
        n=n,
        agrees=clustered_share(right.ravel(), pair_of.ravel()),
        balanced=_balanced(right, pair_of, better, longer),
        survives=share((chosen[:, 0] == chosen[:, 1]) & read[:, 0]),
        first=first,
        kappa=kappa(better.tolist(), chosen[:, 0].tolist()),
        unread=float((~read).mean()),
        labels=labels,
        reasons=[],
    )
    return replace(result, reasons=_reasons(result))


def _balanced(
    right: np.ndarray, pair_of: np.ndarray, better: np.ndarray, longer: np.ndarray
) -> Share | None:
    """Agreement, half from pairs whose longer record is better, half from the others."""
    shares = []
    for group in (longer == better, (longer != better) & (longer >= 0)):
        if group.sum() < 2:
            return None
        shares.append(clustered_share(right[group].ravel(), pair_of[group].ravel()))
    a, b = shares
    value = (a.value + b.value) / 2
    # the interval of a mean of two, from the distances of their limits (Zou and Donner 2008)
    below = np.hypot(a.value - a.low, b.value - b.low) / 2
    above = np.hypot(a.high - a.value, b.high - b.value) / 2
    return Share(value, float(value - below), float(value + above), a.n + b.n)


def _reasons(judge: Calibration) -> list[str]:
    """Why this judge may not be used; none for a usable one."""
    reasons = []
    agrees, balanced, survives = judge.agrees.low, judge.balanced, judge.survives.low
    if judge.n < FEWEST_PAIRS:
        reasons.append(f"only {judge.n} pairs, {FEWEST_PAIRS} are the least to accept a judge")
    if judge.unread > MOST_UNREAD:
        reasons.append(f"{judge.unread:.0%} of its answers name neither record or both")
    if agrees <= LEAST_AGREEMENT:
        reasons.append(
            f"not shown to agree with {judge.labels} in more than {LEAST_AGREEMENT:.0%} "
            f"(interval from {agrees:.0%})"
        )
    if balanced is None:
        reasons.append(
            "length and quality cannot be told apart: one of longer-is-better and "
            "shorter-is-better has under two pairs"
        )
    elif balanced.low <= LEAST_AGREEMENT < agrees:
        reasons.append("its agreement comes from the length of the records")
    if survives <= LEAST_SURVIVING:
        reasons.append(
            "not shown that more than half of its verdicts survive a swap "
            f"(interval from {survives:.0%})"
        )
    first = judge.first
    if first is None:
        reasons.append("no verdict could be read")
    elif first.low < 0.5 - MOST_PLACE or first.high > 0.5 + MOST_PLACE:
        if first.low > 0.5 or first.high < 0.5:
            reasons.append(f"the place decides: the first one wins {first.value:.0%}")
        else:
            reasons.append("too few pairs to show that the place does not decide")
    return reasons


def skill(verdicts: Sequence[int] | np.ndarray, people: Bools) -> tuple[Share, Share]:
    """(sensitivity, specificity) of verdicts 1, 0 or -1 (unreadable, wrong) against people's."""
    verdicts, people = np.asarray(verdicts, int), np.asarray(people, bool)
    if people.all() or not people.any():
        word = "right" if people.all() else "wrong"
        raise CourseError(
            f"People called all of these records {word}; a judge's skill needs both kinds."
        )
    return share(verdicts[people] == 1), share(verdicts[~people] == 0)

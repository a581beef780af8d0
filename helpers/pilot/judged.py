"""One pilot judged: every way on the same test rows, alone and in use."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helpers import CourseError
from helpers.agree import sealed
from helpers.agree.bar import Bar
from helpers.agree.verdict import BarVerdict
from helpers.agree.wish import WISH_FILE, Wish
from helpers.core.files import read_entries, write_text
from helpers.core.pilot import Pilot
from helpers.core.rows import Rows, load_new
from helpers.core.runs import Run
from helpers.core.runtime import Profile
from helpers.measure import baselines, reviews, scoring, system
from helpers.measure.scoring import Scored
from helpers.measure.system import Reading
from helpers.pay.error_prices import Costs
from helpers.pilot.decision import WayOfUse
from helpers.pilot.tuned import TunedReadings

CHEAP_USE = "cheap ways, doubtful checked"
SYSTEM_USE = "system, doubtful checked"
DECISION_FILE = "decision.json"


@dataclass(frozen=True)
class Judged:
    """`scored` {way: Scored} and `uses` {name: WayOfUse}, the simplest first, of the test `rows`.

    `reviews` {way of use: the Review that says who checks}, `unseen` {way: Reading of the training
    rows by ways that did not learn them}.
    """

    rows: list[dict]
    scored: dict[str, Scored]
    uses: dict[str, WayOfUse]
    reviews: dict[str, reviews.Review]
    unseen: dict[str, Reading] = field(default_factory=dict)


def judge_pilot(
    pilot: Pilot,
    data: Rows,
    costs: Costs,
    tuned: TunedReadings | None,
    seed: int = 0,
    everything: Rows | None = None,
) -> Judged:
    """Every way of reading on the test rows; `tuned` None: without a tuned model.

    How far each way is trusted, and who checks, comes from training rows that it did not learn.
    `everything`: all labelled rows where `data` holds fewer for the model's sake; the cheap ways
    learn from them wherever they stand alone.
    """
    test, all_rows = list(data.test), list((everything or data).train)
    texts = [row[pilot.text] for row in test]
    scored, uses, who_checks = {}, {}, {}
    for way, records in _alone(pilot, all_rows, texts, seed).items():
        scored[way] = scoring.score(pilot, test, records)

    def enter(name: str, train: list[dict], more: Mapping[str, tuple[Reading, Reading]]) -> dict:
        fold = baselines.folds(pilot, train, 3, seed)
        unseen = system.unseen_cheap_readings(pilot, train, fold)
        readings = system.cheap_readings(pilot, train, texts)
        for way, (own, on_test) in more.items():
            unseen[way], readings[way] = own, on_test
        chosen = system.choose_system(pilot, train, unseen)
        review = reviews.choose_review(chosen, train, unseen, costs)
        score = scoring.score(pilot, test, chosen.records(readings))
        uses[name], who_checks[name] = WayOfUse(score, review.needed(readings)), review
        return unseen

    unseen = enter(CHEAP_USE, all_rows, {})
    scored["cheap ways together"] = uses[CHEAP_USE].scored
    if tuned is not None:
        scored["tuned model"] = scoring.score(pilot, test, tuned.test.records)
        unseen = enter(SYSTEM_USE, list(data.train), {"tuned": (tuned.unseen, tuned.test)})
        scored["system"] = uses[SYSTEM_USE].scored
    return Judged(test, scored, uses, who_checks, unseen)


def _alone(pilot: Pilot, train: list[dict], texts: list[str], seed: int) -> dict[str, list[dict]]:
    """{way: records}: the commonest record, TF-IDF, and the best cheap way of each field."""
    best, _ = baselines.best_per_field(pilot, train, texts, seed)
    answered = {name: baselines.WAYS[name](pilot, train, texts) for name in ("majority", "TF-IDF")}
    return {**answered, "best cheap": best}


def agreed_costs(pilot: Pilot, profile: Profile) -> tuple[Costs, Bar | None, str]:
    """(prices, the frozen bar they stand on or None, a sentence about whose they are).

    Raises CourseError for a bar that was edited, or whose rows were.
    """
    if sealed.place_of_bar(pilot, profile) is None:
        whose = "assumptions from the types of the fields"
        if (pilot.folder / WISH_FILE).is_file():
            whose = f"those of {WISH_FILE}"
        return Wish.load(pilot).costs, None, f"No bar is frozen for this pilot: prices are {whose}."
    bar = Bar.load(pilot, profile)
    return bar.costs, bar, f"Prices are those of the {bar}."


def by_the_bar(
    run: Run, data: Rows, judged: Judged, bar: Bar | None
) -> tuple[Judged, BarVerdict | None]:
    """(what was judged on the rows of a frozen bar, its verdict); (`judged`, None) without a bar.

    From the decisions of chapter 08, where it has run: they were written down once, on rows that
    nobody had read, and are not made again, so this is no further look. Else the test rows of
    `judged`. Raises CourseError for new rows that chapter 08 has not opened yet.
    """
    pilot = run.pilot
    if bar is None or SYSTEM_USE not in judged.uses:
        return judged, None
    rows = sealed.judged_rows(pilot)
    by_id = _decisions(run)
    if {row["id"] for row in rows} != set(by_id):
        if load_new(pilot) is not None:
            what = "The bar is frozen on new rows, which nobody has opened"
            raise CourseError(f"{what}: run chapter 08 first, it opens them once.")
        return judged, _on_test_rows(pilot, data, judged, bar)
    ordered = [by_id[row["id"]] for row in rows]
    texts = [row[pilot.text] for row in rows]
    rival = baselines.LADDER[bar.baseline](pilot, list(data.train), texts)
    scored = {bar.baseline: scoring.score(pilot, rows, rival)}
    for way, words in (("cheap", "best cheap"), ("tuned", "tuned model"), ("system", "system")):
        scored[words] = scoring.score(pilot, rows, [line[way] for line in ordered])
    checked = np.array([line["checked"] for line in ordered], bool)
    uses = {
        "best cheap way, all checked": WayOfUse(scored["best cheap"], np.ones(len(rows), bool)),
        SYSTEM_USE: WayOfUse(scored["system"], checked),
    }
    verdict = bar.verdict(scored["system"], scored[bar.baseline], rows, reviewed=checked)
    return Judged(rows, scored, uses, judged.reviews, judged.unseen), verdict


def _decisions(run: Run) -> dict[str, dict]:
    """{id: the judged line} of what chapter 08 has decided; {} where it has not run."""
    try:
        lines = read_entries(run.need("08", "decisions.jsonl"))
    except CourseError:
        return {}
    return {line["id"]: line for line in lines if line["judged"]}


def _on_test_rows(pilot: Pilot, data: Rows, judged: Judged, bar: Bar) -> BarVerdict:
    texts = [row[pilot.text] for row in judged.rows]
    rival = baselines.LADDER[bar.baseline](pilot, list(data.train), texts)
    use, rows = judged.uses[SYSTEM_USE], judged.rows
    return bar.verdict(use.scored, scoring.score(pilot, rows, rival), rows, reviewed=use.checked)


def keep_decision(path: str | Path, answer: str, way: str, facts: Mapping[str, object]) -> None:
    """Write down which way of use was decided for: `helpers.answer` reads it."""
    content = {"answer": answer, "way": way, "model": way == SYSTEM_USE, **facts}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

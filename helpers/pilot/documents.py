"""The papers of a decision, filled from the run: the page to sign, a runbook, a data card."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from helpers import CourseError
from helpers.choose.licensing import LicenceVerdict
from helpers.core.files import fingerprint, write_text
from helpers.core.pilot import Pilot
from helpers.core.rows import Rows
from helpers.keep.privacy import personal
from helpers.measure.intervals import Share
from helpers.measure.pages import render
from helpers.pay.error_prices import Costs
from helpers.pilot.decision import GO, MORE, NO_GO, Decision
from helpers.pilot.gate import Gate
from helpers.pilot.judged import SYSTEM_USE, Judged

COLOUR = {GO: "#5b8a72", NO_GO: "#c8553d", MORE: "#b08d3e"}
SWITCH_OFF = (
    "Stop the program that asks the system; people read every message as before.",
    "Go back to the adapter before: python -m helpers.ship.registry --folder registry rollback "
    "--reason WHY",
    "Write into the run log what happened, and look at the last week's page.",
)


@dataclass(frozen=True)
class Section:
    """A part of a page: a table with a `head`, or `lines`, or both."""

    lines: Sequence[str] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Evidence:
    """What the papers are filled from.

    `asked`: {way: Share} beside those of `judged`, such as a prompted model on fewer rows.
    `agreed`: were the prices agreed on? `looks`: how often a tuned model has answered the test
    rows. `watch`: sentences on alarm and samples.
    """

    pilot: Pilot
    data: Rows
    gate: Gate
    judged: Judged
    decision: Decision
    costs: Costs
    licence: LicenceVerdict
    base: str
    adapter: str = ""
    agreed: bool = False
    looks: int = 1
    watch: Sequence[str] = ()
    asked: Mapping[str, Share] | None = None
    second_reader: bool = False
    run: str = "1"


def decision_page(evidence: Evidence) -> tuple[str, str]:
    """The decision document as (Markdown, HTML); every text in it is shown as text."""
    facts, sections = _facts(evidence), _sections(evidence)
    colour = COLOUR[evidence.decision.answer]
    page = render("decision.html", f=facts, sections=sections, colour=colour)
    return render("decision.md", f=facts, sections=sections), page


def write_decision(folder: str | Path, evidence: Evidence) -> list[Path]:
    """Write decision.md and decision.html into a folder; returns both paths."""
    paths = []
    for ending, text in zip((".md", ".html"), decision_page(evidence)):
        path = Path(folder) / f"decision{ending}"
        write_text(path, text)
        paths.append(path)
    return paths


def print_pdf(page: str | Path, pdf: str | Path) -> Path:
    """Print an HTML file as a PDF by the browser. Raises CourseError where there is none."""
    from playwright.sync_api import Error, sync_playwright

    page, pdf = Path(page).resolve(), Path(pdf)
    try:
        with sync_playwright() as browsers:
            browser = browsers.chromium.launch()
            tab = browser.new_page()
            tab.goto(page.as_uri())
            tab.pdf(path=str(pdf), format="A4", print_background=True)
            browser.close()
    except Error:
        cure = f"open {page.name} in your browser and choose Print, Save as PDF"
        raise CourseError(f"No browser was found to print with; {cure}.") from None
    return pdf


def runbook(evidence: Evidence, logs: Sequence[str]) -> str:
    """The one-page runbook as Markdown; `logs`: sentences on what is logged, where, how long."""
    e = evidence
    facts = _facts(e) | {"logs": list(logs), "switch_off": SWITCH_OFF}
    facts["data_quality"] = [
        *_found(e),
        "Before new rows are learnt: python -m helpers.pilot new NAME --from FILE shows "
        "contradictions, duplicates and personal data; put the first right, mask the last.",
    ]
    facts["evaluation"] = [
        f"A record counts when every field is right. Judged: {e.decision.way}, "
        f"{e.decision.exact[e.decision.way]}.",
        f"The test rows have been answered {e.looks} time(s); each further look makes the next "
        "result less certain, so new rows are labelled for the next judgement.",
        *e.watch,
    ]
    facts["updates"] = [
        "The alarm rings, or the sample holds a wrong record too many: a person reads fifty of the "
        "last messages and labels them.",
        "Those rows join the training rows; the test rows stay. One lever is moved at a time, and "
        "the run log names it.",
        "The gate of chapter 11 runs first; what it says is done.",
        "The new model is judged on rows that nobody has looked at, then pushed and promoted: "
        "python -m helpers.ship.registry --folder registry promote HASH --reason WHY",
        "It runs in the shadow for a week before its answers are used.",
    ]
    return render("runbook.md", f=facts)


def data_card(evidence: Evidence) -> str:
    """The data card as Markdown: how many rows with which labels, what was found in them."""
    e, counts = evidence, []
    for name in e.pilot.labels:
        learn, judge = (
            Counter(row[name] for row in rows) for rows in (e.data.train, e.judged.rows)
        )
        for value in dict.fromkeys([*learn, *judge]):
            counts.append([name, str(value), str(learn[value]), str(judge[value])])
    not_known = ["Who wrote the messages, beyond what the file says.", *_label_doubts(e)]
    facts = _facts(e) | {"counts": counts, "found": _found(e), "not_known": not_known}
    return render("data_card.md", f=facts)


def _facts(e: Evidence) -> dict[str, Any]:
    decision = e.decision
    words = {
        GO: f"Go: {decision.way}, first in the shadow.",
        NO_GO: "No-go: people go on as today.",
        MORE: f"Not decided: label {decision.rows} more rows, then look once more.",
    }
    return {
        "pilot": e.pilot.name,
        "about": e.pilot.about,
        "language": e.pilot.language,
        "headline": decision.answer.lower(),
        "answer_in_words": words[decision.answer],
        "why": decision.why,
        "date": date.today().isoformat(),
        "rows": len(e.judged.rows),
        "train_rows": len(e.data.train),
        "base": e.base if decision.way == SYSTEM_USE else f"none in use ({e.base} was tried)",
        "run": e.run,
        "data_hash": fingerprint([dict(row) for row in e.data.train], list(e.judged.rows)),
    }


def _sections(e: Evidence) -> dict[str, Section]:
    return {
        "How often a record is right": _exact_table(e),
        "What each way costs in use": _cost_table(e),
        "Each field, in the way that is judged": _field_table(e),
        "Who checks what": Section(_who_checks(e)),
        "Risks": Section(_risks(e)),
        "Licence": Section(_licence(e.licence)),
        "The gate before training": Section([e.gate.verdict, *e.gate.why]),
        "What to watch": Section(e.watch),
        "The switch-off": Section(SWITCH_OFF),
        "What was not shown": Section(_not_shown(e)),
        "Hashes": Section(_hashes(e)),
    }


def _exact_table(e: Evidence) -> Section:
    shares = {name: scored.share for name, scored in e.judged.scored.items()}
    rows = []
    for name, share in {**shares, **(e.asked or {})}.items():
        interval = f"{share.low:.1%} to {share.high:.1%}"
        rows.append([name, f"{share.value:.1%}", interval, str(share.n)])
    return Section(head=["way", "right", "95 % interval", "messages"], rows=rows)


def _cost_table(e: Evidence) -> Section:
    rows = [["people, as today", f"{e.costs.people:,.0f}", "", ""]]
    for name, cost in e.decision.costs.items():
        interval = f"{cost.low:,.0f} to {cost.high:,.0f}"
        rows.append([name, f"{cost.value:,.0f}", interval, f"{cost.reviewed:.0%}"])
    head = ["way of use", f"{e.costs.currency} per 1,000", "95 % interval", "checked by a person"]
    return Section(head=head, rows=rows)


def _field_table(e: Evidence) -> Section:
    rows = []
    for name, share in e.judged.uses[e.decision.way].scored.shares.items():
        rows.append([name, f"{share.value:.1%}", f"{share.low:.1%} to {share.high:.1%}"])
    return Section(head=["field", "right", "95 % interval"], rows=rows)


def _who_checks(e: Evidence) -> list[str]:
    use, costs = e.judged.uses[e.decision.way], e.costs
    if use.checked.all():
        return ["A person checks every record."]
    alone, right = ~use.checked, use.scored.exact
    return [
        f"A person checks the records whose errors are expected to cost more than the check "
        f"({costs.review:.2f} {costs.currency}): {use.checked.mean():.0%} of these messages.",
        f"Of the {int(alone.sum())} that nobody checks {int((alone & ~right).sum())} are wrong.",
        "A check that is done fast finds less: the prices say that it finds "
        f"{costs.caught:.0%} of the wrong records, and the sample of each week tells.",
    ]


def _risks(e: Evidence) -> list[str]:
    cost = e.decision.costs[e.decision.way]
    said = []
    for kind, count in sorted(cost.unchecked.items(), key=lambda pair: -e.costs.of(pair[0])):
        money = f"{e.costs.of(kind):.2f} {e.costs.currency}"
        said.append(f"{kind}: went out unchecked {count} time(s) in {cost.n}, {money} each.")
    if not said:
        said.append(f"No error went out unchecked in {cost.n} messages; it can still happen.")
    people = _people_found(e)
    if people:
        said.append(f"Personal data in the messages ({people}): it is in the training rows, too.")
    said.append("A message is a stranger's text: it fills fields and sets nothing in motion.")
    return said


def _licence(verdict: LicenceVerdict) -> list[str]:
    duties = [str(line) for line in verdict.lines if line.verdict in ("duty", "blocked", "unknown")]
    return [f"Verdict: {verdict.verdict}.", *(duties or ["Nothing more is asked."])]


def _not_shown(e: Evidence) -> list[str]:
    said = [
        f"How it does on messages unlike these {len(e.judged.rows)}: other writers, other weeks.",
        "That anybody is served better: nobody has worked with its answers yet.",
    ]
    if not e.agreed:
        said.append("That the prices are yours: they follow from the types of the fields.")
    if e.decision.way == SYSTEM_USE:
        said.append("That another training comes out the same, unless the table above has several.")
    if e.looks > 1:
        said.append(
            f"These rows were looked at {e.looks} times: the best of several looks flatters."
        )
    return [*said, *_label_doubts(e)]


def _label_doubts(e: Evidence) -> list[str]:
    if e.second_reader:
        return []
    return ["How far two people would agree on the labels: one person gave them."]


def _hashes(e: Evidence) -> list[str]:
    lines = [f"labelled rows {_facts(e)['data_hash']}"]
    lines.append(f"prompt {fingerprint(e.pilot.chat('', full=False))}")
    if e.adapter:
        lines.append(f"adapter {e.adapter}")
    return lines


def _found(e: Evidence) -> list[str]:
    texts = [row[e.pilot.text] for row in e.data.train]
    lengths = np.array([len(text) for text in texts])
    middle = int(np.median(lengths))
    lines = [
        f"Half of the messages have {middle} characters or fewer, the longest {lengths.max()}."
    ]
    people = _people_found(e)
    lines.append(f"Personal data by form: {people or 'none was found'}.")
    return [*lines, *e.data.notes]


def _people_found(e: Evidence) -> str:
    kinds = Counter[str]()
    for row in e.data.train:
        kinds.update({kind for _, _, kind in personal(row[e.pilot.text])})
    return ", ".join(f"{kind} in {count} messages" for kind, count in kinds.most_common())

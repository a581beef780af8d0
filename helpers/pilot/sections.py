"""What stands on the page to sign, part by part, from the evidence of a run."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helpers import ROOT
from helpers.choose.licensing import BLOCKED, UNKNOWN, LicenceVerdict
from helpers.core.files import fingerprint
from helpers.core.pilot import Pilot
from helpers.core.rows import Rows
from helpers.keep.privacy import personal
from helpers.measure.intervals import Share
from helpers.measure.use_costs import cost_of_use
from helpers.pay.error_prices import Costs
from helpers.pilot.decision import GO, LEAST_RIGHT, MORE, NO_GO, Decision, WayOfUse
from helpers.pilot.gate import Gate
from helpers.pilot.judged import SYSTEM_USE, Judged

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "msedge")
COLOUR = {GO: "#5b8a72", NO_GO: "#c8553d", MORE: "#b08d3e"}
SURE = {BLOCKED, UNKNOWN}  # verdicts on a licence with which nothing goes


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
    rows. `watch`: sentences on alarm and samples. `made`: made rows that the model learnt.
    `registry`: the folder of adapters that a rollback works on, as it is typed. `a_year`: messages,
    0 where nobody has said. `barred`: what to say of a bar that was not applied.
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
    made: int = 0
    registry: str = ""
    a_year: int = 0
    barred: str = ""


def sections_of(e: Evidence) -> dict[str, Section]:
    """{heading: Section} of the page, in order."""
    after = {"What to try next": Section(_what_next(e))} if e.decision.answer == NO_GO else {}
    return {
        "What that means": Section(_meaning(e)),
        **after,
        "How often a record is right": _exact_table(e),
        "What each way costs in use": _cost_table(e),
        "Each field, in the way that is judged": _field_table(e),
        "Who checks what": Section(_who_checks(e)),
        "Risks": Section(_risks(e)),
        "Licence": Section(_licence(e.licence)),
        "The gate before training": Section([e.gate.verdict, *e.gate.why]),
        "What to watch": Section(e.watch),
        "The switch-off": Section(switch_off(e)),
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
        if e.decision.exact[name].value < LEAST_RIGHT:
            name = f"{name} (not considered: under {LEAST_RIGHT:.0%} right)"
        rows.append([name, f"{cost.value:,.0f}", interval, f"{cost.reviewed:.0%}"])
    head = ["way of use", f"{e.costs.currency} per 1,000", "95 % interval", "checked by a person"]
    return Section(head=head, rows=rows)


def _field_table(e: Evidence) -> Section:
    rows = []
    for name, share in e.judged.uses[e.decision.way].scored.shares.items():
        rows.append([name, f"{share.value:.1%}", f"{share.low:.1%} to {share.high:.1%}"])
    return Section(head=["field", "right", "95 % interval"], rows=rows)


def _meaning(e: Evidence) -> list[str]:
    """Wrong records that leave the desk, a year in money, where it tips, and what is left out."""
    use, costs = e.judged.uses[e.decision.way], e.costs
    wrong = ~use.scored.exact
    leave = (wrong & ~use.checked).mean() + (1 - costs.caught) * (wrong & use.checked).mean()
    said = [
        f"Wrong records that leave the desk: {leave:.1%} of all, if a check finds "
        f"{costs.caught:.0%}; people today {costs.people_wrong:.1%}, as the prices assume."
    ]
    cost = e.decision.costs[e.decision.way]
    if e.a_year:
        saved = (costs.people - cost.value) / 1000 * e.a_year
        said.append(
            f"A year of {e.a_year:,} messages: {saved:,.0f} {costs.currency} less than today. Not "
            "in it: hardware, the weekly sample, labels, building (chapter 10 has them)."
        )
    said += [*_tipping(e, use), e.barred]
    said.append("This page holds for three months from its date, or until the alarm rings.")
    return [line for line in said if line]


def _what_next(e: Evidence) -> list[str]:
    """After a no: the field that fails most, what the others give, more rows, another base."""
    right = e.judged.uses[e.decision.way].scored.right
    worst = min(right, key=lambda name: right[name].mean())
    said = [f"{worst} is wrong most often: it is right in {right[worst].mean():.0%} of messages."]
    others = [one for name, one in right.items() if name != worst]
    if others:
        share = np.all(others, axis=0).mean()
        said.append(
            f"Without {worst} {share:.0%} of the records would be right. If the others are of use "
            "alone, take it out of pilot.yaml and judge that on rows labelled anew."
        )
    said.append(
        f"{len(e.data.train)} labelled rows were there to learn from. python -m helpers.pilot "
        "new names those that are worth labelling next."
    )
    if e.pilot.base_model == "embedded" and e.pilot.language != "en":
        said.append(
            "The embedded model reads English best. Fetch a larger one (python -m "
            "helpers.choose.models qwen2.5-coder-0.5b) and name it as base_model in pilot.yaml."
        )
    return said


def _tipping(e: Evidence, use: WayOfUse) -> list[str]:
    """Up to where a check may find less, or take longer, before people alone are cheaper."""
    if not use.checked.any():
        return []

    def cost(**changes: float) -> float:
        costs = e.costs.model_copy(update=changes)
        rows, records = e.judged.rows, use.scored.records
        return cost_of_use(e.pilot, rows, records, use.checked, costs).value

    minutes = e.costs.review / e.costs.hourly * 60
    found, longest = _line(cost, "caught", 0.0, 1.0, e), _line(cost, "review_minutes", 0, 60, e)
    said = []
    if found is not None:
        now = f"assumed: {e.costs.caught:.0%}"
        said.append(f"People alone are cheaper once a check finds less than {found:.0%} ({now}).")
    if longest is not None:
        said.append(
            f"People alone are cheaper once a check takes more than {longest:.1f} minutes "
            f"(assumed: {minutes:.1f})."
        )
    return said


def _line(cost: Callable, name: str, low: float, high: float, e: Evidence) -> float | None:
    """Where the cost, a straight line of this price, meets what people cost; None: nowhere."""
    at_low, at_high = cost(**{name: low}), cost(**{name: high})
    if (at_low - e.costs.people) * (at_high - e.costs.people) >= 0:
        return None
    return low + (high - low) * (e.costs.people - at_low) / (at_high - at_low)


def switch_off(e: Evidence) -> list[str]:
    """What to do to switch it off, step by step."""
    back = "Nothing stands behind it: no adapter is in use."
    if e.registry:
        command = f"python -m helpers.ship.registry --folder {e.registry} rollback --reason WHY"
        back = f"Or go back to the adapter before; the next start follows: {command}"
    return [
        "Stop the program that asks the system; people read every message as before.",
        back,
        "Write down what happened, and look at the last week's page.",
    ]


def _who_checks(e: Evidence) -> list[str]:
    use, costs = e.judged.uses[e.decision.way], e.costs
    if use.checked.all():
        return ["A person checks every record."]
    alone, right = ~use.checked, use.scored.exact
    return [
        f"A person checks the records whose errors are expected to cost more than the check "
        f"({costs.review:.2f} {costs.currency}): {use.checked.mean():.0%} of these messages.",
        f"Of the {int(alone.sum())} that nobody checks {int((alone & ~right).sum())} are wrong.",
        f"The prices say that a check finds {costs.caught:.0%} of the wrong records: put known "
        "mistakes among those to check, and count.",
    ]


def _risks(e: Evidence) -> list[str]:
    cost = e.decision.costs[e.decision.way]
    said = []
    for kind, count in sorted(cost.unchecked.items(), key=lambda pair: -e.costs.of(pair[0])):
        money = f"{e.costs.of(kind):.2f} {e.costs.currency}"
        said.append(f"{kind}: went out unchecked {count} time(s) in {cost.n}, {money} each.")
    if not said:
        said.append(f"No error went out unchecked in {cost.n} messages; it can still happen.")
    wrong, number, highest = e.decision.unchecked_wrong
    if number:
        dearest = max(map(e.costs.of, e.costs.errors))
        worst = 1000 * highest * number / len(e.judged.rows) * dearest
        said.append(
            f"Were {highest:.0%} of the unchecked records wrong in the dearest way, which these "
            f"rows leave open: {worst:,.0f} {e.costs.currency} more per 1,000."
        )
    people = _kinds_of_personal_data(e)
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
    if ROOT / "data" in e.pilot.folder.resolve().parents:
        said.insert(0, "Real mail: the bundled messages were written for the course.")
    if not e.agreed:
        said.append("That the prices are yours: they follow from the types of the fields.")
    if e.decision.way == SYSTEM_USE:
        said.append("That another training comes out the same, unless the table above has several.")
    said.append("What a larger or a hosted model would do: none was asked.")
    if e.looks > 1:
        said.append(
            f"These rows were looked at {e.looks} times: the best of several looks flatters."
        )
    return [*said, *label_doubts(e)]


def label_doubts(e: Evidence) -> list[str]:
    """What is not known of the labels."""
    if e.second_reader:
        return []
    return ["Whether two people would agree on the labels: nobody has read them twice."]


def _hashes(e: Evidence) -> list[str]:
    lines = [f"labelled rows {rows_hash_of(e)}"]
    lines.append(f"prompt {fingerprint(e.pilot.chat('', full=False))}")
    if e.adapter:
        lines.append(f"adapter {e.adapter}")
    return lines


def found_in_messages(e: Evidence) -> list[str]:
    """Lengths, personal data by form, and the notes of loading."""
    texts = [row[e.pilot.text] for row in e.data.train]
    lengths = np.array([len(text) for text in texts])
    middle = int(np.median(lengths))
    lines = [
        f"Half of the messages have {middle} characters or fewer, the longest {lengths.max()}."
    ]
    people = _kinds_of_personal_data(e)
    lines.append(f"Personal data by form: {people or 'none was found'}.")
    return [*lines, *e.data.notes]


def _kinds_of_personal_data(e: Evidence) -> str:
    kinds = Counter[str]()
    for row in e.data.train:
        kinds.update({kind for _, _, kind in personal(row[e.pilot.text])})
    return ", ".join(f"{kind} in {count} messages" for kind, count in kinds.most_common())


def rows_hash_of(e: Evidence) -> str:
    """Twelve digits over all labelled rows, those to learn and those to judge."""
    return fingerprint([dict(row) for row in e.data.train], list(e.judged.rows))

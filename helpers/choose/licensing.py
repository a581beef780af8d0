"""The licence gate: may a model made from these parts be used like this? No legal advice."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from math import inf
from numbers import Real
from textwrap import fill
from typing import Any

from helpers import CourseError
from helpers.choose.catalog import FOLDER, SURE, find, find_data_set, licences
from helpers.core.files import read_yaml
from helpers.core.text import did_you_mean

ALLOWED = "allowed"
DUTIES = "allowed with duties"
BLOCKED = "blocked"
UNKNOWN = "unknown: read the licence"
PURPOSES = ("research", "internal", "product", "published")
# what a line says -> what the whole verdict is when a line says it; the first that fits decides
DECIDES = {"blocked": BLOCKED, "unknown": UNKNOWN, "duty": DUTIES, "ok": ALLOWED}
SETTLED = ("permissive", "share-alike", "own")  # classes of licences that ask nothing of outputs


@dataclass(frozen=True)
class Use:
    """What the tuned model is for; CourseError for anything that cannot be read."""

    # research, internal (own staff), product (customers use it), published (weights given away)
    purpose: str = "internal"
    commercial: bool | None = None  # None: everything but research is
    revenue: float | None = (
        None  # of the whole company, affiliates too, in a year; None: not stated
    )
    currency: str = "USD"  # of the revenue
    monthly_users: int = 0  # of all your products
    region: str = ""  # principal place of business, such as JP, DE or EU; empty: not stated

    def __post_init__(self) -> None:
        if self.purpose not in PURPOSES:
            known = ", ".join(PURPOSES)
            raise CourseError(f"The purpose {self.purpose!r} is not known; it can be {known}.")
        if self.commercial is None:
            object.__setattr__(self, "commercial", self.purpose != "research")
        if not isinstance(self.commercial, bool):
            raise CourseError(f"commercial is {self.commercial!r}; write True or False.")
        for name in ("revenue", "monthly_users"):
            amount = getattr(self, name)
            # True is a number to Python; NaN fails both comparisons and would reach no limit
            is_number = isinstance(amount, Real) and not isinstance(amount, bool)
            unstated = name == "revenue" and amount is None
            if not unstated and not (is_number and 0 <= amount < inf):
                cure = "write a number that is not negative, for example 40_000_000"
                raise CourseError(f"{name} is {amount!r}; {cure}.")
        for name in ("currency", "region"):
            if not isinstance(getattr(self, name), str):
                raise CourseError(f"{name} is {getattr(self, name)!r}; write a code in quotes.")
        object.__setattr__(self, "currency", self.currency.strip().upper())
        object.__setattr__(self, "region", _region_code(self.region.strip()))


@cache
def _region_code(place: str) -> str:
    """`EU` for the Union, its members and their parts, else the country code in capitals."""
    known = read_yaml(FOLDER / "eu_members.yaml")
    members = known["members"]
    union = ("EU", "European Union", *members, *members.values(), *known["parts"])
    if place.casefold() in map(str.casefold, union):
        return "EU"
    # a code that no country has may be a slip for one of its members: SP, SW
    if place and place.upper() not in known["others"].split():
        cure = "write a country code of two letters such as JP, US or DE, or EU"
        raise CourseError(f"The region {place!r} cannot be read; {cure}.")
    return "GB" if place.upper() == "UK" else place.upper()


@dataclass(frozen=True)
class Line:
    """One reason: which part, which model or data set, the licence's clause, and its source."""

    part: str  # base, teacher, judge, data
    item: str
    verdict: str  # ok, duty, blocked, unknown, note
    licence: str
    clause: str
    says: str
    source: str
    confidence: str

    def __str__(self) -> str:
        where = f"{self.licence}, {self.clause}; {self.confidence}"
        return f"{self.verdict:8} {self.part} {self.item}: {self.says} [{where}]"


@dataclass(frozen=True)
class LicenceVerdict:
    """What the gate says, and every line that led to it. Prints what matters; `table()` has all."""

    verdict: str
    lines: list[Line]

    def __str__(self) -> str:
        shown = [self.verdict.upper()]
        for kind in ("blocked", "unknown", "duty", "note", "ok"):
            for line in self.lines:
                # what asks for nothing is shown only when nothing else is
                if line.verdict == kind and (kind != "ok" or self.verdict == ALLOWED):
                    shown.append(fill(f"  {line}", 88, subsequent_indent=" " * 11))
        return "\n".join(shown)

    def table(self) -> list[dict[str, str]]:
        """All lines as rows of a table."""
        return [asdict(line) for line in self.lines]

    @property
    def deciding(self) -> list[Line]:
        """The lines that made the verdict what it is."""
        return [line for line in self.lines if DECIDES.get(line.verdict) == self.verdict]


def gate(
    base: str,
    teachers: str | Iterable[str] = (),
    data: str | Iterable[str] = ("own",),
    judges: str | Iterable[str] = (),
    use: Use | None = None,
    name: str | None = None,
    by_tag: bool = False,
) -> LicenceVerdict:
    """May a model tuned from these parts be used like this? Every line has its clause and source.

    base, teachers, judges: hub ids or catalogue names; data: ids from datasets.csv or licence ids
    ("own" is your own rows); name: what the tuned model will be called; by_tag: believe the hub's
    tags, not the files. What has no row or profile is "unknown: read the licence", never allowed.
    """
    use = use or Use()
    if not isinstance(use, Use):
        raise CourseError('use is a licensing.Use, for example Use("internal", revenue=4_000_000).')
    if not isinstance(base, str) or not base.strip():
        raise CourseError("The gate needs a base model: one id in quotes.")
    if not isinstance(by_tag, bool) or not isinstance(name, str | None):
        raise CourseError("by_tag is True or False, and name is a text in quotes.")
    row = find(base)
    # what the conditions of licences.yaml ask for; a model may stand under several licences at once
    base_licences = set(row["licence"].split(" + ")) if row else set()
    facts = {**vars(use), "name": name, "by_tag": by_tag, "base_licences": base_licences}
    lines: list[Line] = []
    parts = {"base": base, "teacher": teachers, "data": data, "judge": judges}
    for part, items in parts.items():
        for item in _ids(part, items):
            lines += _lines_of(part, item, facts)
    lines = list(dict.fromkeys(lines))  # two parts may share an ancestor
    kinds = {line.verdict for line in lines}
    return LicenceVerdict(next(DECIDES[kind] for kind in DECIDES if kind in kinds), lines)


def _ids(part: str, items: Any) -> list[str]:
    """One id or several as a list; CourseError for anything else, which might stand for nothing."""
    ids = [items] if isinstance(items, str) or not isinstance(items, Iterable) else list(items)
    for one in ids:
        if not isinstance(one, str) or not one.strip():
            raise CourseError(f"{part} has {one!r}; write an id in quotes, or a list of them.")
    return ids


def _lines_of(part: str, name: str, facts: dict, seen: tuple = ()) -> list[Line]:
    """The lines of one part; of a model also those of its training data and of its parents."""
    row = find_data_set(name) if part == "data" else find(name)
    if row is None:
        says = "not in data/catalog: read its licence, then add a row with its source"
        return [Line(part, name, "unknown", "not in the catalogue", "no row", says, "none", "low")]
    if part == "data":
        return _licence_lines(part, row, row["licence"], facts)
    if facts["by_tag"] and row["hub_tag"]:
        row |= {"licence": row["hub_tag"], "hub_tag": "", "card": "", "based_on": ""}
    lines = []
    for licence in row["licence"].split(" + "):
        lines += _licence_lines(part, row, licence, facts)
    if row["hub_tag"] not in ("", row["licence"]):
        says = f"the hub tag says {row['hub_tag']}, the files or the makers say {row['licence']}"
        says += ": the stricter reading counts"
        lines.append(_row_line(part, row, "note", "files against tag", says))
    # a card can forbid what the licence allows; that binds no research
    if row["card"] and facts["commercial"]:
        lines.append(_row_line(part, row, "blocked", "model card", f"the card says: {row['card']}"))
    for origin in filter(None, (row["taught_by"], row["data"])):
        lines.append(_training_data_line(part, row, origin))
    # what a parent's licence asks is asked of the child too; `seen` ends a circle
    if row["based_on"] and row["based_on"] not in seen:
        lines += _lines_of(part, row["based_on"], facts, (*seen, name))
    return lines


def _row_line(part: str, row: dict, verdict: str, clause: str, says: str) -> Line:
    source, confidence = row["source"], row["confidence"]
    return Line(part, row["exact_id"], verdict, row["licence"], clause, says, source, confidence)


def _training_data_line(part: str, row: dict, origin: str) -> Line:
    """What a model was trained on: an open question where those terms are unknown or restrict."""
    source = find(origin) or find_data_set(origin) or {}
    licence = source.get("licence", "unverified")  # this has no profile and stays a question
    says, verdict = f"its makers trained it on {origin} ({licence})", "note"
    if licences().get(licence, {}).get("class") not in SETTLED:
        says, verdict = f"{says}; whether those terms reach you is not settled", "unknown"
    return _row_line(part, {**row, "licence": licence}, verdict, "training data", says)


def _licence_lines(part: str, row: dict, licence: str, facts: dict) -> list[Line]:
    """The lines of one licence; none is surer than what is known of the part's licence."""
    item, profile = row["exact_id"], licences().get(licence)
    if profile is None:
        near = did_you_mean(licence, licences())
        hint = near if "did you mean" in near else ""  # not the list of all licences there are
        says = f"this licence has no profile here: read it and ask{hint}"
        licence = licence or "none stated"
        return [Line(part, item, "unknown", licence, "no profile", says, "none", "low")]
    facts = {**facts, "multimodal": row.get("multimodal") == "yes"}
    source, lines = profile["source"], []
    surety = max(row["confidence"], profile["confidence"], key=SURE.index)
    for rule in profile["rules"]:
        when = rule.get("when", {})
        answers = [_holds(condition, when[condition], facts) for condition in when]
        if part not in rule["as"] or False in answers:
            continue
        verdict, says = rule["verdict"], rule["says"]
        unstated = [answer for answer in answers if answer is not True]
        if unstated:  # the gate does not guess on which side of a limit you are
            verdict, says = "unknown", f"{unstated[0]} ({says})"
        lines.append(Line(part, item, verdict, licence, rule["clause"], says, source, surety))
    if not lines:  # silence is no permission
        says = f"its profile says nothing about use as {part}"
        lines.append(Line(part, item, "unknown", licence, "no rule", says, source, "low"))
    return lines


def _holds(condition: str, wanted: Any, facts: dict) -> bool | str:
    """Whether a condition holds, or in words what must be stated before that can be judged."""
    match condition:
        case "purpose":
            return facts["purpose"] in wanted
        case "commercial" | "multimodal":
            return facts[condition] == wanted
        case "users_over":
            return bool(facts["monthly_users"] > wanted)  # NumPy has a True of its own
        case "revenue_over":
            amount, revenue, currency = wanted["amount"], facts["revenue"], wanted["currency"]
            if revenue is not None and facts["currency"] == currency:
                reached = revenue == amount and wanted.get("inclusive", False)
                return bool(revenue > amount or reached)
            asked = f"the revenue in {currency}, not {facts['currency']}"
            if revenue is None:
                asked = f"the whole company's yearly revenue in {currency}"
            return f"state {asked}: there is a limit of {amount:,}"
        case "region":
            asked = f"state the region of the company: there is a rule for {', '.join(wanted)}"
            return facts["region"] in wanted if facts["region"] else asked
        case "base_not_under":  # outputs may improve only models of the same family
            return not facts["base_licences"] & set(wanted)
        case "name_lacks":
            return facts["name"] is not None and not facts["name"].startswith(wanted)
    raise AssertionError(f"the catalogue let the condition {condition!r} through")

"""The licence gate: may a model made from these parts be used like this? No legal advice."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from math import inf
from numbers import Real
from textwrap import fill
from typing import Any

from helpers import CourseError
from helpers.choose.catalog import FOLDER, SURE, datasets, exact_id, find, licences
from helpers.core.files import read_yaml
from helpers.core.text import did_you_mean

ALLOWED = "allowed"
DUTIES = "allowed with duties"
BLOCKED = "blocked"
UNKNOWN = "unknown: read the licence"
PURPOSES = ("research", "internal", "product", "published")
# what a line says -> what the whole verdict is when a line says it; the first that fits decides
DECIDES = {"blocked": BLOCKED, "unknown": UNKNOWN, "duty": DUTIES}
SETTLED = ("permissive", "share-alike", "own")  # classes of licences that ask nothing of outputs


@dataclass(frozen=True)
class Use:
    """What the tuned model is for.

    purpose: research, internal (your own staff), product (customers use it, the weights stay with
    you) or published (weights given away). revenue: of the whole company, affiliates included, in a
    year, in `currency`; None when not stated. monthly_users: of all your products. region: the
    principal place of business, a country code such as JP or DE, or EU; empty when not stated.
    Raises CourseError for anything that cannot be read.
    """

    purpose: str = "internal"
    commercial: bool | None = None
    revenue: float | None = None
    currency: str = "USD"
    monthly_users: int = 0
    region: str = ""

    def __post_init__(self) -> None:
        if self.purpose not in PURPOSES:
            raise CourseError(
                f"The purpose {self.purpose!r} is not known; it can be {', '.join(PURPOSES)}."
            )
        if self.commercial is not None and not isinstance(self.commercial, bool):
            raise CourseError(f"commercial is {self.commercial!r}; write True or False.")
        if self.commercial is None:
            object.__setattr__(self, "commercial", self.purpose != "research")
        if self.revenue is not None:
            _check_amount("revenue", self.revenue)
        _check_amount("monthly_users", self.monthly_users)
        for name in ("currency", "region"):
            if not isinstance(getattr(self, name), str):
                raise CourseError(f"{name} is {getattr(self, name)!r}; write a code in quotes.")
        object.__setattr__(self, "currency", self.currency.strip().upper())
        object.__setattr__(self, "region", _region_code(self.region.strip()))


def _check_amount(name: str, value: Any) -> None:
    # True is a number to Python; NaN fails both comparisons, so a limit would never be reached
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < inf:
        raise CourseError(
            f"{name} is {value!r}; write a number that is not negative, for example 40_000_000."
        )


@cache
def _eu_names() -> frozenset[str]:
    members = read_yaml(FOLDER / "eu_members.yaml")["members"]
    names = ("EU", "European Union", *members, *members.values())
    return frozenset(name.casefold() for name in names)


def _region_code(place: str) -> str:
    """`EU` for the Union and each of its members, else the country code in capitals."""
    if place.casefold() in _eu_names():
        return "EU"
    is_code = len(place) == 2 and place.isascii() and place.isalpha()
    if place and not is_code:
        raise CourseError(
            f"The region {place!r} cannot be read; "
            "write a country code of two letters such as JP, US or DE, or EU."
        )
    return place.upper()


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
    lines: list[Line] = field(default_factory=list)

    def __str__(self) -> str:
        shown = [self.verdict.upper()]
        for kind in ("blocked", "unknown", "duty", "note", "ok"):
            if kind == "ok" and self.verdict != ALLOWED:
                continue  # what asks for nothing is shown only when nothing else is
            for line in self.lines:
                if line.verdict == kind:
                    shown.append(fill(f"  {line}", 88, subsequent_indent=" " * 11))
        return "\n".join(shown)

    def table(self) -> list[dict[str, str]]:
        """All lines as rows of a table."""
        return [asdict(line) for line in self.lines]

    @property
    def deciding(self) -> list[Line]:
        """The lines that made the verdict what it is."""
        kinds = {verdict: kind for kind, verdict in DECIDES.items()}
        return [line for line in self.lines if line.verdict == kinds.get(self.verdict, "ok")]


@dataclass(frozen=True)
class _Question:
    """The use, and what else a condition may ask for."""

    use: Use
    name: str | None  # of the tuned model
    by_tag: bool
    base_licences: frozenset[str]
    multimodal: bool = False


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
    ("own" is your own rows); name: what the tuned model will be called. A part without a row or a
    profile is "unknown: read the licence", never allowed. by_tag=True believes the hub's tags
    instead of the files, to see what that would have said.
    """
    use = use or Use()
    if not isinstance(use, Use):
        raise CourseError('use is a licensing.Use, for example Use("internal", revenue=4_000_000).')
    if not str(base or "").strip():
        raise CourseError("The gate needs a base model.")
    row = find(base)
    # a model may stand under several licences at once
    base_licences = frozenset(row["licence"].split(" + ")) if row else frozenset()
    question = _Question(use, name, by_tag, base_licences)
    lines: list[Line] = []
    parts = {"base": base, "teacher": teachers, "data": data, "judge": judges}
    for part, items in parts.items():
        for item in [items] if isinstance(items, str) else items:
            if part == "data":
                lines += _data_lines(str(item), question)
            else:
                lines += _model_lines(part, str(item), question, {str(item)})
    lines = list(dict.fromkeys(lines))  # two parts may share an ancestor
    kinds = {line.verdict for line in lines}
    for kind, verdict in DECIDES.items():
        if kind in kinds:
            return LicenceVerdict(verdict, lines)
    return LicenceVerdict(ALLOWED, lines)


def _data_lines(name: str, question: _Question) -> list[Line]:
    for row in datasets():
        if row["id"].lower() == name.lower():
            return _licence_lines("data", name, row["licence"], question, row["confidence"])
    if name in licences():  # rows that are not listed, by the licence they stand under
        return _licence_lines("data", name, name, question)
    return [_not_in_catalogue("data", name)]


def _model_lines(part: str, name: str, question: _Question, seen: set[str]) -> list[Line]:
    """The lines of one model, of what it was trained on, and of what it was made from."""
    row = find(name)
    if row is None:
        return [_not_in_catalogue(part, name)]
    row = {**row, "hub_id": exact_id(name, row)}
    if question.by_tag and row["hub_tag"]:
        row = {**row, "licence": row["hub_tag"], "hub_tag": "", "card": "", "based_on": ""}
    question = replace(question, multimodal=row["multimodal"] == "yes")
    names = row["licence"].split(" + ")
    lines = []
    for licence in names:
        lines += _licence_lines(part, row["hub_id"], licence, question, row["confidence"])
    if row["hub_tag"] and names != [row["hub_tag"]]:
        says = (
            f"the hub tag says {row['hub_tag']}, the files or the makers say {row['licence']}: "
            "the stricter reading counts"
        )
        lines.append(_row_line(part, row, "note", "files against tag", says))
    # a card can forbid what the licence allows; that binds no research
    if row["card"] and question.use.commercial:
        says = f"the card says: {row['card']}"
        lines.append(_row_line(part, row, "blocked", "model card", says))
    for origin in (row["taught_by"], row["data"]):
        if origin:
            lines.append(_training_data_line(part, row, origin))
    # what a parent's licence asks is asked of the child too; `seen` ends a circle
    if row["based_on"] and row["based_on"] not in seen:
        lines += _model_lines(part, row["based_on"], question, seen | {row["based_on"]})
    return lines


def _licence_lines(
    part: str, item: str, licence: str, question: _Question, confidence: str = "high"
) -> list[Line]:
    """The lines of one licence; none is surer than what is known of the part's licence."""
    profile = licences().get(licence)
    if profile is None:
        near = did_you_mean(licence, licences())
        hint = near if "did you mean" in near else ""  # not the list of all licences there are
        says = f"this licence has no profile here: read it and ask{hint}"
        licence = licence or "none stated"
        return [Line(part, item, "unknown", licence, "no profile", says, "none", "low")]
    surety = max(confidence, profile["confidence"], key=SURE.index)
    lines = []
    for rule in profile["rules"]:
        when = rule.get("when", {})
        if part not in rule["as"] or not _applies(when, question):
            continue
        verdict, says = rule["verdict"], rule["says"]
        unstated = _unstated_fact(when, question.use)
        if unstated:  # the gate does not guess on which side of a limit you are
            verdict, says = "unknown", f"{unstated} ({says})"
        clause, source = rule["clause"], profile["source"]
        lines.append(Line(part, item, verdict, licence, clause, says, source, surety))
    if not lines:  # silence is no permission
        says = f"its profile says nothing about use as {part}"
        source = profile["source"]
        lines.append(Line(part, item, "unknown", licence, "no rule", says, source, "low"))
    return lines


def _applies(when: dict, question: _Question) -> bool:
    """True unless a condition is known not to hold; a fact that was not stated may still hold."""
    for condition, wanted in when.items():
        is_known = not _unstated_fact({condition: wanted}, question.use)
        if is_known and not _holds(condition, wanted, question):
            return False
    return True


def _unstated_fact(when: dict, use: Use) -> str:
    """What must be stated before the conditions can be judged; empty when nothing is missing."""
    limit = when.get("revenue_over")
    if limit and use.revenue is None:
        return (
            f"state the whole company's yearly revenue in {limit['currency']}: "
            f"there is a limit of {limit['amount']:,}"
        )
    if limit and use.currency != limit["currency"]:
        return (
            f"state the revenue in {limit['currency']}, not {use.currency}: "
            f"there is a limit of {limit['amount']:,}"
        )
    if "region" in when and not use.region:
        places = ", ".join(when["region"])
        return f"state the region of the company: there is a rule for {places}"
    return ""


def _holds(condition: str, wanted: Any, question: _Question) -> bool:
    use, name = question.use, question.name
    match condition:
        case "purpose":
            return use.purpose in wanted
        case "commercial":
            return use.commercial == wanted
        case "users_over":
            return use.monthly_users > wanted
        case "revenue_over":
            reached = use.revenue == wanted["amount"] and wanted.get("inclusive", False)
            return reached or use.revenue > wanted["amount"]
        case "region":
            return use.region in wanted
        case "multimodal":
            return question.multimodal == wanted
        case "base_not_under":  # outputs may improve only models of the same family
            return not question.base_licences & set(wanted)
        case "name_lacks":
            return name is not None and not name.startswith(wanted)
    raise AssertionError(f"the catalogue let the condition {condition!r} through")


def _training_data_line(part: str, row: dict, origin: str) -> Line:
    """What a model was trained on: an open question where those terms are unknown or restrict."""
    licence = "unverified"  # has no profile, so it stays an open question
    source = find(origin)
    if source:
        licence = source["licence"]
    else:
        for data_set in datasets():
            if data_set["id"] == origin:
                licence = data_set["licence"]
    says, verdict = f"its makers trained it on {origin} ({licence})", "note"
    if licences().get(licence, {}).get("class") not in SETTLED:
        says, verdict = f"{says}; whether those terms reach you is not settled", "unknown"
    return _row_line(part, {**row, "licence": licence}, verdict, "training data", says)


def _row_line(part: str, row: dict, verdict: str, clause: str, says: str) -> Line:
    source, confidence = row["source"], row["confidence"]
    return Line(part, row["hub_id"], verdict, row["licence"], clause, says, source, confidence)


def _not_in_catalogue(part: str, name: str) -> Line:
    says = "not in data/catalog: read its licence, then add a row with its source"
    return Line(part, name, "unknown", "not in the catalogue", "no row", says, "none", "low")

"""The licence gate: may a model made from these parts be used like this? A reading aid, not legal advice."""

from dataclasses import asdict, dataclass, field
from textwrap import fill

from helpers import CourseError
from helpers.choose.catalog import SURE, datasets, find, guess, licences

ALLOWED, DUTIES, BLOCKED, UNKNOWN = (
    "allowed",
    "allowed with duties",
    "blocked",
    "unknown: read the licence",
)
PURPOSES = ("research", "internal", "product", "published")
EU = dict(
    AT="Austria",
    BE="Belgium",
    BG="Bulgaria",
    HR="Croatia",
    CY="Cyprus",
    CZ="Czechia",
    DK="Denmark",
    EE="Estonia",
    FI="Finland",
    FR="France",
    DE="Germany",
    GR="Greece",
    HU="Hungary",
    IE="Ireland",
    IT="Italy",
    LV="Latvia",
    LT="Lithuania",
    LU="Luxembourg",
    MT="Malta",
    NL="Netherlands",
    PL="Poland",
    PT="Portugal",
    RO="Romania",
    SK="Slovakia",
    SI="Slovenia",
    ES="Spain",
    SE="Sweden",
)


@dataclass(frozen=True)
class Use:
    """What the tuned model is for.

    purpose: research · internal (your own staff) · product (customers use it, the weights stay with you) · published (weights
    given away). revenue: yearly revenue of the whole company, affiliates included, in `currency`; None when not stated.
    monthly_users: of all your products. region: where the company has its principal place of business, a country code such as JP
    or DE, or EU; empty when not stated. Raises CourseError for anything that cannot be read.
    """

    purpose: str = "internal"
    commercial: bool | None = None
    revenue: float | None = None
    currency: str = "USD"
    monthly_users: int = 0
    region: str = ""

    def __post_init__(self):
        if self.purpose not in PURPOSES:
            raise CourseError(
                f"The purpose {self.purpose!r} is not known; it can be {', '.join(PURPOSES)}."
            )
        if self.commercial is None:
            object.__setattr__(self, "commercial", self.purpose != "research")
        for name in ("revenue", "monthly_users"):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0
            ):
                raise CourseError(
                    f"{name} is {value!r}; write a number that is not negative, for example 40_000_000."
                )
        object.__setattr__(self, "currency", self.currency.strip().upper())
        place = self.region.strip()
        known = place.upper() in ("EU", *EU) or place.casefold() in (
            name.casefold() for name in (*EU.values(), "European Union")
        )
        if place and not known and not (len(place) == 2 and place.isascii() and place.isalpha()):
            raise CourseError(
                f"The region {place!r} cannot be read; write a country code of two letters such as JP, US or DE, or EU."
            )
        object.__setattr__(self, "region", "EU" if known else place.upper())


@dataclass(frozen=True)
class Line:
    """One reason: the part (base, teacher …), the model or data set, the licence, the clause, what it says, and its source."""

    part: str
    item: str
    verdict: str  # ok, duty, blocked, unknown, note
    licence: str
    clause: str
    says: str
    source: str
    confidence: str

    def __str__(self):
        return f"{self.verdict:8} {self.part} {self.item}: {self.says} [{self.licence}, {self.clause}; {self.confidence}]"


@dataclass(frozen=True)
class Verdict:
    """What the gate says, and every line that led to it. Prints what matters; `table()` gives all lines as rows."""

    verdict: str
    lines: list = field(default_factory=list)

    def __str__(self):
        order = ["blocked", "unknown", "duty", "note", "ok"]
        shown = sorted(
            (x for x in self.lines if x.verdict != "ok" or self.verdict == ALLOWED),
            key=lambda x: order.index(x.verdict),
        )
        return "\n".join(
            [
                self.verdict.upper(),
                *(fill(f"  {line}", 88, subsequent_indent=" " * 11) for line in shown),
            ]
        )

    def table(self):
        return [asdict(line) for line in self.lines]

    @property
    def deciding(self):
        """The lines that made the verdict what it is."""
        kind = {BLOCKED: "blocked", UNKNOWN: "unknown", DUTIES: "duty"}.get(self.verdict, "ok")
        return [line for line in self.lines if line.verdict == kind]


def _holds(when, use, about):
    """True, False, or a sentence that says what must be stated before the condition can be judged."""
    for key, wanted in when.items():
        if key == "revenue_over":
            if use.revenue is None:
                return f"state the whole company's yearly revenue in {wanted['currency']}: there is a limit of {wanted['amount']:,}"
            if use.currency != wanted["currency"]:
                return f"state the revenue in {wanted['currency']}, not {use.currency}: there is a limit of {wanted['amount']:,}"
            holds = use.revenue > wanted["amount"] or (
                use.revenue == wanted["amount"] and wanted.get("inclusive", False)
            )
        elif key == "region":
            if not use.region:
                return f"state the region of the company: there is a rule for {', '.join(wanted)}"
            holds = use.region in wanted
        else:
            holds = {
                "purpose": lambda: use.purpose in wanted,
                "commercial": lambda: use.commercial == wanted,
                "users_over": lambda: use.monthly_users > wanted,
                "multimodal": lambda: about["multimodal"] == wanted,
                "base_not_under": lambda: not set(wanted) & about["base_licences"],
                "name_lacks": lambda: (
                    about["name"] is not None and not about["name"].startswith(wanted)
                ),
            }[key]()
        if not holds:
            return False
    return True


def _read(part, item, licence, use, about, known="high"):
    """The lines of one licence for one part; no line is surer than what is known of the part's licence."""
    profile = licences().get(licence)
    if profile is None:
        says = "this licence has no profile here" + guess(licence, licences()) + ": read it and ask"
        return [
            Line(part, item, "unknown", licence or "none stated", "no profile", says, "none", "low")
        ]
    lines, sure = [], max(known, profile["confidence"], key=SURE.index)
    for rule in profile["rules"]:
        if part not in rule["as"]:
            continue
        # what can be settled without missing facts is settled first, so that nobody is asked for a revenue in vain
        open_ends = {
            k: v for k, v in rule.get("when", {}).items() if k in ("revenue_over", "region")
        }
        holds = _holds(
            {k: v for k, v in rule.get("when", {}).items() if k not in open_ends}, use, about
        )
        holds = holds and _holds(open_ends, use, about)
        if holds:
            says, verdict = (
                (rule["says"], rule["verdict"])
                if holds is True
                else (f"{holds} ({rule['says']})", "unknown")
            )
            lines.append(
                Line(part, item, verdict, licence, rule["clause"], says, profile["source"], sure)
            )
    if not lines:
        says = f"its profile says nothing about use as {part}"
        lines.append(
            Line(part, item, "unknown", licence, "no rule", says, profile["source"], "low")
        )
    return lines


def _part(part, name, use, about, seen):
    """The lines of one base, teacher, judge or data set, with what it was made from."""
    if part == "data":
        row = next((r for r in datasets() if name.lower() == r["id"].lower()), None)
        row = row or ({"id": name, "licence": name} if name in licences() else None)
        return (
            _read(part, name, row["licence"], use, about, row.get("confidence", "high"))
            if row
            else [_stranger(part, name)]
        )
    row = find(name)
    if row is None:
        return [_stranger(part, name)]
    if about["by_tag"] and row["hub_tag"]:
        row = {**row, "licence": row["hub_tag"], "hub_tag": "", "card": "", "based_on": ""}
    about = {**about, "multimodal": row["multimodal"] == "yes"}
    held = row["licence"].split(" + ")
    lines = [
        line
        for licence in held
        for line in _read(part, row["hub_id"], licence, use, about, row["confidence"])
    ]
    if row["hub_tag"] and held != [row["hub_tag"]]:
        says = f"the hub tag says {row['hub_tag']}, the files or the makers say {row['licence']}: the stricter reading counts"
        lines.append(
            Line(
                part,
                row["hub_id"],
                "note",
                row["licence"],
                "files against tag",
                says,
                row["source"],
                row["confidence"],
            )
        )
    if row["card"] and use.commercial:
        said = f"the card says: {row['card']}"
        lines.append(
            Line(
                part,
                row["hub_id"],
                "blocked",
                row["licence"],
                "model card",
                said,
                row["source"],
                row["confidence"],
            )
        )
    for made in filter(None, (row["taught_by"], row["data"])):
        lines.append(_heritage(part, row, made))
    if row["based_on"] and row["based_on"] not in seen:
        lines += _part(part, row["based_on"], use, about, seen | {row["based_on"]})
    return lines


def _heritage(part, row, made):
    """A line on what a model was trained on: a note, or an open question when those terms restrict outputs or are unknown."""
    source = find(made) or next(
        (r for r in datasets() if r["id"] == made), {"licence": "unverified"}
    )
    settled = licences().get(source["licence"], {}).get("class") in (
        "permissive",
        "share-alike",
        "own",
    )
    says = f"its makers trained it on {made} ({source['licence']})" + (
        "" if settled else "; whether those terms reach you is not settled"
    )
    kind = "note" if settled else "unknown"
    return Line(
        part,
        row["hub_id"],
        kind,
        source["licence"],
        "training data",
        says,
        row["source"],
        row["confidence"],
    )


def _stranger(part, name):
    says = "not in data/catalog: read its licence, then add a row with its source"
    return Line(part, name, "unknown", "not in the catalogue", "no row", says, "none", "low")


def gate(base, teachers=(), data=("own",), judges=(), use=None, name=None, by_tag=False):
    """May a model tuned from these parts be used like this? Returns a Verdict with the clause and source of every line.

    base, teachers, judges: hub ids or catalogue names; data: ids from datasets.csv or licence ids ("own" is your own rows);
    name: what the tuned model will be called. A part without a row or a profile is "unknown: read the licence", never allowed.
    by_tag=True believes the hub's tags instead of the files, to see what that would have said.
    """
    use = use or Use()
    if not isinstance(use, Use):
        raise CourseError('use is a licensing.Use, for example Use("internal", revenue=4_000_000).')
    teachers, data, judges = (
        [x] if isinstance(x, str) else list(x) for x in (teachers, data, judges)
    )
    if not str(base or "").strip():
        raise CourseError("The gate needs a base model.")
    row = find(base)
    about = {
        "name": name,
        "by_tag": by_tag,
        "multimodal": False,
        "base_licences": set(row["licence"].split(" + ")) if row else set(),
    }
    parts = [
        ("base", base),
        *(("teacher", t) for t in teachers),
        *(("data", d) for d in data),
        *(("judge", j) for j in judges),
    ]
    lines = list(
        dict.fromkeys(
            line for part, item in parts for line in _part(part, str(item), use, about, {str(item)})
        )
    )
    found = {line.verdict for line in lines}
    return Verdict(
        BLOCKED
        if "blocked" in found
        else UNKNOWN
        if "unknown" in found
        else DUTIES
        if "duty" in found
        else ALLOWED,
        lines,
    )

"""What an error is worth: kinds of error priced in minutes and money, and the expected cost of a way to do the job."""

import difflib
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.stats import bootstrap

from helpers import CourseError
from helpers.scoring import error_kinds, known_kinds


class ErrorCost(BaseModel):
    """What one error costs until it is put right: working minutes, and money beside them."""

    model_config = ConfigDict(extra="forbid")
    minutes: float = Field(ge=0)
    money: float = Field(default=0, ge=0)


class Costs(BaseModel):
    """`today_minutes`: what a person needs for one message now. `errors`: {kind: ErrorCost}, kinds as in scoring.error_kinds."""

    model_config = ConfigDict(extra="forbid")
    currency: str
    hourly: float = Field(gt=0)
    today_minutes: float = Field(ge=0)
    errors: dict[str, ErrorCost]

    def of(self, kind):
        """Money for one error. `<field>.missed.<value>` without a price of its own costs what `<field>.wrong` costs."""
        price = self.errors.get(kind) or self.errors[kind.split(".")[0] + ".wrong"]
        return price.minutes / 60 * self.hourly + price.money


def default_costs(pilot, hourly=40.0, currency="EUR", today_minutes=3.0):
    """A cost table from the field types alone, to be overwritten with the reader's own numbers: assumptions, not facts.

    A copied value that is wrong travels on unseen and is dear; an empty one is noticed by whoever opens the record.
    """
    errors = {"invalid": {"minutes": today_minutes}}
    for name, spec in pilot.fields.items():
        wrong = {"label": 4, "span": 6, "pattern": 15}[spec.type]
        errors[f"{name}.wrong"] = {"minutes": wrong}
        if spec.optional:
            errors |= {f"{name}.empty": {"minutes": 2}, f"{name}.extra": {"minutes": wrong}}
    return {"currency": currency, "hourly": hourly, "today_minutes": today_minutes, "errors": errors}


@dataclass(frozen=True)
class Cost:
    """Expected cost of errors per 1,000 messages with a bootstrap 95 % interval; `by_kind`: {kind: (errors, money per 1,000)}."""

    value: float
    low: float
    high: float
    n: int
    currency: str
    by_kind: dict

    def __str__(self):
        return f"{self.value:7,.0f} {self.currency}  [{self.low:,.0f}, {self.high:,.0f}] per 1,000 messages, n={self.n}"


def error_cost(pilot, data, records, costs, seed=0):
    """What the errors of `records` (dicts or None, one per labelled row of `data`) cost per 1,000 messages.

    Each field's error is put right by itself, so a record's costs add up. Raises CourseError for an unpriced or unknown kind.
    """
    costs = check_costs(pilot, costs)
    kinds = [error_kinds(pilot, row, record, costs.errors) for row, record in zip(data, records, strict=True)]
    each = 1000 * np.array([sum(costs.of(kind) for kind in found) for found in kinds], float)
    if not len(each):
        raise CourseError("There are no rows to price.")
    low = high = float(each.mean())
    if each.std() > 0:
        draws = bootstrap((each,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(seed))
        low, high = draws.confidence_interval
    flat = [kind for found in kinds for kind in found]
    by_kind = {kind: (flat.count(kind), 1000 * flat.count(kind) * costs.of(kind) / len(each)) for kind in dict.fromkeys(flat)}
    return Cost(float(each.mean()), float(low), float(high), len(each), costs.currency, by_kind)


def check_costs(pilot, costs):
    """A cost table (dict or Costs) as Costs; CourseError when a kind is unknown or has no price."""
    try:
        costs = costs if isinstance(costs, Costs) else Costs.model_validate(costs)
    except ValidationError as problem:
        raise refused(problem, "The cost table: ") from None
    check_kinds(pilot, costs.errors, "The cost table")
    unpriced = [k for k in known_kinds(pilot) if ".missed." not in k and k not in costs.errors]
    if unpriced:
        raise CourseError(f"The cost table has no price for {', '.join(unpriced)}; give each minutes, 0 if it costs nothing.")
    return costs


def check_kinds(pilot, kinds, where):
    """Raises CourseError for a kind of error that a record of this pilot cannot have."""
    known = known_kinds(pilot)
    for kind in kinds:
        if kind not in known:
            if kind.split(".")[0] not in (*pilot.fields, "invalid"):
                raise CourseError(f"{where}: {kind!r} names no field of this pilot; its fields are {', '.join(pilot.fields)}.")
            near = difflib.get_close_matches(kind, known, 3) or known[:6]
            raise CourseError(f"{where}: there is no error {kind!r}; did you mean {' or '.join(near)}?")


def refused(problem, where=""):
    """The first mistake of a ValidationError as a CourseError with one sentence."""
    error = problem.errors()[0]
    place = " > ".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return CourseError(f"{where}the key {place!r} is missing.")
    if error["type"] == "extra_forbidden":
        return CourseError(f"{where}the key {place!r} is unknown; take it out.")
    text = error["msg"].removeprefix("Value error, ")
    return CourseError(f"{where}{place} {text}." if error["type"] == "value_error" else f"{where}{place} is {error['input']!r}: {text}.")

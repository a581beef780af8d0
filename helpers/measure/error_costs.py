"""What an error is worth: kinds of error priced in minutes and money, and the expected cost of a way to do the job."""

import difflib
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.stats import bootstrap

from helpers import CourseError


def known_kinds(pilot):
    """Every kind of error a record of this pilot can have, as a list of names."""
    kinds = ["invalid"]
    for name, spec in pilot.fields.items():
        kinds += [f"{name}.wrong"] + ([f"{name}.empty", f"{name}.extra"] if spec.optional else [])
        kinds += [
            f"{name}.missed.{value}" for value in (spec.values if spec.type == "label" else ())
        ]
    return kinds


def error_kinds(pilot, row, record, named=()):
    """What is wrong with one record (dict or None), at most one kind a field; empty for an exact record.

    `invalid`: no record with exactly the pilot's fields, a person must read the message. `<field>.wrong`: another value.
    `.empty`: nothing where a value stood. `.extra`: a value where none belongs. A label that is told apart in `named`
    as `<field>.missed.<value>` gets that kind when this value should have been given and was not.
    """
    if record is None or set(record) != set(pilot.fields):
        return ["invalid"]
    kinds = []
    for name in pilot.fields:
        value, truth = record[name], row[name]
        if value != truth or type(value) is not type(truth):
            kind = (
                f"{name}.extra"
                if truth is None
                else f"{name}.empty"
                if value is None
                else f"{name}.wrong"
            )
            if f"{name}.missed.{truth}" in named:
                kind = f"{name}.missed.{truth}"
            elif kind == f"{name}.empty" and not pilot.fields[name].optional:
                kind = f"{name}.wrong"
            kinds.append(kind)
    return kinds


class ErrorCost(BaseModel):
    """What one error costs until it is put right: working minutes, and money beside them."""

    model_config = ConfigDict(extra="forbid")
    minutes: float = Field(ge=0)
    money: float = Field(default=0, ge=0)


class Costs(BaseModel):
    """`today_minutes`: what a person needs for one message now. `errors`: {kind: ErrorCost}, kinds as in error_kinds.

    `running_per_1000`: money for hardware, calls and upkeep. `checking_minutes`: a person's look at each message. Every automated
    way is charged both.
    """

    model_config = ConfigDict(extra="forbid")
    currency: str
    hourly: float = Field(gt=0)
    today_minutes: float = Field(ge=0)
    running_per_1000: float = Field(default=0, ge=0)
    checking_minutes: float = Field(default=0, ge=0)
    errors: dict[str, ErrorCost]

    @property
    def today(self):
        """Money that 1,000 messages cost now, when a person reads each."""
        return 1000 * self.today_minutes / 60 * self.hourly

    @property
    def fixed(self):
        """Money per 1,000 messages that an automated way costs before its first error."""
        return self.running_per_1000 + 1000 * self.checking_minutes / 60 * self.hourly

    def of(self, kind):
        """Money for one error. `<field>.missed.<value>` without a price of its own costs what `<field>.wrong` costs."""
        price = self.errors.get(kind) or self.errors[kind.split(".")[0] + ".wrong"]
        return price.minutes / 60 * self.hourly + price.money


def default_costs(pilot, hourly=40.0, currency="EUR", today_minutes=3.0):
    """A cost table from the field types alone, to be overwritten with the reader's own numbers: assumptions, not facts.

    A copied value that is wrong travels on unseen and is expensive; an empty one is noticed by whoever opens the record.
    """
    errors = {"invalid": {"minutes": today_minutes}}
    for name, spec in pilot.fields.items():
        wrong = {"label": 4, "span": 6, "pattern": 15}[spec.type]
        errors[f"{name}.wrong"] = {"minutes": wrong}
        if spec.optional:
            errors |= {f"{name}.empty": {"minutes": 2}, f"{name}.extra": {"minutes": wrong}}
    return {
        "currency": currency,
        "hourly": hourly,
        "today_minutes": today_minutes,
        "errors": errors,
    }


@dataclass(frozen=True)
class Cost:
    """Expected cost per 1,000 messages with a bootstrap interval. `by_kind`: {kind: (errors, money per 1,000)};
    `by_field`: {field: (money, low, high)}."""

    value: float
    low: float
    high: float
    n: int
    currency: str
    by_kind: dict
    by_field: dict

    def __str__(self):
        return f"{self.value:7,.0f} {self.currency}  [{self.low:,.0f}, {self.high:,.0f}] per 1,000 messages, n={self.n}"

    @property
    def driver(self):
        """(most expensive field, whether it stays that without the kinds of error seen fewer than five times), or None."""
        order = sorted(self.by_field, key=lambda name: -self.by_field[name][0])
        if not order:
            return None
        often = sum(
            money
            for kind, (count, money) in self.by_kind.items()
            if count >= 5 and kind.split(".")[0] == order[0]
        )
        return order[0], often > (self.by_field[order[1]][0] if order[1:] else 0)


def error_cost(pilot, data, records, costs, seed=0, alpha=0.05):
    """What a way with these `records` (dicts or None, one per labelled row of `data`) costs per 1,000 messages.

    Each field's error is put right by itself, so a record's costs add up; `costs.fixed` comes on top. The interval is at 1 - alpha.
    Raises CourseError for an unpriced or unknown kind.
    """
    costs = check_costs(pilot, costs)
    kinds = [
        error_kinds(pilot, row, record, costs.errors)
        for row, record in zip(data, records, strict=True)
    ]
    if not kinds:
        raise CourseError("There are no rows to price.")
    flat = [kind for found in kinds for kind in found]
    by_kind = {
        kind: (flat.count(kind), 1000 * flat.count(kind) * costs.of(kind) / len(kinds))
        for kind in dict.fromkeys(flat)
    }
    by_field = {
        name: _mean(kinds, costs, seed, alpha, name)
        for name in dict.fromkeys(kind.split(".")[0] for kind in flat)
    }
    value, low, high = (figure + costs.fixed for figure in _mean(kinds, costs, seed, alpha))
    return Cost(value, low, high, len(kinds), costs.currency, by_kind, by_field)


def _mean(kinds, costs, seed, alpha, field=None):
    """(mean, low, high) of the money per 1,000 messages, of one field or of all."""
    return mean_interval(
        [
            1000 * sum(costs.of(k) for k in found if field in (None, k.split(".")[0]))
            for found in kinds
        ],
        seed,
        alpha,
    )


def cost_difference(pilot, data, one, other, costs, seed=0, alpha=0.05):
    """(one - other, low, high) in money per 1,000 messages, two ways' records on the same labelled rows; paired bootstrap.

    What every automated way is charged (`costs.fixed`) falls out. Raises CourseError for an unpriced or unknown kind.
    """
    costs = check_costs(pilot, costs)
    price = lambda row, record: (
        1000 * sum(costs.of(k) for k in error_kinds(pilot, row, record, costs.errors))
    )  # noqa: E731
    return mean_interval(
        [price(row, a) - price(row, b) for row, a, b in zip(data, one, other, strict=True)],
        seed,
        alpha,
    )


def mean_interval(each, seed=0, alpha=0.05):
    """(mean, low, high) of money row by row, shape (rows,): percentile bootstrap over the rows, 5,000 draws."""
    each = np.asarray(each, float)
    if not each.size:
        raise CourseError("There are no rows to price.")
    if each.std() == 0:
        return (float(each.mean()),) * 3
    draws = bootstrap(
        (each,),
        np.mean,
        n_resamples=5000,
        method="percentile",
        confidence_level=1 - alpha,
        rng=np.random.default_rng(seed),
    )
    return float(each.mean()), *map(float, draws.confidence_interval)


def check_costs(pilot, costs):
    """A cost table (dict or Costs) as Costs; CourseError when a kind is unknown or has no price."""
    try:
        costs = costs if isinstance(costs, Costs) else Costs.model_validate(costs)
    except ValidationError as problem:
        raise refused(problem, "The cost table: ") from None
    check_kinds(pilot, costs.errors, "The cost table")
    unpriced = [k for k in known_kinds(pilot) if ".missed." not in k and k not in costs.errors]
    if unpriced:
        raise CourseError(
            f"The cost table has no price for {', '.join(unpriced)}; give each minutes, 0 if it costs nothing."
        )
    return costs


def check_kinds(pilot, kinds, where):
    """Raises CourseError for a kind of error that a record of this pilot cannot have."""
    known = known_kinds(pilot)
    for kind in kinds:
        if kind not in known:
            if kind.split(".")[0] not in (*pilot.fields, "invalid"):
                raise CourseError(
                    f"{where}: {kind!r} names no field of this pilot; its fields are {', '.join(pilot.fields)}."
                )
            near = difflib.get_close_matches(kind, known, 3) or known[:6]
            raise CourseError(
                f"{where}: there is no error {kind!r}; did you mean {' or '.join(near)}?"
            )


def refused(problem, where=""):
    """The first mistake of a ValidationError as a CourseError with one sentence."""
    error = problem.errors()[0]
    place = " > ".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return CourseError(f"{where}the key {place!r} is missing.")
    if error["type"] == "extra_forbidden":
        return CourseError(f"{where}the key {place!r} is unknown; take it out.")
    text = error["msg"].removeprefix("Value error, ")
    return CourseError(
        f"{where}{place} {text}."
        if error["type"] == "value_error"
        else f"{where}{place} is {error['input']!r}: {text}."
    )

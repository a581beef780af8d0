"""What an error is worth: kinds of error, their prices, the expected cost of a way."""

import difflib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from helpers import CourseError
from helpers.core.pilot import Pilot
from helpers.core.text import pydantic_sentences
from helpers.measure.intervals import bootstrap_interval
from helpers.measure.scoring import same_value

Records = Sequence[dict | None]
Interval = tuple[float, float, float]  # value, low, high


class ErrorCost(BaseModel):
    """What one error costs until it is put right: working minutes, and money beside them."""

    model_config = ConfigDict(extra="forbid")
    minutes: float = Field(ge=0)
    money: float = Field(default=0, ge=0)


class Costs(BaseModel):
    """The cost table of a pilot; every automated way is charged running and checking."""

    model_config = ConfigDict(extra="forbid")
    currency: str
    hourly: float = Field(gt=0)
    today_minutes: float = Field(ge=0)  # what a person needs for one message now
    running_per_1000: float = Field(default=0, ge=0)  # money for hardware, calls and upkeep
    checking_minutes: float = Field(default=0, ge=0)  # a person's look at each message
    errors: dict[str, ErrorCost]  # by kind, as in known_kinds

    @property
    def today(self) -> float:
        """Money that 1,000 messages cost now, when a person reads each."""
        return 1000 * self.today_minutes / 60 * self.hourly

    @property
    def fixed(self) -> float:
        """Money per 1,000 messages that an automated way costs before its first error."""
        return self.running_per_1000 + 1000 * self.checking_minutes / 60 * self.hourly

    def of(self, kind: str) -> float:
        """Money for one error; a missed value without a price costs what `<field>.wrong` costs."""
        price = self.errors.get(kind) or self.errors[kind.split(".")[0] + ".wrong"]
        return price.minutes / 60 * self.hourly + price.money


def known_kinds(pilot: Pilot) -> list[str]:
    """Every kind of error that a record of this pilot can have."""
    kinds = ["invalid"]
    for name, spec in pilot.fields.items():
        kinds.append(f"{name}.wrong")
        if spec.optional:
            kinds += [f"{name}.empty", f"{name}.extra"]
        if spec.type == "label":
            kinds += [f"{name}.missed.{value}" for value in spec.values]
    return kinds


def error_kinds(
    pilot: Pilot, row: dict, record: dict | None, named: Collection[str] = ()
) -> list[str]:
    """What is wrong with one record, at most one kind a field; empty for an exact record.

    A value that was overlooked is a kind of its own where `named` has `<field>.missed.<value>`.
    """
    if record is None or set(record) != set(pilot.fields):
        return ["invalid"]  # a person must read the message
    kinds = []
    for name, spec in pilot.fields.items():
        value, truth = record[name], row[name]
        if same_value(value, truth):
            continue
        if f"{name}.missed.{truth}" in named:
            kinds.append(f"{name}.missed.{truth}")
        elif truth is None:
            kinds.append(f"{name}.extra")  # a value where none belongs
        elif value is None and spec.optional:
            kinds.append(f"{name}.empty")  # nothing where a value stood
        else:
            kinds.append(f"{name}.wrong")  # another value
    return kinds


def default_costs(
    pilot: Pilot, hourly: float = 40.0, currency: str = "EUR", today_minutes: float = 3.0
) -> dict:
    """A cost table from the field types alone, to be overwritten: assumptions, not facts."""
    errors = {"invalid": {"minutes": today_minutes}}
    for name, spec in pilot.fields.items():
        # a copied value that is wrong travels on unseen and is expensive; an empty one is noticed
        wrong = {"label": 4, "span": 6, "pattern": 15}[spec.type]
        errors[f"{name}.wrong"] = {"minutes": wrong}
        if spec.optional:
            errors |= {f"{name}.empty": {"minutes": 2}, f"{name}.extra": {"minutes": wrong}}
    table = {"currency": currency, "hourly": hourly, "today_minutes": today_minutes}
    return table | {"errors": errors}


def check_costs(pilot: Pilot, costs: dict | Costs) -> Costs:
    """A cost table as Costs; CourseError when a kind is unknown or has no price."""
    if not isinstance(costs, Costs):
        try:
            costs = Costs.model_validate(costs)
        except ValidationError as problem:
            known = (*Costs.model_fields, *ErrorCost.model_fields)
            raise CourseError(pydantic_sentences(problem, "The cost table", known)) from None
    check_kinds(pilot, costs.errors, "The cost table")
    needed = [kind for kind in known_kinds(pilot) if ".missed." not in kind]
    unpriced = [kind for kind in needed if kind not in costs.errors]
    if unpriced:
        raise CourseError(
            f"The cost table has no price for {', '.join(unpriced)}; give each minutes, 0 if it "
            "costs nothing."
        )
    return costs


def check_kinds(pilot: Pilot, kinds: Collection[str], where: str) -> None:
    """Raises CourseError for a kind of error that a record of this pilot cannot have."""
    known = known_kinds(pilot)
    for kind in kinds:
        if kind in known:
            continue
        if kind.split(".")[0] not in (*pilot.fields, "invalid"):
            raise CourseError(
                f"{where}: {kind!r} names no field of this pilot; its fields are "
                f"{', '.join(pilot.fields)}."
            )
        near = difflib.get_close_matches(kind, known, 3) or known[:6]
        raise CourseError(f"{where}: there is no error {kind!r}; did you mean {' or '.join(near)}?")


@dataclass(frozen=True)
class Cost:
    """Expected cost per 1,000 messages with a bootstrap interval."""

    value: float
    low: float
    high: float
    n: int
    currency: str
    by_kind: dict[str, tuple[int, float]]  # number of errors, money per 1,000 messages
    by_field: dict[str, Interval]  # money per 1,000 messages

    def __str__(self) -> str:
        interval = f"[{self.low:,.0f}, {self.high:,.0f}]"
        return f"{self.value:7,.0f} {self.currency}  {interval} per 1,000 messages, n={self.n}"

    @property
    def driver(self) -> tuple[str, bool] | None:
        """(most expensive field, still so without kinds seen fewer than five times), or None."""
        fields = sorted(self.by_field, key=lambda name: -self.by_field[name][0])
        if not fields:
            return None
        often = 0.0
        for kind, (count, money) in self.by_kind.items():
            if count >= 5 and kind.split(".")[0] == fields[0]:
                often += money
        runner_up = self.by_field[fields[1]][0] if fields[1:] else 0
        return fields[0], often > runner_up


def error_cost(
    pilot: Pilot,
    rows: Sequence[dict],
    records: Records,
    costs: dict | Costs,
    seed: int = 0,
    alpha: float = 0.05,
) -> Cost:
    """What a way with these `records` costs per 1,000 messages, with its interval at 1 - alpha."""
    costs = check_costs(pilot, costs)
    kinds_of: list[list[str]] = []
    counts: Counter[str] = Counter()
    for row, record in zip(rows, records, strict=True):
        kinds_of.append(error_kinds(pilot, row, record, costs.errors))
        counts.update(kinds_of[-1])

    def money(field: str | None = None) -> Interval:
        each = []
        for kinds in kinds_of:
            own = [kind for kind in kinds if field in (None, kind.split(".")[0])]
            # each field's error is put right by itself, so that costs add up
            each.append(1000 * sum(costs.of(kind) for kind in own))
        return mean_interval(each, seed, alpha)

    value, low, high = (figure + costs.fixed for figure in money())
    by_kind: dict[str, tuple[int, float]] = {}
    by_field: dict[str, Interval] = {}
    for kind, count in counts.items():
        by_kind[kind] = count, 1000 * count * costs.of(kind) / len(kinds_of)
        field = kind.split(".")[0]
        by_field[field] = by_field.get(field) or money(field)
    return Cost(value, low, high, len(kinds_of), costs.currency, by_kind, by_field)


def cost_difference(
    pilot: Pilot,
    rows: Sequence[dict],
    one: Records,
    other: Records,
    costs: dict | Costs,
    seed: int = 0,
    alpha: float = 0.05,
) -> Interval:
    """(one - other, low, high) in money per 1,000 messages on the same labelled rows, paired."""
    # what every automated way is charged (costs.fixed) falls out
    costs = check_costs(pilot, costs)

    def price(row: dict, record: dict | None) -> float:
        kinds = error_kinds(pilot, row, record, costs.errors)
        return 1000 * sum(costs.of(kind) for kind in kinds)

    each = [price(row, a) - price(row, b) for row, a, b in zip(rows, one, other, strict=True)]
    return mean_interval(each, seed, alpha)


def mean_interval(each: Sequence[float], seed: int = 0, alpha: float = 0.05) -> Interval:
    """(mean, low, high) of money row by row: bootstrap over the rows, 5,000 draws."""
    if not len(each):
        raise CourseError("There are no rows to price.")
    return float(np.mean(each)), *bootstrap_interval(each, seed, 5000, alpha)

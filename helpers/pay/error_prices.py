"""What one error of a record costs: the price table of a pilot, and the kinds it may name."""

import difflib
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from helpers import CourseError
from helpers.core.pilot import Pilot
from helpers.core.text import pydantic_sentences


class ErrorCost(BaseModel):
    """What one error costs until it is put right: working minutes, and money beside them."""

    model_config = ConfigDict(extra="forbid")
    minutes: float = Field(ge=0)
    money: float = Field(default=0, ge=0)


class Costs(BaseModel):
    """The cost table of a pilot: errors, minutes, and the people who do the work today.

    Every automated way is charged running and checking; a check only where somebody checks.
    """

    model_config = ConfigDict(extra="forbid")
    currency: str
    hourly: float = Field(gt=0)
    today_minutes: float = Field(ge=0)  # what a person needs for one message now
    running_per_1000: float = Field(default=0, ge=0)  # money for hardware, calls and upkeep
    checking_minutes: float = Field(default=0, ge=0)  # spent on each record, whoever reads it
    review_minutes: float | None = Field(default=None, ge=0)  # one check; None: a third of today
    caught: float = Field(default=0.9, ge=0, le=1)  # share of wrong records that a check finds
    fixing_minutes: float = Field(default=1, ge=0)  # to put one of these right
    people_wrong: float = Field(default=0.02, ge=0, le=1)  # share of wrong records today
    errors: dict[str, ErrorCost]  # by kind, as in known_kinds

    @property
    def today(self) -> float:
        """Money that 1,000 messages cost now, when a person reads each."""
        return 1000 * self.today_minutes / 60 * self.hourly

    @property
    def fixed(self) -> float:
        """Money per 1,000 messages that an automated way costs before its first error."""
        return self.running_per_1000 + 1000 * self.checking_minutes / 60 * self.hourly

    @property
    def review(self) -> float:
        """Money for a person's check of one record."""
        minutes = self.today_minutes / 3
        if self.review_minutes is not None:
            minutes = self.review_minutes
        return minutes / 60 * self.hourly

    @property
    def fixing(self) -> float:
        """Money for putting one record right that a check found wrong."""
        return self.fixing_minutes / 60 * self.hourly

    @property
    def people(self) -> float:
        """Money for 1,000 messages as people do it today, their own errors included.

        Nobody counted these, so a wrong record of theirs has one wrong field, each as likely.
        """
        wrong = [self.of(kind) for kind in self.people_kinds]
        return self.today + 1000 * self.people_wrong * sum(wrong) / max(1, len(wrong))

    @property
    def people_kinds(self) -> list[str]:
        """The errors that a wrong record of a person may have: a wrong value in one field."""
        return [kind for kind in self.errors if kind.endswith(".wrong")]

    def price(self, kind: str) -> ErrorCost:
        """The price of one error; a missed value without one costs what `<field>.wrong` costs."""
        return self.errors.get(kind) or self.errors[kind.split(".")[0] + ".wrong"]

    def of(self, kind: str) -> float:
        """Money for one error, its minutes among it."""
        price = self.price(kind)
        return price.minutes / 60 * self.hourly + price.money

    def per_1000(self, kinds: Collection[str]) -> float:
        """Money for 1,000 messages with these errors; each is put right by itself."""
        return 1000 * sum(self.of(kind) for kind in kinds)


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


def default_costs(pilot: Pilot) -> dict:
    """A cost table from the field types alone, to be overwritten: assumptions, not facts."""
    errors = {"invalid": {"minutes": 3.0}}
    for name, spec in pilot.fields.items():
        # a copied value that is wrong travels on unseen and is expensive; an empty one is noticed
        wrong = {"label": 4, "span": 6, "pattern": 15}[spec.type]
        errors[f"{name}.wrong"] = {"minutes": wrong}
        if spec.optional:
            errors |= {f"{name}.empty": {"minutes": 2}, f"{name}.extra": {"minutes": wrong}}
    return {"currency": "EUR", "hourly": 40.0, "today_minutes": 3.0, "errors": errors}


def check_costs(pilot: Pilot, costs: dict | Costs) -> Costs:
    """A cost table as Costs; CourseError when a kind is unknown or has no price."""
    if not isinstance(costs, Costs):
        try:
            costs = Costs.model_validate(costs)
        except ValidationError as problem:
            known = (*Costs.model_fields, *ErrorCost.model_fields)
            raise CourseError(pydantic_sentences(problem, "The cost table", known)) from None
    check_kinds(pilot, costs.errors, "The cost table")
    unpriced = []
    for kind in known_kinds(pilot):
        if kind not in costs.errors and ".missed." not in kind:
            unpriced.append(kind)
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

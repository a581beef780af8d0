"""What those who decide want: `bar_wish.yaml` in the pilot's folder, from which a bar is frozen."""

from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from helpers import CourseError
from helpers.agree import sealed
from helpers.agree.bar import Bar, Hoped, Points
from helpers.core.files import read_yaml, write_text
from helpers.core.pilot import Pilot
from helpers.core.runtime import Profile
from helpers.core.text import pydantic_sentences
from helpers.pay.error_prices import Costs, check_costs, default_costs

WISH_FILE = "bar_wish.yaml"
HEAD = "# Assumptions, until those who do the work have read them; agreed: true freezes the page.\n"


class Wish(BaseModel):
    """`may_lose`: points that any single field may lose against the baseline; the rest as in Bar.

    Every key of the file is optional, in `costs` and its `errors`, too: what is left out follows
    from the field types.
    """

    model_config = ConfigDict(extra="forbid")
    agreed: bool = False
    reason: str = ""
    margin: Points = 0.10
    may_lose: Points = 0.05
    critical: dict[str, Points]
    max_cost_per_1000: float | None
    looks: int = 1
    seeds: list[int] = [0, 1, 2]
    messages_per_year: int | None = 10_000  # an assumption, as every price is
    decides: str = ""
    hoped: Hoped = Hoped()
    costs: Costs

    @classmethod
    def load(cls, pilot: Pilot) -> Self:
        """The wish of a pilot. Raises CourseError that names the key or the kind of error."""
        path = pilot.folder / WISH_FILE
        content = _lines(read_yaml(path) if path.is_file() else None, "the file")
        own_prices = _lines(content.get("costs"), "costs")
        # one kind of error may be priced without writing down all of them
        prices = default_costs(pilot)
        errors = prices["errors"] | _lines(own_prices.get("errors"), "costs > errors")
        costs = check_costs(pilot, {**prices, **own_prices, "errors": errors})
        critical = {}  # an invented order number is the error that travels on unseen
        for kind in prices["errors"]:
            name, _, what = kind.partition(".")
            if what in ("wrong", "extra") and pilot.fields[name].type == "pattern":
                critical[kind] = 0.02
        defaults = {"critical": critical, "max_cost_per_1000": costs.people}
        try:
            return cls.model_validate({**defaults, **content, "costs": costs})
        except ValidationError as problem:
            raise CourseError(pydantic_sentences(problem, WISH_FILE, cls.model_fields)) from None

    def for_bar(self, pilot: Pilot, baseline: str, rows: int) -> dict[str, Any]:
        """Arguments of Bar.freeze."""
        secondary = {}
        if len(pilot.fields) > 1:  # one field is the record itself
            secondary = dict.fromkeys(pilot.fields, self.may_lose)
        known = {"secondary": secondary, "baseline": baseline, "rows": rows}
        return self.model_dump(exclude={"may_lose"}) | known

    def next_step(self, bar: Bar, pilot: Pilot, profile: Profile | None = None) -> str:
        """What to do now, in one sentence; leaves a file to fill in where there is none yet."""
        if bar.frozen:
            return f"frozen on {bar.frozen}: every later result is held against this page"
        own = pilot.folder / WISH_FILE
        todo = f"write agreed: true into {own}"
        if not own.is_file():
            blank = sealed.home(pilot, profile) / WISH_FILE
            wish = self.model_dump(mode="json")
            write_text(blank, HEAD + yaml.safe_dump(wish, sort_keys=False, allow_unicode=True))
            todo = f"copy {blank} into {own.parent}, put your own numbers in, write agreed: true"
        first = "a draft, nothing is frozen: read bar_draft.md with those who decide"
        return f"{first}; {todo}, and run `make bar PILOT={own.parent}` again"


def _lines(content: Any, where: str) -> dict[str, Any]:
    if content is not None and not isinstance(content, dict):
        must = "must be 'key: value' lines, without a dash in front"
        raise CourseError(f"{WISH_FILE}: {where} {must}.")
    return content or {}

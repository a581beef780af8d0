"""The bar: what a pilot must achieve, frozen before a tuned result is seen."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from helpers import CourseError
from helpers.agree import sealed
from helpers.agree.verdict import BarVerdict, judge_against
from helpers.core.files import write_text
from helpers.core.pilot import Pilot
from helpers.core.runtime import Profile
from helpers.core.text import did_you_mean, pydantic_sentences
from helpers.measure import baselines
from helpers.measure.pages import render
from helpers.measure.scoring import Scored
from helpers.pay.error_prices import Costs, check_costs, check_kinds

BASELINES = (*baselines.LADDER, "do nothing")  # what a bar may name
NOT_WISHED = ("frozen", "version", "revised", "seen_before")  # written by freeze


def _points(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number; write 0.05 for 5 points")
    if 1 <= value < 100:  # 5 for five points is the mistake to catch
        raise ValueError(f"{value:g} is too large; write {value / 100:g} for {value:g} points")
    if not 0 <= value < 1:
        raise ValueError(f"{value:g} is no share between 0 and 1; write 0.05 for 5 points")
    return float(value)


Points = Annotated[float, BeforeValidator(_points)]


class Hoped(BaseModel):
    """What a system is hoped to do, as shares: so that the chance of passing can be told before.

    `exact` records right; `fields` {field: right}, where one is left out three points above the
    baseline; `reviewed` records that a person checks; `unchecked` records that go out with one kind
    of critical error.
    """

    model_config = ConfigDict(extra="forbid")
    exact: Points = 0.75
    fields: dict[str, Points] = {}
    reviewed: float = Field(default=0.7, ge=0, le=1)
    unchecked: Points = 0.001


class Bar(BaseModel):
    """A frozen `bar.yaml`. Make one with `Bar.freeze`, find it with `Bar.load`.

    `margin`: points by which the exact record must beat `baseline`. `secondary`: {field: points it
    may lose}. `critical`: {kind of error: highest rate per message that goes out unchecked}.
    `rows`: judged rows agreed on. `looks`: how often they may be looked at; the seeds of one
    training are one look. `hoped`: what was hoped when the page was written, see planning.
    """

    # every key is hashed: a new or renamed one would make all frozen bars unreadable
    model_config = ConfigDict(extra="forbid")
    pilot: str
    primary: Literal["exact record"] = "exact record"
    baseline: str
    margin: Points
    secondary: dict[str, Points] = {}
    critical: dict[str, Points] = {}
    max_cost_per_1000: float | None = Field(default=None, ge=0)
    rows: int = Field(ge=1)
    alpha: Points = 0.05
    looks: int = Field(default=1, ge=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    costs: Costs
    messages_per_year: int | None = Field(default=None, ge=1)
    decides: str = ""
    hoped: Hoped = Hoped()
    test_sha256: str
    frozen: str = ""
    version: int = 1
    revised: list[str] = []
    seen_before: bool = False
    _pilot: Pilot = PrivateAttr()

    @classmethod
    def freeze(
        cls,
        pilot: Pilot,
        profile: Profile | None = None,
        reason: str = "",
        agreed: bool = True,
        **wish: Any,
    ) -> Self:
        """Check a wish and write it down as bar.yaml and bar.md; not `agreed`: as bar_draft.md.

        The same wish again returns the bar frozen already. Other values are refused by name, unless
        `reason` says why: it stands in the new version and in every verdict. A test set that only
        grew needs none while no tuned answer exists.
        """
        fixed = {"pilot": pilot.name, "test_sha256": sealed.rows_hash(pilot)}
        new = cls._of({**fixed, **wish}, pilot)
        new._check_names()
        # whoever has seen a result can set a bar that fits it, so the page says so for ever
        new.seen_before = sealed.is_seen_before(pilot)
        place = sealed.place_of_bar(pilot, profile, own=True)
        if place:
            return new._replace(cls._read(place, pilot), place, reason.strip())
        home = sealed.home(pilot, profile)
        if not agreed:
            write_text(home / "bar_draft.md", bar_page(new))
            return new
        new.frozen = date.today().isoformat()
        return new._write(home)

    def _replace(self, old: Self, folder: Path, reason: str) -> Self:
        """This bar as the next version of `old`; `old` itself where nothing else is wished."""
        changed = []
        for key in Bar.model_fields:
            if key not in NOT_WISHED and getattr(old, key) != getattr(self, key):
                changed.append(key)
        if not changed:
            return old
        # more rows of the same kind before any result only make the judgement sharper
        only_rows = set(changed) <= {"rows", "test_sha256"} and not self.seen_before
        self.revised = [*old.revised]
        if only_rows and sealed.has_only_more_rows(folder, self._pilot):
            reason = f"the test set grew from {old.rows} to {self.rows} rows"
        elif reason:
            self.revised.append(f"revised on {date.today().isoformat()} because {reason}")
        else:
            words = ", ".join(_change_in_words(old, self, key) for key in changed)
            cure = "put the old values back, or give a reason to revise it in the open"
            when = f"was frozen on {old.frozen} with other values for {words}"
            raise CourseError(f"The bar of {self.pilot!r} {when}; {cure}.")
        self.frozen, self.version = old.frozen, old.version + 1
        if old.test_sha256 == self.test_sha256:  # the same rows stay seen for ever
            self.seen_before |= old.seen_before
        return self._write(folder, reason)

    def _write(self, folder: Path, note: str = "") -> Self:
        sealed.seal(folder, self.model_dump(mode="json"), sealed.row_hashes(self._pilot), note)
        write_text(folder / "bar.md", bar_page(self))
        (folder / "bar_draft.md").unlink(missing_ok=True)  # the page above has replaced it
        return self

    @classmethod
    def load(cls, pilot: Pilot, profile: Profile | None = None) -> Self:
        """The frozen bar; CourseError when there is none, it was edited or the test rows were."""
        place = sealed.place_of_bar(pilot, profile)
        if place is None:
            cure = "run chapter 02, which says how to freeze one"
            raise CourseError(f"There is no bar.yaml for the pilot {pilot.name!r}: {cure}.")
        bar = cls._read(place, pilot)
        if bar.test_sha256 != sealed.rows_hash(pilot):
            what = f"are not the ones its bar was frozen on ({bar.frozen})"
            cure = "put those rows back, or run chapter 02 again, which says what it needs"
            raise CourseError(f"The rows that {pilot.name!r} is judged on {what}; {cure}.")
        return bar

    @classmethod
    def _read(cls, folder: Path, pilot: Pilot) -> Self:
        needed = [name for name, key in cls.model_fields.items() if key.is_required()]
        bar = cls._of(sealed.unseal(folder, needed), pilot, "bar.yaml")
        if bar.pilot != pilot.name:
            whose = f"belongs to the pilot {bar.pilot!r}, not to {pilot.name!r}"
            raise CourseError(f"bar.yaml {whose}; run chapter 02 for this one.")
        return bar

    @classmethod
    def _of(cls, content: dict, pilot: Pilot, file: str = "The bar") -> Self:
        try:
            bar = cls.model_validate(content)
        except ValidationError as problem:
            raise CourseError(pydantic_sentences(problem, file, cls.model_fields)) from None
        bar._pilot = pilot
        return bar

    def _check_names(self) -> None:
        pilot = self._pilot
        if self.baseline not in BASELINES:
            hint = did_you_mean(self.baseline, BASELINES)
            raise CourseError(f"The bar: there is no baseline {self.baseline!r}{hint}")
        for name in self.secondary:
            if name not in pilot.fields:
                hint = did_you_mean(name, pilot.fields)
                raise CourseError(f"The bar: secondary names {name!r}, which is no field{hint}")
        for name in self.hoped.fields:
            if name not in pilot.fields:
                hint = did_you_mean(name, pilot.fields)
                raise CourseError(f"The bar: hoped names {name!r}, which is no field{hint}")
        check_kinds(pilot, self.critical, "The bar's critical errors")
        check_costs(pilot, self.costs)
        if 0 in self.critical.values():  # a rate of 0 can be seen, never shown
            cure = "write the highest rate you can live with"
            raise CourseError(f"The bar: no number of rows shows a critical rate of 0; {cure}.")
        rows = len(sealed.row_hashes(pilot))
        if self.rows > rows:
            what = f"rows is {self.rows}, but there are {rows} rows to judge on"
            raise CourseError(f"The bar: {what}; label more, or write at most {rows}.")

    @property
    def remarks(self) -> list[str]:
        """What every result must say about this bar besides its date."""
        remarks = list(self.revised)
        if self.seen_before:
            remarks.insert(0, "frozen after a tuned result had been seen")
        if not self.frozen:
            remarks.append("a draft, nothing is frozen")
        return remarks

    def __str__(self) -> str:
        head = "draft bar"
        if self.frozen:
            head = f"bar of {self.frozen}, version {self.version}"
        asked = f"exact record {100 * self.margin:g} points over {self.baseline}"
        return "; ".join([f"{head}: {asked} on {self.rows} rows", *self.remarks])

    def judged(self, by_seed: Mapping[int, Scored]) -> int:
        """The seed that is judged: the median exact record, of an even number the lower."""
        for seed in self.seeds:
            if seed not in by_seed:
                what = f"names the seeds {self.seeds}, but there is no result for {seed}"
                raise CourseError(f"The bar {what}; train that one too.")
        # not the best, which is luck; of equal results the seed that was named first
        in_order = sorted(self.seeds, key=lambda seed: by_seed[seed].exact.mean())
        return in_order[(len(in_order) - 1) // 2]

    def verdict(
        self,
        system: Scored,
        baseline: Scored,
        data: Sequence[dict],
        looks: int = 1,
        reviewed: np.ndarray | None = None,
    ) -> BarVerdict:
        """A BarVerdict on two Scored over the same labelled rows (the baseline the bar names).

        `reviewed`: True where a person checks the record of `system`; None where nobody does.
        """
        return judge_against(self, self._pilot, system, baseline, data, looks, reviewed)


def _change_in_words(old: Bar, new: Bar, key: str) -> str:
    if key == "test_sha256":
        return "the judged rows"
    if key in ("costs", "secondary", "critical", "hoped"):  # too long for a sentence
        return key
    return f"{key} ({getattr(old, key)} then, {getattr(new, key)} now)"


def bar_page(bar: Bar) -> str:
    """A Bar, frozen or a draft, as one page of Markdown to sign (templates/bar.md)."""
    return render("bar.md", bar=bar)

"""The bar: what a pilot must achieve, frozen before a tuned result is seen."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from helpers import CourseError
from helpers.agree import sealed
from helpers.agree.page import bar_page
from helpers.agree.verdict import (
    EXACT,
    BarVerdict,
    judge_against,
    rows_in_words,
    rows_without_error,
)
from helpers.core.files import write_text
from helpers.core.pilot import Pilot
from helpers.core.runtime import Profile
from helpers.core.text import did_you_mean, pydantic_sentences
from helpers.measure.error_costs import Costs, check_costs, check_kinds
from helpers.measure.scoring import Scored

BASELINES = ("majority", "rules", "TF-IDF", "do nothing")  # what a bar may name
# written by freeze and revise; everything else is the reader's wish
NOT_WISHED = ("frozen", "version", "revised", "seen_before")


def _points(value: Any) -> float:
    """A share between 0 and 1; 5 for five points is the mistake to catch."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number; write 0.05 for 5 points")
    if 1 <= value < 100:
        raise ValueError(f"{value:g} is too large; write {value / 100:g} for {value:g} points")
    if not 0 <= value < 1:
        raise ValueError(f"{value:g} is no share between 0 and 1; write 0.05 for 5 points")
    return float(value)


Points = Annotated[float, BeforeValidator(_points)]


class Bar(BaseModel):
    """A frozen `bar.yaml`. Make one with `Bar.freeze`, find it with `Bar.load`.

    `margin`: points by which the exact record must beat `baseline`. `secondary`: {field: points it
    may lose at most}. `critical`: {kind of error: highest rate per message}. `max_cost_per_1000`:
    what the errors may cost, None for no limit. `rows`: test rows agreed on. `looks`: how often the
    test may be looked at; the seeds of one training are one look.
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
    test_sha256: str
    frozen: str = ""
    version: int = 1
    revised: list[str] = []
    seen_before: bool = False
    _pilot: Pilot = PrivateAttr()
    _folder: Path = PrivateAttr()

    # Freezing and revising --------------------------------------------------------------------

    @classmethod
    def freeze(
        cls,
        pilot: Pilot,
        profile: Profile | None = None,
        reason: str = "",
        agreed: bool = True,
        **wish: Any,
    ) -> Self:
        """Check a wish and write it down as bar.yaml with a hash, and as bar.md.

        The same wish again returns the bar frozen already. Other values are refused with the keys
        that differ, unless `reason` says why: then a new version is written. A test set that only
        grew needs no reason while no tuned answer exists. Without `agreed` a first wish becomes
        bar_draft.md and nothing is frozen. `max_cost_per_1000` is today's cost when left out.
        """
        fixed = {"pilot": pilot.name, "test_sha256": sealed.rows_hash(pilot)}
        new = cls._of({**fixed, **wish}, pilot, sealed.home(pilot, profile))
        if "max_cost_per_1000" not in wish:
            new.max_cost_per_1000 = new.costs.today
        new._check()
        place = sealed.first_sealed(sealed.own_places(pilot, profile))
        if place is None:
            return new._first_version(agreed)
        return cls._read(place, pilot)._keep_or_revise(new, reason)

    def _first_version(self, agreed: bool) -> Self:
        # whoever has seen a result can set a bar that fits it, so the page says so for ever
        self.seen_before = sealed.is_seen_before(self._pilot)
        if self.too_few():
            words = rows_in_words(self.too_few())
            print(f"These rows cannot show, even for a result without an error: {words}.")
        if agreed:
            self.frozen = date.today().isoformat()
            return self._write()
        write_text(self._folder / "bar_draft.md", bar_page(self))
        return self

    def _keep_or_revise(self, new: Self, reason: str) -> Self:
        changes = {}
        for key in Bar.model_fields:
            if key not in NOT_WISHED and getattr(self, key) != getattr(new, key):
                changes[key] = getattr(new, key)
        if not changes:
            return self
        # more rows of the same kind before any result only make the judgement sharper
        if set(changes) <= {"rows", "test_sha256"} and self._test_only_grew():
            note = f"the test set grew from {self.rows} to {new.rows} rows"
            return self.revise(note, grown=True, **changes)
        if not reason.strip():
            raise CourseError(
                f"The bar of {self.pilot!r} was frozen on {self.frozen} with other values for "
                f"{_changes_in_words(self, changes)}; put the old values back, or give a reason "
                "to revise it in the open."
            )
        return self.revise(reason, **changes)

    def _test_only_grew(self) -> bool:
        """True when all test rows of the frozen version are still there and no model saw them."""
        newest = sealed.ledger(self._folder)[-1:]
        before = set(newest[0].get("rows", ())) if newest else set()
        grew = bool(before) and before < set(sealed.row_hashes(self._pilot))
        return grew and not sealed.is_seen_before(self._pilot)

    def revise(self, reason: str, grown: bool = False, **changes: Any) -> Self:
        """Write a new version with `changes`; the old one stays in the ledger.

        Every verdict names the revision. `grown`: only test rows were added before a tuned result;
        the ledger notes it, the verdicts need not. Raises CourseError without a reason.
        """
        reason = reason.strip()
        if not reason:
            raise CourseError(
                "A bar is revised with a reason in words, because every later result will show it."
            )
        content = self.model_dump(mode="json")
        # the rows of today: a revision is agreed on what lies there now
        content["test_sha256"] = sealed.rows_hash(self._pilot)
        content |= changes
        content["version"] = self.version + 1
        content["seen_before"] = self.seen_before or sealed.is_seen_before(self._pilot)
        if not grown:
            note = f"revised on {date.today().isoformat()} because {reason}"
            content["revised"] = [*self.revised, note]
        new = self._of(content, self._pilot, self._folder)
        new._check()
        return new._write(reason)

    def _write(self, note: str = "") -> Self:
        content = self.model_dump(mode="json")
        # the hash of every row stands beside, so that added rows can be told from changed ones
        hashes = sealed.row_hashes(self._pilot)
        sealed.seal(self._folder, content, rows=hashes, note=note)
        write_text(self._folder / "bar.md", bar_page(self))
        (self._folder / "bar_draft.md").unlink(missing_ok=True)
        return self

    # Finding and checking ---------------------------------------------------------------------

    @classmethod
    def load(cls, pilot: Pilot, profile: Profile | None = None) -> Self:
        """The frozen bar: from the pilot's folder, else from its runs, else the reference copy.

        Raises CourseError when there is none, when it was edited (naming the key), or when the
        test rows are not the same.
        """
        place = sealed.first_sealed(sealed.places(pilot, profile))
        if place is None:
            raise CourseError(
                f"There is no bar.yaml for the pilot {pilot.name!r}: "
                "run chapter 02, which says how to freeze one."
            )
        bar = cls._read(place, pilot)
        if bar.test_sha256 != sealed.rows_hash(pilot):
            raise CourseError(
                f"The test rows of {pilot.name!r} are not the ones its bar was frozen on "
                f"({bar.frozen}); put those rows back, or run chapter 02 again, with a reason "
                "unless rows were only added before a tuned result."
            )
        return bar

    @classmethod
    def _read(cls, folder: Path, pilot: Pilot) -> Self:
        content = sealed.unseal(folder, cls.model_fields)
        bar = cls._of(content, pilot, folder, "bar.yaml")
        if bar.pilot != pilot.name:
            raise CourseError(
                f"bar.yaml belongs to the pilot {bar.pilot!r}, not to {pilot.name!r}; "
                "run chapter 02 for this one."
            )
        return bar

    @classmethod
    def _of(cls, content: dict, pilot: Pilot, folder: Path, file: str = "The bar") -> Self:
        """A Bar with valid keys that knows its pilot and where it lies."""
        try:
            bar = cls.model_validate(content)
        except ValidationError as problem:
            raise CourseError(pydantic_sentences(problem, file, cls.model_fields)) from None
        bar._pilot, bar._folder = pilot, folder
        return bar

    def _check(self) -> None:
        """Raises CourseError when a name or the number of rows does not fit the pilot."""
        pilot = self._pilot
        rows = len(sealed.row_hashes(pilot))
        if self.baseline not in BASELINES:
            hint = did_you_mean(self.baseline, BASELINES)
            raise CourseError(f"The bar: there is no baseline {self.baseline!r}{hint}")
        if self.rows > rows:
            raise CourseError(
                f"The bar: rows is {self.rows}, but there are {rows} test rows; "
                f"label more, or write at most {rows}."
            )
        for name in self.secondary:
            if name not in pilot.fields:
                hint = did_you_mean(name, pilot.fields)
                raise CourseError(f"The bar: secondary names {name!r}, which is no field{hint}")
        check_kinds(pilot, self.critical, "The bar's critical errors")
        check_costs(pilot, self.costs)
        if 0 in self.critical.values():
            raise CourseError(
                "The bar: no number of rows shows a critical error rate of 0; "
                "write the highest rate you can live with."
            )

    # What it says -----------------------------------------------------------------------------

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

    def too_few(self) -> dict[str, int | None]:
        """{condition: rows it needs} of what a result without an error could not show here."""
        # at best: the baseline is always wrong in the whole record, always right in a field
        wrong = {EXACT: 1.0, **dict.fromkeys(self.secondary, 0.0)}
        need = rows_without_error(self, wrong, self.alpha / self.looks)
        return {name: rows for name, rows in need.items() if rows is None or rows > self.rows}

    def judged(self, by_seed: Mapping[int, Scored]) -> int:
        """The seed whose model is judged: the median exact record, of an even number the lower.

        Not the best, which is luck, and not a vote of all, which would put several models to work.
        Raises CourseError when one of the agreed seeds is missing.
        """
        for seed in self.seeds:
            if seed not in by_seed:
                raise CourseError(
                    f"The bar names the seeds {self.seeds}, but there is no result for {seed}; "
                    "train that one too."
                )
        # the sort is stable: of equal results the seed that was named first
        in_order = sorted(self.seeds, key=lambda seed: by_seed[seed].exact.mean())
        return in_order[(len(in_order) - 1) // 2]

    def verdict(
        self, tuned: Scored, baseline: Scored, data: Sequence[dict], looks: int = 1
    ) -> BarVerdict:
        """A BarVerdict on two Scored over the same labelled rows (the baseline the bar names)."""
        return judge_against(self, self._pilot, tuned, baseline, data, looks)


def _changes_in_words(old: Bar, changes: Mapping[str, Any]) -> str:
    words = []
    for key, new in changes.items():
        if key == "test_sha256":
            words.append("the test rows")
        elif key in ("costs", "secondary", "critical"):
            words.append(key)
        else:
            words.append(f"{key} ({getattr(old, key)} then, {new} now)")
    return ", ".join(words)

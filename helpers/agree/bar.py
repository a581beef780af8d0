"""The bar: what a pilot must achieve, frozen before a tuned result is seen, and the verdict of a result against it."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from helpers import CourseError
from helpers.agree import sealed
from helpers.agree.verdict import Verdict, in_words, needs, paired, side
from helpers.core.files import write_text
from helpers.measure.error_costs import (
    Costs,
    check_costs,
    check_kinds,
    error_cost,
    error_kinds,
    refused,
)
from helpers.measure.intervals import highest_rate, share
from helpers.measure.planning import rows_for_perfect, rows_for_zero_errors

LADDER = ("majority", "rules", "TF-IDF", "do nothing")  # what a bar may name as its baseline
COST = "cost of errors"
OWN = (
    "frozen",
    "version",
    "revised",
    "seen_before",
)  # written by freeze and revise; everything else is the reader's wish


def _points(value):
    """A share between 0 and 1; 5 for five points is the mistake to catch."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"is {value!r}; write a number, 0.05 for 5 points")
    if not 0 <= value < 1:
        raise ValueError(
            f"is {value:g}; write {value / 100:g} for {value:g} points"
            if 1 <= value < 100
            else f"is {value:g}; write a share between 0 and 1, 0.05 for 5 points"
        )
    return float(value)


Points = Annotated[float, BeforeValidator(_points)]


class Bar(BaseModel):
    """A frozen `bar.yaml`. Make one with `Bar.freeze`, find it with `Bar.load`.

    `margin`: points by which the exact record must beat `baseline`. `secondary`: {field: points it may lose at most}.
    `critical`: {kind of error: highest rate per message}. `max_cost_per_1000`: what the errors may cost, None for no limit.
    `rows`: test rows agreed on. `looks`: how often the test may be looked at; the seeds of one training are one look.
    """

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
    _pilot: object = PrivateAttr(default=None)
    _folder: Path = PrivateAttr(default=None)

    @classmethod
    def freeze(cls, pilot, profile=None, reason="", agreed=True, **wish):
        """Check a wish and write it down as bar.yaml with a hash and as bar.md; the same wish again returns the bar frozen already.

        Other values are refused with the keys that differ, unless `reason` says why: then a new version is written. A test set that
        only grew needs no reason while no tuned answer exists. Without `agreed` a first wish becomes bar_draft.md and nothing is frozen.
        `max_cost_per_1000` is today's cost when the wish leaves it out.
        """
        wish = {"pilot": pilot.name, "test_sha256": sealed.rows_hash(pilot), **wish}
        try:
            new = cls.model_validate(wish)
        except ValidationError as problem:
            raise refused(problem, "The bar: ") from None
        if "max_cost_per_1000" not in wish:
            new = new.model_copy(update={"max_cost_per_1000": new.costs.today})
        new._check(pilot)
        if too_few := new.too_few():
            print(
                "These rows cannot show, even for a result without an error:",
                ", ".join(f"{name} ({needs(need)})" for name, need in too_few.items()) + ".",
            )
        home = sealed.home(pilot, profile)
        place = next(
            (p for p in sealed.places(pilot, profile)[:-1] if sealed.exists(p, "bar")), None
        )
        if (
            place is None or home.name == "smoke" and place != home
        ):  # a smoke run never touches a real bar
            new = new.model_copy(
                update={
                    "seen_before": sealed.seen_before(pilot),
                    "frozen": date.today().isoformat() if agreed else "",
                }
            )
            new._pilot, new._folder = pilot, home
            write_text(home / ("bar.md" if agreed else "bar_draft.md"), in_words(new))
            return new._write() if agreed else new
        old = cls._read(place, pilot)
        changed = [
            k for k in cls.model_fields if k not in OWN and getattr(old, k) != getattr(new, k)
        ]
        if not changed:
            return old
        values = {k: getattr(new, k) for k in changed}
        before = {h for entry in sealed.ledger(place, "bar")[-1:] for h in entry.get("rows", ())}
        grown = before and before < {*sealed.row_hashes(pilot)} and not sealed.seen_before(pilot)
        if grown and {*changed} <= {"rows", "test_sha256"}:
            return old.revise(
                f"the test set grew from {old.rows} to {new.rows} rows", grown=True, **values
            )
        if not reason.strip():
            raise CourseError(
                f"The bar of {pilot.name!r} was frozen on {old.frozen} with other values for "
                f"{_changes(old, new, changed)}; put the old values back, or give a reason to revise it in the open."
            )
        return old.revise(reason, **values)

    def revise(self, reason, grown=False, **changes):
        """Write a new version with `changes`; the old one stays in the ledger and every verdict names the revision.

        `grown`: only test rows were added before a tuned result; the ledger notes it, the verdicts need not.
        """
        if not reason.strip():
            raise CourseError(
                "A bar is revised with a reason in words, because every later result will show it."
            )
        said = f"revised on {date.today().isoformat()} because {reason.strip()}"
        raw = {
            **self.model_dump(mode="json"),
            "test_sha256": sealed.rows_hash(self._pilot),
            **changes,
        }
        raw |= {
            "version": self.version + 1,
            "revised": [*self.revised] if grown else [*self.revised, said],
            "seen_before": self.seen_before or sealed.seen_before(self._pilot),
        }
        try:
            new = Bar.model_validate(raw)
        except ValidationError as problem:
            raise refused(problem, "The bar: ") from None
        new._check(self._pilot)
        new._pilot, new._folder = self._pilot, self._folder
        return new._write(reason.strip())

    @classmethod
    def load(cls, pilot, profile=None):
        """The frozen bar: from the pilot's folder, else from its runs, else the reference copy of the course.

        Raises CourseError when there is none, when it was edited (naming the key), or when the test rows are not the same.
        """
        place = next((p for p in sealed.places(pilot, profile) if sealed.exists(p, "bar")), None)
        if place is None:
            raise CourseError(
                f"There is no bar.yaml for the pilot {pilot.name!r}; run chapter 02 once to freeze one."
            )
        bar = cls._read(place, pilot)
        if bar.test_sha256 != sealed.rows_hash(pilot):
            raise CourseError(
                f"The test rows of {pilot.name!r} are not the ones its bar was frozen on ({bar.frozen}); put those rows "
                "back, or run chapter 02 again, with a reason unless rows were only added before a tuned result."
            )
        return bar

    @classmethod
    def _read(cls, folder, pilot):
        try:
            bar = cls.model_validate(sealed.unseal(folder, "bar", cls.model_fields))
        except ValidationError as problem:
            raise refused(problem, "bar.yaml: ") from None
        if bar.pilot != pilot.name:
            raise CourseError(
                f"bar.yaml belongs to the pilot {bar.pilot!r}, not to {pilot.name!r}; run chapter 02 for this one."
            )
        bar._pilot, bar._folder = pilot, folder
        return bar

    def _check(self, pilot):
        """Raises CourseError when a field, a kind of error, the baseline or the number of rows does not fit the pilot."""
        there = len(sealed.row_hashes(pilot))
        if self.baseline not in LADDER:
            raise CourseError(
                f"The bar: there is no baseline {self.baseline!r}; there are {', '.join(LADDER)}."
            )
        if self.rows > there:
            raise CourseError(
                f"The bar: rows is {self.rows}, but there are {there} test rows; label more, or write at most {there}."
            )
        strange = [name for name in self.secondary if name not in pilot.fields]
        if strange:
            raise CourseError(
                f"The bar: secondary names {strange[0]!r}, which is no field; there are {', '.join(pilot.fields)}."
            )
        check_kinds(pilot, self.critical, "The bar's critical errors")
        check_costs(pilot, self.costs)
        if 0 in self.critical.values():
            raise CourseError(
                "The bar: no number of rows shows a critical error rate of 0; write the highest rate you can live with."
            )

    def _write(self, note=""):
        sealed.seal(
            self._folder,
            "bar",
            self.model_dump(mode="json"),
            rows=sealed.row_hashes(self._pilot),
            note=note,
        )
        write_text(self._folder / "bar.md", in_words(self))
        (self._folder / "bar_draft.md").unlink(missing_ok=True)
        return self

    def copy_to(self, folder):
        """Put bar.yaml, its ledger and bar.md into a folder, for example the pilot's own, so that they travel with it."""
        for name in ("bar_ledger.jsonl", "bar.yaml"):
            write_text(Path(folder) / name, (self._folder / name).read_text(encoding="utf-8"))
        write_text(Path(folder) / "bar.md", in_words(self))

    def too_few(self):
        """{condition: rows it needs, None for 'no number'} of what a result without an error could not show on the agreed rows."""
        level = (
            self.alpha / self.looks
        )  # at best: the baseline is always wrong in the whole record, always right in a field
        need = {"exact record": rows_for_perfect(1.0, self.margin, level)}
        need |= {name: rows_for_perfect(0.0, -loss, level) for name, loss in self.secondary.items()}
        need |= {kind: rows_for_zero_errors(limit) for kind, limit in self.critical.items()}
        return {name: rows for name, rows in need.items() if rows is None or rows > self.rows}

    def judged(self, by_seed):
        """The seed whose model is judged, of {seed: Scored}: the one with the median exact record, of an even number the lower.

        Not the best, which is luck, and not a vote of all, which would put several models to work. Raises CourseError when one of
        the agreed seeds is missing.
        """
        if missing := [seed for seed in self.seeds if seed not in by_seed]:
            raise CourseError(
                f"The bar names the seeds {self.seeds}, but there is no result for {missing[0]}; train that one too."
            )
        return sorted(self.seeds, key=lambda seed: by_seed[seed].exact.mean())[
            (len(self.seeds) - 1) // 2
        ]

    @property
    def remarks(self):
        """What every result must say about this bar besides its date."""
        late = ["frozen after a tuned result had been seen"] if self.seen_before else []
        return late + list(self.revised) + ([] if self.frozen else ["a draft, nothing is frozen"])

    def __str__(self):
        head = f"bar of {self.frozen}, version {self.version}" if self.frozen else "draft bar"
        return (
            f"{head}: exact record {100 * self.margin:g} points over {self.baseline} "
            f"on {self.rows} rows" + "".join(f"; {remark}" for remark in self.remarks)
        )

    def verdict(self, tuned, baseline, data, looks=1):
        """A Verdict on two Scored over the same labelled rows `data` (the baseline: the one the bar names).

        Pass: every interval lies on the good side and the agreed rows were used. Fail: one lies on the bad side, or the agreed rows
        did not show what they could have shown. Else: not enough rows, as for a condition that even a result without an error would
        not show on them. Intervals are at 1 - alpha / looks (Bonferroni: each look gets its part of alpha), for the looks allowed or
        made. Every condition must hold, so no further correction is due for their number.
        """
        n, level = len(data), self.alpha / max(looks, self.looks)
        exact = paired(tuned.exact, baseline.exact, level)
        parts = {"exact record": side(exact.low - self.margin, exact.high - self.margin)}
        need = {"exact record": rows_for_perfect(1 - baseline.exact.mean(), self.margin, level)}
        fields = {
            name: paired(tuned.right[name], baseline.right[name], level) for name in self.secondary
        }
        for name, gap in fields.items():
            parts[name] = side(gap.low + self.secondary[name], gap.high + self.secondary[name])
            need[name] = rows_for_perfect(
                1 - baseline.right[name].mean(), -self.secondary[name], level
            )
        critical = {}
        for kind, limit in self.critical.items():
            hits = [
                kind in error_kinds(self._pilot, row, record, (kind,))
                for row, record in zip(data, tuned.records, strict=True)
            ]
            critical[kind] = replace(
                share(hits), low=1 - highest_rate(n - sum(hits), n), high=highest_rate(sum(hits), n)
            )
            parts[kind] = side(limit - critical[kind].high, limit - critical[kind].low)
            need[kind] = rows_for_zero_errors(limit)
        cost = error_cost(self._pilot, data, tuned.records, self.costs, alpha=level)
        if self.max_cost_per_1000 is not None:
            parts[COST] = side(
                self.max_cost_per_1000 - cost.high, self.max_cost_per_1000 - cost.low
            )
        small = {
            name: rows for name, rows in need.items() if parts[name] == "open" and rows and rows > n
        }
        bad = [
            name
            for name, found in parts.items()
            if found == "missed" or found == "open" and n >= self.rows and name not in small
        ]
        status = (
            "fail"
            if bad
            else "not enough rows"
            if "open" in parts.values() or n < self.rows
            else "pass"
        )
        made = [f"looked {looks} times, {self.looks} agreed"] if looks > self.looks else []
        return Verdict(status, exact, fields, critical, cost, parts, small, n, self, made)


def _changes(old, new, keys):
    def plain(bar, key):
        value = getattr(bar, key)
        return f"{value:g}" if isinstance(value, float) else str(value)

    short = {
        "costs": "costs",
        "secondary": "secondary",
        "critical": "critical",
        "test_sha256": "the test rows",
    }
    return ", ".join(
        short[k] if k in short else f"{k} ({plain(old, k)} then, {plain(new, k)} now)" for k in keys
    )

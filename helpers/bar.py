"""The bar: what a pilot must achieve, frozen before a tuned result is seen, and the verdict of a result against it."""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from helpers import ROOT, CourseError, rows, sealed
from helpers.error_costs import Costs, check_costs, check_kinds, refused
from helpers.runs import write_text
from helpers.scoring import Comparison, compare, error_kinds, highest_rate, paired_interval, share

OWN = ("frozen", "version", "revised", "seen_before")  # written by freeze and revise; everything else is the reader's wish


def _points(value):
    """A share between 0 and 1; 5 for five points is the mistake to catch."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"is {value!r}; write a number, 0.05 for 5 points")
    if not 0 <= value < 1:
        raise ValueError(f"is {value:g}; write {value / 100:g} for {value:g} points" if 1 <= value < 100 else
                         f"is {value:g}; write a share between 0 and 1, 0.05 for 5 points")
    return float(value)


Points = Annotated[float, BeforeValidator(_points)]


class Bar(BaseModel):
    """A frozen `bar.yaml`. Make one with `Bar.freeze`, find it with `Bar.load`.

    `margin`: points by which the exact record must beat `baseline`. `secondary`: {field: points it may lose at most}.
    `critical`: {kind of error: highest rate per message}. `rows`: test rows agreed on. `looks`: how often the test may be looked at.
    """

    model_config = ConfigDict(extra="forbid")
    pilot: str
    primary: Literal["exact record"] = "exact record"
    baseline: str
    margin: Points
    secondary: dict[str, Points] = {}
    critical: dict[str, Points] = {}
    rows: int = Field(ge=1)
    alpha: Points = 0.05
    looks: int = Field(default=1, ge=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    costs: Costs
    test_sha256: str
    frozen: str = ""
    version: int = 1
    revised: list[str] = []
    seen_before: bool = False
    _pilot: object = PrivateAttr(default=None)
    _folder: Path = PrivateAttr(default=None)

    @classmethod
    def freeze(cls, pilot, profile=None, reason="", **wish):
        """Check a wish and write it down as bar.yaml with a hash; the same wish again returns the bar that is frozen already.

        Other values are refused with the keys that differ, unless `reason` says why: then a new version is written.
        """
        wish = {"pilot": pilot.name, "test_sha256": rows_hash(pilot), **wish}
        try:
            new = cls.model_validate(wish)
        except ValidationError as problem:
            raise refused(problem, "The bar: ") from None
        new._check(pilot)
        home = _home(pilot, profile)
        place = next((p for p in _places(pilot, profile)[:-1] if sealed.exists(p, "bar")), None)
        if place is None or home.name == "smoke" and place != home:  # a smoke run never touches a real bar
            new = new.model_copy(update={"frozen": date.today().isoformat(), "seen_before": seen_before(pilot)})
            return new._write(pilot, home)
        old = cls._read(place, pilot)
        changed = [k for k in cls.model_fields if k not in OWN and getattr(old, k) != getattr(new, k)]
        if not changed:
            return old
        if not reason.strip():
            raise CourseError(f"The bar of {pilot.name!r} was frozen on {old.frozen} with other values for "
                              f"{_changes(old, new, changed)}; put the old values back, or give a reason to revise it in the open.")
        return old.revise(reason, **{k: getattr(new, k) for k in changed})

    def revise(self, reason, **changes):
        """Write a new version with `changes`; the old one stays in the ledger and every verdict names the revision."""
        if not reason.strip():
            raise CourseError("A bar is revised with a reason in words, because every later result will show it.")
        said = f"revised on {date.today().isoformat()} because {reason.strip()}"
        raw = {**self.model_dump(mode="json"), "test_sha256": rows_hash(self._pilot), **changes}
        raw |= {"version": self.version + 1, "revised": [*self.revised, said],
                "seen_before": self.seen_before or seen_before(self._pilot)}
        try:
            new = Bar.model_validate(raw)
        except ValidationError as problem:
            raise refused(problem, "The bar: ") from None
        new._check(self._pilot)
        return new._write(self._pilot, self._folder)

    @classmethod
    def load(cls, pilot, profile=None):
        """The frozen bar: from the pilot's folder, else from its runs, else the reference copy of the course.

        Raises CourseError when there is none, when it was edited (naming the key), or when the test rows are not the same.
        """
        place = next((p for p in _places(pilot, profile) if sealed.exists(p, "bar")), None)
        if place is None:
            raise CourseError(f"There is no bar.yaml for the pilot {pilot.name!r}; run chapter 02 once to freeze one.")
        bar = cls._read(place, pilot)
        if bar.test_sha256 != rows_hash(pilot):
            raise CourseError(f"The test rows of {pilot.name!r} are not the ones its bar was frozen on ({bar.frozen}); put those rows "
                              "back, or revise the bar in chapter 02 with a reason.")
        return bar

    @classmethod
    def _read(cls, folder, pilot):
        try:
            bar = cls.model_validate(sealed.unseal(folder, "bar", cls.model_fields))
        except ValidationError as problem:
            raise refused(problem, "bar.yaml: ") from None
        if bar.pilot != pilot.name:
            raise CourseError(f"bar.yaml belongs to the pilot {bar.pilot!r}, not to {pilot.name!r}; run chapter 02 for this one.")
        bar._pilot, bar._folder = pilot, folder
        return bar

    def _check(self, pilot):
        """Raises CourseError when a field or a kind of error in this bar is unknown to the pilot."""
        strange = [name for name in self.secondary if name not in pilot.fields]
        if strange:
            raise CourseError(f"The bar: secondary names {strange[0]!r}, which is no field; there are {', '.join(pilot.fields)}.")
        check_kinds(pilot, self.critical, "The bar's critical errors")
        check_costs(pilot, self.costs)
        if 0 in self.critical.values():
            raise CourseError("The bar: no number of rows shows a critical error rate of 0; write the highest rate you can live with.")

    def _write(self, pilot, folder):
        sealed.seal(folder, "bar", self.model_dump(mode="json"))
        self._pilot, self._folder = pilot, folder
        return self

    def copy_to(self, folder):
        """Put bar.yaml and its ledger into a folder, for example the pilot's own, so that they travel with it."""
        for name in ("bar_ledger.jsonl", "bar.yaml"):
            write_text(Path(folder) / name, (self._folder / name).read_text(encoding="utf-8"))

    @property
    def remarks(self):
        """What every result must say about this bar besides its date."""
        late = ["frozen after a tuned result had been seen"] if self.seen_before else []
        return late + list(self.revised)

    def __str__(self):
        return (f"bar of {self.frozen}, version {self.version}: exact record {100 * self.margin:g} points over {self.baseline} "
                f"on {self.rows} rows" + "".join(f"; {remark}" for remark in self.remarks))

    def verdict(self, tuned, baseline, data, looks=1):
        """A Verdict on two Scored over the same labelled rows `data` (the baseline: the one the bar names).

        Pass: every interval lies on the good side and the agreed rows were used. Fail: one lies on the bad side, or the agreed rows
        did not show it. Else: not enough rows. Intervals are at 1 - alpha / looks (Bonferroni), for the looks allowed or made. Every
        condition must hold, so no further correction is due for their number.
        """
        n, level = len(data), self.alpha / max(looks, self.looks)
        exact = _paired(tuned.exact, baseline.exact, level)
        parts = {"exact record": _side(exact.low - self.margin, exact.high - self.margin)}
        fields = {name: _paired(tuned.right[name], baseline.right[name], level) for name in self.secondary}
        parts |= {name: _side(gap.low + self.secondary[name], gap.high + self.secondary[name]) for name, gap in fields.items()}
        critical = {}
        for kind, limit in self.critical.items():
            hits = [kind in error_kinds(self._pilot, row, record, (kind,)) for row, record in zip(data, tuned.records, strict=True)]
            critical[kind] = replace(share(hits), low=1 - highest_rate(n - sum(hits), n), high=highest_rate(sum(hits), n))
            parts[kind] = _side(limit - critical[kind].high, limit - critical[kind].low)
        bad = [name for name, side in parts.items() if side == "missed" or side == "open" and n >= self.rows]
        waiting = [name for name, side in parts.items() if side == "open"]
        status = "fail" if bad else "not enough rows" if waiting or n < self.rows else "pass"
        made = [f"looked {looks} times, {self.looks} agreed"] if looks > self.looks else []
        return Verdict(status, exact, fields, critical, parts, n, self, made)


@dataclass(frozen=True)
class Verdict:
    """`status`: pass, fail or not enough rows. `parts`: {condition: shown, missed or open}; prints as one line."""

    status: str
    exact: Comparison
    fields: dict
    critical: dict
    parts: dict
    n: int
    bar: Bar
    made: list

    def __str__(self):
        why = {side: [name for name, found in self.parts.items() if found == side] for side in ("missed", "open")}
        low, high = 100 * self.exact.low, 100 * self.exact.high
        return (f"{self.status.upper()}: exact record {100 * self.exact.difference:+.1f} points [{low:+.1f}, {high:+.1f}] against "
                f"{self.bar.baseline}, asked {100 * self.bar.margin:+g}" + "".join(
                    f"; {word}: {', '.join(why[side])}" for side, word in (("missed", "missed"), ("open", "not shown")) if why[side])
                + f"; {self.n} rows, {self.bar.rows} agreed" + "".join(f"; {r}" for r in self.made + self.bar.remarks))


def _paired(a, b, alpha):
    found = compare(a, b)
    low, high = paired_interval(found.only_a, found.only_b, found.n, alpha)
    return replace(found, low=low, high=high)


def _side(low, high):
    """An interval of 'how far on the good side' as shown, missed or open."""
    return "shown" if low >= 0 else "missed" if high < 0 else "open"


def _home(pilot, profile=None):
    """The folder of this pilot's runs; smoke has one of its own."""
    smoke = (profile.name if profile else os.environ.get("COURSE_PROFILE")) == "smoke"
    return Path(os.environ.get("COURSE_RUNS") or ROOT / "runs") / pilot.name / ("smoke" if smoke else "")


def _places(pilot, profile=None):
    """Where a bar may lie, in the order they are asked: the pilot's folder, its runs (first in smoke), the reference copy."""
    home = _home(pilot, profile)
    own = [home, pilot.folder] if home.name == "smoke" else [pilot.folder, home]
    return [*own, ROOT / "data/reference" / pilot.name / "02"]


def _changes(old, new, keys):
    def plain(bar, key):
        value = getattr(bar, key)
        return f"{value:g}" if isinstance(value, float) else str(value)

    short = {"costs", "secondary", "critical", "test_sha256"}
    return ", ".join(k if k in short else f"{k} ({plain(old, k)} then, {plain(new, k)} now)" for k in keys)


def rows_hash(pilot):
    """SHA-256 over the texts and labels of all test rows; saving the file again in another program does not change it."""
    found = sorted(json.dumps([row[k] for k in ("id", pilot.text, *pilot.fields)], ensure_ascii=False) for row in rows.load(pilot).test)
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def seen_before(pilot):
    """True when answers of a tuned model to this pilot's test rows exist already: then the bar comes late, and says so."""
    places = [ROOT / "data/reference" / pilot.name, Path(os.environ.get("COURSE_RUNS") or ROOT / "runs") / pilot.name]
    return any(list(place.glob("[0-9][0-9]/answers/tuned-*.jsonl")) for place in places)

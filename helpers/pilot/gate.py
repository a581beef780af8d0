"""The gate before training: is there something that a tuned model could do, and labels to learn?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from helpers import CourseError
from helpers.core.pilot import Pilot
from helpers.core.rows import read
from helpers.measure import baselines
from helpers.measure.agreement import Agreement, kappa
from helpers.measure.intervals import Comparison, Share, compare, share
from helpers.measure.scoring import Scored, score

SECOND = "second_reading.csv"  # beside the rows: another person's labels
PROCEED = "PROCEED"
FIX = "FIRST FIX THE LABELS"
DO_NOT = "DO NOT TRAIN"
GOOD_ENOUGH = 0.9  # share of exact records with which a cheap way is left alone
NO_AGREEMENT = 0.4  # kappa: below, two people do not mean the same by a label
SOUND = 0.6  # kappa: below, the labels are worth repairing before anything learns them
CONTRADICTED = 0.05  # share of rows whose message stands there with another label, too
FEW_ROWS = 100  # below, that nothing tells the labels apart is not shown


@dataclass(frozen=True)
class Gate:
    """What the gate says and why; prints as lines.

    `labels_hold`: nothing speaks against the labels themselves. `cheap`, `common`: the best cheap
    way and the commonest record on training rows that they did not learn from. `way_of`: {field:
    cheap way}. `prompted`: the Share of a model with worked examples, None where none was asked.
    `why`: sentences, what decides first.
    """

    verdict: str
    why: list[str]
    labels_hold: bool
    cheap: Scored
    common: Scored
    way_of: dict[str, str]
    prompted: Share | None = None
    gaps: dict[str, Comparison] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [self.verdict, *(f"- {reason}" for reason in self.why)]
        lines.append(f"- best cheap way, rows it did not learn: {self.cheap.share}")
        lines.append(f"- commonest record: {self.common.share}")
        if self.prompted:
            lines.append(f"- prompted model: {self.prompted}")
        return "\n".join(lines)


def gate_before_training(
    pilot: Pilot,
    train: baselines.Rows,
    *,
    prompted: Sequence[bool] | None = None,
    agreements: Mapping[str, Agreement] | None = None,
    contradicted: int = 0,
    good_enough: float = GOOD_ENOUGH,
    seed: int = 0,
) -> Gate:
    """PROCEED, FIRST FIX THE LABELS or DO NOT TRAIN, from training rows alone.

    `prompted`: was a prompted model right, of training rows that were no examples. `agreements`:
    {field: Agreement of two people}. `contradicted`: rows put aside because their message stands
    there with another label. `good_enough`: the share of exact records that is enough for the work.
    """
    fold = baselines.folds(pilot, train, 5, seed)
    # the best way of each field is chosen anew in every fold
    cheap = score(pilot, train, baselines.out_of_fold(pilot, train, baselines.best_cheap, fold))
    common = score(pilot, train, baselines.out_of_fold(pilot, train, baselines.majority, fold))
    way_of = baselines.best_way_of_each_field(pilot, train, seed)
    gaps = {}
    for name in pilot.labels:
        gaps[name] = compare(cheap.right[name], common.right[name], seed)
    asked = share(prompted) if prompted is not None and len(prompted) else None

    quarrels = _quarrels(agreements or {}, NO_AGREEMENT)
    repairs = _quarrels(agreements or {}, SOUND) + _contradictions(contradicted, len(train))
    sound = [n for n, one in (agreements or {}).items() if one.low is not None and one.low >= SOUND]
    # where two people agree, that no cheap way tells the labels is a task for a model
    told = {name: gap for name, gap in gaps.items() if name not in sound}
    repairs += _unlearnable(told, len(train))
    enough = _enough("best cheap way", cheap.share, good_enough)
    if asked is not None:
        enough += _enough("prompted model", asked, good_enough)
    if quarrels:
        verdict, why = DO_NOT, [*quarrels, "Write what each label means, then label anew."]
    elif repairs:
        verdict, why = FIX, repairs
    elif enough:
        verdict, why = DO_NOT, enough
    else:
        verdict, why = PROCEED, [_room(cheap.share, good_enough)]
    hold = not quarrels and not repairs
    return Gate(verdict, why, hold, cheap, common, way_of, asked, gaps)


def second_reading(pilot: Pilot, train: baselines.Rows) -> dict[str, Agreement]:
    """{label: Agreement} of the labels with SECOND beside them, the same ids; {} without one.

    A cell that is still empty is no answer, unless the field is optional. Raises CourseError for a
    file without the columns id and those of the labels.
    """
    path = pilot.folder / SECOND
    if pilot.source or not path.is_file():
        return {}
    second = read(path)
    missing = [name for name in ("id", *pilot.labels) if second and name not in second[0]]
    if missing:
        what = f"{SECOND} has no column {missing[0]!r}"
        raise CourseError(f"{what}; it needs id and {', '.join(pilot.labels)}.")
    theirs = {str(row["id"]): row for row in second}
    both = [(row, theirs[row["id"]]) for row in train if row["id"] in theirs]
    agreements = {}
    for name in pilot.labels:
        pairs = [(one[name], other[name] or None) for one, other in both]
        if not pilot.fields[name].optional:
            pairs = [pair for pair in pairs if pair[1] is not None]
        if pairs:
            agreements[name] = kappa([one for one, _ in pairs], [other for _, other in pairs])
    return agreements


def _quarrels(agreements: Mapping[str, Agreement], least: float) -> list[str]:
    """A sentence for each field in which two people are shown to agree too little."""
    said = []
    for name, one in agreements.items():
        if one.high is not None and one.high < least:
            what = f"kappa {one.kappa:.2f}, at most {one.high:.2f} on {one.n} rows"
            said.append(f"Two people do not agree on {name} ({what}; wanted {least:g}).")
    return said


def _contradictions(contradicted: int, rows: int) -> list[str]:
    part = contradicted / (contradicted + rows)
    if part <= CONTRADICTED:
        return []
    what = f"{contradicted} rows ({part:.0%}) have a message that stands there with another label"
    return [f"{what}: decide which is right."]


def _unlearnable(gaps: Mapping[str, Comparison], rows: int) -> list[str]:
    """A sentence for each label that no cheap way tells better than its commonest value."""
    if rows < FEW_ROWS:
        return []
    said = []
    for name, gap in gaps.items():
        if gap.low <= 0:
            what = f"No cheap way tells {name} better than its commonest value does ({gap})"
            said.append(f"{what}: let a second person label fifty of these rows.")
    return said


def _enough(way: str, right: Share, good_enough: float) -> list[str]:
    if right.low < good_enough:
        return []
    what = f"The {way} has {right.value:.1%} of the records right, at least {right.low:.1%}"
    return [f"{what}: {good_enough:.0%} is enough, use it."]


def _room(cheap: Share, good_enough: float) -> str:
    what = f"The best cheap way has {cheap.value:.1%} of the records right"
    if cheap.value >= good_enough:
        few = f"at least {cheap.low:.1%} on {cheap.n} rows"
        return f"{what}, {few}: more labelled rows may be all it takes to show {good_enough:.0%}."
    return f"{what}, not shown to reach {good_enough:.0%}: a tuned model has something to win."

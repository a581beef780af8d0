"""What to do after a comparison with the best cheap way, above all after a lost one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from helpers import CourseError
from helpers.core.pilot import Pilot
from helpers.measure.baselines import Rows, by_field, folds, out_of_fold
from helpers.measure.intervals import Comparison, compare, rows_needed
from helpers.measure.scoring import Scored, same_value, score

ALPHA = 0.05


def _verdict(gap: Comparison) -> str:
    """'better than', 'worse than' or 'not distinguishable from', by test and interval."""
    if gap.p >= ALPHA or gap.low <= 0 <= gap.high:
        return "not distinguishable from"
    return "better than" if gap.difference > 0 else "worse than"


def next_steps(
    pilot: Pilot,
    train: Rows,
    tuned: Scored,
    cheap: Scored,
    way_of: Mapping[str, str],
    seed: int = 0,
    system: Scored | None = None,
) -> list[str]:
    """Sentences: the verdict, and what it asks for.

    `tuned`, `cheap` and `system` are scored on the same test rows, `way_of` is that of
    best_per_field. Which rows to label and to read comes from training rows alone, each answered
    out of its own fold.
    """
    gap = compare(tuned.exact, cheap.exact, seed)
    words = _verdict(gap)
    steps = [f"The tuned model is {words} the best cheap way: {gap}."]
    if system is not None:
        steps.append(_what_to_use(system, tuned, cheap, seed))
    kept = []
    for field, way in way_of.items():
        mine, theirs = tuned.right[field].mean(), cheap.right[field].mean()
        if theirs >= mine and theirs > 0:
            kept.append(f"{field} ({way} {theirs:.1%}, tuned {mine:.1%})")
    if kept:
        named = ", ".join(kept)
        steps.append(f"Let the cheap way read what it reads at least as well: {named}.")
    if words == "better than":
        return steps
    if words == "not distinguishable from":
        steps.append(_rows_to_settle(gap))
    fold = folds(pilot, train, 5, seed)

    def half(pilot: Pilot, rows: Rows, texts: Sequence[str]) -> list[dict]:
        # by label, so that half of the rows have half of each
        ordered = sorted(rows, key=lambda row: [str(row[name]) for name in pilot.labels])
        return by_field(pilot, ordered[::2], texts, way_of)

    def whole(pilot: Pilot, rows: Rows, texts: Sequence[str]) -> list[dict]:
        return by_field(pilot, rows, texts, way_of)

    records = out_of_fold(pilot, train, whole, fold)
    few = score(pilot, train, out_of_fold(pilot, train, half, fold))
    steps.append(_rows_to_label(score(pilot, train, records), few))
    return [*steps, *_to_read(pilot, train, records)]


def _what_to_use(system: Scored, tuned: Scored, cheap: Scored, seed: int) -> str:
    """The system, where neither of the two is better; else the better one."""
    said = []
    for name, other in (("the tuned model alone", tuned), ("the best cheap way", cheap)):
        words = _verdict(compare(system.exact, other.exact, seed))
        if words == "worse than":
            return f"The system is worse than {name}, which is simpler: use that."
        said.append(f"{words} {name}")
    sentence = f"The system is {said[0]} and {said[1]}"
    if said[1].startswith("better"):
        return f"{sentence}: use the system."
    return f"{sentence}: use the best cheap way, which is simpler."


def _rows_to_settle(gap: Comparison) -> str:
    if gap.only_a == gap.only_b:
        return "Both are right equally often here: decide by price, or label more test rows."
    gain, discordant = abs(gap.only_a - gap.only_b) / gap.n, (gap.only_a + gap.only_b) / gap.n
    try:
        rows = rows_needed(gain, discordant)
    except CourseError:  # more than a million
        return "So small a difference cannot be shown: decide by price."
    return f"If the difference is real, about {rows:,} test rows show it 8 times of 10."


def _rows_to_label(all_rows: Scored, half: Scored) -> str:
    more, number = compare(all_rows.exact, half.exact), len(all_rows.exact)
    curve = f"{half.share.value:.1%} exact with half of the {number} training rows, "
    curve += f"{all_rows.share.value:.1%} with all, cross-validated"
    if more.low > 0:
        return f"The cheap way still learns ({curve}): label {number} rows more."
    if more.difference > 0:
        return f"The cheap way may still learn ({curve}): label {number} rows more and see."
    return (
        f"More rows like these do not help the cheap way ({curve}): make labels and guide sharper "
        "before you label more."
    )


def _to_read(pilot: Pilot, train: Rows, records: Sequence[dict]) -> list[str]:
    """The pair of labels that is mixed up most often; without one, the field most often wrong."""
    mixed, wrong = defaultdict(list), defaultdict(list)
    for row, record in zip(train, records):
        for field in pilot.fields:
            if not same_value(record[field], row[field]):
                wrong[field].append(str(row["id"]))
                pair = sorted([record[field] or "empty", row[field] or "empty"])
                if field in pilot.labels:
                    mixed[field, *pair].append(str(row["id"]))
    if not wrong:
        return []
    if mixed:
        # sorted first: of pairs mixed up equally often, the first by the alphabet
        field, one, other = max(sorted(mixed), key=lambda pair: len(mixed[pair]))
        rows, what = mixed[field, one, other], f"{field} {one!r} and {other!r} are mixed up"
    else:
        field = max(sorted(wrong), key=lambda name: len(wrong[name]))
        rows, what = wrong[field], f"{field} is wrong"
    named = ", ".join(rows[:5]) + (", …" if len(rows) > 5 else "")
    return [f"Read these first: {what} in {len(rows)} of {len(train)} training rows ({named})."]

"""How far two people who labelled the same rows agree, field by field, with intervals that hold for few rows."""

from collections import Counter
from dataclasses import dataclass

from statsmodels.stats.inter_rater import cohens_kappa

from helpers import CourseError
from helpers.measure.intervals import Share, share

FEW = 50  # below this the interval is too wide to decide anything


@dataclass(frozen=True)
class Agreement:
    """`observed`: the Share of rows with the same value; for a label field Cohen's `kappa` with its 95 % interval, else None."""

    observed: Share
    kappa: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def n(self):
        return self.observed.n

    def __str__(self):
        kappa = (
            ""
            if self.kappa is None
            else f"  kappa {self.kappa:.2f} [{self.low:.2f}, {self.high:.2f}]"
        )
        return f"{self.observed}{kappa}" + (f"; {self.note}" if self.note else "")


def kappa(first, second):
    """Agreement of two equally long lists of categories, with Cohen's kappa (statsmodels) and its 95 % interval.

    The interval is Wilson's for the observed agreement, carried over to kappa = (observed - chance) / (1 - chance) with chance as
    estimated. The usual one (large-sample error) is far too narrow for few rows or good annotators: with 40 rows and a kappa of 0.95 it
    covered the truth in 55 % of simulated pairs, this one in 95 % (tests/test_labeler.py repeats it). With one category alone on both
    sides kappa does not exist and is None.
    """
    if len(first) != len(second):
        raise CourseError(
            f"Agreement needs the same rows on both sides, not {len(first)} and {len(second)}."
        )
    same = share([a == b for a, b in zip(first, second)])
    note = f"only {same.n} rows, too few to conclude anything" if same.n < FEW else ""
    names = sorted({*first, *second}, key=str)
    pairs, rows, columns = Counter(zip(first, second)), Counter(first), Counter(second)
    chance = sum(rows[name] * columns[name] for name in names) / same.n**2
    if len(names) == 1:
        return Agreement(
            same,
            note="; ".join(
                filter(None, [f"everybody always said {names[0]!r}, so there is no kappa", note])
            ),
        )
    value = float(cohens_kappa([[pairs[a, b] for b in names] for a in names], return_results=False))
    low, high = ((bound - chance) / (1 - chance) for bound in (same.low, same.high))
    return Agreement(same, value, max(-1.0, low), high, note)


def agreement(first, second, pilot):
    """{field: Agreement} and "exact record", over the rows that both have labelled. `first`, `second`: Labelers, or their labels().

    Only label fields get a kappa. For a span or a pattern it is the share of equal values and nothing else: the values of a free span
    are not categories, chance agreement on them is close to nothing, and a kappa would only repeat the share under another name.
    Raises CourseError when a side is empty, when both are by the same annotator, and for different sets of rows.
    """
    sides = [
        {row["id"]: row for row in (side.labels() if hasattr(side, "labels") else side)}
        for side in (first, second)
    ]
    people = [{row.get("annotator") for row in side.values()} for side in sides]
    for side, which in zip(sides, ("first", "second")):
        if not side:
            raise CourseError(f"The {which} annotator has not labelled anything yet.")
    if people[0] & people[1]:
        raise CourseError(
            f"Both sides were labelled by {min(people[0] & people[1], key=str)!r}; agreement needs two annotators."
        )
    both = [i for i in sides[0] if i in sides[1]]
    known = [set(getattr(side, "texts", found)) for side, found in zip((first, second), sides)]
    apart = (
        hasattr(first, "texts")
        and hasattr(second, "texts")
        and not (known[0] <= known[1] or known[1] <= known[0])
    )
    if (
        apart
        or known[0].isdisjoint(known[1])
        or any(sides[0][i][pilot.text] != sides[1][i][pilot.text] for i in both)
    ):
        raise CourseError(
            "The two sides have different rows; a second annotator labels a blind_copy of the first one's rows."
        )
    if not both:
        raise CourseError("No row is labelled by both annotators yet.")
    values = {name: [[side[i][name] for i in both] for side in sides] for name in pilot.fields}
    few = f"only {len(both)} rows, too few to conclude anything" if len(both) < FEW else ""
    found = {
        name: kappa(a, b)
        if pilot.fields[name].type == "label"
        else Agreement(share([x == y for x, y in zip(a, b)]), note=few)
        for name, (a, b) in values.items()
    }
    return found | {
        "exact record": Agreement(
            share([all(a[i] == b[i] for a, b in values.values()) for i in range(len(both))]),
            note=few,
        )
    }

"""How far two people who labelled the same rows agree, field by field."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from helpers import CourseError
from helpers.core.pilot import Pilot
from helpers.measure.agreement import Agreement, few_rows, kappa
from helpers.measure.intervals import share

if TYPE_CHECKING:
    from helpers.label.labeler import Labeler


def between_annotators(first: "Labeler", second: "Labeler", pilot: Pilot) -> dict[str, Agreement]:
    """{field: Agreement} and "exact record", over the rows that both have labelled.

    Raises CourseError when a side is empty, for one annotator on both sides, and for different
    sets of rows.
    """
    mine = {row["id"]: row for row in first.labels()}
    theirs = {row["id"]: row for row in second.labels()}
    for word, labels in (("first", mine), ("second", theirs)):
        if not labels:
            raise CourseError(f"The {word} annotator has not labelled anything yet.")
    if first.annotator == second.annotator:
        raise CourseError(
            f"Both sides were labelled by {first.annotator!r}; agreement needs two annotators."
        )
    if not _one_task(first.texts, second.texts):
        raise CourseError(
            "The two sides have different rows; a second annotator labels a blind_copy of the "
            "first one's rows."
        )
    return agreement_of(pilot, mine, theirs)


def agreement_of(
    pilot: Pilot, mine: Mapping[str, Mapping], theirs: Mapping[str, Mapping]
) -> dict[str, Agreement]:
    """{field: Agreement} and "exact record" of two readings, each {id: record}, over shared ids.

    Raises CourseError when they share none.
    """
    shared = [key for key in mine if key in theirs]
    if not shared:
        raise CourseError("No row is labelled by both annotators yet.")
    result, exact = {}, np.ones(len(shared), bool)
    for name, spec in pilot.fields.items():
        a = [mine[key][name] or None for key in shared]
        b = [theirs[key][name] or None for key in shared]
        same = np.array([x == y for x, y in zip(a, b)])
        exact &= same
        if spec.type == "label":
            result[name] = kappa(a, b)
        else:  # values of a free span are no categories: a kappa would only repeat the share
            result[name] = Agreement(share(same), note=few_rows(len(shared)))
    return result | {"exact record": Agreement(share(exact), note=few_rows(len(shared)))}


def _one_task(mine: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    """Whether one side's rows are all among the other's, with the same texts."""
    if len(mine) < len(theirs):
        mine, theirs = theirs, mine
    return theirs.items() <= mine.items()

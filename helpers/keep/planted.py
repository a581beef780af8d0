"""Filters are devices that measure, and are tested like them: on rows whose fault is known."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from helpers.core import rows
from helpers.core.pilot import Pilot
from helpers.keep.pipeline import Filter, curate

COLUMNS = ["kind", "rows", "intended filter", "another", "kept", "by filter"]


def caught_by_kind(pilot: Pilot, filters: Sequence[Filter]) -> pd.DataFrame:
    """A line for each kind of fault in planted.jsonl: who took its rows, and how many were kept.

    The file in the pilot's folder has the columns of a labelled row, `planted` (the kind; "clean"
    for rows without a fault) and `intended` (the filters made for that kind). Without the file the
    table is empty. A row that `pii` has masked counts as taken by it where that was intended.
    """
    path = pilot.folder / "planted.jsonl"
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS).set_index("kind")
    planted = rows.read(path)
    funnel = curate(pilot, planted, filters)
    taken_by = {row["id"]: row["rejected_by"] for row in funnel.rejected}
    everything = [*funnel.kept, *funnel.rejected]
    masked = {row["id"] for row in everything if row.get("masked")}
    lines = []  # in the order in which the kinds stand in the file
    for kind in dict.fromkeys(row["planted"] for row in planted):
        of_kind = [row for row in planted if row["planted"] == kind]
        intended = of_kind[0]["intended"]
        takers: Counter = Counter()
        for row in of_kind:
            is_masked = row["id"] in masked and "pii" in intended
            takers["pii" if is_masked else taken_by.get(row["id"])] += 1
        kept = takers.pop(None, 0)
        right = sum(times for name, times in takers.items() if name in intended)
        by_filter = ", ".join(f"{name} {times}" for name, times in takers.most_common())
        others = len(of_kind) - kept - right
        lines.append([kind, len(of_kind), right, others, kept, by_filter])
    return pd.DataFrame(lines, columns=COLUMNS).set_index("kind")

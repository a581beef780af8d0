"""Curation as a row of named filters: what each kept, what it rejected, why; killed, it goes on."""

import functools
import hashlib
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import multiprocess
import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets

from helpers import ROOT, CourseError, __version__
from helpers.core.files import fingerprint, read_yaml
from helpers.core.pilot import Pilot
from helpers.core.text import did_you_mean

ROWS_FOR_PROCESSES = 20_000  # below this a second process takes longer to start than it saves
WITHHELD = "(withheld: too close to a test row)"
Check = Callable[[str], str | None]  # a text, and why it is rejected, if it is


@functools.cache
def catalogue() -> dict:
    """What the filters look for: data/catalog/filter_phrases.yaml."""
    return read_yaml(ROOT / "data/catalog/filter_phrases.yaml")


@dataclass(frozen=True)
class Stage:
    """One filter's line: rows in, rows kept, seconds of the work, the commonest reason."""

    name: str
    rows: int
    kept: int
    seconds: float
    commonest: str

    @property
    def rejected(self) -> int:
        """How many rows this filter took out."""
        return self.rows - self.kept

    def __str__(self) -> str:
        line = f"{self.name:16}{self.rows:>9,} -> {self.kept:>9,}  {self.seconds:7.2f} s"
        return f"{line}  {self.commonest}".rstrip()


@dataclass(frozen=True)
class Funnel:
    """`kept` and `rejected` rows (with rejected_by and reason), and a Stage for each filter."""

    kept: Dataset
    rejected: Dataset
    stages: Sequence[Stage] = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self.stages))


class CurationError(CourseError):
    """Nothing is left, or a label is gone; `funnel` holds what was done."""

    def __init__(self, sentence: str, funnel: Funnel) -> None:
        super().__init__(sentence)
        self.funnel = funnel


@dataclass(frozen=True)
class Filter:
    """A named filter. `judge` takes a batch (dict of lists) and returns a reason or None a row.

    With whole=True it takes the Dataset and returns {row number: reason}; with `adds` (new or
    changed text columns) a dict of those columns and 'reason'. `settings` name what the verdicts
    depend on beside pilot and catalogue. `withhold`: the column that a rejected row does not show.
    """

    name: str
    judge: Callable
    settings: dict = field(default_factory=dict)
    whole: bool = False
    adds: tuple[str, ...] = ()
    withhold: str | None = None

    def __call__(
        self, rows: Dataset, folder: Path | None = None, mark: str = "", processes: int = 1
    ) -> Funnel:
        """With `folder` every table is an Arrow file there, named by `mark`, and reused."""
        files = [folder and folder / f"{mark}.{part}.arrow" for part in ("verdicts", "rejected")]
        verdicts = self._verdicts(rows, files[0], processes)
        reasons = verdicts.data.column("reason").drop_null().to_pylist()
        bad = ~np.asarray(verdicts.data.column("reason").is_null())
        # a filter that changes texts passes the changed ones on
        kept = verdicts.remove_columns("reason") if self.adds else rows
        if not reasons:
            return Funnel(kept, _no_rejected_rows(rows))

        def with_reason(batch: dict, numbers: list[int]) -> dict:
            columns = {**batch, "rejected_by": [self.name] * len(numbers)}
            if self.withhold:
                columns[self.withhold] = [WITHHELD] * len(numbers)
            return {**columns, "reason": [reasons[number] for number in numbers]}

        features = _no_rejected_rows(rows).features
        # from the rows as they came: a rejected row keeps its text unmasked
        rejected = _map(rows.select(np.flatnonzero(bad)), with_reason, features, files[1])
        return Funnel(kept.select(np.flatnonzero(~bad)), rejected)

    def _verdicts(self, rows: Dataset, file: Path | None, processes: int) -> Dataset:
        """The column `reason`; with `adds`, all columns of the rows and the new ones besides."""
        reasons: dict[int, str] = {}
        # a finished table is read from its file: the judge need not run again
        if self.whole and not (file and file.is_file()):
            reasons = self.judge(rows)

        def verdict(batch: dict, numbers: list[int]) -> dict:
            if self.whole:
                return {"reason": [reasons.get(number) for number in numbers]}
            return self.judge(batch) if self.adds else {"reason": self.judge(batch)}

        several = processes > 1 and len(rows) >= ROWS_FOR_PROCESSES and not self.whole
        features = _with_text_columns(rows.features if self.adds else {}, *self.adds, "reason")
        more = {} if self.adds else {"remove_columns": rows.column_names}
        if not several:
            return _map(rows, verdict, features, file, **more)
        with _ctrl_c_for_this_process():
            return _map(rows, verdict, features, file, num_proc=processes, **more)


@contextmanager
def _ctrl_c_for_this_process() -> Iterator[None]:
    """Processes that are made inside let Ctrl-C pass; the one that waits for them ends them."""
    here = os.getpid()

    def interrupt(*_: object) -> None:
        if os.getpid() == here:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # gets no signals
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _map(
    rows: Dataset, function: Callable, features: Features, file: Path | None, **more: Any
) -> Dataset:
    """datasets.map into an Arrow file or memory; a finished file is taken, half of one never."""
    # without a fingerprint of ours, datasets would hash the function, and the tables it holds
    more["new_fingerprint"] = os.urandom(8).hex()
    if file:
        more["new_fingerprint"] = hashlib.sha256(file.name.encode()).hexdigest()[:16]
        more["cache_file_name"] = str(file)
    # without a file nothing is written, not even to the cache of datasets
    more |= {"keep_in_memory": not file, "load_from_cache_file": True, "features": features}
    return rows.map(function, batched=True, with_indices=True, **more)


def _with_text_columns(features: dict, *names: str) -> Features:
    return Features({**features, **dict.fromkeys(names, Value("string"))})


def _no_rejected_rows(like: Dataset) -> Dataset:
    features = _with_text_columns(like.features, "rejected_by", "reason")
    return Dataset.from_dict(dict.fromkeys(features, []), features)


def text_filter(
    name: str, pilot: Pilot, check: Check, withhold: str | None = None, **settings: Any
) -> Filter:
    """A Filter from `check(text)`, which returns a reason or None."""

    def judge(batch: dict) -> list[str | None]:
        return [check(text or "") for text in batch[pilot.text]]

    return Filter(name, judge, settings, withhold=withhold)


def field_filter(name: str, pilot: Pilot, check: Callable[..., str | None]) -> Filter:
    """A Filter from `check(text, field, FieldSpec, value)`; the first reason counts."""

    def judge(batch: dict) -> list[str | None]:
        reasons: list[str | None] = [None] * len(batch[pilot.text])
        for field_name, spec in pilot.fields.items():
            values = batch.get(field_name, [None] * len(reasons))
            for number, (text, value) in enumerate(zip(batch[pilot.text], values, strict=True)):
                reasons[number] = reasons[number] or check(text, field_name, spec, value)
        return reasons

    return Filter(name, judge)


def pick(filters: Sequence[Filter], names: Iterable[str]) -> list[Filter]:
    """The filters with these names, in the order of `filters`; CourseError for a misspelt name."""
    known = {step.name: step for step in filters}
    wanted = set(names)
    for name in sorted(wanted.difference(known)):
        raise CourseError(f"There is no filter {name!r}{did_you_mean(name, known)}")
    return [step for step in filters if step.name in wanted]


def texts_of(rows: Dataset, column: str) -> Iterator[str]:
    """The texts of a column one by one, read in batches; an empty cell is an empty text."""
    for batch in rows.select_columns(column).iter(1000):
        for text in batch[column]:
            yield text or ""


def content_hash(rows: Dataset) -> str:
    """A hash of the rows' contents, whatever file or memory they lie in."""
    digest = hashlib.sha256(json.dumps(rows.column_names).encode())
    for batch in rows.iter(5000):
        digest.update(json.dumps(batch, ensure_ascii=False, default=str).encode())
    return digest.hexdigest()


def curate(
    pilot: Pilot,
    rows: Dataset | Iterable[dict],
    filters: Sequence[Filter],
    folder: str | Path | None = None,
    processes: int = 1,
) -> Funnel:
    """Run the filters in order over the rows.

    With `folder` each finished filter is an Arrow file there, named after what went into it (rows,
    pilot, settings, filters before, the course's version): a run that was killed goes on at the
    filter it was in. processes=2 splits the filters that judge rows by themselves. Raises
    CourseError: no rows, no text column, something that is no filter; CurationError: nothing left,
    a label gone.
    """
    given = _checked_rows(pilot, rows, filters)
    table = given  # what is left so far
    mark, place = "", Path(folder) if folder else None
    if place:
        place.mkdir(parents=True, exist_ok=True)
        for half in place.glob("tmp*"):  # what a kill left of a file that was being written
            half.unlink()
        mark = fingerprint(content_hash(table), __version__, pilot.model_dump(), catalogue())
    stages, rejected = [], [_no_rejected_rows(table)]
    for number, step in enumerate(filters):
        if not len(table):
            break  # said below, with the filter that took most
        # changes with every filter before, and with this one's settings
        mark, start = fingerprint(mark, step.name, step.settings), time.perf_counter()
        try:
            result = step(table, place, f"{number:02}_{step.name}_{mark}", processes)
        except (KeyboardInterrupt, multiprocess.TimeoutError) as problem:
            # after Ctrl-C datasets asks the other processes once more, and waits in vain
            causes = (type(problem), type(problem.__context__))
            if KeyboardInterrupt not in causes:
                raise
            kept = "what was finished before it is kept" if place else "nothing is kept"
            what = f"Stopped in the filter {step.name!r}; {kept}"
            raise CourseError(f"{what}. Run it again to go on.") from None
        seconds, reason = time.perf_counter() - start, _commonest_reason(result.rejected)
        stages.append(Stage(step.name, len(table), len(result.kept), round(seconds, 3), reason))
        rejected.append(result.rejected)
        table = result.kept
    funnel = Funnel(table, concatenate_datasets(rejected), stages)
    _refuse_a_gap(pilot, given, funnel)
    return funnel


def _checked_rows(pilot: Pilot, rows: Any, filters: Sequence[Filter]) -> Dataset:
    for step in filters:
        if not isinstance(step, Filter):
            example = "for example filters.standard(...)"
            cure = f"take filters from helpers.keep.filters, {example}"
            raise CourseError(f"{step!r} is not a filter; {cure}.")
    if not isinstance(rows, Dataset):
        rows = Dataset.from_list([dict(row) for row in rows])
    if not len(rows):
        raise CourseError("There are no rows to curate.")
    if pilot.text not in rows.column_names:
        hint = did_you_mean(pilot.text, rows.column_names)
        raise CourseError(f"The rows have no column {pilot.text!r}{hint}")
    return rows


def _commonest_reason(rejected: Dataset) -> str:
    """The commonest kind of reason: numbers and quoted words are left out before counting."""
    kinds: Counter[str] = Counter()
    for reason in texts_of(rejected, "reason"):
        kinds[re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "…", reason)] += 1
    return max(kinds, key=kinds.__getitem__, default="")


def _refuse_a_gap(pilot: Pilot, table: Dataset, funnel: Funnel) -> None:
    if not len(funnel.kept):
        most = max(funnel.stages, key=lambda stage: stage.rejected)
        took = f"most of them ({most.rejected}) by the filter {most.name!r}"
        cure = "look at the rejected rows and loosen that filter"
        sentence = f"Every row was rejected, {took}, usually because: {most.commonest}; {cure}."
        raise CurationError(sentence, funnel)
    for name in sorted(set(pilot.labels).intersection(table.column_names)):
        before = Counter(texts_of(table, name))
        gone = set(before).difference(texts_of(funnel.kept, name))
        # a value that pilot.yaml does not list is no gap
        for value in sorted(gone.intersection(pilot.fields[name].values)):
            rejected = funnel.rejected.select_columns([name, "rejected_by"])
            taken_by = Counter(row["rejected_by"] for row in rejected if row[name] == value)
            what = f"No row with {name} = {value!r} is left of {before[value]}"
            took = f"the filter {taken_by.most_common(1)[0][0]!r} took most of them"
            cure = "Make more such rows, loosen that filter, or take the label out of pilot.yaml"
            raise CurationError(f"{what}; {took}. {cure}.", funnel)

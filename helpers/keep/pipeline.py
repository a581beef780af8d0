"""Curation as a row of named filters: what each kept, what it rejected and why, resumable on tables larger than memory."""

import difflib
import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Value

from helpers import CourseError, __version__


@dataclass(frozen=True)
class Filtered:
    """`kept` as it came; `rejected` with the columns `rejected_by` and `reason`. Both keep the order of the rows."""

    kept: Dataset
    rejected: Dataset


@dataclass(frozen=True)
class Filter:
    """A named filter. `judge` takes a batch (dict of lists) and returns a reason or None per row; with whole=True it takes the
    Dataset and returns {row number: reason}; with `adds` (new or changed text columns) a dict of those columns and 'reason'.
    `settings` name everything the verdicts depend on. withhold: the text of a rejected row is not shown again."""

    name: str
    judge: Callable
    settings: dict = field(default_factory=dict)
    whole: bool = False
    adds: tuple = ()
    withhold: str | None = None

    def __call__(self, rows, folder=None, mark="", processes=1):
        """Filtered. With `folder` every table is an Arrow file there (memory-mapped; a finished one is taken as it is)."""

        def table(rows, function, features, part="verdicts", **more):
            place = folder / f"{mark}.{part}.arrow" if folder else None
            print_of = (
                hashlib.sha256(f"{mark}.{part}".encode()).hexdigest()[:16]
                if folder
                else os.urandom(8).hex()
            )
            return rows.map(
                function,
                batched=True,
                features=features,
                cache_file_name=place and str(place),
                keep_in_memory=not folder,
                load_from_cache_file=True,
                new_fingerprint=print_of,
                **more,
            )

        found, processes = (
            None,
            processes if len(rows) >= 20_000 and processes > 1 else None,
        )  # a second process takes a second to start
        if self.adds:
            features = Features(
                {**rows.features, **{c: Value("string") for c in (*self.adds, "reason")}}
            )
            verdicts = table(rows, self.judge, features, num_proc=processes)
        else:
            if self.whole and not (folder and (folder / f"{mark}.verdicts.arrow").is_file()):
                found = self.judge(rows)

            def judge(batch, numbers):
                return {
                    "reason": [found.get(i) for i in numbers] if self.whole else self.judge(batch)
                }

            verdicts = table(
                rows,
                judge,
                Features({"reason": Value("string")}),
                with_indices=True,
                remove_columns=rows.column_names,
                num_proc=None if self.whole else processes,
            )
        bad = ~np.asarray(verdicts.data.column("reason").is_null())
        reasons = verdicts.data.column("reason").drop_null().to_pylist()

        def explain(batch, numbers):
            hide = (
                {self.withhold: ["(withheld: too close to a test row)"] * len(numbers)}
                if self.withhold
                else {}
            )
            return {
                **batch,
                **hide,
                "rejected_by": [self.name] * len(numbers),
                "reason": [reasons[i] for i in numbers],
            }

        features = Features(
            {**rows.features, "rejected_by": Value("string"), "reason": Value("string")}
        )
        rejected = (
            table(
                rows.select(np.flatnonzero(bad)), explain, features, "rejected", with_indices=True
            )
            if bad.any()
            else Dataset.from_dict({c: [] for c in features}, features=features)
        )
        rows = verdicts.remove_columns("reason") if self.adds else rows
        return Filtered(rows.select(np.flatnonzero(~bad)) if bad.any() else rows, rejected)


def each(name, pilot, find, **settings):
    """A Filter from `find(text)`, which returns a reason or None."""
    return Filter(
        name,
        lambda batch: [find(text or "") for text in batch[pilot.text]],
        {"text": pilot.text, **settings},
    )


def per_record(name, pilot, find, **settings):
    """A Filter from `find(text, field name, FieldSpec, value)`; the first field with a reason counts."""

    def judge(batch):
        empty = [None] * len(batch[pilot.text])
        rows = zip(batch[pilot.text], *(batch.get(name, empty) for name in pilot.fields))
        return [
            next(
                filter(
                    None,
                    (
                        find(text, name, spec, value)
                        for (name, spec), value in zip(pilot.fields.items(), values)
                    ),
                ),
                None,
            )
            for text, *values in rows
        ]

    return Filter(
        name,
        judge,
        {
            "text": pilot.text,
            "fields": {n: s.model_dump() for n, s in pilot.fields.items()},
            **settings,
        },
    )


@dataclass(frozen=True)
class Stage:
    """One filter's line: rows in, kept and rejected, seconds (of the run that did the work), the commonest kind of reason."""

    name: str
    rows: int
    kept: int
    seconds: float
    commonest: str = ""

    @property
    def rejected(self):
        return self.rows - self.kept

    def __str__(self):
        return f"{self.name:16}{self.rows:>9,} -> {self.kept:>9,}  {self.seconds:7.2f} s  {self.commonest}".rstrip()


@dataclass(frozen=True)
class Funnel:
    """What a pipeline did: `kept`, `rejected` (columns rejected_by and reason) and one Stage per filter, in order."""

    kept: Dataset
    rejected: Dataset
    stages: list

    def __str__(self):
        return "\n".join(map(str, self.stages))


def pick(filters, names):
    """The filters with these names, in the order of `filters`. Raises CourseError for a name that is misspelt."""
    known, names = (
        {step.name: step for step in filters},
        [names] if isinstance(names, str) else list(names),
    )
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
            raise CourseError(f"There is no filter {name!r}; {hint}")
    return [step for step in filters if step.name in names]


def content(rows):
    """A hash of the rows' contents, whatever file or memory they lie in."""
    digest = hashlib.sha256(json.dumps(rows.column_names).encode())
    for batch in rows.iter(5000):
        digest.update(json.dumps(batch, ensure_ascii=False, default=str).encode())
    return digest.hexdigest()


def curate(pilot, rows, filters, folder=None, processes=1):
    """Run the filters in order over a Dataset and return a Funnel.

    With `folder` each finished filter is an Arrow file there, named after what went into it (rows, settings, filters before, the
    course's version): a run that was killed goes on at the filter it was in, and the tables stay on disk. processes=2 splits the
    filters that judge rows by themselves. Raises CourseError: no rows, no text column, something that is no filter, nothing left, a label
    without a row left; the error's `funnel` holds what was done.
    """
    for step in filters:
        if not isinstance(step, Filter):
            raise CourseError(
                f"{step!r} is not a filter; take filters from helpers.keep.filters, for example filters.standard(...)."
            )
    rows = rows if isinstance(rows, Dataset) else Dataset.from_list([dict(row) for row in rows])
    if not len(rows):
        raise CourseError("There are no rows to curate.")
    if pilot.text not in rows.column_names:
        near = difflib.get_close_matches(pilot.text, rows.column_names, 1)
        raise CourseError(
            f"The rows have no column {pilot.text!r}"
            + (f" (did you mean {near[0]!r}?)" if near else "")
            + f"; their columns are {', '.join(rows.column_names)}."
        )
    mark, done, log = "", {}, None
    if folder:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for half in folder.glob("tmp*"):  # what a kill left of a file that was being written
            half.unlink()
        mark, log = content(rows), folder / "stages.json"
        done = json.loads(log.read_text(encoding="utf-8")) if log.is_file() else {}
    before, pieces, stages = _labels(pilot, rows), [], []
    for number, step in enumerate(filters):
        if not len(rows):
            break
        mark = hashlib.sha256(
            json.dumps(
                [mark, __version__, step.name, step.settings], sort_keys=True, default=str
            ).encode()
        ).hexdigest()
        name, start = f"{number:02}_{step.name}_{mark[:12]}", time.perf_counter()
        found = step(rows, folder, name, processes)
        seconds = done.setdefault(name, round(time.perf_counter() - start, 3))
        kinds = Counter(
            re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "…", reason)
            for batch in found.rejected.select_columns("reason").iter(1000)
            for reason in batch["reason"]
        )
        stages.append(
            Stage(
                step.name,
                len(rows),
                len(found.kept),
                seconds,
                kinds.most_common(1)[0][0] if kinds else "",
            )
        )
        if len(found.rejected):
            pieces.append(found.rejected)
        rows = found.kept
        if log:
            part = log.with_suffix(".part")
            part.write_text(json.dumps(done, indent=1), encoding="utf-8")
            os.replace(part, log)
    rejected = _join(pieces, rows)
    funnel = Funnel(rows, rejected, stages)
    if not len(rows):
        most = max(stages, key=lambda stage: stage.rejected)
        _complain(
            f"Every row was rejected, most of them ({most.rejected}) by the filter {most.name!r}, usually because: "
            f"{most.commonest}; look at the rejected rows and loosen that filter.",
            funnel,
        )
    after = _labels(pilot, rows)
    for (name, value), number in before.items():
        if (name, value) not in after:
            took = Counter(
                b
                for batch in rejected.iter(1000)
                for b, v in zip(batch["rejected_by"], batch[name])
                if v == value
            )
            _complain(
                f"No row with {name} = {value!r} is left of {number}; the filter {took.most_common(1)[0][0]!r} took most of them. "
                "Make more such rows, loosen that filter, or take the label out of pilot.yaml.",
                funnel,
            )
    return funnel


def _complain(sentence, funnel):
    problem = CourseError(sentence)
    problem.funnel = funnel
    raise problem


def _labels(pilot, rows):
    """Counter of (field, value) over the label fields that the rows have."""
    names = [name for name in pilot.labels if name in rows.column_names]
    return Counter(
        (n, v)
        for b in (rows.select_columns(names).iter(1000) if names else ())
        for n in names
        for v in b[n]
        if v in (pilot.fields[n].values or ())
    )


def _join(pieces, like):
    from datasets import concatenate_datasets

    if not pieces:
        features = Features(
            {**like.features, "rejected_by": Value("string"), "reason": Value("string")}
        )
        return Dataset.from_dict({c: [] for c in features}, features=features)
    return concatenate_datasets(pieces)


def balance(pilot, most, by=None, seed=0):
    """At most `most` rows for each label of the fields `by` (default: the first label field), or each combination of several."""
    by = [by] if isinstance(by, str) else list(by or pilot.labels[:1])

    def judge(rows):
        groups, found = {}, {}
        for number, key in enumerate(zip(*(rows[name] for name in by))):
            groups.setdefault(key, []).append(number)
        for key, numbers in sorted(groups.items(), key=str):
            drawn = set(np.random.default_rng(seed).permutation(len(numbers))[:most].tolist())
            what = ", ".join(f"{n} = {v}" for n, v in zip(by, key))
            found |= {
                number: f"{what} has {len(numbers)} rows, {most} were drawn with seed {seed}"
                for k, number in enumerate(numbers)
                if k not in drawn
            }
        return found

    return Filter("balance", judge, {"by": by, "most": most, "seed": seed}, whole=True)

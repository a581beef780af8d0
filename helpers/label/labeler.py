"""Label messages by hand in a notebook: every answer is on disk before the next message shows."""

import json
import math
import os
import random
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from datasets import Dataset

from helpers import CourseError
from helpers.core.files import fingerprint, write_csv, write_text
from helpers.core.pilot import FieldSpec, Pilot
from helpers.core.rows import wrong_value
from helpers.label import label_events
from helpers.label.annotators import between_annotators
from helpers.label.label_events import EventJournal, from_utf16, to_utf16
from helpers.measure.agreement import Agreement


class Labeler(anywidget.AnyWidget):
    """The labelling widget: show it as the last line of a cell.

    `rows` need `id` and the text column; labels in them are not read. Answers go to the journal at
    `path`, one JSON line each; the same call later goes on at the first open row. The order is
    drawn from `seed` and `annotator`.
    """

    _esm, _css = Path(__file__).with_name("labeler.js"), Path(__file__).with_name("labeler.css")
    _ipython_display_ = None  # ipywidgets 7 would leave the static table out
    task = traitlets.Dict().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        pilot: Pilot,
        rows: Iterable[Mapping[str, Any]],
        path: str | Path,
        *,
        annotator: str = "a",
        seed: int = 0,
        simulated: str | bool = False,
    ) -> None:
        if not re.fullmatch(r"[\w-]{1,40}", str(annotator)):
            allowed = "letters, digits, - and _ only: it names the journal"
            raise CourseError(f"The annotator {annotator!r} may have {allowed}.")
        self.pilot, self.path, self.seed = pilot, Path(path), seed
        self.annotator, self.simulated = annotator, simulated
        self.texts = label_events.texts_to_label(pilot, rows)  # no label goes further than here
        self.order = sorted(self.texts)  # the same rows in another order are the same task
        random.Random(f"{seed} {annotator}").shuffle(self.order)
        fields = {name: spec.model_dump(exclude={"about"}) for name, spec in pilot.fields.items()}
        whose = {"annotator": annotator, "seed": seed, "simulated": simulated, "fields": fields}
        whose["rows"] = fingerprint(sorted(self.texts.items()))
        self.journal = EventJournal(self.path, whose, self.texts)
        super().__init__()
        # what the browser needs once; the row that it shows is in `view`
        shown = [{"name": name, **spec.model_dump()} for name, spec in pilot.fields.items()]
        who = {"annotator": annotator, "simulated": simulated}
        self.task = {"fields": shown, **who, "language": pilot.language}
        self.on_msg(self._message)
        self._replay()

    def open(self) -> None:
        """Connect to the browser, except in a recorded run, which keeps a table only."""
        if not os.environ.get("COURSE_QUIET"):
            super().open()

    def _replay(self) -> None:
        """From the journal: `answered` {id: event}, `skipped` ids, `current` id or None; show."""
        self.stack: list[dict] = []  # what an undo can take back
        self.undone: dict | None = None
        for event in self.journal.events:
            self.undone = None
            if event["event"] != "undo":
                self.stack.append(event)
            elif self.stack:
                self.undone = self.stack.pop()
        self.answered: dict[str, dict] = {}
        waiting: dict[str, dict] = {}
        for event in self.stack:
            waiting.pop(event["id"], None)  # skipped again, a row goes to the very end
            place = self.answered if event["event"] == "answer" else waiting
            place[event["id"]] = event
        self.skipped = list(waiting)
        # skipped rows come back when no other is left
        fresh = [key for key in self.order if key not in self.answered and key not in waiting]
        self.current = next(iter(fresh + self.skipped), None)
        self._show()

    def _store(self, event: str, **more: Any) -> None:
        if self.simulated:
            cure = "label in a journal of your own"
            raise CourseError(f"{self.path.name} holds simulated answers; {cure}.")
        self._add([{"event": event, **more}])

    def _add(self, events: list[dict]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        stamp = {"annotator": self.annotator, "time": now, "simulated": bool(self.simulated)}
        self.journal.add(*[event | stamp for event in events])
        self._replay()

    def answer(self, choices: Any, seconds: Any = 0.0) -> None:
        """Store the record of the current row.

        choices: {field: value, None, or for a span {"start", "end"} in UTF-16 units}. Raises
        CourseError for a record that `rows.load` would refuse, and when it cannot be stored.
        """
        text, record, places = self.texts[self._open_row()], {}, {}
        if not isinstance(choices, dict) or set(choices) != set(self.pilot.fields):
            raise CourseError(f"An answer needs exactly the fields {', '.join(self.pilot.fields)}.")
        for name, spec in self.pilot.fields.items():
            value = choices[name]
            if isinstance(value, dict) and spec.type == "span":
                places[name] = from_utf16(text, value.get("start"), value.get("end"))
                value = text[slice(*places[name])]
            problem = wrong_value(name, spec, value, text)
            if isinstance(value, str) and not value.strip():
                problem = f"{name} is blank."
            if problem:
                raise CourseError(problem)
            record[name] = value
        sane = isinstance(seconds, (int, float)) and math.isfinite(seconds) and seconds > 0
        seconds = round(seconds, 3) if sane else 0.0  # the browser measures; anything may come
        self._store("answer", id=self.current, record=record, at=places, seconds=seconds)

    def skip(self) -> None:
        """Put the current row behind all others."""
        self._store("skip", id=self._open_row())

    def _open_row(self) -> str:
        if self.current is None:
            raise CourseError("Every row is labelled.")
        return self.current

    def undo(self) -> None:
        """Take the last answer or skip back, step by step, over restarts; the file keeps both."""
        if not self.stack:
            raise CourseError("There is nothing to undo.")
        self._store("undo", id=self.stack[-1]["id"])

    def _message(self, _: Any, content: dict, __: Any) -> None:
        """What the browser sends: {"kind": answer, skip or undo, "id", "choices", "seconds"}."""
        try:
            if content.get("id") != self.current:
                what = "was answered in another view; here is the one that is next"
                raise CourseError(f"This row {what}.")
            if content.get("kind") == "answer":
                self.answer(content.get("choices"), content.get("seconds"))
            elif content.get("kind") in ("skip", "undo"):
                getattr(self, content["kind"])()
        except CourseError as problem:
            self._show(str(problem))

    # What the browser sees --------------------------------------------------------------------

    def _show(self, error: str | None = None) -> None:
        """Send the current row, and no other answer than the one that was taken back."""
        text = self.texts.get(self.current or "", "")
        seconds = sum(event["seconds"] for event in self.answered.values())
        self.view = {
            "step": self.view.get("step", 0) + 1,  # an equal view would not be sent again
            "id": self.current,
            "text": text,
            "matches": self._matches(text),
            "before": self._taken_back(text),
            "done": len(self.answered),
            "total": len(self.texts),
            "skipped": len(self.skipped),
            "undo": len(self.stack),
            "per_minute": round(60 * len(self.answered) / seconds, 1) if seconds else None,
            "error": error,
        }

    def _matches(self, text: str) -> dict[str, list]:
        """{pattern field: [[value, start, end]]} in UTF-16 units, each where it stands first."""
        matches = {}
        for name, spec in self.pilot.fields.items():
            if spec.type == "pattern":
                first: dict[str, list[int]] = {}
                for match in re.finditer(spec.regex, text):
                    if match.group():
                        first.setdefault(match.group(), to_utf16(text, *match.span()))
                matches[name] = [[value, *place] for value, place in first.items()]
        return matches

    def _taken_back(self, text: str) -> dict[str, Any]:
        event = self.undone
        if not event or event["event"] != "answer" or event["id"] != self.current:
            return {}
        record = dict(event["record"])
        for name, place in event["at"].items():
            record[name] = dict(zip(("start", "end"), to_utf16(text, *place)))
        return record

    # What comes out ---------------------------------------------------------------------------

    def labels(self) -> Dataset:
        """The labelled rows so far, in the order of `rows`, with tags, annotator and simulated."""
        labelled = []
        for key, text in self.texts.items():
            if key in self.answered:
                row = {"id": key, self.pilot.text: text, **self.answered[key]["record"], "tags": ""}
                row |= {"annotator": self.annotator, "simulated": bool(self.simulated)}
                labelled.append(row)
        return Dataset.from_list(labelled)

    def export(self, path: str | Path) -> Path:
        """Write the labelled rows as .csv or .jsonl, which `rows.load` reads.

        In a CSV what a spreadsheet would run as a formula gets an apostrophe in front, which
        `rows.load` takes off again; JSONL has every text as it is.
        """
        path, labelled = Path(path), list(self.labels())
        if not labelled:
            raise CourseError("Nothing is labelled yet; label some rows, then export.")
        if path.suffix == ".jsonl":
            write_text(path, "".join(json.dumps(row) + "\n" for row in labelled))
            return path
        if path.suffix != ".csv":
            raise CourseError(f"{path.name} should end in .csv or .jsonl.")
        write_csv(path, labelled)
        return path

    def blind_copy(self, number: int, annotator: str = "b") -> "Labeler":
        """A Labeler for a second person over the first `number` rows that this one shows.

        It has its own journal (`<path>-<annotator>`) and its own order, and knows nothing of the
        answers given here.
        """
        # True is an int for Python, and no number of rows
        if type(number) is not int or not 1 <= number <= len(self.order):
            raise CourseError(f"{number!r} should be a number of rows, 1 to {len(self.order)}.")
        if annotator == self.annotator:
            cure = "give the second person another name"
            raise CourseError(f"{annotator!r} labels the first copy; {cure}.")
        path = self.path.parent / f"{self.path.stem}-{annotator}{self.path.suffix}"
        rows = [{"id": key, self.pilot.text: self.texts[key]} for key in self.order[:number]]
        return Labeler(self.pilot, rows, path, annotator=annotator, seed=self.seed)

    def agreement_with(self, other: "Labeler") -> dict[str, Agreement]:
        """{field: Agreement} and "exact record", over the rows that both have labelled."""
        return between_annotators(self, other, self.pilot)

    def static(self, rows: int = 6) -> str:
        """The first `rows` rows in labelling order as an HTML table without kernel or script."""
        texts = {key: self.texts[key] for key in self.order[:rows]}
        return label_events.static_table(self.pilot, repr(self), texts, self.answered)

    def __repr__(self) -> str:
        who = f"annotator {self.annotator}"
        if self.simulated:
            who = "simulated, nobody labelled these"
        return f"Labeler: {len(self.answered)} of {len(self.texts)} rows answered ({who})"

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict, dict]:
        still = {"text/plain": repr(self), "text/html": self.static()}
        if self.comm is None or os.environ.get("COURSE_QUIET"):
            return still, {}
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        return {**data, **still}, metadata


def simulate(
    pilot: Pilot,
    rows: Collection[Mapping[str, Any]],
    path: str | Path,
    error_rate: float = 0.1,
    annotator: str = "simulated",
    seed: int = 0,
) -> Labeler:
    """A Labeler whose journal holds made-up answers to labelled rows; nobody can label on in it.

    Every line says `"simulated": true`. Each field is wrong with probability `error_rate` where
    another value is possible: another label, other words, another match, none.
    """
    if not 0 <= error_rate <= 1:
        raise CourseError(f"error_rate is {error_rate}; it is a share between 0 and 1.")
    right = {str(row["id"]): row for row in rows}
    kind = f"error rate {error_rate}"
    book = Labeler(pilot, rows, path, annotator=annotator, seed=seed, simulated=kind)
    events = []
    for key in book.order:
        if key in book.answered:
            continue
        # a generator for each row: a journal that was cut goes on with the same answers
        draw, text, record = random.Random(f"{seed} {annotator} {key}"), book.texts[key], {}
        for name, spec in pilot.fields.items():
            value = right[key].get(name)
            problem = wrong_value(name, spec, value, text)
            if problem:
                cure = "Answers are simulated from labelled rows only"
                raise CourseError(f"Row {key}: {problem} {cure}.")
            is_wrong, others = draw.random() < error_rate, _other_values(spec, value, text, draw)
            record[name] = draw.choice(others) if is_wrong and others else value
        event = {"event": "answer", "id": key, "record": record, "at": {}, "seconds": 0.0}
        events.append(event)
    book._add(events)
    return book


def _other_values(spec: FieldSpec, right: str | None, text: str, draw: random.Random) -> list:
    """Wrong values: other labels, other matches, eight runs of one to three words, none."""
    if spec.type == "label":
        values = spec.values
    elif spec.type == "pattern":
        values = [match.group() for match in re.finditer(spec.regex, text) if match.group()]
    else:
        words = [match.span() for match in re.finditer(r"\w\S*\w|\w", text)]
        starts = [draw.randrange(len(words)) for _ in range(8)] if words else []
        values = []
        for start in starts:
            end = min(start + draw.randrange(3), len(words) - 1)
            values.append(text[words[start][0] : words[end][1]])
    others: list = sorted(set(values) - {right})
    if spec.optional and right is not None:
        others.append(None)
    return others

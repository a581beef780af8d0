"""Label messages by hand in a notebook: every answer is on disk before the next message shows; blind second copies; export."""

import json
import math
import os
import random
import re
from datetime import UTC, datetime
from pathlib import Path

import anywidget
import traitlets
from datasets import Dataset

from helpers import CourseError
from helpers.core.rows import FORMULA, wrong_value
from helpers.core.files import fingerprint, write_csv, write_text
from helpers.label.label_events import Events, from_utf16, table, texts, to_utf16
from helpers.measure.agreement import agreement  # noqa: F401 - labeler.agreement(first, second, pilot)


class Labeler(anywidget.AnyWidget):
    """The labelling widget: show it as the last line of a cell. `rows` need `id` and the text column; labels in them are not read.

    Answers go to the journal at `path`, one JSON line each; the same call later goes on at the first open row. The order is drawn from
    `seed` and `annotator`. `suggestions` ({id: record}) are noted beside each answer and never sent to the browser.
    """

    _esm, _css = Path(__file__).with_name("labeler.js"), Path(__file__).with_name("labeler.css")
    _ipython_display_ = None  # ipywidgets 7 would leave the static table out
    task = traitlets.Dict().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)

    def __init__(
        self, pilot, rows, path, *, annotator="a", seed=0, suggestions=None, simulated=False
    ):
        if not re.fullmatch(r"[\w-]{1,40}", str(annotator)):
            raise CourseError(
                f"The annotator {annotator!r} may have letters, digits, - and _ only: it names the journal."
            )
        self.pilot, self.path, self.annotator, self.seed, self.simulated = (
            pilot,
            Path(path),
            annotator,
            seed,
            simulated,
        )
        self.texts, self.suggestions = texts(pilot, rows), dict(suggestions or {})
        fields = {name: spec.model_dump(exclude={"about"}) for name, spec in pilot.fields.items()}
        self.order = sorted(self.texts)
        random.Random(f"{seed} {annotator}").shuffle(self.order)
        header = {
            "annotator": annotator,
            "seed": seed,
            "simulated": simulated,
            "fields": fields,
            "rows": fingerprint(sorted(self.texts.items())),
        }
        self.journal = Events(self.path, header, self.texts)
        super().__init__()
        self.task = {
            "fields": [{"name": n, "about": pilot.fields[n].about, **f} for n, f in fields.items()],
            "annotator": annotator,
            "simulated": simulated,
            "language": pilot.language,
        }
        self.on_msg(self._message)
        self._replay()
        self._show()

    def open(self):
        """Connect to the browser, unless this is a recorded run: a stored notebook keeps a table and no widget state."""
        if not os.environ.get("COURSE_QUIET"):
            super().open()

    # What is answered --------------------------------------------------------------------------------------

    def _replay(self):
        """From the journal: `answered` {id: event}, `skipped` ids, `current` id or None, what can be undone."""
        self.stack, self.undone = [], None
        for event in self.journal.events:
            self.undone = self.stack.pop() if event["event"] == "undo" and self.stack else None
            if event["event"] != "undo":
                self.stack.append(event)
        self.answered, waiting = {}, {}
        for event in self.stack:
            waiting.pop(event["id"], None)
            (self.answered if event["event"] == "answer" else waiting)[event["id"]] = event
        self.skipped = list(waiting)
        fresh = (i for i in self.order if i not in self.answered and i not in waiting)
        self.current = next(fresh, self.skipped[0] if self.skipped else None)

    def _store(self, event, **more):
        if self.simulated:
            raise CourseError(
                f"{self.path.name} holds simulated answers; label in a journal of your own."
            )
        self.journal.add({"event": event, **more, **self._stamp()})
        self._replay()
        self._show()

    def _stamp(self):
        return {
            "annotator": self.annotator,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "simulated": bool(self.simulated),
        }

    def answer(self, choices, seconds=0.0):
        """Store the record of the current row: {field: value, None, or for a span {"start", "end"} in UTF-16 units}.

        Raises CourseError for a record that `rows.load` would refuse, and when it cannot be stored.
        """
        if self.current is None:
            raise CourseError("Every row is labelled.")
        text, record, places = self.texts[self.current], {}, {}
        if not isinstance(choices, dict) or set(choices) != set(self.pilot.fields):
            raise CourseError(f"An answer needs exactly the fields {', '.join(self.pilot.fields)}.")
        for name, spec in self.pilot.fields.items():
            value = choices[name]
            if isinstance(value, dict) and spec.type == "span":
                places[name] = from_utf16(text, value.get("start"), value.get("end"))
                value = text[slice(*places[name])]
            blank = isinstance(value, str) and not value.strip()
            problem = f"{name} is blank." if blank else wrong_value(name, spec, value, text)
            if problem:
                raise CourseError(problem)
            record[name] = value
        sane = isinstance(seconds, (int, float)) and math.isfinite(seconds) and seconds > 0
        self._store(
            "answer",
            id=self.current,
            record=record,
            at=places,
            seconds=round(seconds, 3) if sane else 0.0,
            suggested=self.suggestions.get(self.current),
        )

    def skip(self):
        """Put the current row behind all others."""
        if self.current is None:
            raise CourseError("Every row is labelled.")
        self._store("skip", id=self.current)

    def undo(self):
        """Take the last answer or skip back, step by step, also over a restart; the journal keeps both."""
        if not self.stack:
            raise CourseError("There is nothing to undo.")
        self._store("undo", id=self.stack[-1]["id"])

    def _message(self, _, content, buffers):
        """What the browser sends: {"kind": "answer" | "skip" | "undo", "id", "choices", "seconds"}."""
        try:
            kind = content.get("kind")
            if content.get("id") != self.current:
                raise CourseError(
                    "This row was answered in another view; here is the one that is next."
                )
            if kind == "answer":
                self.answer(content.get("choices"), content.get("seconds"))
            elif kind in ("skip", "undo"):
                getattr(self, kind)()
        except CourseError as problem:
            self._show(str(problem))

    def _show(self, error=None):
        """Send the browser the current row: matches of the patterns, after an undo the answer taken back, and never a suggestion."""
        text = self.texts.get(self.current, "")
        matches, before = {}, {}
        for name, spec in self.pilot.fields.items():
            if spec.type == "pattern":
                found = {
                    m.group(0): m.span()
                    for m in reversed(list(re.finditer(spec.regex, text)))
                    if m.group(0)
                }
                matches[name] = [
                    [value, *to_utf16(text, *span)]
                    for value, span in sorted(found.items(), key=lambda item: item[1])
                ]
        if self.undone and self.undone["event"] == "answer" and self.undone["id"] == self.current:
            places = {
                name: dict(zip(("start", "end"), to_utf16(text, *at)))
                for name, at in self.undone["at"].items()
            }
            before = {**self.undone["record"], **places}
        seconds = sum(event["seconds"] for event in self.answered.values())
        self.view = {
            "step": self.view.get("step", 0) + 1,
            "id": self.current,
            "text": text,
            "matches": matches,
            "before": before,
            "done": len(self.answered),
            "total": len(self.texts),
            "skipped": len(self.skipped),
            "undo": len(self.stack),
            "per_minute": round(60 * len(self.answered) / seconds, 1) if seconds else None,
            "error": error,
        }

    # What comes out ----------------------------------------------------------------------------------------

    def labels(self):
        """The labelled rows so far as a Dataset: id, text, the fields, tags, annotator, simulated; in the order of `rows`."""
        return Dataset.from_list(
            [
                {
                    "id": i,
                    self.pilot.text: text,
                    **self.answered[i]["record"],
                    "tags": "",
                    "annotator": self.annotator,
                    "simulated": bool(self.simulated),
                }
                for i, text in self.texts.items()
                if i in self.answered
            ]
        )

    def export(self, path):
        """Write the labelled rows as .csv or .jsonl, which `rows.load` reads; returns the path.

        In a CSV a text that a spreadsheet would run as a formula gets an apostrophe in front; JSONL keeps every text as it is.
        """
        path, found = Path(path), list(self.labels())
        if not found:
            raise CourseError("Nothing is labelled yet; label some rows, then export.")
        if path.suffix == ".jsonl":
            write_text(path, "".join(json.dumps(row) + "\n" for row in found))
        elif path.suffix == ".csv":
            for row in found:  # an apostrophe in front of a value would make it another value
                for name in ("id", *self.pilot.fields):
                    if (row[name] or "").startswith((*FORMULA, "\t")):
                        raise CourseError(
                            f"{name} of row {row['id']} is {row[name]!r}, which a spreadsheet would run as a formula; "
                            "export to a .jsonl file instead."
                        )
            write_csv(path, found)
        else:
            raise CourseError(f"{path.name} should end in .csv or .jsonl.")
        return path

    def blind_copy(self, size, annotator="b", path=None):
        """A Labeler for a second person over a random part: a share (0.2) or a number (50) of rows, the first that this one shows.

        It has its own journal (`<path>-<annotator>`) and its own order, and knows nothing of the answers given here.
        """
        number = (
            round(size * len(self.order)) if isinstance(size, float) and 0 < size <= 1 else size
        )
        if type(number) is not int or not 1 <= number <= len(self.order):
            raise CourseError(
                f"The part {size!r} should be a share such as 0.2, or a number from 1 to {len(self.order)}."
            )
        if annotator == self.annotator:
            raise CourseError(
                f"{annotator!r} labels the first copy; give the second person another name."
            )
        path = path or self.path.parent / f"{self.path.stem}-{annotator}{self.path.suffix}"
        rows = [{"id": i, self.pilot.text: self.texts[i]} for i in self.order[:number]]
        return Labeler(
            self.pilot,
            rows,
            path,
            annotator=annotator,
            seed=self.seed,
            suggestions=self.suggestions,
        )

    # Where no kernel runs ----------------------------------------------------------------------------------

    def static(self, rows=6):
        """The first `rows` rows in labelling order as an HTML table that needs neither kernel nor script."""
        records = {
            i: self.answered[i]["record"] if i in self.answered else None for i in self.order[:rows]
        }
        return table(self.pilot, repr(self), {i: self.texts[i] for i in records}, records)

    def __repr__(self):
        who = (
            "simulated, nobody labelled these" if self.simulated else f"annotator {self.annotator}"
        )
        return f"Labeler: {len(self.answered)} of {len(self.texts)} rows answered ({who})"

    def _repr_mimebundle_(self, **options):
        still = {"text/plain": repr(self), "text/html": self.static()}
        if self.comm is None or os.environ.get("COURSE_QUIET"):
            return still, {}
        data, metadata = super()._repr_mimebundle_(**options)
        return {**data, **still}, metadata


def simulate(pilot, rows, path, error_rate=0.1, annotator="simulated", seed=0):
    """A Labeler whose journal holds made-up answers to labelled rows, `"simulated": true` in every line; nobody can label on in it.

    Each field is wrong with probability `error_rate` where another value is possible: another label, other words, another match, none.
    """
    if not 0 <= error_rate <= 1:
        raise CourseError(f"error_rate is {error_rate}; it is a share between 0 and 1.")
    rows = list(rows)
    made = Labeler(
        pilot, rows, path, annotator=annotator, seed=seed, simulated=f"error rate {error_rate}"
    )
    truth, events = {str(row["id"]): row for row in rows}, []
    for i in (i for i in made.order if i not in made.answered):
        draw, text, record = random.Random(f"{seed} {annotator} {i}"), made.texts[i], {}
        for name, spec in pilot.fields.items():
            right = truth[i].get(name)
            problem = wrong_value(name, spec, right, text)
            if problem:
                raise CourseError(
                    f"Row {i}: {problem} Answers are simulated from labelled rows only."
                )
            wrong = draw.random() < error_rate
            others = sorted(set(_others(spec, text, draw)) - {right}) + [None] * (
                spec.optional and right is not None
            )
            record[name] = draw.choice(others) if wrong and others else right
        events.append(
            {
                "event": "answer",
                "id": i,
                "record": record,
                "at": {},
                "seconds": 0.0,
                "suggested": None,
                **made._stamp(),
            }
        )
    if events:
        made.journal.add(*events)
        made._replay()
        made._show()
    return made


def _others(spec, text, draw):
    """Values that a field could have in this text: all labels, all matches, or eight runs of one to three words."""
    if spec.type == "label":
        return spec.values
    if spec.type == "pattern":
        return [m.group(0) for m in re.finditer(spec.regex, text) if m.group(0)]
    words = [m.span() for m in re.finditer(r"\w\S*\w|\w", text)]
    starts = [draw.randrange(len(words)) for _ in range(8)] if words else []
    return [
        text[words[s][0] : words[min(s + draw.randrange(3), len(words) - 1)][1]] for s in starts
    ]

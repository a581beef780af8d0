"""A pilot's system at work: ask it one message, or run it over tomorrow's file.

    python -m helpers.answer mail.csv out.csv [--pilot FOLDER] [--text COLUMN] [--fresh]
                             [--served ADDRESS [--model NAME] [--key-from VARIABLE] [--tuned]]

Reads and writes CSV, XLSX or JSONL, a line for each row, in its order: the record, how sure each
value is, who read it, whether a person should look. The same command goes on after a kill. The
system is that of chapter 08, with the tuned model of chapter 05, else of chapter 00; with --served
the model behind an OpenAI-compatible address (llama.cpp, vLLM) takes the place of that one.
"""

import argparse
import html
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helpers import ROOT, CourseError
from helpers.ask.file_answers import Answer, Reader, answer_file, checked_out, shortened
from helpers.choose import models
from helpers.core import runtime
from helpers.core.incoming import Incoming
from helpers.core.pilot import Pilot
from helpers.core.text import cleaned, visible

NO_SYSTEM = "not decided: that takes a system (chapter 08)"


@dataclass(frozen=True, repr=False)
class Asked:
    """A message and what was made of it; prints as lines, shows as a table in a notebook."""

    message: str
    answer: Answer

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, cells)) for cells in zip(*rows)]
        lines = [visible(self.message)]
        for row in rows:
            cells = [f"{cell:{width}}" for cell, width in zip(row, widths)]
            lines.append(f"   {'  '.join(cells)}".rstrip())
        return "\n".join([*lines, f"   A person should look: {self._check()}"])

    __repr__ = __str__

    def _rows(self) -> list[list[str]]:
        """[field, value, how sure, who read it] as they are shown."""
        found = []
        for name, value in self.answer.record.items():
            shown = "-" if value is None else visible(value)
            sure = _in_words(self.answer.confidence.get(name))
            found.append([name, shown, sure, f"by {self.answer.read_by[name]}"])
        return found

    def _check(self) -> str:
        words = {True: "yes", False: "no", None: NO_SYSTEM}[self.answer.check]
        return f"{words} ({self.answer.note})" if self.answer.note else words

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str]) -> str:
            return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"

        message = html.escape(visible(self.message)).replace("\n", "<br>")
        table = "".join(map(row, self._rows()))
        check = html.escape(self._check())
        # the form has no style sheet that keeps the columns apart
        table = f'<table cellpadding="6">{table}</table>'
        return f"<p>{message}</p>{table}<p>A person should look: {check}</p>"


def _in_words(chance: float | None) -> str:
    if chance is None:
        return ""
    return "over 99% sure" if chance >= 0.995 else f"{chance:.0%} sure"  # nothing is quite sure


def ask(message: str, reader: Reader) -> Asked:
    """What `reader` (a PilotSystem, or OneWay around any read) makes of one message.

    Raises CourseError for a message without a word.
    """
    if not isinstance(message, str) or not message.strip():
        raise CourseError("The message is empty; write one, as a customer would.")
    head, note = shortened(message)
    [one] = reader.answers([head])
    if note:
        one = replace(one, check=True, note=note)
    return Asked(cleaned(message), one)


def ask_form(reader: Reader, message: str) -> Any:
    """A form to ask in: a field for the message, a button, the answer below.

    Shows the answer to `message` from the start; with `COURSE_QUIET` (no kernel to talk to) its
    table alone. Returns the box of controls.
    """
    import ipywidgets as widgets
    from IPython.display import display
    from IPython.utils.capture import capture_output

    first = ask(message, reader)
    if os.environ.get("COURSE_QUIET"):
        return display(first)
    typed = widgets.Textarea(value=message, layout={"width": "95%", "height": "6em"})
    button = widgets.Button(description="Read it", button_style="primary")
    shown = widgets.HTML(first._repr_html_())

    def read(_: Any) -> None:
        button.disabled, shown.value = True, "<p>Reading …</p>"
        try:
            with capture_output():  # a progress bar from a button ends in JupyterLab's log
                found = ask(typed.value, reader)
            shown.value = found._repr_html_()
        except Exception as problem:  # a control must never go silent
            shown.value = f"<p>{html.escape(str(problem) or type(problem).__name__)}</p>"
        finally:
            button.disabled = False

    button.on_click(read)
    box = widgets.VBox([typed, button, shown])
    display(box)
    return box


# The command -----------------------------------------------------------------------------------


def licence_line(pilot: Pilot) -> str:
    """The base model of a pilot and its licence, in a sentence."""
    base = models.resolve(pilot.base_model, pilot.folder)
    terms = "whoever passes the model or its adapter on keeps these terms"
    return f"Base model {base.name}, licence {base.licence}; {terms}."


def answer_command(arguments: Sequence[str] | None = None) -> int:
    """Answer a file as the options say; returns the exit status."""
    runtime.make_folders_absolute()
    bundled = os.environ.get("COURSE_PILOT") or str(ROOT / "data/inbox")
    parser = argparse.ArgumentParser(
        prog="python -m helpers.answer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="mail.csv", help="CSV, XLSX or JSONL")
    parser.add_argument("out", metavar="out.csv", help="CSV, XLSX or JSONL, by its ending")
    parser.add_argument("--pilot", default=bundled, help="a folder with a pilot.yaml")
    parser.add_argument("--text", help="the column of the message; left out: that of the pilot")
    parser.add_argument("--fresh", action="store_true", help="begin anew, also over a finished out")
    parser.add_argument("--served", metavar="ADDRESS", help="ask the model there: http://…/v1")
    parser.add_argument("--model", metavar="NAME", help="its name; left out: the only one there")
    parser.add_argument("--key-from", metavar="VARIABLE", help="the variable that holds the key")
    parser.add_argument("--tuned", action="store_true", help="it serves the pilot's tuned model")
    options = parser.parse_args(arguments)
    try:
        if not options.served and (options.model or options.key_from or options.tuned):
            raise CourseError("--model, --key-from and --tuned belong to --served ADDRESS.")
        pilot = Pilot.load(Path(options.pilot).expanduser())
        # before a model is loaded
        Incoming.look(options.source, options.text or pilot.text)
        checked_out(options.source, options.out)
        print(licence_line(pilot), flush=True)
        runtime.quiet()
        # torch and its like: a wrong file is said before they load
        from helpers import at_work, served

        kept = Path(f"{options.out}.part.served.jsonl")
        reader: Reader
        if options.served:
            server = served.open_server(options.served, options.model, options.key_from)
            reader = served.open_served(pilot, server, kept, tuned=options.tuned)
            print(reader, flush=True)
        else:
            reader = at_work.open_system(pilot)
        if options.fresh:
            kept.unlink(missing_ok=True)
        done = answer_file(
            options.source, options.out, reader, text=options.text, fresh=options.fresh
        )
        kept.unlink(missing_ok=True)
        print(f"{done} Written to {options.out}.")
    except CourseError as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped: the rows that are finished are kept; the same command goes on.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(answer_command())

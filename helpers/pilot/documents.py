"""The papers of a decision, filled from the run: the page to sign, a runbook, a data card."""

import contextlib
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.choose.licensing import BLOCKED, UNKNOWN
from helpers.core.files import write_text
from helpers.measure.pages import render
from helpers.pilot.decision import GO, MORE, NO_GO
from helpers.pilot.judged import SYSTEM_USE
from helpers.pilot.sections import Evidence as Evidence  # so chapters need one import
from helpers.pilot.sections import (
    found_in_messages,
    label_doubts,
    rows_hash_of,
    sections_of,
    switch_off,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "msedge")
COLOUR = {GO: "#5b8a72", NO_GO: "#c8553d", MORE: "#b08d3e"}
SURE = {BLOCKED, UNKNOWN}  # verdicts on a licence with which nothing goes


def decision_page(evidence: Evidence) -> tuple[str, str]:
    """The decision document as (Markdown, HTML); every text in it is shown as text."""
    facts, sections = _facts(evidence), sections_of(evidence)
    colour = COLOUR[evidence.decision.answer]
    page = render("decision.html", f=facts, sections=sections, colour=colour)
    return render("decision.md", f=facts, sections=sections), page


def write_decision(folder: str | Path, evidence: Evidence) -> list[Path]:
    """Write decision.md and decision.html into a folder; returns both paths."""
    paths = []
    for ending, text in zip((".md", ".html"), decision_page(evidence)):
        path = Path(folder) / f"decision{ending}"
        write_text(path, text)
        paths.append(path)
    return paths


def print_pdf(page: str | Path, pdf: str | Path) -> Path:
    """Print an HTML file as a PDF by an installed browser; CourseError where there is none."""
    page, pdf = Path(page).resolve(), Path(pdf).resolve()
    pdf.unlink(missing_ok=True)  # never an older page under this name
    own = next(filter(None, map(shutil.which, BROWSERS)), None)
    if own:
        # as root, in a container, its sandbox does not start; the page is our own
        alone = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        command = [own, "--headless", "--disable-gpu", "--no-pdf-header-footer", *alone]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            printed = [*command, f"--print-to-pdf={pdf}", page.as_uri()]
            subprocess.run(printed, capture_output=True, timeout=60)
    if not pdf.is_file():
        cure = f"open {page.name} in your browser and choose Print, Save as PDF"
        raise CourseError(f"No browser was found to print with; {cure}.")
    return pdf


def runbook(evidence: Evidence, logs: Sequence[str]) -> str:
    """The one-page runbook as Markdown; `logs`: sentences on what is logged, where, how long."""
    e = evidence
    facts = _facts(e) | {"logs": list(logs), "switch_off": switch_off(e)}
    facts["data_quality"] = [
        *found_in_messages(e),
        "Before new rows are learnt: python -m helpers.pilot new NAME --from FILE shows "
        "contradictions, duplicates and personal data; put the first right, mask the last.",
    ]
    facts["evaluation"] = [
        f"A record counts when every field is right. Judged: {e.decision.way}, "
        f"{e.decision.exact[e.decision.way]}.",
        "Each look at the same rows makes the next result less certain: the next model is judged "
        "on rows that are labelled anew.",
        *e.watch,
    ]
    facts["updates"] = [
        "The alarm rings, or the sample holds a wrong record too many: a person finds the last "
        "messages in the mail system, by the log's file and row, and labels a hundred.",
        "One half of them, drawn by chance, joins the training rows; the other half is the new "
        "test. One lever is moved at a time, and the run log names it.",
        "The gate of chapter 11 runs first; what it says is done.",
        "The new model is judged on the new test alone, then promoted: python -m "
        f"helpers.ship.registry --folder {e.registry or 'FOLDER'} promote HASH --reason WHY",
        "It runs in the shadow for a week before its answers are used.",
    ]
    return render("runbook.md", f=facts)


def data_card(evidence: Evidence) -> str:
    """The data card as Markdown: how many rows with which labels, what was found in them."""
    e, counts = evidence, []
    for name in e.pilot.labels:
        learn, judge = (
            Counter(row[name] for row in rows) for rows in (e.data.train, e.judged.rows)
        )
        for value in dict.fromkeys([*learn, *judge]):
            counts.append([name, str(value), str(learn[value]), str(judge[value])])
    not_known = ["Who wrote the messages, beyond what the file says.", *label_doubts(e)]
    facts = _facts(e) | {"counts": counts, "found": found_in_messages(e), "not_known": not_known}
    return render("data_card.md", f=facts)


def _facts(e: Evidence) -> dict[str, Any]:
    decision = e.decision
    words = {
        GO: f"Go: {decision.way}, first in the shadow.",
        NO_GO: "No-go: people go on as today.",
        MORE: f"Not decided: label {decision.rows} new rows; they alone decide.",
    }
    said = words[decision.answer]
    if decision.answer == GO and decision.way == SYSTEM_USE and e.licence.verdict in SURE:
        said = f"Not before the licence is settled ({e.licence.verdict}). Then: {said}"
    return {
        "pilot": e.pilot.name,
        "about": e.pilot.about,
        "language": e.pilot.language,
        "headline": decision.answer.lower(),
        "answer_in_words": said,
        "why": decision.why,
        "date": date.today().isoformat(),
        "rows": len(e.judged.rows),
        "train_rows": f"{len(e.data.train)} labelled and {e.made} made"
        if e.made
        else len(e.data.train),
        "base": e.base if decision.way == SYSTEM_USE else "none in use",
        "run": e.run,
        "data_hash": rows_hash_of(e),
    }

"""Study 11: sets that the course has never seen, from a file to a decision, by one procedure.

Files made of public sets (`python -m benchmarks.public_pilots`). Of each: what `helpers.pilot new`
proposes, the gate, every way on the test rows, the decision. A model is tuned where the gate says
PROCEED, and of the first set in any case: else nobody would know whether the gate was right. Not of
the mailbox, whose long messages take half an hour a model on two cores: there the decision is taken
without one, and says so. One draw of rows, one seed; nothing was tuned to them.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from helpers import CourseError
from helpers.choose import licensing, models
from helpers.core import rows as labelled_rows
from helpers.core import runtime
from helpers.core.files import write_text
from helpers.core.pilot import Pilot
from helpers.core.public_sets import local_copy
from helpers.core.runs import Run
from helpers.measure import intervals
from helpers.measure.error_costs import default_costs
from helpers.pay.error_prices import check_costs
from helpers.pilot import documents, gate, prompted
from helpers.pilot.decision import decide_use
from helpers.pilot.judged import CHEAP_USE, SYSTEM_USE, judge_pilot, keep_decision
from helpers.pilot.new_pilot import new_pilot
from helpers.pilot.tuned import stored_tuned, train_tuned
from helpers.studies import study_figures as figures

FEW_SHOT = "few-shot"
UNTOLD = ("arm", "right")  # of a cell: a key of its own, and rows of bools
LEVERS = 40  # training rows that the prompted model is asked about by the gate


@dataclass(frozen=True)
class PublicFile:
    """A file of a public set: its name under public_pilots/, what a reader would choose by hand."""

    name: str
    file: str
    source: str
    choices: dict[str, Any] = field(default_factory=dict)
    tune: str = "where the gate says so"  # or "always", "never"


SETS = (
    PublicFile("clinc", "messages.csv", "CLINC150, 30 intents (CC BY 3.0)", tune="always"),
    PublicFile("snips", "messages.csv", "Snips NLU, three intents with spans (CC0)"),
    PublicFile("ja", "messages.csv", "ASDC, wishes of hotel guests (CC BY 4.0)"),
    PublicFile("mail", "messages.mbox", "20 newsgroups (no licence is stated)", tune="never"),
    PublicFile("banking", "messages.csv", "BANKING77, twelve intents (CC BY 4.0)"),
)


def file_of(one: PublicFile) -> Path:
    """Where a set's file lies; CourseError says how it is made."""
    folder = local_copy("public_pilots")
    if folder is None or not (folder / one.name / one.file).is_file():
        cure = "make it with `python -m benchmarks.public_pilots` and name its folder's parent in "
        raise CourseError(f"There is no {one.name}/{one.file}; {cure}COURSE_DATASETS.")
    return folder / one.name / one.file


def measure_pilots(
    run: Run, say: Callable[[str], None] = print, names: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """A cell for each set of SETS; a set that is finished is not measured again."""
    cells = []
    for one in SETS:
        kept = run.path(f"set_{one.name}.json")
        if names and one.name not in names and not kept.is_file():
            continue
        if not kept.is_file():
            cell = measure_one(one, run, say)
            write_text(kept, json.dumps(cell, ensure_ascii=False, indent=1))
        cells.append(json.loads(kept.read_text(encoding="utf-8")))
        say(f"{one.name}: {cells[-1]['gate']}, then {cells[-1]['decision']}")
    return cells


def measure_one(one: PublicFile, run: Run, say: Callable[[str], None]) -> dict[str, Any]:
    """From the file to the decision; the cell has seconds of every stage and rows of bools."""
    clock, seconds = time.perf_counter(), {}

    def lap(stage: str) -> None:
        nonlocal clock
        seconds[stage] = round(time.perf_counter() - clock, 1)
        clock = time.perf_counter()
        say(f"{one.name}: {stage} {seconds[stage]} s")

    place = run.path("pilots") / f"set_{one.name}"
    place.parent.mkdir(parents=True, exist_ok=True)
    new_pilot(place, file_of(one), **one.choices, fresh=True)
    lap("new")
    pilot = Pilot.load(place)
    own = Run(pilot, "11", run.runtime)
    data = labelled_rows.load(pilot, own.runtime.profile)
    everything = labelled_rows.load(pilot)  # the profile has fewer, for the model's sake
    train, test = list(data.train), list(data.test)
    shots, asked = prompted.examples_and_asked(own, train, LEVERS)
    on_train = prompted.prompted_score(own, shots, asked, "few_shot_train")
    labelled = list(everything.train)
    found = gate.gate_before_training(pilot, labelled, prompted=on_train.exact.tolist())
    lap("gate")
    few = prompted.prompted_score(own, shots, test, "few_shot")
    lap("few-shot on the test rows")
    tuned = stored_tuned(own, data)
    wanted = {"always": True, "never": False}.get(one.tune, found.verdict == gate.PROCEED)
    if tuned is None and wanted:
        tuned = train_tuned(own, data)
    runtime.give_back_memory()
    lap("tuning")
    costs = check_costs(pilot, default_costs(pilot))
    judged = judge_pilot(pilot, data, costs, tuned, everything=everything)
    # the gate is a rule of the procedure: what it stops does not run for the decision
    uses = dict(judged.uses)
    if found.verdict != gate.PROCEED:
        uses.pop(SYSTEM_USE, None)
    decision = decide_use(pilot, test, uses, costs, labels_hold=found.labels_hold)
    _write_papers(own, data, found, judged, decision, costs)
    lap("decision")
    right = {name: scored.exact.tolist() for name, scored in judged.scored.items()}
    right[FEW_SHOT] = few.exact.tolist()
    return {
        "arm": one.name,
        "source": one.source,
        "rows": [len(labelled), len(test)],
        "taught": len(train),
        "fields": {name: spec.type for name, spec in pilot.fields.items()},
        "tune": one.tune,
        "gate": found.verdict,
        "why": found.why,
        "gate_cheap": [found.cheap.share.value, found.cheap.share.low, found.cheap.share.high],
        "decision": decision.answer,
        "way": decision.way,
        "decision_why": decision.why,
        "costs": {name: [c.value, c.low, c.high] for name, c in decision.costs.items()},
        "people": decision.people,
        "yaml_lines": len((place / "pilot.yaml").read_text(encoding="utf-8").splitlines()),
        "changed_lines": len(one.choices),
        "right": right,
        "stages": seconds,
        "seconds": round(sum(seconds.values()), 1),
        "seed": 0,
        "machine": run.runtime.note,
    }


def _write_papers(own: Run, data: Any, found: Any, judged: Any, decision: Any, costs: Any) -> None:
    base = models.resolve(own.pilot.base_model, own.pilot.folder)
    evidence = documents.Evidence(
        pilot=own.pilot,
        data=data,
        gate=found,
        judged=judged,
        decision=decision,
        costs=costs,
        licence=licensing.gate(own.pilot.base_model),
        base=base.name,
    )
    documents.write_decision(own.folder, evidence)
    keep_decision(own.path("decision.json"), decision.answer, decision.way, {})


def pilot_figures(cells: list[dict[str, Any]]) -> Iterator[figures.StudyFigure]:
    """Of each set: every way's exact record, the tuned ones against the cheap ones, the minutes."""
    for cell in cells:
        name, how = cell["arm"], "exact record on its test rows, Wilson 95 %"
        for way, right in cell["right"].items():
            share = intervals.share(right)
            yield figures.StudyFigure(f"{name}.exact.{figures.arm_name(way)}", share, how, [0])
        for way in ("tuned model", "system", FEW_SHOT):
            for other in ("TF-IDF", "cheap ways together"):
                if way in cell["right"]:
                    gap = intervals.compare(cell["right"][way], cell["right"][other])
                    pair = f"{figures.arm_name(way)}_minus_{figures.arm_name(other)}"
                    yield figures.StudyFigure(f"{name}.{pair}", gap, "paired, bootstrap 95 %", [0])
        minutes = cell["seconds"] / 60
        how = "file to decision, beside other work on the same two cores"
        yield figures.StudyFigure(f"{name}.minutes", minutes, how, [0], "minutes")
        lines = cell["yaml_lines"]
        yield figures.StudyFigure(f"{name}.yaml_lines", lines, "written by `new`", [0], "count")


def pilot_settings(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """What results.json says about the study, with verdicts and stages of every set."""
    told = {}
    for cell in cells:
        told[cell["arm"]] = {key: value for key, value in cell.items() if key not in UNTOLD}
    right = [np.mean(cell["right"]["cheap ways together"]) for cell in cells]
    lead = [f"{len(cells)} sets, cheap ways right in {min(right):.0%} to {max(right):.0%}"]
    return {"lead": lead, "sets": told, "uses": [CHEAP_USE, SYSTEM_USE]}

"""What is stored with a decision: adapters in a registry, cards, a bill of materials."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.choose import licensing, models
from helpers.choose.licensing import LicenceVerdict
from helpers.core.files import fingerprint, read_entries, write_text
from helpers.core.pilot import Pilot
from helpers.core.rows import Rows
from helpers.core.runs import Run
from helpers.core.runtime import versions
from helpers.measure.intervals import Share
from helpers.pilot import documents
from helpers.pilot.documents import Evidence
from helpers.pilot.tuned import ADAPTER, TunedReadings
from helpers.ship import cards
from helpers.ship.registry import Registry

BILL = "bill_of_materials.json"


def base_and_licence(
    run: Run, made_by: Mapping[str, str] | None = None
) -> tuple[str, LicenceVerdict]:
    """(the base model, the licence gate's verdict on tuning it with these rows).

    `made_by`: {teacher: licence} of made rows that the tuned model learnt, as made_rows_of has it.
    """
    base = models.resolve(run.pilot.base_model, run.pilot.folder)
    # by its name in the catalogue, else by what the pilot calls it
    verdict = licensing.gate(run.pilot.base_model, teachers=list(made_by or {}), data=("own",))
    return base.name, verdict


def made_rows_of(run: Run, model: TunedReadings | None) -> tuple[int, dict[str, str]]:
    """(number of made rows that the tuned model learnt, {teacher: licence} of those who wrote)."""
    if model is None or model.chapter != "05":
        return 0, {}
    try:
        rows = read_entries(run.need("04", "curated.jsonl"))
    except CourseError:
        return 0, {}
    written = [row for row in rows if row.get("teacher") not in (None, "", "none")]
    return len(rows), {row["teacher"]: row["licence"] for row in written}


def store_adapters(
    run: Run, data: Rows, model: TunedReadings, alone: Share, licence: str, promote: bool
) -> tuple[Registry, str]:
    """(the pilot's registry, the hash of this model in it); the first pilot's stands before it.

    `data`: the rows that were taught; `alone`: what the model by itself has right. `promote`: put
    it into use, which is for a decision to say. Raises CourseError as Registry does.
    """
    store, base = (
        Registry(run.path("registry")),
        models.resolve(run.pilot.base_model, run.pilot.folder),
    )
    about = {**_made_from(run.pilot, data), "licence": licence, "versions": versions()}
    if promote and not store.history():
        try:
            first = run.need("00", f"adapter/{ADAPTER}").parent
        except CourseError:
            first = None
        if first and first.resolve() != model.adapter.resolve():
            name = store.push(
                first, base, {**about, "chapter": "00", "evaluation": {"said by": "chapter 00"}}
            )
            store.promote(name, "the first pilot")
    told = {"exact": round(alone.value, 4), "rows": alone.n}
    about |= {"chapter": model.chapter, "evaluation": told}
    name = store.push(model.adapter, base, about)
    if promote and store.current() != name:
        store.promote(name, f"the decision of {date.today().isoformat()}: {alone.value:.1%} alone")
    return store, name


def _made_from(pilot: Pilot, data: Rows) -> dict[str, Any]:
    return {
        "data": fingerprint([dict(row) for row in data.train]),
        "prompt": fingerprint(pilot.chat("", full=False)),
        "grammar": fingerprint(pilot.model_dump(mode="json")["fields"]),
    }


def write_papers(
    run: Run, evidence: Evidence, store: Registry | None, made_by: Mapping[str, str] | None = None
) -> list[Path]:
    """Write decision.md and .html, the data card and, of a stored model, its card and its bill."""
    paths = documents.write_decision(run.folder, evidence)
    texts = {"data_card.md": documents.data_card(evidence)}
    if store and evidence.adapter:
        record = store.record(evidence.adapter)
        parts = [cards.Part("labelled rows", "your own", is_data=True)]
        parts += [cards.Part(name, licence) for name, licence in sorted((made_by or {}).items())]
        texts["model_card.md"] = cards.adapter_card(record)
        texts[BILL] = cards.bill_of_materials(record, parts)
    for name, text in texts.items():
        write_text(run.path(name), text)
        paths.append(run.path(name))
    return paths

"""What is stored with a decision: adapters in a registry, cards, a bill of materials."""

from collections.abc import Mapping
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
    verdict = licensing.gate(base.name, teachers=list(made_by or {}), data=("own",))
    return base.name, verdict


def made_rows_of(run: Run, model: TunedReadings | None) -> dict[str, str]:
    """{teacher: licence} of the made rows that the tuned model learnt; {} where it learnt none."""
    if model is None or model.trained_here:
        return {}
    try:
        rows = read_entries(run.need("04", "curated.jsonl"))
    except CourseError:
        return {}
    return {row["teacher"]: row["licence"] for row in rows if row.get("teacher")}


def store_adapters(
    run: Run, data: Rows, model: TunedReadings, exact: float, rows: int, licence: str
) -> tuple[Registry, str]:
    """(the pilot's registry, the hash of this model in it); the first pilot's stands before it.

    `exact` of `rows` messages is what the promotion says. Raises CourseError as Registry does.
    """
    store, base = (
        Registry(run.path("registry")),
        models.resolve(run.pilot.base_model, run.pilot.folder),
    )
    about = {**_made_from(run.pilot, data), "licence": licence, "versions": versions()}
    if not store.history():
        try:
            first = run.need("00", f"adapter/{ADAPTER}").parent
        except CourseError:
            first = None
        if first and first.resolve() != model.adapter.resolve():
            name = store.push(first, base, {**about, "evaluation": {"chapter": "00"}})
            store.promote(name, "the first pilot")
    name = store.push(model.adapter, base, {**about, "evaluation": {"exact": exact, "rows": rows}})
    if store.current() != name:
        store.promote(name, f"{exact:.1%} of {rows} judged records right")
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

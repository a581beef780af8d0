"""The papers of a stored adapter, from its record: a model card and a bill of materials."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6

from helpers.core.text import visible
from helpers.ship.records import flat

# fmt: off
ON_THE_HUB = {  # names of licences that the hub knows; every other one is "other" there
    "apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gemma", "llama2", "llama3", "llama3.1",
    "llama3.2", "llama3.3", "openrail", "unknown",
}
# fmt: on
MARKS = re.compile(r"([\\`*_\[\]<>|&$~#])")  # what Markdown, HTML in it or MathJax would not show


def adapter_card(record: Mapping[str, Any]) -> str:
    """A record of the registry as Markdown, with the YAML head that the hub reads."""
    base = record["base"]
    head: dict[str, Any] = {"base_model": base["name"], "library_name": "peft"}
    head |= {
        **_licence(base["licence"]),
        "pipeline_tag": "text-generation",
        "tags": ["lora", "safetensors"],
    }
    made = {name: record[name] for name in ("data", "prompt", "grammar", "seed") if name in record}
    lines = ["---", yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(), "---", ""]
    lines += [f"# Adapter {_shown(record['hash'])}", ""]
    what = f"A LoRA adapter for {_shown(base['name'])}, stored on {_shown(record['date'])[:10]}"
    lines += [f"{what}, {record['bytes'] / 1e6:.1f} MB.", ""]
    terms = f"Licence of the base model: {_shown(base['licence'])}."
    lines += [f"{terms} Verdict on the whole: {_shown(record['licence'])}.", ""]
    lines += _table("What was measured", record["evaluation"])
    lines += _table("What it was made from", made)
    lines += _table("SHA-256", {f"weights of {base['name']}": base["sha256"], **record["files"]})
    lines += _table("Versions", record.get("versions") or {})
    return "\n".join(lines)


def _licence(name: str) -> dict[str, str]:
    """The keys of the hub's head for a licence."""
    known = "unknown" if name.startswith("unknown") else name.lower()
    if known in ON_THE_HUB:
        return {"license": known}
    return {"license": "other", "license_name": name}


def _table(title: str, values: Mapping[str, Any]) -> list[str]:
    if not values:
        return []
    rows = [f"| {_shown(name)} | {_shown(value)} |" for name, value in flat(values).items()]
    return [f"## {title}", "", "| name | value |", "|---|---|", *rows, ""]


def _shown(value: Any) -> str:
    """A value as one line that Markdown shows as it stands."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return MARKS.sub(r"\\\1", " ".join(visible(text).split()))


# The bill of materials --------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Something an adapter was made with: a data set, or the model that wrote its rows.

    `sha256`: of its file, "" where nobody has it.
    """

    name: str
    licence: str
    sha256: str = ""
    is_data: bool = False


def bill_of_materials(record: Mapping[str, Any], parts: Sequence[Part] = ()) -> str:
    """A record of the registry as an AI bill of materials: CycloneDX 1.6, JSON.

    The adapter is what the bill is about; the base model and the `parts` are what it depends on.
    Figures and hashes of the record that CycloneDX has no field for stand among the properties.
    """
    base, model = record["base"], ComponentType.MACHINE_LEARNING_MODEL
    adapter = _component(model, f"adapter {record['hash']}", record["licence"], record["sha256"])
    for name, value in flat({key: record[key] for key in SAID if key in record}).items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        adapter.properties.add(Property(name=name, value=text))
    made_with = [_component(model, base["name"], base["licence"], base["sha256"])]
    for part in parts:
        kind = ComponentType.DATA if part.is_data else model
        made_with.append(_component(kind, part.name, part.licence, part.sha256))
    bill = Bom(components=made_with)
    bill.metadata.component = adapter
    bill.register_dependency(adapter, made_with)
    return JsonV1Dot6(bill).output_as_string(indent=1) + "\n"


SAID = ("date", "data", "prompt", "grammar", "evaluation", "seed", "versions")


def _component(kind: ComponentType, name: str, licence: str, digest: str) -> Component:
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else []
    # by its name, not its SPDX id: a verdict in words has none
    licences = [DisjunctiveLicense(name=licence)]
    return Component(type=kind, name=name, hashes=hashes, licenses=licences, bom_ref=name)

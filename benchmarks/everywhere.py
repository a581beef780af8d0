"""One file for what was measured outside the chapters: Colab, other scripts, odd pilots, attacks.

from benchmarks.everywhere import add_figures
figures = [{"name": "japanese.exact_tuned", "value": 0.4, "n": 100, "how": "exact record"}]
add_figures("japanese", figures, {"seconds": 120})
"""

import json
import re
import tempfile
from pathlib import Path

from filelock import FileLock

from helpers import ROOT
from helpers.core.files import write_text
from helpers.core.runtime import machine, versions

RESULTS = ROOT / "data/reference/results/everywhere.json"
LOCK = Path(tempfile.gettempdir()) / "course-everywhere.lock"
EMPTY = {"low": None, "high": None, "n": None, "unit": "share", "seeds": [0]}


def add_figures(
    part: str, figures: list[dict], settings: dict, results: str | Path = RESULTS
) -> Path:
    """Replace the figures of `part` in everywhere.json, or in another file of the same shape.

    Those of other parts are left alone.

    A figure needs `name`, `value` and `how`; `low`, `high`, `n`, `unit`, `seeds` are filled in.
    `settings` says how they were made, with `seconds`; machine and versions are added where it
    does not name them. Raises ValueError for a figure of another part or one that is incomplete.
    """
    results = Path(results)
    figures = [EMPTY | figure for figure in figures]
    names = [figure["name"] for figure in figures]
    for figure in figures:
        if set(figure) != {*EMPTY, "name", "value", "how"} or not figure["how"]:
            raise ValueError(f"{figure['name']}: a figure has {sorted(EMPTY)}, name, value, how.")
        if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", figure["name"]):
            raise ValueError(f"{figure['name']}: small letters, digits, _ and points.")
    if len(set(names)) < len(names):
        raise ValueError(f"A name stands twice among {names}.")
    with FileLock(LOCK):
        page = _read(results)
        own = set(page["settings"].pop(part, {}).get("figures", []))
        others = [figure for figure in page["figures"] if figure["name"] not in own]
        taken = {figure["name"] for figure in others} & set(names)
        if taken:
            raise ValueError(f"{sorted(taken)} belong to another part.")
        made_by = {"figures": names, "seconds": 0, "machine": machine(), "versions": versions()}
        page["settings"][part] = made_by | settings
        page["settings"] = dict(sorted(page["settings"].items()))
        page["figures"] = sorted([*others, *figures], key=lambda figure: figure["name"])
        page["seconds"] = sum(made["seconds"] for made in page["settings"].values())
        page["machine"], page["versions"] = machine(), versions()
        write_text(results, json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    return results


def _read(results: Path) -> dict:
    if results.is_file():
        return json.loads(results.read_text(encoding="utf-8"))
    empty: dict = {"chapter": results.stem, "pilot": "several", "profile": "several", "seconds": 0}
    return empty | {"figures": [], "settings": {}}

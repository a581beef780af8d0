"""Study 09, second part: two adapters added into one, against each of them alone.

The inbox adapter (chapter 05) and the order desk's (chapter 06) share base, rank and layers. Every
combination was fixed beforehand: weights of one, half of the numbers kept where some are dropped.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel

from helpers.core.files import Journal, fingerprint, sha256
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.measure import intervals
from helpers.play.order_desk import OrderDesk
from helpers.play.rollouts import play
from helpers.play.students import engine_of, student_base, student_way
from helpers.studies import study_figures as figures
from helpers.studies.episodes_ways import MEASURED
from helpers.tune import training
from helpers.tune.students import scored_answers

COMBINED: dict[str, dict[str, Any]] = {  # arguments of PEFT's add_weighted_adapter
    "cat": {"combination_type": "cat"},  # the sum itself, of twice the rank
    "svd": {"combination_type": "svd", "svd_rank": 16},
    "linear": {"combination_type": "linear"},
    "ties": {"combination_type": "ties", "density": 0.5},
    "dare_ties": {"combination_type": "dare_ties", "density": 0.5},
}
ALONE = ("inbox", "desk")
CASES = MEASURED[:50]  # of the order desk


def combined(inbox: Path, desk: Path, way: str, run: Run) -> Any:
    """The dense base with both adapters combined by `way`, or with one of them, merged in."""
    base, _ = student_base()
    with base.loading():
        dense = training.load_base(base.path, run.runtime, four_bit=False)
    model = PeftModel.from_pretrained(dense, str(inbox), adapter_name="inbox")
    model.load_adapter(str(desk), adapter_name="desk")
    if way in COMBINED:
        model.add_weighted_adapter([*ALONE], [1.0, 1.0], way, **COMBINED[way])
    model.set_adapter(way)
    return model.merge_and_unload(adapter_names=[way])


def measure_combined(
    pilot: Pilot, data: Any, run: Run, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """A cell for each adapter alone and each combination: records of the inbox, cases of the desk.

    The pilot's base is the embedded model. A finished cell is read back.
    """
    inbox, desk = run.need("05", "adapter"), run.need("06", "player")
    weights = [sha256(place / "adapter_model.safetensors") for place in (inbox, desk)]
    journal, cells = Journal(run.path("combined.jsonl"), "A combination"), []
    for way in (*ALONE, *COMBINED):
        key = fingerprint(way, weights, COMBINED.get(way), [row[pilot.text] for row in data.test])
        if journal.missing([key]):
            start = time.perf_counter()
            model, (_, tokenizer) = combined(inbox, desk, way, run), student_base()
            room = max(len(tokenizer(pilot.answer(row)).input_ids) for row in data.train) + 16
            at = run.path(f"told/{key}_inbox")
            _, result = scored_answers(
                pilot, model, tokenizer, data.test, at, run.runtime, 512, max(64, room)
            )
            engine = engine_of(model, tokenizer)
            replies = Journal(run.path(f"told/{key}_desk.jsonl"))
            log = play(OrderDesk, CASES, student_way(), engine, replies)
            cell = {"arm": way, "key": key, "inbox": result.exact.tolist()}
            cell["desk"] = [episode.success for episode in log]
            journal.add({key: cell}, time.perf_counter() - start)
        cells += journal.of([key])
        shown = {name: f"{np.mean(cells[-1][name]):.1%}" for name in ALONE}
        say(f"{way:10} inbox {shown['inbox']}  desk {shown['desk']}")
    return cells


def combined_figures(cells: list[dict[str, Any]]) -> Iterator[figures.StudyFigure]:
    """`two.<way>.inbox` and `two.<way>.desk`, Wilson intervals."""
    for cell in cells:
        for name in ALONE:
            share = intervals.share(cell[name])
            how = {"inbox": "exact record, test", "desk": "unseen cases"}[name]
            yield figures.StudyFigure(
                f"two.{cell['arm']}.{name}", share, f"{how}, Wilson 95 %", [0]
            )

"""A pilot's base model before any tuning: the whole instruction and worked examples in a prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

from helpers.ask import answers
from helpers.core.rows import spread
from helpers.core.runs import Run
from helpers.measure import scoring
from helpers.tune import training
from helpers.tune.students import SETTINGS

ASKED = 40  # training rows that the gate asks about


def examples_and_asked(run: Run, train: Sequence[dict], number: int) -> tuple[list, list]:
    """(the worked examples of the profile, at most `number` other training rows, by label)."""
    labels, shots = run.pilot.labels, run.runtime.profile.shots
    order = spread(train, labels, shots + number, run.seed)
    return order[:shots], order[shots:]


def prompted_score(
    run: Run, shots: Sequence[Mapping], rows: Sequence[Mapping[str, Any]], name: str
) -> scoring.Scored:
    """How the base model answers labelled `rows` with the examples `shots` in its prompt.

    Its answers are held to the pilot's grammar and kept as `answers/<name>` of the run.
    """
    pilot, here = run.pilot, run.runtime
    base, tokenizer = answers.open_base(pilot)
    with base.loading():
        model = training.load_base(base.path, here, four_bit=False)
    longest = max(len(tokenizer(pilot.answer(row)).input_ids) for row in (*shots, *rows))
    told = answers.generate(
        model,
        tokenizer,
        pilot,
        rows,
        run.path(f"answers/{name}"),
        shots=shots,
        full=True,
        batch_size=here.profile.eval_batch_size,
        max_length=8 * here.profile.max_length,
        max_new_tokens=max(SETTINGS["max_new_tokens"], longest + 16),
    )
    return scoring.score(pilot, rows, told.texts)

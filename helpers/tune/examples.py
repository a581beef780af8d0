"""Rows that can teach: prompt and answer for the trainer, and which of their tokens are trained."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from helpers import CourseError
from helpers.ask import answers
from helpers.ask.likelihood import control_tokens
from helpers.core.pilot import Pilot
from helpers.core.text import as_text


def training_rows(
    pilot: Pilot, rows: Iterable[Mapping[str, Any]], tokenizer: Any, max_length: int
) -> tuple[list[dict[str, str]], list[str]]:
    """(rows as {"prompt", "completion"} for an SFTTrainer, notes the reader should see).

    A message that makes its prompt longer than `max_length` tokens is cut, never the instruction or
    the answer. A row whose span stood in the part that was cut is left out: it would teach to
    invent. Raises CourseError for no rows, for one class only, and when no row is left.
    """
    rows, marks = list(rows), control_tokens(tokenizer)
    notes = _one_class_notes(pilot, rows)
    kept, cut, left_out = [], 0, 0
    for row in rows:
        taught = training_row(pilot, row, tokenizer, max_length)
        if as_text(row[pilot.text].strip(), marks) not in taught["prompt"]:
            cut += 1
            if _lost_a_span(pilot, row, taught["prompt"]):
                left_out += 1
                continue
        kept.append(taught)
    if not kept:
        raise CourseError(
            f"In all {len(rows)} rows the answer stands in the part of the message that the window "
            f"of {max_length} tokens cuts off: raise it, or shorten them."
        )
    if cut:
        notes.append(
            f"{cut} of {len(rows)} messages are longer than the window of {max_length} tokens and "
            "were cut: raise it, or shorten them."
        )
    if left_out:
        notes.append(
            f"{left_out} of these were left out: the answer stood in the part that was cut off."
        )
    return kept, notes


def _one_class_notes(pilot: Pilot, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note for each label field of one value; raises CourseError when there is no other field."""
    if not rows:
        raise CourseError(
            "There are no rows to train on: train.csv is empty, or a filter rejected every row."
        )
    fields = [field for field in pilot.labels if len(pilot.fields[field].values) > 1]
    notes = []
    for field in fields:
        value = rows[0][field]
        if all(row[field] == value for row in rows):
            notes.append(
                f"all {len(rows)} training rows have {field} = {value!r}: "
                "the model learns to say so always."
            )
    if notes and len(notes) == len(fields):
        raise CourseError(
            f"All {len(rows)} training rows have {fields[0]} = {rows[0][fields[0]]!r}: with one "
            "class there is nothing to tell apart; add rows of another one."
        )
    return notes


def _lost_a_span(pilot: Pilot, row: Mapping[str, Any], prompt: str) -> bool:
    """Whether a value that is copied from the message no longer stands in the cut prompt."""
    for field in pilot.fields:
        if field in pilot.labels or not row[field]:
            continue
        if row[field] in row[pilot.text] and row[field] not in prompt:
            return True
    return False


def training_row(
    pilot: Pilot, row: Mapping[str, Any], tokenizer: Any, max_length: int
) -> dict[str, str]:
    """One row as {"prompt", "completion"}, its message cut so that the prompt fits `max_length`."""
    prompt = answers.prompt(pilot, tokenizer, row[pilot.text], full=False, max_length=max_length)
    # SFTTrainer adds the start token of a tokenizer that has one: then the prompt must have none
    if tokenizer.bos_token and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]:
        prompt = prompt.removeprefix(tokenizer.bos_token)
    # the trainer reads these as one text
    completion = as_text(pilot.answer(row), control_tokens(tokenizer))
    return {"prompt": prompt, "completion": completion}


def row_length(tokenizer: Any, row: Mapping[str, Any]) -> int:
    """Tokens of a training row, its end token with it; a row of `input_ids` is as long as these."""
    if "input_ids" in row:
        return len(row["input_ids"])
    return len(tokenizer(row["prompt"] + row["completion"]).input_ids) + 1


def show_loss_mask(tokenizer: Any, input_ids: Sequence[int], labels: Sequence[int]) -> str:
    """The text of a training row or pack, with what the loss is computed on in ⟦brackets⟧."""
    pieces = []
    for trained, pairs in groupby(zip(input_ids, labels, strict=True), key=_is_trained):
        text = tokenizer.decode([token for token, _ in pairs])
        if trained:
            text = f"⟦{text}⟧"
        pieces.append(text)
    return "".join(pieces)


def _is_trained(pair: tuple[int, int]) -> bool:
    return pair[1] >= 0  # -100 marks a token that the loss leaves out

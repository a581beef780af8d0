"""How likely a model finds a text that stands already: the one log-likelihood scorer of the course.

No library: lm-eval has one inside, but only for whole multiple-choice tasks. Chapter 08 holds this
one against it.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from helpers.core.text import as_text

MOST_SCORES = 2**27  # of choices that are read at a time: half a GiB in 32 bits, held three times


@contextmanager
def evaluating(model) -> Iterator[None]:
    """The model in evaluation mode and without gradients; afterwards it is as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def half_precision(model) -> torch.autocast:
    """The number format to compute in: a model in 16 bits may carry an adapter in 32."""
    dtype = model.dtype
    if model.device.type == "cpu":
        dtype = torch.bfloat16  # the only 16-bit format that a processor computes in
    return torch.autocast(model.device.type, dtype=dtype, enabled=model.dtype != torch.float32)


def pad_token(tokenizer) -> int:
    """The id that fills up shorter rows: the pad token, the end token where there is none."""
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return token_id
    return 0  # the attention mask hides it, so any id does


@lru_cache(maxsize=8)
def control_tokens(tokenizer: Any) -> re.Pattern:
    """Finds what the tokenizer reads as one of its control tokens, wherever it stands."""
    marks = set(tokenizer.all_special_tokens)
    for token in tokenizer.added_tokens_decoder.values():
        # others are often plain runs of spaces
        if token.special or re.fullmatch(r"[<\[].*[>\]]", token.content):
            marks.add(token.content)
    # the longest first, so that none hides in another
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))) or r"(?!)")


def log_likelihoods(
    model, tokenizer, prompts: Sequence[str], texts: Sequence[str], batch_size: int = 16
) -> list[tuple[np.ndarray, list[int]]]:
    """For each (prompt, text): (log p of every token of the text, where each begins in the text).

    Natural logarithms. The model reads the text as it stands: one forward pass, no generation.
    Token borders as in lm-eval: prompt and text are tokenised together and cut where the prompt
    alone ends. A control token in a text is read as text.
    """
    rows, begins, marks = [], [], control_tokens(tokenizer)
    for prompt, text in zip(prompts, texts, strict=True):
        text = as_text(text, marks)
        whole = tokenizer(prompt + text, add_special_tokens=False, return_offsets_mapping=True)
        border = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        rows.append(whole.input_ids)
        # a token may begin in the prompt and end in the text
        starts = [max(0, start - len(prompt)) for start, _ in whole.offset_mapping[border:]]
        begins.append(starts)
    # rows of like length share a batch, so that little is padded
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    results: list = [None] * len(rows)
    with evaluating(model):
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            longest = max(len(begins[number]) for number in batch)
            read = _read(model, [rows[number] for number in batch], longest, pad_token(tokenizer))
            for number, logs in zip(batch, read):
                own = logs[longest - len(begins[number]) :]
                results[number] = own.astype(float), begins[number]
    return results


def _read(model, rows: list[list[int]], last: int, pad: int) -> np.ndarray:
    """log p of the `last` tokens of each row, shape (rows, last), from one forward pass."""
    longest = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        missing = longest - len(row)  # on the left, so that all texts end together
        ids.append([pad] * missing + row)
        mask.append([0] * missing + [1] * len(row))
    tokens = torch.tensor(ids, device=model.device)
    attended = torch.tensor(mask, device=model.device)
    # scores over the whole vocabulary are large: only those of the texts are kept
    # places, not a number: of a slice torch would copy the output layer once for every row
    kept = torch.arange(longest - last - 1, longest, device=model.device)
    with half_precision(model):
        output = model(input_ids=tokens, attention_mask=attended, logits_to_keep=kept)
    # the scores at one place are about the token at the next
    logs = torch.log_softmax(output.logits[:, :-1].float(), -1)
    return logs.gather(-1, tokens[:, longest - last :, None])[..., 0].cpu().numpy()


def choice_log_likelihoods(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    most_sequences: int = 128,
) -> list[np.ndarray]:
    """For each prompt: log p of each of its `choices`, shape (choices,), natural logarithms.

    The same figures as `log_likelihoods` of every pair, but each prompt is read once: its keys and
    values are copied to its choices, of which about `most_sequences` are read at a time. Where a
    choice joins the end of the prompt in one token, that token counts.
    """
    marks, shared, rests = control_tokens(tokenizer), [], []
    for prompt, texts in zip(prompts, choices, strict=True):
        whole = [prompt + as_text(text, marks) for text in texts]
        rows = tokenizer(whole, add_special_tokens=False).input_ids
        border = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        same = min(border, len(os.path.commonprefix(rows)))
        shared.append(rows[0][:same])
        rests.append([row[same:] for row in rows])
    order = sorted(range(len(rests)), key=lambda number: (len(rests[number]), len(shared[number])))
    results: list = [None] * len(rests)
    with evaluating(model), half_precision(model):
        while order:
            number_of_choices = len(rests[order[0]])
            same_number = [n for n in order if len(rests[n]) == number_of_choices]
            # scores over the whole vocabulary are large, most of all in 32 bits
            longest = max(len(row) for number in same_number for row in rests[number])
            sequences = min(most_sequences, MOST_SCORES // (longest * len(tokenizer)))
            batch = same_number[: max(1, sequences // number_of_choices)]
            order = order[len(batch) :]
            starts, ends = [shared[n] for n in batch], [rests[n] for n in batch]
            for number, logs in zip(batch, _read_choices(model, starts, ends, tokenizer)):
                results[number] = logs
    return results


def _read_choices(
    model: Any, starts: list[list[int]], ends: list[list[list[int]]], tokenizer: Any
) -> np.ndarray:
    """log p of each row of `ends` behind its start, shape (starts, choices)."""
    pad, number, longest = pad_token(tokenizer), len(ends[0]), max(map(len, starts))
    # starts are filled up on the left, so that all end together; ends on the right
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in starts]).to(model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in starts])
    mask = mask.to(model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    read = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=torch.tensor([longest - 1], device=model.device),  # see _read
    )
    first = torch.log_softmax(read.logits[:, -1].float(), -1).repeat_interleave(number, 0)
    rows = [row for choice in ends for row in choice]
    most = max(map(len, rows))
    tokens = torch.tensor([row + [pad] * (most - len(row)) for row in rows]).to(model.device)
    real = torch.tensor([[1] * len(row) + [0] * (most - len(row)) for row in rows])
    real = real.to(model.device)
    total = first.gather(1, tokens[:, :1])[:, 0]
    if most > 1:
        cache = read.past_key_values
        cache.batch_repeat_interleave(number)
        after = positions[:, -1:].repeat_interleave(number, 0) + torch.arange(
            1, most, device=model.device
        )
        logits = model(
            input_ids=tokens[:, :-1],
            attention_mask=torch.cat([mask.repeat_interleave(number, 0), real[:, :-1]], 1),
            position_ids=after,
            past_key_values=cache,
            use_cache=True,
        ).logits
        logs = torch.log_softmax(logits.float(), -1).gather(-1, tokens[:, 1:, None])[..., 0]
        total = total + (logs * real[:, 1:]).sum(1)
    return total.reshape(len(starts), number).cpu().numpy().astype(float)

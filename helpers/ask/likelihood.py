"""How likely a model finds a text that stands already: the one log-likelihood scorer of the course.

No library: lm-eval has one inside, but only for whole multiple-choice tasks. Chapter 08 holds this
one against it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from helpers.core.text import as_text


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
    with half_precision(model):
        output = model(input_ids=tokens, attention_mask=attended, logits_to_keep=last + 1)
    # the scores at one place are about the token at the next
    logs = torch.log_softmax(output.logits[:, :-1].float(), -1)
    return logs.gather(-1, tokens[:, longest - last :, None])[..., 0].cpu().numpy()

"""How likely a model finds a text that stands already: the one log-likelihood scorer of the course.

No library: lm-eval has one inside, but only for whole multiple-choice tasks. Chapter 08 holds this
one against it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


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


@dataclass(frozen=True)
class _Reading:
    """A prompt and a text as ids; the text begins at token `border`, its tokens at `begins`."""

    ids: list[int]
    border: int
    begins: list[int]


def log_likelihoods(
    model, tokenizer, prompts: Sequence[str], texts: Sequence[str], batch_size: int = 16
) -> list[tuple[np.ndarray, list[int]]]:
    """For each (prompt, text): (log p of every token of the text, where each begins in the text).

    Natural logarithms. The model reads the text as it stands: one forward pass, no generation.
    Token borders as in lm-eval: prompt and text are tokenised together and cut where the prompt
    alone ends.
    """
    readings = []
    for prompt, text in zip(prompts, texts, strict=True):
        readings.append(_reading(tokenizer, prompt, text))
    # rows of like length share a batch, so that little is padded
    order = sorted(range(len(readings)), key=lambda number: len(readings[number].ids))
    results: list = [None] * len(readings)
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = [readings[number] for number in numbers]
            for number, logs in zip(numbers, _read(model, batch, pad_token(tokenizer))):
                results[number] = logs, readings[number].begins
    return results


def _reading(tokenizer, prompt: str, text: str) -> _Reading:
    whole = tokenizer(prompt + text, add_special_tokens=False, return_offsets_mapping=True)
    border = len(tokenizer(prompt, add_special_tokens=False).input_ids)
    begins = []
    for start, _ in whole.offset_mapping[border:]:
        # a token may begin in the prompt and end in the text
        begins.append(max(0, start - len(prompt)))
    return _Reading(whole.input_ids, border, begins)


def _read(model, batch: list[_Reading], pad: int) -> list[np.ndarray]:
    """log p of the text tokens of each reading, from one forward pass over all of them."""
    longest = max(len(reading.ids) for reading in batch)
    most = max(len(reading.ids) - reading.border for reading in batch)
    if most == 0:  # only empty texts
        return [np.zeros(0) for _ in batch]
    ids, mask = [], []
    for reading in batch:
        missing = longest - len(reading.ids)  # on the left, so that all texts end together
        ids.append([pad] * missing + reading.ids)
        mask.append([0] * missing + [1] * len(reading.ids))
    tokens = torch.tensor(ids, device=model.device)
    attended = torch.tensor(mask, device=model.device)
    # scores over the whole vocabulary are large: only those of the texts are kept
    with half_precision(model):
        output = model(input_ids=tokens, attention_mask=attended, logits_to_keep=most + 1)
    # the scores at one place are about the token at the next
    logs = torch.log_softmax(output.logits[:, :-1].float(), -1)
    picked = logs.gather(-1, tokens[:, -most:, None])[..., 0].cpu().numpy()
    results = []
    for reading, values in zip(batch, picked):
        number = len(reading.ids) - reading.border
        results.append(np.asarray(values[len(values) - number :], float))
    return results

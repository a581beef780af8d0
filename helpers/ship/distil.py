"""Distilled scales of a one-bit delta: one number a matrix, from the tuned model's logits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from helpers.ship.deltas import Delta, is_matrix

RATE = 0.02  # of the scales' logarithms


def distilled_signs(
    base: Any,
    tuned: Any,
    delta: Mapping[str, torch.Tensor],
    packs: Sequence[Sequence[int]],
    say: Callable[[str], None] | None = None,
) -> Delta:
    """A delta of signs whose scales bring the base's logits near those of `tuned` (BitDelta).

    `base`, `tuned`: dense models in float32 on one device. `delta`: tuned minus base; what is no
    matrix is left as it is there. `packs`: token ids, one step each; mean squared error of logits.
    """
    weights = {name: weight.detach() for name, weight in base.named_parameters()}
    signs, logs = {}, {}
    for name, change in delta.items():
        if is_matrix(name, change):
            signs[name] = torch.where(change > 0, 1.0, -1.0)
            logs[name] = change.abs().mean().clamp(min=1e-12).log().requires_grad_()
        elif change.ndim == 1:
            weights[name] = weights[name] + change
    optimizer = torch.optim.Adam(logs.values(), lr=RATE)
    for number, pack in enumerate(packs):
        ids = torch.tensor([list(pack)])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                wanted = tuned(ids, use_cache=False).logits.float()
            new = dict(weights)
            for name, sign in signs.items():
                new[name] = weights[name] + logs[name].exp() * sign
            told = torch.func.functional_call(base, new, (ids,), {"use_cache": False}).logits
        loss = (told.float() - wanted).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if say and number % 20 == 0:
            say(f"step {number}: {loss.item():.4f}")
    distilled = dict(delta)
    for name, sign in signs.items():
        distilled[name] = logs[name].detach().exp() * sign
    return distilled

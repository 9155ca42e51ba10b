"""The optimiser of a stage: AdamW, a rate that rises linearly, then falls linearly to 0."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from text.encoder.recipe import AdamW


def rate(step: int, steps: int, peak: float, warm_up: float) -> float:
    """Return the learning rate of a step, from 0: never 0 itself, at its peak after the warm-up."""
    rising = max(1, round(steps * warm_up))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (steps - step) / max(1, steps - rising + 1)


def optimiser(parameters: Iterable[tuple[str, nn.Parameter]], adam: AdamW) -> torch.optim.AdamW:
    """Make the optimiser of named parameters; biases and norms have no weight decay."""
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for _, parameter in parameters:
        (decayed if parameter.ndim > 1 else plain).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": adam.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=(adam.beta1, adam.beta2),
        eps=adam.epsilon,
        fused=True,
    )

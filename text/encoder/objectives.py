"""Losses of the stages, on cosine similarities s (arXiv 2402.17016, section 3).

Rows of every matrix are texts' vectors, of any length; losses are means over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[..., Tensor]


def info_nce(queries: Tensor, passages: Tensor, temperature: float) -> Tensor:
    """Return −mean ln [e^{s(q_i,p_i)/τ} / Σ_j e^{s(q_i,p_j)/τ}] for (k, D), (k, D)."""
    logits = _unit(queries) @ _unit(passages).T / temperature  # (k, k)
    return F.cross_entropy(logits, torch.arange(len(logits)))


def pairs(queries: Tensor, passages: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE in both directions: the loss of stage II."""
    there = info_nce(queries, passages, temperature)
    return there + info_nce(passages, queries, temperature)


def hard_negatives(
    queries: Tensor, passages: Tensor, negatives: Tensor, temperature: float
) -> Tensor:
    """Return InfoNCE over all passages and all negatives (k, m, D) of the batch, plus InfoNCE of
    passages to queries without negatives: the loss of retrieval in stage III.
    """
    q, p = _unit(queries), _unit(passages)
    others = torch.cat([p, _unit(negatives).flatten(0, 1)])  # (k + k·m, D)
    logits = q @ others.T / temperature
    there = F.cross_entropy(logits, torch.arange(len(q)))
    return there + info_nce(passages, queries, temperature)


def correlation(first: Tensor, second: Tensor, scores: Tensor) -> Tensor:
    """Return −Pearson's correlation of cosines and given scores (k,): of similarity in stage III.

    Undefined where all scores are equal: ValueError.
    """
    return _negative_correlation((_unit(first) * _unit(second)).sum(-1), scores)


def relations(first: Tensor, second: Tensor, wanted: Tensor) -> Tensor:
    """Return −Pearson's correlation of the cosines (k, k) of (k, D), (k, D) and given ones.

    Undefined where all given ones are equal: ValueError.
    """
    return _negative_correlation((_unit(first) @ _unit(second).T).flatten(), wanted.flatten())


def _negative_correlation(cosines: Tensor, scores: Tensor) -> Tensor:
    c, t = cosines - cosines.mean(), scores - scores.mean()
    if not bool(t.abs().max() > 0):
        raise ValueError("the correlation of equal scores is undefined")
    norms = (c.norm() * t.norm()).clamp_min(torch.finfo(c.dtype).tiny)
    negative: Tensor = -(c * t).sum() / norms
    return negative


def squared_error(first: Tensor, second: Tensor, scores: Tensor) -> Tensor:
    """Return the mean of (cosine − score)², the paper's alternative to the correlation."""
    cosine = (_unit(first) * _unit(second)).sum(-1)
    return F.mse_loss(cosine, scores)


def matryoshka(
    loss: Loss, widths: Sequence[int], vectors: Sequence[Tensor], *rest: object
) -> Tensor:
    """Average a loss over the first ``widths`` numbers of the vectors (Kusupati et al. 2022)."""
    losses = [loss(*(each[..., :width] for each in vectors), *rest) for width in widths]
    return torch.stack(losses).mean()


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1, eps=1e-12)

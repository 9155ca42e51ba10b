"""Operations of the network that reduce memory traffic; each docstring has the plain formula.

Values and gradients are the formula's, up to the order of additions. Autograd's path through the
history would write (B, L, D) four times or more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK_BYTES = 4 * 2**20  # of history vectors per block, to stay in the cache


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Compute ``layer(x)`` for x (B, inputs), by oneDNN if available.

    torch multiplies dense float32 matrices by MKL, which is slower on AMD processors (`bench`
    prints both: ``speedup`` and ``speedup_same_kernels``).
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and _onednn():
        return F.linear(x.to_mkldnn(), layer.weight, layer.bias).to_dense()
    return layer(x)  # type: ignore[no-any-return]


def _onednn() -> bool:
    mkldnn = torch.backends.mkldnn
    return bool(mkldnn.enabled) and mkldnn.is_available()  # type: ignore[no-untyped-call]


def interest(query: Tensor, vectors: Tensor, index: Tensor) -> Tensor:
    """Σ_j ReLU(q·s_j) s_j over the history s_j = vectors[index_j], index 0 left out.

    query (B, D), vectors (U, D), index (B, L) int64 -> (B, D). Processes rows in blocks: neither
    the history's vectors (B, L, D) nor their gradient is materialised as a whole.
    """
    return _Interest.apply(query, vectors, index)  # type: ignore[no-any-return, no-untyped-call]


class Dropout(nn.Module):
    """``nn.Dropout`` with 32 random bits per element, faster on a CPU."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        bits = torch.empty((x.numel() + 1) // 2, dtype=torch.int64, device=x.device)
        drawn = bits.random_(-(2**63), None).view(torch.int32)[: x.numel()].view(x.shape)
        keep = drawn >= round(self.p * 2**32) - 2**31  # P = 1 − p, to within 2⁻³³
        return x * keep.to(x.dtype).mul_(1 / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _Interest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, vectors: Tensor, index: Tensor) -> Tensor:
        weights, pools = [], []
        for j, q in _blocks(vectors, index, query):
            history = F.embedding(j, vectors)  # (b, L, D)
            weight = F.relu(_dot(q, history)) * (j != 0)  # (b, L)
            weights.append(weight)
            pools.append(_weighted_sum(weight, history))
        ctx.save_for_backward(query, vectors, index, torch.cat(weights))
        return torch.cat(pools)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, vectors, index, weights = ctx.saved_tensors
        of_vectors, of_query = torch.zeros_like(vectors), []
        for j, q, weight, g in _blocks(vectors, index, query, weights, gradient):
            history = F.embedding(j, vectors)  # (b, L, D), gathered again: cheaper than stored
            of_score = _dot(g, history) * (weight > 0)  # (b, L)
            of_query.append(_weighted_sum(of_score, history))
            left, right = torch.stack([weight, of_score], 2), torch.stack([g, q], 1)
            of_history = torch.bmm(left, right)  # (b, L, D): weight ⊗ g + of_score ⊗ q
            of_vectors.index_add_(0, j.flatten(), of_history.flatten(0, 1))
        return torch.cat(of_query), of_vectors, None


def _blocks(vectors: Tensor, index: Tensor, *parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split index (B, L) and ``parts`` (B, …) into blocks of at most ``BLOCK_BYTES``."""
    row_bytes = index.shape[1] * vectors.shape[1] * vectors.element_size()
    rows = max(1, BLOCK_BYTES // max(1, row_bytes))
    parts = (index, *parts)
    return zip(*(torch.split(part, rows) for part in parts), strict=True)


def _dot(vector: Tensor, history: Tensor) -> Tensor:
    """(b, D), (b, L, D) -> (b, L)."""
    return torch.bmm(vector.unsqueeze(1), history.transpose(1, 2)).squeeze(1)


def _weighted_sum(weight: Tensor, history: Tensor) -> Tensor:
    """(b, L), (b, L, D) -> (b, D)."""
    return torch.bmm(weight.unsqueeze(1), history).squeeze(1)

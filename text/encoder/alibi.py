"""Attention with linear biases, symmetric: −m·|i − j| for head slope m (Press et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 256  # queries of one attention block, of long texts
WHOLE = 512  # longest text attended in one piece


def slopes(heads: int) -> tuple[float, ...]:
    """Return each head's slope: 2^(−8/n), its powers for n a power of two.

    For other n: those of the power of two below, then every other one of twice that power.
    """
    below = 1 << (heads.bit_length() - 1)
    powers = _powers(below)
    return powers + _powers(2 * below)[::2][: heads - below]


def _powers(heads: int) -> tuple[float, ...]:
    base = 2.0 ** -(8.0 / heads)
    return tuple(math.pow(base, head + 1) for head in range(heads))


class Biases:
    """Biases of attention for texts of given lengths: −m·|i − j|, and −∞ at padded keys.

    Kept whole for short texts, taken by blocks of queries for long ones from (H, 2L − 1), one bias
    for each distance: (H, L, L) of 8,192 tokens and 12 heads has 3.2 GB.
    """

    def __init__(self, heads: int, lengths: Tensor, longest: int, like: Tensor) -> None:
        self.block = longest if longest <= WHOLE else BLOCK
        self._longest = longest
        distances = torch.arange(1 - longest, longest).abs()
        steepness = torch.tensor(slopes(heads), dtype=torch.float64)[:, None]
        self._by_distance = (-steepness * distances).to(like.dtype)  # (H, 2L − 1)
        padded = torch.arange(longest) >= lengths[:, None]  # (B, L)
        self._mask = None
        if bool(padded.any()):
            self._mask = like.new_zeros(padded.shape).masked_fill(padded, -torch.inf)
        self._whole = self._rows(0) if self.block == longest else None

    def rows(self, start: int) -> Tensor:
        """Return (1 or B, H, Q, L) for the block of queries from ``start`` on."""
        return self._rows(start) if self._whole is None else self._whole

    def _rows(self, start: int) -> Tensor:
        stop = min(start + self.block, self._longest)
        windows = self._by_distance.unfold(1, self._longest, 1)  # (H, L, L), a view
        # Key j of the window of query i has place L − 1 − i + j: windows run against the queries.
        biases = windows[:, self._longest - stop : self._longest - start].flip(1)[None]
        return biases if self._mask is None else biases + self._mask[:, None, None, :]

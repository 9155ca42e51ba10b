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

    Kept whole for short texts, made by blocks of queries for long ones: (H, L, L) of 8,192 tokens
    and 12 heads has 3.2 GB.
    """

    def __init__(self, heads: int, lengths: Tensor, longest: int, like: Tensor) -> None:
        self.block = longest if longest <= WHOLE else BLOCK
        self._slopes = torch.tensor(slopes(heads), dtype=torch.float64)[:, None, None]
        self._positions = torch.arange(longest)
        self._dtype = like.dtype
        padded = self._positions >= lengths[:, None]  # (B, L)
        self._mask = None
        if bool(padded.any()):
            self._mask = like.new_zeros(padded.shape).masked_fill(padded, -torch.inf)
        self._whole = self._rows(0) if self.block == longest else None

    def rows(self, start: int) -> Tensor:
        """Return (1 or B, H, Q, L) for the block of queries from ``start`` on."""
        return self._rows(start) if self._whole is None else self._whole

    def _rows(self, start: int) -> Tensor:
        queries = self._positions[start : start + self.block]
        distance = (queries[:, None] - self._positions).abs()
        biases = (-self._slopes * distance).to(self._dtype)[None]
        return biases if self._mask is None else biases + self._mask[:, None, None, :]

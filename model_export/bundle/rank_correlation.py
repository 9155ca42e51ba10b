"""Rank correlation of two scorings of one list."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32] | NDArray[np.float64]


def kendall_tau(a: Scores, b: Scores) -> float:
    """Kendall's τ-b of two score lists (K,), in K² time; 1 if all scores tie."""
    above_a, above_b = a[:, None] > a, b[:, None] > b  # (K, K): each ordered pair once
    agree = np.count_nonzero(above_a & above_b)
    differ = np.count_nonzero(above_a & above_b.T)
    scale = math.sqrt(np.count_nonzero(above_a) * np.count_nonzero(above_b))
    return (agree - differ) / scale if scale else 1.0

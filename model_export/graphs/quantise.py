"""Quantises weights to int8, symmetric, with a scale per output column."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_export.graphs.folds import Matrix, Vector

LEVELS = 127  # symmetric: −128 is not used


def per_column(weight: Matrix) -> tuple[NDArray[np.int8], Vector]:
    """(inputs, outputs) -> int8 of the same shape and scale (outputs,): weight ≈ int8 · scale."""
    scale = np.abs(weight).max(axis=0) / LEVELS
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32).astype(np.float64)
    levels = np.clip(np.rint(weight / scale), -LEVELS, LEVELS)
    return levels.astype(np.int8), scale

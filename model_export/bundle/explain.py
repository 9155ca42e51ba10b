"""Attributes a candidate's pooled interest to history items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.vectors import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """Per candidate, the history items of the largest share, largest first."""

    position: NDArray[np.int64]  # (C, top) in the history, or numbers of ``same``
    share: Floats  # (C, top) of the pooled vector, 0 … 1; 0 without attention


def strongest(
    attention: Floats, values: Floats, top: int, same: NDArray[np.int64] | None = None
) -> Influence:
    """attention a (C, L), values v (L, D) -> the ``top`` largest |a_j v_j| / Σ|a_i v_i|.

    The pooled interest is Σ a_j v_j; item j's share is the length of its term. ``same`` (L,)
    numbers distinct items 0 … G−1: terms of a repeated item have one direction, so shares add up.
    """
    term = attention * np.linalg.norm(values, axis=1)  # (C, L)
    if same is not None and len(same):
        order = np.argsort(same, kind="stable")
        starts = np.flatnonzero(np.diff(same[order], prepend=-1))
        term = np.add.reduceat(term[:, order], starts, axis=1)  # (C, G)
    total = term.sum(axis=1, keepdims=True)
    share = np.divide(term, total, out=np.zeros_like(term), where=total > 0)
    position = np.argsort(-share, axis=1, kind="stable")[:, :top]
    return Influence(position, np.take_along_axis(share, position, axis=1))

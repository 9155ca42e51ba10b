"""Which history items a candidate's pooled interest came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """Per candidate, the strongest history items, strongest first."""

    position: NDArray[np.int64]  # (C, top) in the history, or the number of ``same``
    share: Floats  # (C, top) of the pooled vector, 0 … 1; 0 where nothing was attended to


def strongest(
    attention: Floats, values: Floats, top: int, same: NDArray[np.int64] | None = None
) -> Influence:
    """attention a (C, L), values v (L, D) -> the ``top`` largest |a_j v_j| / Σ|a_i v_i|.

    The pooled interest is Σ a_j v_j: item j's share of it is the length of its own term.
    ``same`` (L,) numbers the history's items 0 … G−1 where one may be in several places: their
    terms have one direction, so their shares add up.
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

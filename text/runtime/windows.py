"""Certified windows: which keys ALiBi lets a head leave out of its attention, and why.

A query's weights are softmax(s_j − m·|i − j|) with |s_j| ≤ B for all its keys. Those farther than
D ≥ (spare + 2B)/m have less than e^−spare of them in sum, in a text of any length:

    Σ_{|i−j|>D} e^{s_j − m|i−j|}  ≤  e^B · Σ_{|i−j|>D} e^{−m|i−j|}  ≤  e^{B − mD} · T,
    Σ_j e^{s_j − m|i−j|}          ≥  e^{−B} · (1 + T),

with T = Σ_{j≠i} e^{−m|i−j|}, since the keys beyond D, moved D nearer on their side, are among
those of T. The quotient is below e^{2B − mD} ≤ e^−spare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPARE = 24 * math.log(2)  # less than 2^−24 of a query's weight is left out: half a unit of float32
ALL = 1e9  # as ``spare``: nothing is left out


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """What the attention of one text left out, per layer and head."""

    bound: NDArray[np.float32]  # (layers, H): B, the most that |q·(k − c)|/√d can be
    window: NDArray[np.int64]  # (layers, H): D, keys to either side of a block of queries
    share: NDArray[np.float64]  # (layers, H): of all pairs of query and key, those computed
    spare: float  # −ln of the weight that each query's keys beyond D are less than, in sum

    @property
    def omitted(self) -> float:
        """Weight of a query that less than is left out, of 1."""
        return math.exp(-self.spare)

    @property
    def visited(self) -> float:
        """Share of pairs of query and key that were computed, over all layers and heads."""
        return float(self.share.mean())


def reach(slope: float, bound: float, spare: float = SPARE) -> int:
    """Return D, the distance beyond which keys may be left out."""
    return math.ceil((spare + 2 * bound) / slope)

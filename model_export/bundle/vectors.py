"""The arrays between the graphs: item vectors, and one user's history.

N items, L history items; D item-vector width, X network width, F context features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]
Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Candidates(Protocol):
    """The ranker's inputs for N items."""

    @property
    def vector(self) -> Floats: ...  # (N, D)
    @property
    def row(self) -> Floats: ...  # (N, X)
    @property
    def context(self) -> Indices: ...  # (N, F)


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """The item tower's output, fixed per model version, with contexts."""

    vector: Floats  # (N, D)
    row: Floats  # (N, X): share of the first layer, with context and bias
    context: Indices  # (N, F): the levels included in ``row``

    def __len__(self) -> int:
        return len(self.vector)

    def part(self, start: int, end: int) -> ItemVectors:
        """Rows [start, end), without a copy."""
        return ItemVectors(self.vector[start:end], self.row[start:end], self.context[start:end])

    def take(self, positions: NDArray[np.integer[Any]]) -> ItemVectors:
        return ItemVectors(
            self.vector.take(positions, 0),
            self.row.take(positions, 0),
            self.context.take(positions, 0),
        )


@dataclass(frozen=True, slots=True)
class HistoryRows:
    """The history tower's output for one user; L = 0 is an empty history."""

    keys: Floats  # (L, D)
    values: Floats  # (L, D)
    rows: Floats  # (L, X): share of the first layer

"""The arrays between the graphs: item vectors, one user's history, and the user.

N items, L history items; D item-vector width, X network width, F context features, W width
of user and request embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from feature_store.schema import FeatureSchema, Numeric

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
class UserRow:
    """The user tower's output for one request: user and request features."""

    vector: Floats  # (1, W): their embeddings
    row: Floats  # (1, X): share of the first layer
    defaulted: tuple[str, ...] = ()  # features missing or of an unknown index, in schema order


@dataclass(frozen=True, slots=True)
class HistoryRows:
    """The history tower's output for one user; L = 0 is an empty history."""

    keys: Floats  # (L, D)
    values: Floats  # (L, D)
    rows: Floats  # (L, X): share of the first layer


def request_dtype(schema: FeatureSchema) -> np.dtype[np.void]:
    """The features of one request: an index, 0 for missing, or a number, NaN for missing."""
    return np.dtype([(f.name, "<f4" if isinstance(f, Numeric) else "<i4") for f in schema.request])


def known(indices: NDArray[Any], vocabulary: int) -> Indices:
    """Contiguous int32; indices beyond the vocabulary become 0, the padding row."""
    levels = np.ascontiguousarray(indices, np.int32)
    beyond = levels.view(np.uint32) >= vocabulary  # negative ones, too
    return np.where(beyond, np.int32(0), levels) if beyond.any() else levels

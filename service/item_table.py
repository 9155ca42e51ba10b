"""Items made ready for one model version: their rows in memory, found by id.

    slot -> vector (D) | row (X) | context (F) | cold

One anonymous mapping holds all four columns; the system provides its pages as they are written.
A slot, once taken, never changes: what a request has looked up stays true until it is answered.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids
from feature_store.schema import FeatureSchema
from service.hash_index import ABSENT, HashIndex

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]
Slots = NDArray[np.int64]
ALIGNMENT = 64  # bytes, of each column


@dataclass(frozen=True, slots=True)
class DerivedItems:
    """What scoring needs of N items, derived from their records by one model version."""

    vector: Floats  # (N, D)
    row: Floats  # (N, X)
    context: Indices  # (N, F), as stored
    cold: NDArray[np.bool_]  # (N,)

    def __len__(self) -> int:
        return len(self.cold)

    def columns(self) -> Iterator[NDArray[np.generic]]:
        yield from (self.vector, self.row, self.context, self.cold)

    @classmethod
    def joined(cls, parts: Sequence[DerivedItems]) -> DerivedItems:
        """One after the other."""
        return cls(
            np.concatenate([p.vector for p in parts]),
            np.concatenate([p.row for p in parts]),
            np.concatenate([p.context for p in parts]),
            np.concatenate([p.cold for p in parts]),
        )

    def gather(self, positions: Slots) -> DerivedItems:
        return DerivedItems(
            self.vector.take(positions, 0),
            self.row.take(positions, 0),
            self.context.take(positions, 0),
            self.cold.take(positions, 0),
        )


class ItemTable:
    """At most ``capacity`` items. Reading needs no lock; writing takes one."""

    def __init__(self, schema: FeatureSchema, capacity: int) -> None:
        self.capacity = capacity
        self.columns = _allocate(schema, capacity)
        self.refused = 0  # items that found it full
        self._index = HashIndex.empty(capacity)
        self._writing = threading.Lock()

    @property
    def count(self) -> int:
        return self._index.count

    @property
    def bytes_per_item(self) -> int:
        """Of the columns; the index adds 16 bytes a key at a load of 25 to 50%."""
        return sum(column[:1].nbytes for column in self.columns.columns())

    def find(self, ids: Ids) -> Slots:
        """(N,) slot of each id, ABSENT where there is none."""
        return self._index.find(ids)

    def insert(self, ids: Ids, items: DerivedItems) -> int:
        """Add items that are not there yet, as many as fit; how many did not fit."""
        with self._writing:
            ids, first = np.unique(ids, return_index=True)
            absent = self._index.find(ids) == ABSENT
            ids, chosen = ids[absent], first[absent]
            start = self.count
            fitting = min(len(ids), self.capacity - start)
            end = start + fitting
            for column, values in zip(self.columns.columns(), items.columns(), strict=True):
                column[start:end] = values[chosen[:fitting]]
            # Rows first, then the keys that lead to them: a reader never sees a half-written item.
            self._index.insert(ids[:fitting], np.arange(start, end))
            refused = len(ids) - fitting
            self.refused += refused
            return refused


def _allocate(schema: FeatureSchema, capacity: int) -> DerivedItems:
    layout = (
        (np.dtype(np.float32), schema.item_vector_width),
        (np.dtype(np.float32), schema.network_width),
        (np.dtype(np.int32), len(schema.context)),
        (np.dtype(np.bool_), 1),
    )
    rows = max(capacity, 1)
    sizes = [-(-rows * width * kind.itemsize // ALIGNMENT) * ALIGNMENT for kind, width in layout]
    memory, start, columns = mmap.mmap(-1, sum(sizes)), 0, []
    for (kind, width), size in zip(layout, sizes, strict=True):
        column = np.frombuffer(memory, kind, rows * width, start).reshape(rows, width)
        columns.append(column)
        start += size
    vector, row, context, cold = columns
    return DerivedItems(vector, row, context, cold[:, 0])

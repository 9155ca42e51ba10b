"""The arrays of an item table in one mapping, anonymous or of a file that processes share.

    header (32) | changes (8192) | keys (B, 8) rows (B, 8) hints (≥ 2 S)
    | ids (S) generations (S) referenced (S) | vector row context cold lacks (S)

The system provides pages as they are written, so room that is not used costs nothing.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids
from feature_store.schema import FeatureSchema
from model_export.bundle.vectors import Floats, Indices, Positions
from service.items.hash_index import BUCKET, EMPTY, HashIndex, random_multiplier

Slots = Positions
FREE = -1  # in ``ids``
NONE = np.empty(0, np.int64)  # of the slots
COUNT, CLOCK_HAND, WRITING, FILLED, SLOTS, FORMAT, FIRST, SECOND, LACKING, CURSOR = range(10)
HEADER_WORDS = (
    32  # FIRST and SECOND are the index's multipliers; the cursor and its digest are the rest
)
CHANGES = 8192  # counters: a change of one item keeps back what is fetched of 1 in 8192 others
ALIGNMENT = 4096  # bytes, of each array
UNMAPPED_AT_ONCE = 2 << 20  # bytes: 0.2 ms
UNMAPPING_PAUSE_S = 0.001


@dataclass(frozen=True, slots=True)
class DerivedItems:
    """Columns of N items, derived from their records by one model version."""

    vector: Floats  # (N, D)
    row: Floats  # (N, X)
    context: Indices  # (N, F), as stored
    cold: NDArray[np.bool_]  # (N,)
    lacks: NDArray[np.bool_]  # (N,) the content that the model wants

    def __len__(self) -> int:
        return len(self.cold)

    def columns(self) -> Iterator[NDArray[np.generic]]:
        yield from (self.vector, self.row, self.context, self.cold, self.lacks)

    @classmethod
    def joined(cls, parts: Sequence[DerivedItems]) -> DerivedItems:
        """Concatenate ``parts``."""
        return cls(
            np.concatenate([p.vector for p in parts]),
            np.concatenate([p.row for p in parts]),
            np.concatenate([p.context for p in parts]),
            np.concatenate([p.cold for p in parts]),
            np.concatenate([p.lacks for p in parts]),
        )

    def first(self, count: int) -> DerivedItems:
        """Views of the first ``count``."""
        return DerivedItems(
            self.vector[:count],
            self.row[:count],
            self.context[:count],
            self.cold[:count],
            self.lacks[:count],
        )

    def gather(self, positions: Slots) -> DerivedItems:
        return DerivedItems(
            self.vector.take(positions, 0),
            self.row.take(positions, 0),
            self.context.take(positions, 0),
            self.cold.take(positions, 0),
            self.lacks.take(positions, 0),
        )


@dataclass(frozen=True, slots=True)
class TableMemory:
    """The arrays of a table of S slots, all zero when new: see ``begin``."""

    header: NDArray[np.int64]
    changes: NDArray[np.int64]  # (8192,) of items, counted by a hash of the id
    keys: Ids  # (B, 8)
    rows: Slots  # (B, 8)
    hints: Slots  # (≥ 2 S,)
    ids: Ids  # (S,) whose slot it is, or FREE
    generations: NDArray[np.int64]  # (S,) grows before the slot is overwritten
    referenced: NDArray[np.uint8]  # (S,) looked up since the clock's hand last passed
    items: DerivedItems  # (S,)
    mapping: mmap.mmap  # that they are in

    def begin(self) -> None:
        """An empty table."""
        multipliers = [random_multiplier(), random_multiplier()]
        self.header[FIRST : SECOND + 1] = np.array(multipliers, np.uint64).view(np.int64)
        self.keys.fill(EMPTY)
        self.ids.fill(FREE)

    def count(self, more: Slots = NONE, *, without: Slots = NONE) -> None:
        """Count the items of ``more`` slots, and no longer those of others."""
        lacks = self.items.lacks
        self.header[COUNT] += len(more) - len(without)
        self.header[LACKING] += lacks.take(more).sum() - lacks.take(without).sum()

    @classmethod
    def anonymous(cls, schema: FeatureSchema, slots: int) -> TableMemory:
        """An empty table in memory of this process alone."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        mapping = mmap.mmap(-1, size_of(schema, slots), flags=flags)
        if hasattr(mmap, "MADV_HUGEPAGE"):  # random rows of gigabytes: fewer misses of the TLB
            mapping.madvise(mmap.MADV_HUGEPAGE)
        memory = cls.within(mapping, schema, slots)
        memory.begin()
        return memory

    @staticmethod
    def header_of(mapping: mmap.mmap) -> NDArray[np.int64]:
        return np.frombuffer(mapping, np.int64, HEADER_WORDS)

    @classmethod
    def of_file(cls, descriptor: int, schema: FeatureSchema) -> TableMemory:
        """The table that was begun in a file."""
        mapping = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        return cls.within(mapping, schema, int(cls.header_of(mapping)[SLOTS]))

    @classmethod
    def within(cls, mapping: mmap.mmap, schema: FeatureSchema, slots: int) -> TableMemory:
        arrays, start = list[NDArray[Any]](), 0
        for kind, shape in _layout(schema, slots):
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(mapping, kind, count, start).reshape(shape))
            start += _aligned(count * np.dtype(kind).itemsize)
        header, changes, keys, rows, hints, ids, generations, referenced, *columns = arrays
        items = DerivedItems(*columns)
        return cls(header, changes, keys, rows, hints, ids, generations, referenced, items, mapping)

    def forget_pages(self) -> None:
        """Unmap the pages of a table in a file, a few at a time: unmapping a gigabyte at once takes
        a core for a tenth of a second. Who still reads a row maps its page again."""
        for start in range(0, len(self.mapping), UNMAPPED_AT_ONCE):
            part = min(UNMAPPED_AT_ONCE, len(self.mapping) - start)
            self.mapping.madvise(mmap.MADV_DONTNEED, start, part)
            time.sleep(UNMAPPING_PAUSE_S)

    def index(self) -> HashIndex:
        first, second = self.header[FIRST : SECOND + 1].view(np.uint64).tolist()
        return HashIndex(self.keys, self.rows, self.hints, first, second)


def size_of(schema: FeatureSchema, slots: int) -> int:
    """Bytes of a table of that many slots, its index included."""
    layout = _layout(schema, slots)
    return sum(_aligned(int(np.prod(shape)) * np.dtype(kind).itemsize) for kind, shape in layout)


def bytes_per_item(schema: FeatureSchema) -> int:
    """Bytes of a slot: columns, id, generation, reference bit. Without its share of the index."""
    layout = _layout(schema, 1)[5:]
    return sum(int(np.prod(shape)) * np.dtype(kind).itemsize for kind, shape in layout)


def _layout(schema: FeatureSchema, slots: int) -> list[tuple[Any, tuple[int, ...]]]:
    buckets = HashIndex.buckets(slots), BUCKET
    return [
        (np.int64, (HEADER_WORDS,)),
        (np.int64, (CHANGES,)),
        (np.int64, buckets),
        (np.int64, buckets),
        (np.int64, (HashIndex.hints(slots),)),
        (np.int64, (slots,)),
        (np.int64, (slots,)),
        (np.uint8, (slots,)),
        (np.float32, (slots, schema.item_vector_width)),
        (np.float32, (slots, schema.network_width)),
        (np.int32, (slots, len(schema.context))),
        (np.bool_, (slots,)),
        (np.bool_, (slots,)),
    ]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT

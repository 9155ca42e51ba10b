"""Ids to row numbers, a whole array at a time.

Open addressing in buckets of eight 8-byte keys, one cache line: a look-up of many ids is a gather
of their buckets and one comparison, repeated only for the few whose bucket has overflowed into the
next. Keys and rows are plain arrays, so that the index can live in a mapped file.

Writers must be one at a time. Readers need no lock: a key is written after its row number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids

BUCKET = 8  # keys, 64 bytes
LOAD = 0.5  # of the keys in use when full
EMPTY = -1  # ids are never negative
ABSENT = -1
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio (Knuth, TAOCP 6.4)

Rows = NDArray[np.int64]


class HashIndex:
    """At most ``capacity`` ids. ``keys`` (buckets, 8) and ``rows`` (buckets, 8) are its memory."""

    def __init__(self, keys: Ids, rows: Rows, count: int = 0) -> None:
        self._keys, self._rows = keys, rows
        self._shift = np.uint64(64 - len(keys).bit_length() + 1)
        self._mask = len(keys) - 1
        self.count = count

    @staticmethod
    def buckets(capacity: int) -> int:
        """A power of two that holds ``capacity`` ids at LOAD or below; at least two."""
        wanted = max(2, -(-capacity // int(BUCKET * LOAD)))
        return 1 << (wanted - 1).bit_length()

    @classmethod
    def empty(cls, capacity: int) -> HashIndex:
        shape = (cls.buckets(capacity), BUCKET)
        return cls(np.full(shape, EMPTY, np.int64), np.zeros(shape, np.int64))

    def find(self, ids: Ids) -> Rows:
        """Row number of each id (N,), ABSENT where there is none."""
        found = np.full(len(ids), ABSENT, np.int64)
        bucket = self._bucket(ids)
        pending = np.arange(len(ids))
        while len(pending):
            keys = self._keys[bucket]  # (P, 8)
            match = keys == ids[pending, None]
            place = match.argmax(axis=1)
            hit = match[np.arange(len(pending)), place]
            found[pending[hit]] = self._rows[bucket[hit], place[hit]]
            overflowed = ~hit & (keys[:, -1] != EMPTY)  # buckets fill from the left
            pending, bucket = pending[overflowed], (bucket[overflowed] + 1) & self._mask
        return found

    def insert(self, ids: Ids, rows: Rows) -> None:
        """Add ids that are not there yet, each once. The caller keeps to the capacity."""
        bucket = self._bucket(ids)
        pending = np.arange(len(ids))
        while len(pending):
            _, first = np.unique(bucket, return_index=True)  # one id a bucket and round
            used = (self._keys[bucket[first]] != EMPTY).sum(axis=1)
            free = used < BUCKET
            chosen, place = first[free], used[free]
            self._rows[bucket[chosen], place] = rows[pending[chosen]]
            self._keys[bucket[chosen], place] = ids[pending[chosen]]
            left = np.ones(len(pending), np.bool_)
            left[chosen] = False
            pending, bucket = pending[left], bucket[left]
            overflowed = self._keys[bucket, -1] != EMPTY
            bucket = (bucket + overflowed) & self._mask
        self.count += len(ids)

    def _bucket(self, ids: Ids) -> Rows:
        return ((ids.view(np.uint64) * MULTIPLIER) >> self._shift).astype(np.int64)

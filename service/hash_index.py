"""Ids to row numbers, a whole array at a time.

Every id has two buckets of eight 8-byte keys, one cache line each, and is in one of them: a look-up
of many ids is a gather of their first buckets and one comparison, repeated with the second ones for
what was not there. So an id can be removed without a trace, and no look-up ever walks.

In front of it are the hints, one array of row numbers that an id has two places in: by one hash,
its row when it was put; by another, its row when it was found after others had taken the first.
Whoever knows which id a row is of can ask them first, at an eighth of the memory's traffic, and the
buckets only for what both were wrong about.

All of it are plain arrays: the index can live in a mapped file. Writers must be one at a time.
Readers need no lock, but what they are told while somebody writes is a hint too: whoever asks must
look whether that row is the id's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids

BITS = 3
BUCKET = 1 << BITS  # keys, 64 bytes
LOAD = 0.5  # of the keys in use when full
FIRST_ONLY = 6  # while an id's first bucket holds fewer keys than this, its second is not looked at
EMPTY = -1  # ids are never negative
ABSENT = -1
HINTED = 2  # hints, at least, for each id when full
FIRST = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio (Knuth, TAOCP 6.4)
SECOND = np.uint64(0xD6E8FEB86659FD93)
HALF = np.uint64(32)

Rows = NDArray[np.int64]


class HashIndex:
    """Of ids from 0 on. Its memory: ``keys`` (buckets, 8), ``rows`` (buckets, 8) and ``hints``, a
    power of two of row numbers, at first all 0."""

    def __init__(self, keys: Ids, rows: Rows, hints: Rows) -> None:
        self._keys, self._hints = keys, hints
        self._flat_keys, self._flat_rows = keys.reshape(-1), rows.reshape(-1)  # the same memory
        self._shift = _shift_to(len(keys))
        self._hint_shift = _shift_to(len(hints))

    @staticmethod
    def buckets(capacity: int) -> int:
        """A power of two that holds ``capacity`` ids at LOAD or below; at least two."""
        return _power_of_two(-(-capacity // int(BUCKET * LOAD)))

    @staticmethod
    def hints(capacity: int) -> int:
        """A power of two of at least HINTED for each."""
        return _power_of_two(HINTED * capacity)

    @classmethod
    def empty(cls, capacity: int) -> HashIndex:
        shape = (cls.buckets(capacity), BUCKET)
        hints = np.zeros(cls.hints(capacity), np.int64)
        return cls(np.full(shape, EMPTY, np.int64), np.zeros(shape, np.int64), hints)

    def hint(self, ids: Ids) -> Rows:
        """Row number (N,) that is probably each id's, if it has one."""
        rows: Rows = self._hints.take(_hashed(ids, self._hint_shift))
        return rows

    def hint_again(self, ids: Ids) -> Rows:
        """As ``hint``, for those whose first was another's: their second."""
        rows: Rows = self._hints.take(_hashed_again(ids, self._hint_shift))
        return rows

    def remember(self, ids: Ids, rows: Rows) -> None:
        """Where ids were found that neither of their hints led to."""
        self._hints[_hashed_again(ids, self._hint_shift)] = rows

    def find(self, ids: Ids) -> Rows:
        """Row number of each id (N,), ABSENT where there is none."""
        cell = self._cells(ids)
        rows: Rows = self._flat_rows.take(cell)
        absent = cell == ABSENT
        if absent.any():
            rows[absent] = ABSENT
        return rows

    def put(self, ids: Ids, rows: Rows) -> NDArray[np.bool_]:
        """Add or redirect ids (N,), each given once; where both buckets were full, False."""
        cell = self._cells(ids)
        placed: NDArray[np.bool_] = cell != ABSENT
        self._flat_rows[cell[placed]] = rows[placed]
        pending = np.flatnonzero(~placed)
        while len(pending):
            chosen = self._emptier(ids[pending])
            _, once = np.unique(chosen, return_index=True)  # one id a bucket and round
            free = self._keys[chosen[once]] == EMPTY
            fits = free.any(axis=1)
            one, place = pending[once[fits]], free[fits].argmax(axis=1)
            where = (chosen[once[fits]] << BITS) + place
            self._flat_rows[where] = rows[one]  # first the row, then the key that leads to it
            self._flat_keys[where] = ids[one]
            placed[one] = True
            pending = np.delete(pending, once)
        self._hints[_hashed(ids[placed], self._hint_shift)] = rows[placed]
        return placed

    def remove(self, ids: Ids) -> None:
        """Forget ids; those that are not there are no matter."""
        cell = self._cells(ids)
        self._flat_keys[cell[cell != ABSENT]] = EMPTY

    def _cells(self, ids: Ids) -> Rows:
        """Where among all keys each id (N,) is, bucket · 8 + place; ABSENT where it is not.

        Of requests nearly all ids are in their first buckets: a few passes over short arrays.
        """
        who, cell = self._match(ids, self._bucket(ids))
        if len(who) == len(ids):
            return cell
        cells = np.full(len(ids), ABSENT, np.int64)
        cells[who] = cell
        others = np.flatnonzero(cells == ABSENT)
        who, cell = self._match(ids[others], self._second(ids[others]))
        cells[others[who]] = cell
        return cells

    def _match(self, ids: Ids, bucket: Rows) -> tuple[Rows, Rows]:
        """Which of the ids are in these buckets (N,), and their cells."""
        hits = np.flatnonzero(self._keys.take(bucket, 0) == ids[:, None])  # of (N, 8)
        who = hits >> BITS
        return who, (bucket.take(who) << BITS) + (hits & (BUCKET - 1))

    def _emptier(self, ids: Ids) -> Rows:
        """The bucket each id should go to: the first unless it is nearly full."""
        first, second = self._bucket(ids), self._second(ids)
        used = (self._keys[first] != EMPTY).sum(axis=1)
        crowded = np.flatnonzero(used >= FIRST_ONLY)
        others = (self._keys[second[crowded]] != EMPTY).sum(axis=1)
        moved = crowded[others < used[crowded]]
        first[moved] = second[moved]
        return first

    def _bucket(self, ids: Ids) -> Rows:
        return _hashed(ids, self._shift)

    def _second(self, ids: Ids) -> Rows:
        return _hashed_again(ids, self._shift)


def _hashed(ids: Ids, shift: np.uint64) -> Rows:
    words = ids.view(np.uint64) * FIRST
    words >>= shift
    return words.view(np.int64)


def _hashed_again(ids: Ids, shift: np.uint64) -> Rows:
    words = ids.view(np.uint64)
    words = (words ^ (words >> HALF)) * SECOND
    words >>= shift
    return words.view(np.int64)


def _shift_to(size: int) -> np.uint64:
    """By which 64 bits become a number below this power of two."""
    return np.uint64(65 - size.bit_length())


def _power_of_two(least: int) -> int:
    return 1 << (max(2, least) - 1).bit_length()

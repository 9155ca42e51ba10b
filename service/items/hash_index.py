"""Hash index from ids to row numbers, vectorised over arrays of ids.

Every id has two buckets of eight 8-byte keys, one cache line each, and is in one of them: a look-up
of many ids is a gather of their first buckets and one comparison, repeated with the second ones for
what was not there. So an id can be removed without a trace, and no look-up ever walks.

In front of it are the hints, one array of row numbers that an id has two places in: by one hash,
its row when it was put; by another, its row when it was found after others had taken the first.
A reader that knows which id a row is of asks them first, at an eighth of the memory's traffic, and
the buckets only for what both were wrong about.

Both hashes are multiplicative, with random multipliers of the index's own: ids cannot be chosen to
fall into one bucket. Ids that find both their buckets full are refused at once.

All of it are plain arrays: the index can live in a mapped file. Writers must be one at a time.
Readers need no lock, but while a writer is at work every answer is a hint: readers must check that
the row is the id's own.
"""

from __future__ import annotations

import secrets

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
HALF = np.uint64(32)

Rows = NDArray[np.int64]


def random_multiplier() -> int:
    """Draw an odd multiplier below 2⁶⁴ that spreads ids in a row evenly.

    The multiples of a number whose continued fraction has small terms leave no large gaps and no
    clusters; where all terms are 1 it is the golden ratio (Knuth, TAOCP 6.4). Terms of 1 and 2
    leave some 2³² to choose from.
    """
    over, below = (0, 1), (1, 0)  # numerators and denominators of the last two convergents
    while below[0] < 1 << 32:
        term = 1 + secrets.randbits(1)
        over, below = (term * over[0] + over[1], over[0]), (term * below[0] + below[1], below[0])
    return (over[0] << 64) // below[0] | 1


class HashIndex:
    """Of ids from 0 on. Its memory: ``keys`` (buckets, 8), ``rows`` (buckets, 8) and ``hints``, a
    power of two of row numbers, at first all 0; and its two multipliers."""

    def __init__(self, keys: Ids, rows: Rows, hints: Rows, first: int, second: int) -> None:
        self.first, self.second = np.uint64(first), np.uint64(second)
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
        keys, rows = np.full(shape, EMPTY, np.int64), np.zeros(shape, np.int64)
        return cls(keys, rows, hints, random_multiplier(), random_multiplier())

    def first_choice(self, ids: Ids) -> Rows:
        """Probable row number (N,) of each id, by its first hint."""
        rows: Rows = self._hints.take(self._hashed(ids, self._hint_shift))
        return rows

    def second_choice(self, ids: Ids) -> Rows:
        """Probable row number (N,) by the second hint, where the first belongs to another id."""
        rows: Rows = self._hints.take(self._hashed_again(ids, self._hint_shift))
        return rows

    def remember(self, ids: Ids, rows: Rows) -> None:
        """Store hints for ids that neither of their hints led to."""
        self._hints[self._hashed_again(ids, self._hint_shift)] = rows

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
        cells = self.places(ids)
        placed: NDArray[np.bool_] = cells != ABSENT
        self.fill(cells[placed], ids[placed], rows[placed])
        return placed

    def places(self, ids: Ids) -> Rows:
        """The cell (N,) where each id is, or else could be put; ABSENT where both buckets are full.

        Nothing is written. Ids are distinct, and so are their cells.
        """
        cells = self._cells(ids)
        pending = np.flatnonzero(cells == ABSENT)
        if not len(pending):
            return cells
        given = np.empty(0, np.int64)
        for limit in range(FIRST_ONLY, BUCKET + 1):  # where both are nearly full, to the emptier
            for hashed in (self._hashed, self._hashed_again):
                chosen = self._free(hashed(ids.take(pending), self._shift), limit, given)
                cells[pending] = chosen
                left = chosen == ABSENT
                if not left.any():
                    return cells
                given, pending = np.concatenate([given, chosen[~left]]), pending[left]
        return cells

    def fill(self, cells: Rows, ids: Ids, rows: Rows) -> None:
        """Put ids (N,) where ``places`` said, with their rows."""
        self._flat_rows[cells] = rows  # first the row, then the key that leads to it
        self._flat_keys[cells] = ids
        self._hints[self._hashed(ids, self._hint_shift)] = rows

    def remove(self, ids: Ids) -> None:
        """Remove ids; unknown ones are ignored."""
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

    def _free(self, bucket: Rows, limit: int, given: Rows) -> Rows:
        """A free cell (N,) in each bucket (N,) named, as long as fewer than ``limit`` are in use.

        Cells ``given`` already count as in use. The n-th of those that name the same bucket gets
        its n-th free cell.
        """
        order = bucket.argsort(kind="stable")
        ascending = bucket.take(order)
        starts = np.flatnonzero(np.diff(ascending, prepend=-1))
        distinct = ascending.take(starts)
        free = self._keys.take(distinct, 0) == EMPTY  # (distinct, 8)
        if len(given):
            at = np.searchsorted(distinct, given >> BITS).clip(max=len(distinct) - 1)
            mine = np.flatnonzero(distinct.take(at) == given >> BITS)
            free[at.take(mine), given.take(mine) & (BUCKET - 1)] = False
        room = free.sum(axis=1)
        sizes = np.diff(starts, append=len(bucket))
        group = np.arange(len(distinct)).repeat(sizes)
        rank = np.arange(len(bucket)) - starts.take(group)
        fits = np.flatnonzero(rank < (room - (BUCKET - limit)).take(group))
        before = room.cumsum() - room  # free cells of the buckets before
        nth = np.flatnonzero(free).take(before.take(group.take(fits)) + rank.take(fits))
        cells = np.full(len(bucket), ABSENT, np.int64)
        cells[order.take(fits)] = (distinct.take(nth >> BITS) << BITS) + (nth & (BUCKET - 1))
        return cells

    def _bucket(self, ids: Ids) -> Rows:
        return self._hashed(ids, self._shift)

    def _second(self, ids: Ids) -> Rows:
        return self._hashed_again(ids, self._shift)

    def _hashed(self, ids: Ids, shift: np.uint64) -> Rows:
        words = ids.view(np.uint64) * self.first
        words >>= shift
        return words.view(np.int64)

    def _hashed_again(self, ids: Ids, shift: np.uint64) -> Rows:
        words = ids.view(np.uint64)
        words = (words ^ (words >> HALF)) * self.second
        words >>= shift
        return words.view(np.int64)


def _shift_to(size: int) -> np.uint64:
    """Right shift that reduces 64 bits to below this power of two."""
    return np.uint64(65 - size.bit_length())


def _power_of_two(least: int) -> int:
    return 1 << (max(2, least) - 1).bit_length()

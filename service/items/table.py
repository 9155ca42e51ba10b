"""Table of the items derived for one model version: rows in memory, found by id.

    slot -> vector (D) | row (X) | context (F) | cold | lacks

Readers take no lock. A look-up finds a slot and its generation. A slot is overwritten only after
its generation has grown, so rows gathered under an unchanged generation are the item's own;
otherwise ``StaleSlots`` is raised. An item that changes gets another slot: the old one keeps its
rows until another item gets it, and requests under way go on with it.

A full table evicts by the clock algorithm: the hand goes round the slots, spares those whose
reference bit was set since it last passed, and takes the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids
from feature_store.schema import FeatureSchema
from model_export.bundle.vectors import Positions
from service.items.hash_index import ABSENT
from service.items.table_layout import (
    CHANGES,
    CLOCK_HAND,
    COUNT,
    CURSOR,
    FREE,
    LACKING,
    WRITING,
    DerivedItems,
    Slots,
    TableMemory,
    bytes_per_item,
)
from service.items.table_lock import STORES_IN_ORDER, Others, TableBusy, TableLock

__all__ = ["DerivedItems", "Epoch", "ItemTable", "Slots", "StaleSlots", "TableBusy"]

Generations = NDArray[np.int64]
Epoch = NDArray[np.int64]  # the change counters at one time
SWEEP = 16_384  # slots the hand looks at in one step
WITHIN_S = 2.0  # that a writer waits for the others
LONG_S = 60.0  # for readers, where they need the lock; there only threads of this process write
DIGEST = 8  # bytes, of the cursor in the header
KEEP_WITHIN_S = 0.02  # and one that a request waits for


class StaleSlots(Exception):
    """Slots were given to other items after they were looked up: look up again."""


class ItemTable:
    """At most ``capacity`` items. Several processes may share its memory."""

    def __init__(
        self,
        schema: FeatureSchema,
        capacity: int,
        memory: TableMemory | None = None,
        others: Others | None = None,
    ) -> None:
        """``others``: the lock against writers in other processes that share ``memory``."""
        self.capacity = capacity
        self.memory = memory or TableMemory.anonymous(schema, max(capacity, 1))
        self.columns = self.memory.items
        self.bytes_per_item = bytes_per_item(schema)
        self.refused = 0  # items that found no room
        self.evicted = 0
        self.not_kept = 0  # fetched items that were not inserted, because the lock was held
        self._busy = False  # the last request to insert did not get the lock
        self._cursor: str | None = None
        self._header = self.memory.header
        self._index = self.memory.index()
        self._lock = TableLock(others)
        self._change_shift = np.uint64(65 - CHANGES.bit_length())

    @property
    def count(self) -> int:
        return int(self._header[COUNT])

    @property
    def lacking(self) -> int:
        """Number of items without the content that the model wants."""
        return int(self._header[LACKING])

    @property
    def bytes(self) -> int:
        """Memory of the items in the table."""
        return self.count * self.bytes_per_item

    @property
    def cursor(self) -> str | None:
        """Position in the store's change log up to which this process has applied changes."""
        return self._cursor

    @cursor.setter
    def cursor(self, cursor: str) -> None:
        """Also write it into the table, for a process that joins. If the table stays locked, an
        earlier one remains there, and that process removes some items twice."""
        if cursor == self._cursor:
            return
        self._cursor = cursor
        text = cursor.encode().ljust(self._header[CURSOR:].nbytes - DIGEST, b"\0")
        with suppress(TableBusy), self._writing():
            self._header[CURSOR:] = np.frombuffer(text + _digest(text), np.int64)

    def joined(self) -> None:
        """Read the cursor that another process has left; None if it was killed while writing it.
        TableBusy."""
        with self._writing():
            noted = self._header[CURSOR:].tobytes()
        text, digest = noted[:-DIGEST], noted[-DIGEST:]
        self._cursor = text.rstrip(b"\0").decode() if digest == _digest(text) else None

    @property
    def epoch(self) -> Epoch:
        """Copy of the change counters. If an item's counter has grown since, a process has removed
        the item, or one that shares its counter."""
        return self.memory.changes.copy()

    def counts(self, ids: Ids, epoch: Epoch) -> NDArray[np.int64]:
        """(N,) value of each id's change counter in ``epoch``."""
        counts: NDArray[np.int64] = epoch.take(self._counters(ids))
        return counts

    def find(self, ids: Ids) -> Slots:
        """(N,) slot of each id, ABSENT where there is none."""
        return self.look_up(ids)[0]

    def look_up(self, ids: Ids) -> tuple[Slots, Generations, Positions]:
        """Find ids (N,): slots (N,), ABSENT for a miss; their generations; where misses are (M,).

        The hints are right for nearly all, so a request costs a few gathers.
        """
        if STORES_IN_ORDER:
            return self._look_up(ids)
        with self._lock.held(LONG_S):
            return self._look_up(ids)

    def _look_up(self, ids: Ids) -> tuple[Slots, Generations, Positions]:
        memory, slots = self.memory, self._index.first_choice(ids)
        generations = memory.generations.take(slots)  # before the id is looked at: see ``_write``
        strange = (memory.ids.take(slots) != ids).nonzero()[0]
        if not len(strange):
            memory.referenced[slots] = 1
            return slots, generations, strange
        some = ids.take(strange)
        again = self._index.second_choice(some)
        slots[strange], generations[strange] = again, memory.generations.take(again)
        wrong = (memory.ids.take(again) != some).nonzero()[0]
        if not len(wrong):
            memory.referenced[slots] = 1
            return slots, generations, wrong
        strange = strange.take(wrong)
        slots[strange], generations[strange], absent = self._look_further(some.take(wrong))
        missed = strange[absent]
        memory.referenced[np.delete(slots, missed) if len(missed) else slots] = 1
        return slots, generations, missed

    def _look_further(self, ids: Ids) -> tuple[Slots, Generations, Positions]:
        """Like ``look_up``, for ids whose hints were wrong."""
        memory, slots = self.memory, self._index.find(ids)
        generations = memory.generations.take(slots)
        # The index is a hint too. ABSENT reads the last slot, which may just be getting this id.
        absent = np.flatnonzero((memory.ids.take(slots) != ids) | (slots == ABSENT))
        if not len(absent):
            self._index.remember(ids, slots)
            return slots, generations, absent
        slots[absent] = ABSENT
        self._index.remember(np.delete(ids, absent), np.delete(slots, absent))
        return slots, generations, absent

    def take(self, slots: Slots, generations: Generations) -> DerivedItems:
        """Rows (N) of slots that were looked up. StaleSlots if one has been reused since."""
        rows = self.columns.gather(slots)
        self.check(slots, generations)
        return rows

    def check(self, slots: Slots, generations: Generations) -> None:
        """Raise StaleSlots unless all that was read of these slots so far was their items' own."""
        if STORES_IN_ORDER:
            now = self.memory.generations.take(slots)
        else:
            with self._lock.held(LONG_S):
                now = self.memory.generations.take(slots)
        if (now != generations).any():
            raise StaleSlots

    def insert(
        self,
        ids: Ids,
        items: DerivedItems,
        *,
        replace: bool = False,
        evict: bool = False,
        epoch: Epoch | None = None,
        within: float = WITHIN_S,
    ) -> int:
        """Add items (N), skipping or replacing those in the table. Returns how many found no room.

        ``evict`` makes room. ``epoch`` is the table's from before the items' records were read:
        what has changed since then is left out, or an old record would outlive a newer one.
        TableBusy when other writers do not let this one in ``within`` seconds.
        """
        ids, first = np.unique(ids, return_index=True)
        with self._writing(within):
            if not replace:
                absent = self._slots(ids) == ABSENT
                ids, first = ids[absent], first[absent]
            now = self.memory.changes
            if (
                epoch is not None
                and (changed := self.counts(ids, now) != self.counts(ids, epoch)).any()
            ):
                if replace:
                    self._unlink(ids[changed])  # better none than an old one
                ids, first = ids[~changed], first[~changed]
            cells = self._index.places(ids)
            refused = int((cells == ABSENT).sum())
            if refused:
                placed = cells != ABSENT
                ids, first, cells = ids[placed], first[placed], cells[placed]
            slots = self._room(len(ids), evict)
            fitting = len(slots)
            self._write(slots, ids[:fitting], items.gather(first[:fitting]))
            if replace and fitting < len(ids):
                self._unlink(ids[fitting:])  # likewise
            self._link(slots, ids[:fitting], cells[:fitting])
            refused += len(ids) - fitting
            self.refused += refused
            return refused

    def keep(self, ids: Ids, items: DerivedItems, epoch: Epoch) -> None:
        """Insert what a request has fetched, unless a process that may be stopped holds the lock.
        The request has its items; the next one fetches them again."""
        try:
            within = 0.0 if self._busy else KEEP_WITHIN_S
            self.insert(ids, items, evict=True, epoch=epoch, within=within)
            self._busy = False
        except TableBusy:
            self._busy = True
            self.not_kept += len(ids)

    def remove(self, ids: Ids, within: float = WITHIN_S) -> None:
        """Remove items that have changed or gone, and invalidate every process's fetches of them.

        TableBusy when other writers do not let this one in ``within`` seconds: nothing is removed.
        """
        ids = np.unique(ids) if len(ids) > 1 else ids
        with self._writing(within):
            self.memory.changes[self._counters(ids)] += 1
            self._unlink(ids)

    def ids(self) -> Ids:
        """Ids of all items, in no order."""
        found: Ids = self.memory.ids[self.memory.ids != FREE]
        return found

    def _slots(self, ids: Ids) -> Slots:
        """Like ``find``, without setting reference bits. For writers."""
        slots = self._index.find(ids)
        slots[self.memory.ids[slots] != ids] = ABSENT
        return slots

    def _counters(self, ids: Ids) -> NDArray[np.int64]:
        """(N,) into the counters of changes."""
        words = ids.view(np.uint64) * self._index.first
        words >>= self._change_shift
        return words.view(np.int64)

    def _room(self, wanted: int, evict: bool) -> Slots:
        """Take up to ``wanted`` slots from the free ones and, if ``evict``, from idle items."""
        wanted = min(wanted, self.capacity)
        missing = max(0, wanted - (self.capacity - self.count)) if evict else 0
        found, parts = 0, list[Slots]()
        free_left = min(wanted, self.capacity - self.count)
        # The second round finds every mark cleared that the first one saw.
        steps = 2 * -(-self.capacity // SWEEP) + 1
        while found < wanted and (missing or free_left) and steps:
            steps -= 1
            part, evicted = self._sweep(min(wanted - found, free_left + missing), missing)
            missing -= evicted
            free_left -= len(part) - evicted
            found += len(part)
            parts.append(part)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _sweep(self, wanted: int, evictable: int) -> tuple[Slots, int]:
        """One step of the hand: free slots, and up to ``evictable`` taken from their items."""
        memory, hand = self.memory, int(self._header[CLOCK_HAND])
        end = min(hand + SWEEP, self.capacity)
        owners = memory.ids[hand:end]
        open_ = owners == FREE
        if evictable:
            idle = np.flatnonzero((owners >= 0) & (memory.referenced[hand:end] == 0))[:evictable]
            open_[idle] = True
        chosen = np.flatnonzero(open_)[:wanted]
        passed = end - hand if len(chosen) < wanted else int(chosen[-1]) + 1
        if evictable:
            memory.referenced[hand : hand + passed] = 0
        self._header[CLOCK_HAND] = 0 if hand + passed >= self.capacity else hand + passed
        chosen += hand
        gone = chosen[memory.ids[chosen] != FREE]
        if len(gone):
            self._index.remove(memory.ids[gone])
            memory.ids[gone] = FREE
            self.memory.count(without=gone)
            self.evicted += len(gone)
        # So that the next step does not choose them again.
        memory.ids[chosen] = TAKEN
        return chosen, len(gone)

    def _write(self, slots: Slots, ids: Ids, items: DerivedItems) -> None:
        """Write generation, rows, id, in this order: a reader that finds the id has the generation
        of these rows or an older one, and a reader of the old rows finds it changed."""
        self.memory.generations[slots] += 1
        for column, values in zip(self.columns.columns(), items.columns(), strict=True):
            column[slots] = values
        self.memory.referenced[slots] = 0
        self.memory.ids[slots] = ids

    def _link(self, slots: Slots, ids: Ids, cells: Slots) -> None:
        """Point the index to the new slots and free the old ones."""
        old = self._slots(ids)
        replaced = old[old != ABSENT]
        self._index.fill(cells, ids, slots)
        self.memory.ids[replaced] = FREE
        self.memory.count(slots, without=replaced)

    def _unlink(self, ids: Ids) -> None:
        """Free the slots of these distinct items, if they have any."""
        slots = self._slots(ids)
        slots = slots[slots != ABSENT]
        self.memory.ids[slots] = FREE
        self._index.remove(ids)
        self.memory.count(without=slots)

    @contextmanager
    def _writing(self, within: float = WITHIN_S) -> Iterator[None]:
        """Enter as the only writer. Repairs what a killed writer has left: never wrong rows, but
        perhaps a wrong count and slots without an owner. TableBusy."""
        with self._lock.held(within):
            if self._header[WRITING]:
                self._mend()
            self._header[WRITING] = 1
            yield
            self._header[WRITING] = 0

    def _mend(self) -> None:
        ids = self.memory.ids
        ids[ids == TAKEN] = FREE
        owned = np.flatnonzero(ids != FREE)
        lost = owned[self._index.find(ids[owned]) != owned]  # written, but not linked
        ids[lost] = FREE
        self._header[COUNT] = self._header[LACKING] = 0
        self.memory.count(owned, without=lost)


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=DIGEST).digest()


TAKEN = -2  # in ``ids``: between its old item and its new one

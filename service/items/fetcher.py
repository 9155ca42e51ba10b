"""Fetches items that are not in a version's table, derives them and puts them there, each once.

Single-flight: requests that miss the same item at the same time wait for the same fetch. A fetch
belongs to no request: it goes on when the one that began it is gone, because others may wait for
it. What the store has no record of is remembered too (``negative_cache``), or one unknown candidate
would cost every request a round trip.

Neither outlives a change of the item by any process that shares the table: both bear the table's
count of changes from before the store was read, and are invalid once that has grown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import CORRUPT, FOUND, Ids
from model_export.bundle.runtime import FoldedModel
from service.context import Priority
from service.engine.engine import Engine
from service.errors import DeadlinePassed, ServiceError
from service.items.hash_index import ABSENT
from service.items.item_tower import derive_into
from service.items.negative_cache import NEVER, NegativeCache, drop
from service.items.store_client import StoreReader
from service.items.table import Epoch, ItemTable
from service.items.table_layout import DerivedItems, Slots
from service.observability.background import begin
from service.observability.metered import measured

if TYPE_CHECKING:
    from service.admission.admission import Permit
    from service.admission.loop_charge import Charge

Status = NDArray[np.uint8]  # FOUND | MISSING | CORRUPT
SomeStatus = Status | None  # None: all FOUND, and in the table
DERIVE_WITHIN_S = 30.0
BATCH = 512  # items that one round trip brings


def each_status(status: SomeStatus, count: int) -> Status:
    """Expand to (count,)."""
    return np.zeros(count, np.uint8) if status is None else status


@dataclass(frozen=True, slots=True, eq=False)
class Fetched:
    """W distinct items, in the order of their ids."""

    ids: Ids  # (W,) ascending
    status: Status  # (W,)
    place: Slots  # (W,) into ``items``, ABSENT unless FOUND
    items: DerivedItems | None  # None when nothing was found
    answered: float  # when the store had answered, on ``perf_counter``


@dataclass(slots=True, eq=False)
class ItemFetcher:
    """Single-flight fetches into one version's table, and its negative cache. On the event loop
    alone."""

    _model: FoldedModel
    _table: ItemTable
    _under_way: dict[int, tuple[asyncio.Task[Fetched], int]] = field(default_factory=dict)
    _negative: NegativeCache = field(default_factory=NegativeCache)
    _epoch: int = 0

    async def fetch(
        self,
        wanted: Ids,
        store: StoreReader,
        engine: Engine,
        deadline: float,
        permit: Permit | None = None,
        charge: Charge | None = None,
    ) -> AsyncIterator[Fetched]:
        """Fetch these items (distinct), in parts, by a round trip for each ``BATCH`` of them.

        Deriving them has the priority of ``permit``; the loop's time is on ``charge``, which waits
        for its turn between two batches. Raises StoreFailure when a part cannot be had,
        DeadlinePassed at ``deadline``.
        """
        for start in range(0, len(wanted), BATCH):
            if start and charge:
                await charge.turn(deadline)
            batch = wanted[start : start + BATCH]
            for part in await self._fetch(batch, store, engine, deadline, permit, charge):
                yield part

    async def _fetch(
        self,
        wanted: Ids,
        store: StoreReader,
        engine: Engine,
        deadline: float,
        permit: Permit | None,
        charge: Charge | None,
    ) -> list[Fetched]:
        """Fetch one batch, in one or more parts; at most one is a new round trip."""
        epoch = self._table.epoch
        counts = self._table.counts(wanted, epoch).tolist()
        known, fresh = list[tuple[int, int]](), list[int]()
        tasks = set[asyncio.Task[Fetched]]()
        for item, count in zip(wanted.tolist(), counts, strict=True):
            task, begun = self._under_way.get(item, NEVER)
            without, seen = self._negative.get(item)
            if task is not None and begun == count:
                tasks.add(task)
            elif without is not None and seen == count:
                known.append((item, without))
            else:
                fresh.append(item)
        parts = [_nothing(known)] if known else []
        if fresh:
            ids = np.array(fresh, np.int64)
            tasks.add(self._begin(ids, store, engine, epoch, permit, charge))
        if tasks:
            waited = await asyncio.wait(tasks, timeout=max(0.0, deadline - perf_counter()))
            late = waited[1]
            del waited
            if late:
                raise DeadlinePassed("the answer was not ready before its deadline")
        # A failed task holds its error, whose traceback holds this frame: a task in a variable
        # would be a reference cycle.
        try:
            while tasks:
                parts.append(tasks.pop().result())
        finally:
            tasks.clear()
        return parts

    def forget(self, ids: Ids) -> None:
        """Drop what is known or under way of items that have changed."""
        self._epoch += 1
        self._negative.drop(ids)
        drop(self._under_way, ids)

    def forget_unknown(self) -> None:
        """Clear the negative cache, when changes were lost."""
        self._epoch += 1
        self._negative.clear()

    def _begin(
        self,
        ids: Ids,
        store: StoreReader,
        engine: Engine,
        epoch: Epoch,
        permit: Permit | None,
        charge: Charge | None,
    ) -> asyncio.Task[Fetched]:
        ids = np.sort(ids)
        bring = self._bring(ids, store, engine, epoch, permit)
        if charge is not None:
            bring = measured(bring, charge.spent)
        task = begin("item_fetch", bring, expected=(ServiceError,))
        counts = self._table.counts(ids, epoch)
        for item, count in zip(ids.tolist(), counts.tolist(), strict=True):
            self._under_way[item] = task, count
        task.add_done_callback(lambda done: self._ended(ids, done))
        return task

    def _ended(self, ids: Ids, task: asyncio.Task[Fetched]) -> None:
        for item in ids.tolist():
            if self._under_way.get(item, NEVER)[0] is task:
                del self._under_way[item]

    async def _bring(
        self, ids: Ids, store: StoreReader, engine: Engine, epoch: Epoch, permit: Permit | None
    ) -> Fetched:
        """Read items in one round trip, derive and insert them."""
        table, mine = self._table, self._epoch
        keep = partial(table.keep, epoch=epoch)
        batch = await store.items(ids)
        answered = perf_counter()
        status = batch.status.copy()
        readable = np.flatnonzero(status == FOUND)
        parts: dict[int, DerivedItems] = {}

        def derive_chunk(start: int, end: int) -> None:
            chosen = readable[start:end]
            items, finite = derive_into(keep, self._model, batch.take(chosen))
            status[chosen[~finite]] = CORRUPT
            parts[start] = items

        if len(readable):
            within, priority = perf_counter() + DERIVE_WITHIN_S, permit or Priority.ONLINE
            job = await engine.run(derive_chunk, len(readable), within, priority=priority)
            if permit:
                permit.derived(len(readable), job.busy)
        if self._epoch == mine:
            self._negative.keep(ids, status, table.counts(ids, epoch))
        place = np.full(len(ids), ABSENT)
        place[readable] = np.arange(len(readable))
        place[status != FOUND] = ABSENT
        items = DerivedItems.joined([parts[start] for start in sorted(parts)]) if parts else None
        return Fetched(ids, status, place, items, answered)


def _nothing(known: list[tuple[int, int]]) -> Fetched:
    """Items known to have no readable record."""
    ids, status = np.array(known, np.int64).T
    return Fetched(ids, status.astype(np.uint8), np.full(len(ids), ABSENT), None, perf_counter())

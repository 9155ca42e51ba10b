"""Reads items from the store into a table that is in use."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from feature_store.contract import FOUND, FeatureStore, Ids, ItemBatch
from service.items.hash_index import ABSENT
from service.items.invalidation import Invalidation
from service.items.item_tower import derive_into
from service.items.table import Epoch, ItemTable
from service.items.table_layout import DerivedItems
from service.models.loaded_model import LoadedModel
from service.models.registry import ModelRegistry

SCANNED = 256  # items read from the store at a time
SLICE = 64  # items derived at a time, holding the GIL
INSERT_WITHIN_S = 0.1  # for the table's lock, which another process may hold
STEP_S = 0.5  # between checks that a version is still loaded


class ItemReader:
    """Derives and inserts items in one thread of its own."""

    def __init__(
        self, store: FeatureStore, registry: ModelRegistry, invalidation: Invalidation
    ) -> None:
        self._store, self._registry, self._invalidation = store, registry, invalidation
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="freshness")

    async def insert(
        self, version: LoadedModel, batch: ItemBatch, epoch: Epoch, *, replace: bool = False
    ) -> None:
        """Derive the items found and insert them as far as there is room. TableBusy."""
        loop = asyncio.get_running_loop()
        insert = partial(_insert, version.table, epoch=epoch, replace=replace)
        for start in range(0, len(batch.ids), SLICE):
            part = slice(start, start + SLICE)
            found = np.flatnonzero(batch.status[part] == FOUND) + start
            chosen = batch.take(found)
            await loop.run_in_executor(self._thread, derive_into, insert, version.model, chosen)

    async def read_all(self, version: LoadedModel, over_s: float = 0.0) -> int:
        """Read every item again and remove rows whose items are gone. Returns how many were gone.

        ``over_s`` spreads the work over about that time, and ends it when the version is unloaded.
        """
        loop, done = asyncio.get_running_loop(), 0
        began, items = loop.time(), await self._store.count_items() if over_s else 0

        async def paced() -> bool:
            """Wait until the next batch is due. False if the version was unloaded."""
            if not over_s:
                return True
            due = began + over_s * min(1.0, (done + SCANNED) / max(1, items))
            while version in self._registry.all():
                left = due - loop.time()
                await asyncio.sleep(min(max(0.0, left), STEP_S))
                if left <= STEP_S:
                    break
            return version in self._registry.all()

        if not await paced():
            return 0
        version.fetcher.forget_unknown()
        before, seen = version.table.ids(), list[Ids]()
        epoch = version.table.epoch
        async for batch in self._store.scan_items(SCANNED):
            await self.insert(version, batch, epoch, replace=True)
            if (damaged := batch.status != FOUND).any():
                await self.remove(version, batch.ids[damaged])
            seen.append(batch.ids)
            done += len(batch.ids)
            if not await paced():
                return 0
            epoch = version.table.epoch
        gone = np.setdiff1d(before, np.concatenate(seen)) if seen else before
        if len(gone):
            await self.remove(version, gone)
        return len(gone)

    def remove(self, version: LoadedModel, ids: Ids) -> asyncio.Future[None]:
        """Remove changed items, so that the next request fetches them from the store."""
        version.fetcher.forget(ids)
        return self._invalidation.remove(version.table, ids)

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)


def _insert(table: ItemTable, ids: Ids, items: DerivedItems, epoch: Epoch, replace: bool) -> None:
    """Insert (N) items, evicting none. ``replace`` the rows of items that the table has."""
    known = table.find(ids) != ABSENT if replace else np.zeros(len(ids), np.bool_)
    for part, evict in ((known, True), (~known, False)):
        if part.any():
            table.insert(
                ids[part],
                items.gather(np.flatnonzero(part)),
                replace=replace,
                evict=evict,
                epoch=epoch,
                within=INSERT_WITHIN_S,
            )

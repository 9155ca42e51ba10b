"""Keeps the item tables of the loaded versions true to the store.

The store's change log says which items were put or deleted. Those are forgotten at once, so that
whoever asks next gets the new record, and then brought back in the background, so that nobody has
to. When the log has lost changes every item is read again, while the old rows still answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import FOUND, Ids, ItemBatch
from service.derive import derive
from service.errors import ServiceError
from service.hash_index import ABSENT
from service.logs import logger
from service.observability.background import begin, failed, keep
from service.store import StoreReader
from service.versions import Version, Versions

EVERY_S = 0.2
FORGOTTEN = 4096  # items between two turns of the event loop
BROUGHT_BACK = 256  # items at a time
SLICE = 64  # items derived at a time: the interpreter is not held for long
MOST_WAITING = 200_000  # ids; what is changed beyond that is fetched when asked for


@dataclass(slots=True, eq=False)
class _Waiting:
    """Changed items of one version that are not back in its table."""

    parts: deque[Ids] = field(default_factory=deque)
    count: int = 0

    def add(self, ids: Ids) -> None:
        for start in range(0, len(ids), BROUGHT_BACK):
            self.parts.append(ids[start : start + BROUGHT_BACK])
        self.count += len(ids)
        while self.count > MOST_WAITING:
            self.count -= len(self.parts.popleft())

    def next(self) -> Ids:
        part = self.parts.popleft()
        self.count -= len(part)
        return part


class Freshness:
    """Two tasks: one follows the change logs, one brings items back. Made on the event loop."""

    def __init__(self, store: StoreReader, versions: Versions) -> None:
        self.changed = 0  # items, ever
        self.lost = 0  # times that changes were lost
        self._store, self._versions = store, versions
        self._waiting: dict[Version, _Waiting] = {}
        self._some = asyncio.Event()
        self._reading: dict[Version, asyncio.Task[None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="freshness")
        self._tasks = [keep("freshness", self._follow), keep("freshness", self._bring)]

    @property
    def waiting(self) -> int:
        """Changed items that are not back in a table yet."""
        return sum(waiting.count for waiting in self._waiting.values())

    def wrote(self, ids: Ids) -> None:
        """This process itself has changed these: its next answer knows, before the log says so."""
        for version in self._versions.all():
            version.forget(ids)

    async def close(self) -> None:
        tasks = [*self._tasks, *self._reading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)

    async def _follow(self) -> None:
        while True:
            try:
                await self._look_at_all()
            except ServiceError:
                pass  # counted and said; what is in the tables is what there is
            except Exception:
                failed("freshness", "the change log could not be followed")
            await asyncio.sleep(EVERY_S)

    async def _look_at_all(self) -> None:
        versions = self._versions.all()
        for gone in self._waiting.keys() - set(versions):
            del self._waiting[gone]
            if task := self._reading.pop(gone, None):
                task.cancel()
        for version in versions:
            while await self._look(version):
                pass

    async def _look(self, version: Version) -> bool:
        """Take in the next part of the log; whether there may be more."""
        table, waiting = version.table, self._waiting.setdefault(version, _Waiting())
        before = table.cursor
        changes = await self._store.changes(before)
        if changes.lost or before is None:
            self._read_again(version)
        ids = np.unique(changes.ids)
        for start in range(0, len(ids), FORGOTTEN):
            version.forget(ids[start : start + FORGOTTEN])
            await asyncio.sleep(0)
        if len(ids):
            self.changed += len(ids)
            waiting.add(ids)
            self._some.set()
        table.cursor = changes.cursor
        return len(ids) > 0

    async def _bring(self) -> None:
        while True:
            await self._some.wait()
            await self._bring_some()
            if not self.waiting:
                self._some.clear()

    async def _bring_some(self) -> None:
        for version, waiting in list(self._waiting.items()):
            if waiting.count:
                await self._bring_back(version, waiting.next())

    async def _bring_back(self, version: Version, ids: Ids) -> None:
        epoch = version.table.epoch
        try:
            batch = await self._store.items(ids)
            await self._put(version, batch, epoch)
        except ServiceError:
            pass  # they are fetched when asked for
        except Exception:
            failed("freshness", "changed items could not be brought back")

    async def _put(
        self, version: Version, batch: ItemBatch, epoch: int, *, replace: bool = False
    ) -> None:
        """Into the table as far as there is room."""
        loop = asyncio.get_running_loop()
        for start in range(0, len(batch.ids), SLICE):
            part = slice(start, start + SLICE)
            found = np.flatnonzero(batch.status[part] == FOUND) + start
            await loop.run_in_executor(self._thread, _insert, version, batch, found, epoch, replace)

    def _read_again(self, version: Version) -> None:
        self.lost += 1
        if task := self._reading.pop(version, None):
            task.cancel()
        version.fetches.forget_unknown()
        logger.warning("item changes were lost: reading every item again", version=version.name)
        self._reading[version] = begin("freshness", self._read_all(version))

    async def _read_all(self, version: Version) -> None:
        """Replace what there is, batch by batch, then ask again for what was not in the store."""
        while True:
            try:
                before, seen = version.table.ids(), list[Ids]()
                epoch = version.table.epoch
                async for batch in self._store.store.scan_items(BROUGHT_BACK):
                    await self._put(version, batch, epoch, replace=True)
                    if (damaged := batch.status != FOUND).any():
                        version.forget(batch.ids[damaged])
                    seen.append(batch.ids)
                    epoch = version.table.epoch
                gone = np.setdiff1d(before, np.concatenate(seen)) if seen else before
                version.forget(gone)
                logger.info("every item is read again", version=version.name, gone=len(gone))
                return
            except Exception as error:
                logger.warning("reading every item again: it stopped", reason=str(error))
                await asyncio.sleep(1.0)


def _insert(
    version: Version, batch: ItemBatch, chosen: NDArray[np.int64], epoch: int, replace: bool
) -> None:
    table = version.table
    items, finite = derive(version.model, batch.rows[chosen])
    ids, good = batch.ids[chosen], np.flatnonzero(finite)
    known = table.find(ids[good]) != ABSENT if replace else np.zeros(len(good), np.bool_)
    for part, evict in ((good[known], True), (good[~known], False)):
        if len(part):
            table.insert(ids[part], items.gather(part), replace=replace, evict=evict, epoch=epoch)

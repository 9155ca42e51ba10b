"""Keeps the item tables of the loaded versions true to the store.

The store's change log says which items were put or deleted. Those are forgotten at once, so that
the next request gets the new record, and then brought back in the background. When the log has
lost changes every item is read again, while the old rows still answer. What the log never told of
(a writer that died, an entry that could not be read) is found by reading every item again slowly.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from feature_store.contract import FOUND, Ids, ItemBatch
from feature_store.errors import StoreError
from service.errors import NotConfirmed, ServiceError
from service.items.hash_index import ABSENT
from service.items.invalidation import Invalidation
from service.items.item_tower import derive_into
from service.items.memory import DerivedItems
from service.items.store_client import StoreReader
from service.items.table import Epoch, ItemTable, TableBusy
from service.models.registry import LoadedModel, ModelRegistry
from service.observability.background import begin, failed, keep
from service.observability.logs import logger

EVERY_S = 0.2
FORGOTTEN = 4096  # items between two turns of the event loop
STEP_S = 0.5  # between looks whether the version that is read again is still in memory
BROUGHT_BACK = 256  # items at a time
SLICE = 64  # items derived at a time: the interpreter is not held for long
CONFIRM_WITHIN_S = 2.0  # a write, after the store has it; then 503
CATCH_UP_S = 10.0  # where changes come faster than they are taken in
LOOK_WITHIN_S = 2.0  # for a table whose lock another process holds
INSERT_WITHIN_S = 0.1  # likewise, for an item that is brought back
MOST_WAITING = 200_000  # ids; what is changed beyond that is fetched when asked for
UNFOLLOWED_S = 1.0  # between two tries while the log cannot be read
STUCK_AFTER = 3  # failures at the same place of the log: then it is passed over
SETTLES_S = 10.0  # a write that was begun is done or has failed: longer than any write's patience


@dataclass(slots=True, eq=False)
class _Waiting:
    """Changed items of one version that are not back in its table."""

    parts: deque[Ids] = field(default_factory=deque)
    count: int = 0
    due: deque[tuple[float, Ids]] = field(default_factory=deque)
    open: Counter[int] = field(default_factory=Counter)  # announced, less told of; of those due
    due_in: Counter[int] = field(default_factory=Counter)  # how often an id is in ``due``

    def add(self, ids: Ids) -> None:
        for start in range(0, len(ids), BROUGHT_BACK):
            self.parts.append(ids[start : start + BROUGHT_BACK])
        self.count += len(ids)
        while self.count > MOST_WAITING:
            self.count -= len(self.parts.popleft())

    def announced(self, ids: Ids, due: float) -> None:
        """These may be about to be written: look again when ``due``, unless told that they are."""
        self.due.append((due, ids))
        self.open.update(ids.tolist())
        self.due_in.update(ids.tolist())
        while sum(len(part) for _, part in self.due) > MOST_WAITING:
            self._ended(self.due.popleft()[1])

    def told(self, ids: Ids) -> None:
        """One writer of each of these has finished."""
        if self.open:
            for item in ids.tolist():
                if self.open.get(item, 0) > 0:
                    self.open[item] -= 1

    def settled(self, now: float) -> Ids:
        """What was announced long ago and never told of."""
        found = [np.zeros(0, np.int64)]
        while self.due and self.due[0][0] <= now:
            _, ids = self.due.popleft()
            found.append(ids[[self.open.get(item, 0) > 0 for item in ids.tolist()]])
            self._ended(ids)
        return np.unique(np.concatenate(found))

    def _ended(self, ids: Ids) -> None:
        for item in ids.tolist():
            self.due_in[item] -= 1
            if not self.due_in[item]:
                del self.due_in[item]
                self.open.pop(item, None)

    def next(self) -> Ids:
        part = self.parts.popleft()
        self.count -= len(part)
        return part


class ItemRefresher:
    """Two tasks: one follows the change logs, one brings items back. Made on the event loop."""

    def __init__(self, store: StoreReader, registry: ModelRegistry, reread_s: float = 0.0) -> None:
        """``reread_s``: within this time every item is read again; 0: never."""
        self.changed = 0  # items, ever
        self.lost = 0  # times that changes were lost
        self.unreadable = 0  # entries of the log that were passed over
        self.followed = True  # the log could be read when it was last looked at
        self.reread = 0  # times that every item has been read again without a cause
        self._reread_s = reread_s
        self._stuck: Counter[LoadedModel] = Counter()
        self._store, self._registry = store, registry
        self._waiting: dict[LoadedModel, _Waiting] = {}
        self._some = asyncio.Event()
        self._reading: dict[LoadedModel, asyncio.Task[None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="freshness")
        self._invalidation = Invalidation()
        self._late: dict[LoadedModel, asyncio.Future[None]] = {}  # removals that still wait
        self._tasks = [keep("freshness", self._follow), keep("freshness", self._bring)]
        if reread_s:
            self._tasks.append(keep("freshness", self._read_slowly))

    @property
    def waiting(self) -> int:
        """Changed items that are not back in a table yet."""
        return sum(waiting.count for waiting in self._waiting.values())

    def forget(self, ids: Ids) -> list[asyncio.Future[None]]:
        """Begin to remove these from every table: they may have been written."""
        return [self._remove(v, ids) for v in (*self._registry.all(), *self._registry.loading)]

    async def wrote(self, ids: Ids) -> None:
        """Remove what this process has written from every table, before the write is confirmed.

        NotConfirmed when a table's lock is not to be had: the removal is then done later.
        """
        if await self._late_after(self.forget(ids)):
            raise NotConfirmed(
                "written to the store; but another process holds the item table, so answers may "
                "be of the item as it was: try again",
                headers={"Retry-After": "1"},
            )

    @asynccontextmanager
    async def writing(self, ids: Ids) -> AsyncIterator[None]:
        """Around a write by this process: however it ends, the old rows are not used again.

        One that failed may have been applied, or may be yet: it is looked at once more later.
        NotConfirmed as from ``wrote``.
        """
        try:
            yield
        except BaseException as error:
            removals = self.forget(ids)
            asyncio.get_running_loop().call_later(SETTLES_S, self.forget, ids)
            if isinstance(error, Exception):
                await self._late_after(removals)
            raise
        await self.wrote(ids)

    @staticmethod
    async def _late_after(removals: list[asyncio.Future[None]]) -> bool:
        """Whether some are not done after the time that a write may take."""
        if not removals:
            return False
        done, late = await asyncio.wait(removals, timeout=CONFIRM_WITHIN_S)
        for removal in done:
            removal.result()
        return bool(late)

    async def catch_up(self, version: LoadedModel) -> None:
        """Take in what the change log has, for a version that is about to answer."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CATCH_UP_S
        try:
            while (await self._look(version) and loop.time() < until) or version in self._late:
                if late := self._late.pop(version, None):
                    await late
        except Exception as error:  # followed from now on like the others
            logger.warning(
                "a new version answers before it knows the latest changes",
                model_version=version.name,
                reason=str(error),
            )

    def _remove(self, version: LoadedModel, ids: Ids) -> asyncio.Future[None]:
        """These have changed: the next request that asks for one gets it from the store."""
        version.fetches.forget(ids)
        return self._invalidation.remove(version.table, ids)

    async def close(self) -> None:
        tasks = [*self._tasks, *self._reading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._invalidation.close()
        await asyncio.to_thread(self._thread.shutdown)

    async def _follow(self) -> None:
        while True:
            try:
                await self._look_at_all()
                self.followed = True
            except ServiceError:  # counted and said; what is in the tables is what there is
                self.followed = False
            except Exception:
                self.followed = False
                failed("freshness", "the change log could not be followed")
            await asyncio.sleep(EVERY_S if self.followed else UNFOLLOWED_S)

    async def _look_at_all(self) -> None:
        registry = self._registry.all()
        for gone in self._waiting.keys() - set(registry) - self._registry.loading:
            del self._waiting[gone]
            self._stuck.pop(gone, None)
            self._late.pop(gone, None)
            if task := self._reading.pop(gone, None):
                task.cancel()
        for version in registry:
            try:
                while await self._look(version):
                    self._stuck.pop(version, None)
            except ServiceError:
                raise
            except Exception:
                await self._pass_over(version)
                raise

    async def _pass_over(self, version: LoadedModel) -> None:
        """Leave a part of the log that fails again and again, as if its changes were lost."""
        self._stuck[version] += 1
        if self._stuck[version] >= STUCK_AFTER:
            del self._stuck[version]
            end = (await self._store.changes(None)).cursor
            await self._invalidation.advance(version.table, end)
            self._read_again(version)

    async def _look(self, version: LoadedModel) -> bool:
        """Take in the next part of the log; whether there may be more.

        The cursor moves on only when all of it is removed from the table.
        """
        if (late := self._late.get(version)) and not late.done():
            return False
        self._late.pop(version, None)
        table, waiting = version.table, self._waiting.setdefault(version, _Waiting())
        before = table.cursor
        changes = await self._store.changes(before)
        told = np.unique(changes.ids)
        for start in range(0, len(told), FORGOTTEN):
            removal = self._remove(version, told[start : start + FORGOTTEN])
            if not (await asyncio.wait([removal], timeout=LOOK_WITHIN_S))[0]:
                self._late[version] = removal
                return False
            removal.result()
        if changes.lost or before is None:
            self._read_again(version)
        self.unreadable += changes.unreadable
        now = asyncio.get_running_loop().time()
        if len(changes.soon):
            waiting.announced(changes.soon, now + SETTLES_S)
        waiting.told(changes.ids)
        if waiting.due and len(settled := waiting.settled(now)):
            self._remove(version, settled)
            told = np.union1d(told, settled)
        if len(told):
            self.changed += len(told)
            waiting.add(told)
            self._some.set()
        if changes.cursor != before:
            await self._invalidation.advance(table, changes.cursor)
        return changes.cursor != before and bool(
            len(changes.ids) or len(changes.soon) or changes.unreadable
        )

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

    async def _bring_back(self, version: LoadedModel, ids: Ids) -> None:
        epoch = version.table.epoch
        try:
            batch = await self._store.items(ids)
            await self._put(version, batch, epoch)
        except (ServiceError, TableBusy):
            pass  # they are fetched when asked for
        except Exception:
            failed("freshness", "changed items could not be brought back")

    async def _put(
        self, version: LoadedModel, batch: ItemBatch, epoch: Epoch, *, replace: bool = False
    ) -> None:
        """Into the table as far as there is room."""
        loop = asyncio.get_running_loop()
        insert = partial(_insert, version.table, epoch=epoch, replace=replace)
        for start in range(0, len(batch.ids), SLICE):
            part = slice(start, start + SLICE)
            found = np.flatnonzero(batch.status[part] == FOUND) + start
            ids, rows = batch.ids[found], batch.rows[found]
            await loop.run_in_executor(self._thread, derive_into, insert, version.model, ids, rows)

    def _read_again(self, version: LoadedModel) -> None:
        self.lost += 1
        if task := self._reading.pop(version, None):
            task.cancel()
        version.fetches.forget_unknown()
        logger.warning("item changes were lost: reading every item again", version=version.name)
        self._reading[version] = begin("freshness", self._read_all(version))

    async def _read_all(self, version: LoadedModel) -> None:
        """Replace what there is, batch by batch, then ask again for what was not in the store."""
        while True:
            try:
                gone = await self._read_once(version, 0.0)
                logger.info("every item is read again", version=version.name, gone=gone)
                return
            except Exception as error:
                logger.warning("reading every item again: it stopped", reason=str(error))
                await asyncio.sleep(1.0)

    async def _read_slowly(self) -> None:
        """Read every item again for ever: two passes within ``reread_s``, at an even pace."""
        while True:
            names, over_s = self._registry.loaded(), self._reread_s / 2
            if not names:
                await asyncio.sleep(1.0)
                continue
            began = asyncio.get_running_loop().time()
            try:
                for name in names:  # and no version is held that is to be freed meanwhile
                    for version in [v for v in self._registry.all() if v.name == name]:
                        reading = self._read_once(version, over_s / len(names))
                        del version
                        await reading
                        del reading
                self.reread += 1
            except StoreError as error:
                logger.warning("reading items again slowly: it stopped", reason=str(error))
            took = asyncio.get_running_loop().time() - began
            await asyncio.sleep(max(1.0, over_s - took) if took < over_s / 2 else 0.0)

    async def _read_once(self, version: LoadedModel, over_s: float) -> int:
        """Read every item, within about ``over_s``; how many rows' items are gone."""
        loop, done = asyncio.get_running_loop(), 0
        began, every = loop.time(), await self._store.store.count_items() if over_s else 0

        async def paced(count: int) -> None:
            if over_s:
                due = began + over_s * min(1.0, (done + count) / max(1, every))
                while version in self._registry.all():
                    left = due - loop.time()
                    await asyncio.sleep(min(max(0.0, left), STEP_S))
                    if left <= STEP_S:
                        break

        await paced(BROUGHT_BACK)
        if over_s and version not in self._registry.all():
            return 0
        version.fetches.forget_unknown()
        before, seen = version.table.ids(), list[Ids]()
        epoch = version.table.epoch
        async for batch in self._store.store.scan_items(BROUGHT_BACK):
            await self._put(version, batch, epoch, replace=True)
            if (damaged := batch.status != FOUND).any():
                await self._remove(version, batch.ids[damaged])
            seen.append(batch.ids)
            done += len(batch.ids)
            await paced(BROUGHT_BACK)
            if over_s and version not in self._registry.all():
                return 0
            epoch = version.table.epoch
        gone = np.setdiff1d(before, np.concatenate(seen)) if seen else before
        if len(gone):
            await self._remove(version, gone)
        return len(gone)


def _insert(table: ItemTable, ids: Ids, items: DerivedItems, epoch: Epoch, replace: bool) -> None:
    """``replace`` the rows of items that the table has. New ones evict no others."""
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

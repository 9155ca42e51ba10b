"""Keeps the item tables of the loaded versions consistent with the store.

Consumes the store's change log: changed items are removed at once, so that the next request fetches
the new record, and refreshed in the background. When the log has lost changes every item is read
again, while the old rows still answer. A slow re-read of every item finds changes that were never
logged, for example by a writer that died.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from feature_store.contract import Ids
from feature_store.errors import StoreError
from service.errors import NotConfirmed, ServiceError
from service.items.invalidation import Invalidation
from service.items.store_client import StoreReader
from service.items.table import TableBusy
from service.lifecycle.change_backlog import ChangeBacklog
from service.lifecycle.item_reader import ItemReader
from service.models.loaded_model import LoadedModel
from service.models.registry import ModelRegistry
from service.observability.background import begin, failed, keep
from service.observability.logs import logger

EVERY_S = 0.2
REMOVED_AT_ONCE = 4096  # items between two turns of the event loop
CONFIRM_WITHIN_S = 2.0  # of the store's answer to a write; then 503
CATCH_UP_S = 10.0  # at most, where changes come faster than they are applied
LOOK_WITHIN_S = 2.0  # for a table's lock, which another process may hold
UNFOLLOWED_S = 1.0  # between two tries while the log cannot be read
STUCK_AFTER = 3  # failures at the same position of the log, which is then skipped
SETTLES_S = 10.0  # longer than the timeout of any write


class ItemRefresher:
    """One task consumes the change log, one refreshes items. Created on the event loop."""

    def __init__(self, store: StoreReader, registry: ModelRegistry, reread_s: float = 0.0) -> None:
        """``reread_s``: every item is read again within this time; 0: never."""
        self.changed = 0  # items so far
        self.lost = 0  # times that changes were lost
        self.unreadable = 0  # entries of the log that were skipped
        self.followed = True  # whether the last read of the log succeeded
        self.reread = 0  # completed slow re-reads
        self._reread_s = reread_s
        self._stuck: Counter[LoadedModel] = Counter()
        self._store, self._registry = store, registry
        self._backlogs: dict[LoadedModel, ChangeBacklog] = {}
        self._some = asyncio.Event()
        self._reading: dict[LoadedModel, asyncio.Task[None]] = {}
        self._invalidation = Invalidation()
        self._reader = ItemReader(store.store, registry, self._invalidation)
        self._late: dict[LoadedModel, asyncio.Future[None]] = {}  # removals waiting for a lock
        self._tasks = [keep("freshness", self._follow), keep("freshness", self._refresh)]
        if reread_s:
            self._tasks.append(keep("freshness", self._read_slowly))

    @property
    def waiting(self) -> int:
        """How many changed items are not back in a table yet."""
        return sum(backlog.count for backlog in self._backlogs.values())

    def forget(self, ids: Ids) -> list[asyncio.Future[None]]:
        """Start to remove these items from every table."""
        versions = (*self._registry.all(), *self._registry.loading)
        return [self._reader.remove(version, ids) for version in versions]

    async def wrote(self, ids: Ids) -> None:
        """Remove items that this process has written, before the write is confirmed to its caller.

        NotConfirmed if a table stays locked: the removal is then done later.
        """
        if await self._are_late(self.forget(ids)):
            raise NotConfirmed(
                "written to the store; but another process holds the item table, so answers may "
                "be of the item as it was: try again",
                headers={"Retry-After": "1"},
            )

    @asynccontextmanager
    async def writing(self, ids: Ids) -> AsyncIterator[None]:
        """Write these items within the block; then, also after an error, remove their old rows.

        A failed write may still be applied by the store, so its items are removed once more later.
        NotConfirmed as from ``wrote``.
        """
        try:
            yield
        except BaseException as error:
            removals = self.forget(ids)
            asyncio.get_running_loop().call_later(SETTLES_S, self.forget, ids)
            if isinstance(error, Exception):
                await self._are_late(removals)
            raise
        await self.wrote(ids)

    @staticmethod
    async def _are_late(removals: list[asyncio.Future[None]]) -> bool:
        """Wait for removals as long as a write may take. Returns whether some are not done."""
        waiting = [removal for removal in removals if not removal.done()]
        late = set[asyncio.Future[None]]()
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=CONFIRM_WITHIN_S)
        done = [removal for removal in removals if removal not in late]
        for removal in done:
            removal.result()
        return bool(late)

    async def catch_up(self, version: LoadedModel) -> None:
        """Apply the change log to a version that is about to become ready."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CATCH_UP_S
        try:
            while (await self._look(version) and loop.time() < until) or version in self._late:
                if late := self._late.pop(version, None):
                    await late
        except Exception as error:  # the log is followed from now on
            logger.warning(
                "a new version answers before it knows the latest changes",
                model_version=version.name,
                reason=str(error),
            )

    async def close(self) -> None:
        tasks = [*self._tasks, *self._reading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._invalidation.close()
        await self._reader.close()

    async def _follow(self) -> None:
        while True:
            try:
                await self._look_at_all()
                self.followed = True
            except ServiceError:  # counted and logged already; the tables stay as they are
                self.followed = False
            except Exception:
                self.followed = False
                failed("freshness", "the change log could not be followed")
            await asyncio.sleep(EVERY_S if self.followed else UNFOLLOWED_S)

    async def _look_at_all(self) -> None:
        versions = self._registry.all()
        for gone in self._backlogs.keys() - set(versions) - self._registry.loading:
            del self._backlogs[gone]
            self._stuck.pop(gone, None)
            self._late.pop(gone, None)
            if task := self._reading.pop(gone, None):
                task.cancel()
        for version in versions:
            try:
                while await self._look(version):
                    self._stuck.pop(version, None)
            except ServiceError:
                raise
            except Exception:
                await self._pass_over(version)
                raise

    async def _pass_over(self, version: LoadedModel) -> None:
        """Skip a part of the log that fails repeatedly, as if its changes were lost."""
        self._stuck[version] += 1
        if self._stuck[version] >= STUCK_AFTER:
            del self._stuck[version]
            end = (await self._store.changes(None)).cursor
            await self._invalidation.advance(version.table, end)
            self._read_again(version)

    async def _look(self, version: LoadedModel) -> bool:
        """Apply the next part of the log. Returns whether there may be more.

        The cursor advances only after every changed item is removed from the table.
        """
        if (late := self._late.get(version)) and not late.done():
            return False
        self._late.pop(version, None)
        table, backlog = version.table, self._backlogs.setdefault(version, ChangeBacklog())
        before = table.cursor
        changes = await self._store.changes(before)
        changed = np.unique(changes.ids)
        for start in range(0, len(changed), REMOVED_AT_ONCE):
            removal = self._reader.remove(version, changed[start : start + REMOVED_AT_ONCE])
            if not (await asyncio.wait([removal], timeout=LOOK_WITHIN_S))[0]:
                self._late[version] = removal
                return False
            removal.result()
        if changes.lost or before is None:
            self._read_again(version)
        self.unreadable += changes.unreadable
        now = asyncio.get_running_loop().time()
        if len(changes.soon):
            backlog.announce(changes.soon, now + SETTLES_S)
        backlog.confirm(changes.ids)
        if backlog.due and len(overdue := backlog.overdue(now)):
            self._reader.remove(version, overdue)
            changed = np.union1d(changed, overdue)
        if len(changed):
            self.changed += len(changed)
            backlog.add(changed)
            self._some.set()
        if changes.cursor != before:
            await self._invalidation.advance(table, changes.cursor)
        return changes.cursor != before and bool(
            len(changes.ids) or len(changes.soon) or changes.unreadable
        )

    async def _refresh(self) -> None:
        while True:
            await self._some.wait()
            for version, backlog in list(self._backlogs.items()):
                if backlog.count:
                    await self._refresh_items(version, backlog.next())
                del version, backlog  # an unloaded version is freed while this task waits
            if not self.waiting:
                self._some.clear()

    async def _refresh_items(self, version: LoadedModel, ids: Ids) -> None:
        epoch = version.table.epoch
        try:
            await self._reader.insert(version, await self._store.items(ids), epoch)
        except (ServiceError, TableBusy):
            pass  # requests fetch them
        except Exception:
            failed("freshness", "changed items could not be refreshed")

    def _read_again(self, version: LoadedModel) -> None:
        self.lost += 1
        if task := self._reading.pop(version, None):
            task.cancel()
        version.fetcher.forget_unknown()
        logger.warning("item changes were lost: reading every item again", version=version.name)
        self._reading[version] = begin("freshness", self._read_all(version))

    async def _read_all(self, version: LoadedModel) -> None:
        """Read every item again, and from the start after an error."""
        while True:
            try:
                gone = await self._reader.read_all(version)
                logger.info("every item was read again", version=version.name, gone=gone)
                return
            except Exception as error:
                logger.warning("reading every item again was interrupted", reason=str(error))
                await asyncio.sleep(1.0)

    async def _read_slowly(self) -> None:
        """Read every item again and again: two passes within ``reread_s``, evenly paced."""
        while True:
            names, over_s = self._registry.loaded(), self._reread_s / 2
            if not names:
                await asyncio.sleep(1.0)
                continue
            began = asyncio.get_running_loop().time()
            try:
                for name in names:  # by name: a reference would keep an unloaded version
                    for version in [v for v in self._registry.all() if v.name == name]:
                        reading = self._reader.read_all(version, over_s / len(names))
                        del version
                        await reading
                        del reading
                self.reread += 1
            except StoreError as error:
                logger.warning("the slow re-read of every item was interrupted", reason=str(error))
            took = asyncio.get_running_loop().time() - began
            await asyncio.sleep(max(1.0, over_s - took) if took < over_s / 2 else 0.0)

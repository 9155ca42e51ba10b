"""Removes changed items from the item tables, off the event loop unless they are few and the table
is free.

The lock of a shared table may be held by a process that has been stopped. A removal then goes on
being tried, and is done as soon as that process goes on or is killed: none is ever dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic

import numpy as np

from feature_store.contract import Ids
from service.items.table import ItemTable, TableBusy
from service.items.table_layout import WRITING
from service.observability.background import begin, failed
from service.observability.logs import logger

TABLES = 64  # threads at most, one for each table that is being written to
FEW = 8  # ids, which take less of the event loop than another thread's result
SAY_EVERY_S = 5.0
Removal = tuple[Ids, asyncio.Future[None]]


class Invalidation:
    """The removals from any number of tables. On the event loop alone."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(TABLES, thread_name_prefix="invalidation")
        self._removals: dict[ItemTable, deque[Removal]] = {}
        self._tasks = set[asyncio.Task[None]]()

    def remove(self, table: ItemTable, ids: Ids) -> asyncio.Future[None]:
        """Remove items; done when no process that shares the table answers from their old rows.

        Removals that wait for the lock are made together.
        """
        done = asyncio.get_running_loop().create_future()
        waiting = self._removals.get(table)
        if waiting is not None:
            waiting.append((ids, done))
            return done
        if len(ids) <= FEW and try_remove(table, ids):
            done.set_result(None)
            return done
        self._removals[table] = deque([(ids, done)])
        task = begin("freshness", self._work(table))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return done

    async def advance(self, table: ItemTable, cursor: str) -> None:
        """Write the change log's cursor into the table."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, setattr, table, "cursor", cursor)

    async def close(self) -> None:
        """Cancel the removals that wait for a lock."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, table: ItemTable) -> None:
        """Run until there is nothing left to remove."""
        waiting = self._removals[table]
        try:
            while waiting:
                together = list(waiting)
                waiting.clear()
                await self._remove(table, together)
        finally:
            del self._removals[table]

    async def _remove(self, table: ItemTable, removals: list[Removal]) -> None:
        loop, said = asyncio.get_running_loop(), monotonic()
        remove = partial(table.remove, np.concatenate([ids for ids, _ in removals]))
        error = None
        while True:
            try:
                await loop.run_in_executor(self._threads, remove)
                break
            except TableBusy:
                if monotonic() - said > SAY_EVERY_S:
                    said = monotonic()
                    logger.warning("item table locked by another process: changed items wait")
            except Exception as failure:
                failed("freshness", "changed items could not be removed from a table")
                error = failure
                break
        for _, done in removals:
            if done.done():
                continue  # its waiter has been cancelled
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)


def try_remove(table: ItemTable, ids: Ids) -> bool:
    """Remove items without waiting, for the event loop. False if a writer is in the table, or one
    was killed there: then nothing is removed."""
    if table.memory.header[WRITING]:
        return False
    try:
        table.remove(ids, within=0.0)
    except TableBusy:
        return False
    return True

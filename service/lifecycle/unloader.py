"""Unloads versions: waits for their last answers, then returns their memory to the system."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import perf_counter

from model_export.bundle.runtime import FoldedModel
from service.engine.niceness import LOWEST, add_niceness
from service.lifecycle.catalog import ModelCatalog, ModelEntry, State
from service.models.loaded_model import LoadedModel
from service.observability.background import begin
from service.observability.logs import logger
from service.observability.memory import trim

FREED_WITHIN_S = 5.0  # threads may still run a chunk of a request that was cut short
POLL_S = 0.02


class Unloader:
    """Unloads each version in a task of its own."""

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="unloader", initializer=add_niceness, initargs=(LOWEST,)
        )
        self.on_begin: Callable[[LoadedModel], None] = lambda version: None

    def begin(self, entry: ModelEntry, after: State, reason: str | None = None) -> None:
        """Take a version out of service; then free it and enter state ``after``."""
        version, entry.version = entry.version, None
        if version is None:
            return
        self._catalog.registry.remove(version)
        if self._catalog.shadow.version is version:
            self._catalog.shadow.end()
        self.on_begin(version)
        entry.enter(State.DRAINING)
        task = begin("model_retirement", self._end(entry, [version], after, reason))
        self._tasks[entry.name] = task

    async def ended(self, name: str) -> None:
        """Wait until the unload of this version, if one is under way, is over."""
        while task := self._tasks.get(name):
            await asyncio.shield(task)

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._thread.shutdown(wait=False)

    async def _end(
        self, entry: ModelEntry, box: list[LoadedModel], after: State, reason: str | None
    ) -> None:
        try:
            await self._free(entry.name, box)
        finally:
            del self._tasks[entry.name]
            entry.enter(after, reason=reason)

    async def _free(self, name: str, box: list[LoadedModel]) -> None:
        """Drop the last reference, which ``box`` holds, and wait until the model is freed.

        In a thread of normal priority: freeing holds the GIL for a few milliseconds, and a
        low-priority thread could be descheduled while holding it. The system takes a third of a
        second to free a gigabyte of a table's file, without the GIL: that is done at low priority,
        by closing the file last.
        """
        await self._catalog.registry.drained(box[0])
        model, file = weakref.ref(box[0].model), box[0].file
        held = None if file is None else os.dup(file.descriptors[0])
        with ExitStack() as at_once:
            if held is not None:
                at_once.callback(os.close, held)
            if file is not None:
                await asyncio.to_thread(file.memory.forget_pages)
                del file
            await asyncio.to_thread(box.clear)
            await _freed(name, model)
            at_once.pop_all()
        if held is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, os.close, held)
        await asyncio.to_thread(trim)
        logger.info("unloaded", model_version=name)


async def _freed(name: str, model: weakref.ref[FoldedModel]) -> None:
    began = perf_counter()
    while model() is not None:
        if perf_counter() - began > FREED_WITHIN_S:
            gc.unfreeze()  # ``settle`` froze it
            gc.collect()
            gc.freeze()
            if model() is not None:
                logger.error("unloaded, but its memory is still referenced", model_version=name)
            return
        await asyncio.sleep(POLL_S)

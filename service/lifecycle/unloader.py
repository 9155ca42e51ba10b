"""The end of a version: its last answers given, its memory back with the system."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from time import perf_counter

from model_export.bundle.runtime import FoldedModel
from service.lifecycle.catalog import ModelCatalog, ModelEntry, State
from service.models.loaded_model import LoadedModel
from service.observability.background import begin
from service.observability.logs import logger
from service.observability.memory import trim

PATIENCE_S = 5.0  # for threads that still run a chunk for a request that was cut short
LOOKING_S = 0.02


class Unloader:
    """Takes versions out of the catalog, one task each."""

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.on_begin: Callable[[LoadedModel], None] = lambda version: None

    def begin(self, entry: ModelEntry, after: State, reason: str | None = None) -> None:
        """No new request gets it; ``after`` its last answer it is freed and enters that state."""
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

    async def _end(
        self, entry: ModelEntry, box: list[LoadedModel], after: State, reason: str | None
    ) -> None:
        try:
            await self._free(entry.name, box)
        finally:
            del self._tasks[entry.name]
            entry.enter(after, reason=reason)

    async def _free(self, name: str, box: list[LoadedModel]) -> None:
        """``box`` holds the only reference that is left, and is emptied.

        That happens in a thread of normal priority: it holds the interpreter for up to a few
        milliseconds, and a quiet thread would be kept waiting with it in its hands.
        """
        await self._catalog.registry.drained(box[0])
        model = weakref.ref(box[0].model)
        await asyncio.to_thread(box.clear)
        await _gone(name, model)
        await asyncio.to_thread(trim)
        logger.info("unloaded", model_version=name)


async def _gone(name: str, model: weakref.ref[FoldedModel]) -> None:
    began = perf_counter()
    while model() is not None:
        if perf_counter() - began > PATIENCE_S:
            gc.unfreeze()  # it was settled among what stays
            gc.collect()
            gc.freeze()
            if model() is not None:
                logger.error("unloaded, but something still holds it", model_version=name)
            return
        await asyncio.sleep(LOOKING_S)

"""Brings versions from the models folder into the catalog, one at a time, in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from feature_store.errors import StoreError
from model_export.bundle.errors import BundleError
from service.artifacts.importer import ImportedBundle
from service.artifacts.local_copies import Copy
from service.errors import Conflict, ModelRefused, UnknownVersion
from service.lifecycle.catalog import ModelCatalog
from service.lifecycle.load_steps import Stopped
from service.lifecycle.loader import Loader
from service.lifecycle.memory_budget import MemoryBudget
from service.lifecycle.model_entry import IN_MEMORY, ModelEntry, State
from service.lifecycle.readiness import Readiness
from service.lifecycle.unloader import Unloader
from service.lifecycle.warm_up import RecentShapes
from service.models.registry import LoadedModel
from service.observability.background import begin, failed
from service.observability.event_loop import Stalls, settle, watch_stalls
from service.observability.logs import logger
from service.observability.metrics import Metrics


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Progress, kept where the listing and /readyz find it."""

    entry: ModelEntry
    readiness: Readiness | None = None

    def enter(self, state: State, step: str, total: int = 0) -> None:
        self.entry.enter(state, step)
        if self.readiness is not None:
            self.readiness.enter(step, total)

    def advance(self, count: int) -> None:
        if self.readiness is not None:
            self.readiness.done += count


class Loads:
    """Whoever asks for a version that is already on its way waits for that very load."""

    def __init__(
        self, catalog: ModelCatalog, loader: Loader, unloader: Unloader, metrics: Metrics
    ) -> None:
        self._catalog, self._loader, self._metrics = catalog, loader, metrics
        self._unloader, self._memory = unloader, MemoryBudget(catalog, unloader)
        self._one = asyncio.Lock()
        self._under_way: dict[str, asyncio.Task[ModelEntry]] = {}
        self.shapes = RecentShapes()
        self.before_ready: Callable[[LoadedModel], Awaitable[None]] | None = None

    def is_under_way(self, name: str) -> bool:
        return name in self._under_way

    async def load(self, name: str, copy: Copy | None = None) -> ModelEntry:
        """From the models folder, or from ``copy``, taken in before. ModelRefused says why not."""
        await self._unloader.ended(name)
        entry = await self._catalog.known(name) if copy is None else self._catalog.entry(name)
        if entry.state in IN_MEMORY:
            return entry
        if entry.name not in self._under_way:
            task = begin("model_load", self._load(entry, copy), expected=(ModelRefused, Stopped))
            task.add_done_callback(lambda _: self._under_way.pop(entry.name, None))
            self._under_way[entry.name] = task
        return await asyncio.shield(self._under_way[entry.name])  # whoever asked may go away

    async def first(self, imported: ImportedBundle, readiness: Readiness) -> ModelEntry:
        """Nobody is answered before it is there. BundleError or StoreError."""
        entry = self._catalog.entry(imported.copy.version)
        try:
            version = await self._bring(entry, imported, LoadProgress(entry, readiness))
        except BundleError as error:
            self._failed(entry, str(error))
            raise
        return await self._finish(entry, version)

    async def close(self) -> None:
        await self._loader.close()
        for task in self._under_way.values():
            task.cancel()

    async def _load(self, entry: ModelEntry, copy: Copy | None) -> ModelEntry:
        async with self._one:
            began = perf_counter()
            try:
                entry.enter(State.LOADING, "copying and checking the files")
                with self._watched() as stalls:
                    imported = await self._loader.import_bundle(copy or await self._folder(entry))
                    await self._memory.make_room(imported.bundle)
                    version = await self._bring(entry, imported, LoadProgress(entry))
            except (BundleError, StoreError, MemoryError, Conflict, UnknownVersion) as error:
                raise self._failed(entry, str(error) or "out of memory") from error
            except (Stopped, asyncio.CancelledError):
                entry.enter(State.AVAILABLE)
                raise
            except Exception as error:
                failed("model_load", "load failed unexpectedly", model_version=entry.name)
                raise self._failed(entry, "an unexpected error; it has been logged") from error
            entry.load_seconds = round(perf_counter() - began, 3)
            entry.worst_stall_ms = round(1e3 * stalls.worst, 2)
            await self._tidy()
            return await self._finish(entry, version)

    @contextmanager
    def _watched(self) -> Iterator[Stalls]:
        with watch_stalls() as stalls:
            try:
                yield stalls
            finally:
                self._metrics.model_load_stall.set(stalls.worst)

    async def _folder(self, entry: ModelEntry) -> Path:
        repository = self._catalog.repository
        found = await asyncio.to_thread(repository.look, entry.name)
        entry.mark = found.mark if found else None
        folder = await asyncio.to_thread(repository.folder, entry.name)
        if folder is None:
            raise UnknownVersion(f"no longer in {repository.path}")
        return folder

    async def _bring(
        self, entry: ModelEntry, imported: ImportedBundle, progress: LoadProgress
    ) -> LoadedModel:
        """A version that a process died of while loading it is known by what is noted here."""
        entry.digest, entry.signer = imported.copy.digest, imported.signer
        entry.created = imported.bundle.manifest.created
        settings, private = self._catalog.settings, self._loader.private
        noted = private.is_loaded_by_us(imported.copy)
        opened = list[LoadedModel]()
        if progress.readiness is None:
            await asyncio.to_thread(private.remember, **noted)
        else:  # there is nothing else to serve
            lost = "if this process is killed while it loads, nobody will know"
            await asyncio.to_thread(private.try_to_remember, lost, **noted)
        try:
            version = await self._loader.load(
                imported,
                progress,
                self.shapes.typical(
                    imported.bundle.schema.history_length, settings.chunk_candidates
                ),
                settings.max_table_items,
                opened=lambda version: self._opened(version, opened),
                hurried=progress.readiness is not None,
            )
            settle()
            return version
        except BaseException:
            self._catalog.registry.loading.difference_update(opened)
            raise
        finally:
            lost = "after a restart this version is taken for one that a process died of"
            await asyncio.to_thread(private.try_to_remember, lost, loading=None)

    def _opened(self, version: LoadedModel, opened: list[LoadedModel]) -> None:
        """From the loading thread: changes of items concern this version from now on."""
        opened.append(version)
        self._catalog.registry.loading.add(version)

    async def _finish(self, entry: ModelEntry, version: LoadedModel) -> ModelEntry:
        """Take in what has changed while it was loaded, then let it answer."""
        try:
            if self.before_ready is not None:
                await self.before_ready(version)
            return self._ready(entry, version)
        finally:
            self._catalog.registry.loading.discard(version)

    def _ready(self, entry: ModelEntry, version: LoadedModel) -> ModelEntry:
        entry.version = version
        entry.enter(State.READY)
        self._catalog.registry.add(version)
        self._metrics.model_loads.labels("ready").inc()
        told = {"seconds": entry.load_seconds, "worst_stall_ms": entry.worst_stall_ms}
        known = {name: value for name, value in told.items() if value is not None}
        logger.info("loaded", model_version=entry.name, **known)
        return entry

    def _failed(self, entry: ModelEntry, reason: str) -> ModelRefused:
        reason = self._loader.private.as_published(reason, self._catalog.repository.models)
        entry.enter(State.FAILED, reason=reason)
        self._metrics.model_loads.labels("failed").inc()
        logger.error("model refused", model_version=entry.name, reason=reason)
        return ModelRefused(
            f"version {entry.name}: {reason}", members={"version": entry.name, "state": "failed"}
        )

    async def _tidy(self) -> None:
        """Remove copies of versions that are no longer in memory."""
        entries = self._catalog.entries.values()
        digests = [entry.digest for entry in entries if entry.digest and entry.version]
        await asyncio.to_thread(self._loader.private.forget_others, digests)

"""Brings versions from the models folder into the roster, one at a time, in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from feature_store.errors import StoreError
from model_export.bundle.errors import BundleError
from service.artifacts.importer import TakenIn
from service.artifacts.local_copies import Copy
from service.errors import Conflict, ModelRefused, UnknownVersion
from service.lifecycle.catalog import Roster
from service.lifecycle.load_steps import Stopped
from service.lifecycle.loader import Loader
from service.lifecycle.memory_budget import Room
from service.lifecycle.model_entry import IN_MEMORY, Slot, State
from service.lifecycle.readiness import Readiness
from service.lifecycle.unloader import Retirement
from service.lifecycle.warm_up import RecentShapes
from service.models.registry import Version
from service.observability.background import begin, failed
from service.observability.event_loop import settle
from service.observability.logs import logger
from service.observability.loop_lag import LoopLag
from service.observability.metrics import Metrics


@dataclass(frozen=True, slots=True)
class _Told:
    """Progress, kept where the listing and /readyz find it."""

    slot: Slot
    readiness: Readiness | None = None

    def enter(self, state: State, step: str, total: int = 0) -> None:
        self.slot.enter(state, step)
        if self.readiness is not None:
            self.readiness.enter(step, total)

    def advance(self, count: int) -> None:
        if self.readiness is not None:
            self.readiness.done += count


class Loads:
    """Whoever asks for a version that is already on its way waits for that very load."""

    def __init__(
        self, roster: Roster, loader: Loader, retirement: Retirement, metrics: Metrics
    ) -> None:
        self._roster, self._loader, self._metrics = roster, loader, metrics
        self._retirement, self._room = retirement, Room(roster, retirement)
        self._lag, self._one = LoopLag(metrics), asyncio.Lock()
        self._under_way: dict[str, asyncio.Task[Slot]] = {}
        self.shapes = RecentShapes()
        self.before_ready: Callable[[Version], Awaitable[None]] | None = None

    def is_under_way(self, name: str) -> bool:
        return name in self._under_way

    async def load(self, name: str, copy: Copy | None = None) -> Slot:
        """From the models folder, or from ``copy``, taken in before. ModelRefused says why not."""
        await self._retirement.ended(name)
        slot = await self._roster.known(name) if copy is None else self._roster.slot(name)
        if slot.state in IN_MEMORY:
            return slot
        if slot.name not in self._under_way:
            task = begin("model_load", self._load(slot, copy), expected=(ModelRefused, Stopped))
            task.add_done_callback(lambda _: self._under_way.pop(slot.name, None))
            self._under_way[slot.name] = task
        return await asyncio.shield(self._under_way[slot.name])  # whoever asked may go away

    async def first(self, taken: TakenIn, readiness: Readiness) -> Slot:
        """Nobody is answered before it is there. BundleError or StoreError."""
        slot = self._roster.slot(taken.copy.version)
        try:
            version = await self._bring(slot, taken, _Told(slot, readiness))
        except BundleError as error:
            self._failed(slot, str(error))
            raise
        return await self._finish(slot, version)

    async def close(self) -> None:
        await self._loader.close()
        for task in self._under_way.values():
            task.cancel()

    async def _load(self, slot: Slot, copy: Copy | None) -> Slot:
        async with self._one:
            began = perf_counter()
            try:
                slot.enter(State.LOADING, "copying and checking the files")
                with self._lag.watched() as stalls:
                    taken = await self._loader.take_in(copy or await self._folder(slot))
                    await self._room.make(taken.bundle)
                    version = await self._bring(slot, taken, _Told(slot))
            except (BundleError, StoreError, MemoryError, Conflict, UnknownVersion) as error:
                raise self._failed(slot, str(error) or "out of memory") from error
            except (Stopped, asyncio.CancelledError):
                slot.enter(State.AVAILABLE)
                raise
            except Exception as error:
                failed("model_load", "load failed unexpectedly", model_version=slot.name)
                raise self._failed(slot, "an unexpected error; it has been logged") from error
            slot.load_seconds = round(perf_counter() - began, 3)
            slot.worst_stall_ms = round(1e3 * stalls.worst, 2)
            await self._tidy()
            return await self._finish(slot, version)

    async def _folder(self, slot: Slot) -> Path:
        catalogue = self._roster.catalogue
        found = await asyncio.to_thread(catalogue.look, slot.name)
        slot.mark = found.mark if found else None
        folder = await asyncio.to_thread(catalogue.folder, slot.name)
        if folder is None:
            raise UnknownVersion(f"no longer in {catalogue.path}")
        return folder

    async def _bring(self, slot: Slot, taken: TakenIn, progress: _Told) -> Version:
        """A version that a process died of while loading it is known by what is noted here."""
        slot.digest, slot.signer = taken.copy.digest, taken.signer
        slot.created = taken.bundle.manifest.created
        settings, private = self._roster.settings, self._loader.private
        noted = private.is_loaded_by_us(taken.copy)
        opened = list[Version]()
        if progress.readiness is None:
            await asyncio.to_thread(private.remember, **noted)
        else:  # there is nothing else to serve
            lost = "if this process is killed while it loads, nobody will know"
            await asyncio.to_thread(private.try_to_remember, lost, **noted)
        try:
            version = await self._loader.load(
                taken,
                progress,
                self.shapes.typical(taken.bundle.schema.history_length, settings.chunk_candidates),
                settings.max_table_items,
                opened=lambda version: self._opened(version, opened),
                hurried=progress.readiness is not None,
            )
            settle()
            return version
        except BaseException:
            self._roster.versions.loading.difference_update(opened)
            raise
        finally:
            lost = "after a restart this version is taken for one that a process died of"
            await asyncio.to_thread(private.try_to_remember, lost, loading=None)

    def _opened(self, version: Version, opened: list[Version]) -> None:
        """From the loading thread: changes of items concern this version from now on."""
        opened.append(version)
        self._roster.versions.loading.add(version)

    async def _finish(self, slot: Slot, version: Version) -> Slot:
        """Take in what has changed while it was loaded, then let it answer."""
        try:
            if self.before_ready is not None:
                await self.before_ready(version)
            return self._ready(slot, version)
        finally:
            self._roster.versions.loading.discard(version)

    def _ready(self, slot: Slot, version: Version) -> Slot:
        slot.version = version
        slot.enter(State.READY)
        self._roster.versions.add(version)
        self._metrics.model_loads.labels("ready").inc()
        told = {"seconds": slot.load_seconds, "worst_stall_ms": slot.worst_stall_ms}
        known = {name: value for name, value in told.items() if value is not None}
        logger.info("loaded", model_version=slot.name, **known)
        return slot

    def _failed(self, slot: Slot, reason: str) -> ModelRefused:
        reason = self._loader.private.as_published(reason, self._roster.catalogue.models)
        slot.enter(State.FAILED, reason=reason)
        self._metrics.model_loads.labels("failed").inc()
        logger.error("model refused", model_version=slot.name, reason=reason)
        return ModelRefused(
            f"version {slot.name}: {reason}", members={"version": slot.name, "state": "failed"}
        )

    async def _tidy(self) -> None:
        """Remove copies of versions that are no longer in memory."""
        slots = self._roster.slots.values()
        digests = [slot.digest for slot in slots if slot.digest and slot.version]
        await asyncio.to_thread(self._loader.private.forget_others, digests)

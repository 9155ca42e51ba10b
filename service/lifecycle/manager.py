"""The verbs: load, activate, canary, shadow, promote, rollback, unload. Each may be repeated.

A load takes its time in the background; a switch is one reference that changes on the event loop,
so a switch or a rollback never waits for a load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from service.artifacts.importer import ImportedBundle, ImportPolicy
from service.artifacts.local_copies import LocalCopies
from service.artifacts.persisted_state import Copy
from service.errors import Conflict
from service.lifecycle.catalog import ModelCatalog, ModelEntry, State
from service.lifecycle.loader import Loader
from service.lifecycle.readiness import Readiness
from service.lifecycle.rollback_monitor import Bounds, RollbackMonitor
from service.lifecycle.unloader import Unloader
from service.models.loaded_model import LoadedModel
from service.models.registry import Canary, seed_of
from service.observability.logs import logger
from service.observability.metrics import Metrics


class ModelManager:
    """What may be done with the versions of a catalog. On the event loop alone."""

    def __init__(
        self, catalog: ModelCatalog, copies: LocalCopies, policy: ImportPolicy, metrics: Metrics
    ) -> None:
        self.catalog, self.registry, self.shadow = catalog, catalog.registry, catalog.shadow
        self._metrics, self._state = metrics, copies.state
        settings = catalog.settings
        self._unloader = Unloader(catalog)
        self._loader = Loader(catalog, self._unloader, copies, policy, metrics)
        self.shapes = self._loader.shapes  # of recent requests
        bounds = Bounds(
            settings.rollback_window_s, settings.rollback_error_rate, settings.rollback_p99_ratio
        )
        self.monitor = RollbackMonitor(
            catalog.registry, bounds, self._take_back, settings.chunk_candidates
        )
        self._unloader.on_begin = self.monitor.forget
        self._persisting = asyncio.Lock()
        self._was_active: set[str] = set()
        self._promoted: str | None = None  # by the last promotion; repeating it changes nothing
        self._taken_back: str | None = None  # by the last rollback; likewise
        self.on_own_switch: Callable[[], Awaitable[None]] | None = None  # nobody asked for it

    def before_ready(self, catch_up: Callable[[LoadedModel], Awaitable[None]]) -> None:
        """What is awaited of a loaded version right before it may answer."""
        self._loader.before_ready = catch_up

    async def start(self, imported: ImportedBundle, readiness: Readiness) -> None:
        """The first version. BundleError or StoreError."""
        self._switch(await self._loader.load_first(imported, readiness), "start")
        await self._persist()

    async def load(self, name: str) -> ModelEntry:
        """Ready to be switched to; the old version goes on answering. ModelRefused says why not."""
        return await self._loader.load(name)

    async def activate(self, name: str, kind: str = "activate") -> ModelEntry:
        """Loaded if need be, then it answers everybody."""
        self._refuse_if_pinned(name)
        entry, old = await self.load(name), self.registry.active
        if entry.version is None:
            raise Conflict(f"version {name}: {entry.state.value} since; ask again")
        if entry.version is not old:
            self._switch(entry, kind)
            if old is not None:
                self.monitor.begin(entry.version, old)
            await self._persist()
        return entry

    async def rollback(self, violation: str | None = None) -> ModelEntry:
        """Back to the version before. At once when it is in memory; repeated, it stays there."""
        bad, back = self.catalog.active(), self.catalog.previous
        if back is None:
            if self._taken_back is not None:
                return bad
            raise Conflict("there is no version before this one to go back to")
        self._refuse_if_pinned(back.version)
        entry = self.catalog.entry(back.version)
        if entry.version is None:
            entry = await self._loader.load(back.version, back)
        self._switch(entry, "automatic_rollback" if violation else "rollback")
        self._taken_back = bad.name
        self.catalog.previous = self.registry.previous = None
        if violation is not None:
            self._unloader.begin(bad, State.FAILED, f"taken back: {violation}")
        await self._persist()
        return entry

    async def canary(self, name: str, share: float) -> ModelEntry:
        """This share of the users is answered by it; 0 ends that."""
        entry = await self._second(name, share)
        if share and entry.version is not None:
            self.registry.canary = Canary(entry.version, share, seed_of(entry.name))
        elif self.registry.canary and self.registry.canary.version is entry.version:
            self.registry.canary = None
        self._show_canary()
        return entry

    async def set_shadow(self, name: str, share: float) -> ModelEntry:
        """It scores a copy of this share of the requests and answers nobody; 0 ends that."""
        entry = await self._second(name, share)
        if share and entry.version is not None:
            self.shadow.begin(entry.version, share)
        elif entry.version is not None and self.shadow.version is entry.version:
            self.shadow.end()
        return entry

    async def promote(self) -> ModelEntry:
        """The canary, or else the shadow, becomes active."""
        chosen = self.registry.canary.version if self.registry.canary else self.shadow.version
        if chosen is None:
            if self.catalog.active().name != self._promoted:
                raise Conflict("there is neither a canary nor a shadow to promote")
            return self.catalog.active()
        entry = await self.activate(chosen.name, "promote")
        self._promoted = entry.name
        return entry

    async def unload(self, name: str) -> ModelEntry:
        """Out of memory, when its last answer is given."""
        entry = await self.catalog.known(name)
        if entry.state is State.ACTIVE:
            raise Conflict(f"version {name}: active; activate another one first")
        if self._loader.is_loading(entry.name):
            raise Conflict(f"version {name}: being loaded; unload it when that has ended")
        if entry.version is not None:
            self._unloader.begin(entry, State.UNLOADED)
        elif entry.state is State.FAILED:
            entry.enter(State.UNLOADED)
        await self._unloader.ended(entry.name)
        return entry

    async def reconcile(self, wanted: Mapping[str, Any]) -> None:
        """Serve what the fleet serves: ``wanted`` is another's ``desired_state()``."""
        active, previous = Copy(**wanted["active"]), wanted["previous"]
        entry = await self.load(active.version)
        if entry.digest != active.digest:
            raise Conflict(f"version {entry.name}: here with other content than in the fleet")
        await self.activate(active.version, "fleet")
        self.catalog.previous = Copy(**previous) if previous else None
        if previous is None:
            self.registry.previous = None
        parts = self.catalog.roles()
        for verb, now, asked in (
            (self.canary, parts["canary"], wanted["canary"]),
            (self.set_shadow, parts["shadow"], wanted["shadow"]),
        ):
            if asked is not None:
                await verb(asked["version"], asked["share"])
            elif now is not None:
                await verb(now["version"], 0)
        for name in set(self.registry.loaded()) - set(wanted["loaded"]):
            self._unloader.begin(self.catalog.entries[name], State.UNLOADED)
        await self._persist()
        for name in wanted["loaded"]:
            await self.load(name)

    async def close(self) -> None:
        self.monitor.close()
        await self._loader.close()
        await self.shadow.close()
        self._unloader.close()

    def _switch(self, entry: ModelEntry, kind: str) -> None:
        """The switch itself. Nothing here waits."""
        assert entry.version is not None
        registry, old = self.registry, self.registry.active
        registry.activate(entry.version)
        entry.enter(State.ACTIVE)
        self._was_active.add(entry.name)
        self._taken_back = self._promoted = None
        if old is not None:
            before = self.catalog.entries[old.name]
            before.enter(State.READY)
            self.catalog.previous = Copy(version=old.name, digest=before.digest or "")
        if self.shadow.version is entry.version:
            self.shadow.end()
        self._release_old()
        self._metrics.model_swaps.labels(kind).inc()
        self._metrics.model.info({"version": entry.name})
        self._show_canary()
        logger.info("switched", model_version=entry.name, before=old and old.name, kind=kind)

    def _release_old(self) -> None:
        """Unload versions that have been active and have no role any more."""
        registry, kept = self.registry, {self.registry.active, self.shadow.version}
        if registry.canary is not None:
            kept.add(registry.canary.version)
        if self.catalog.settings.keep_previous:
            kept.add(registry.previous)
        for version in registry.all():
            if version not in kept and version.name in self._was_active:
                self._was_active.discard(version.name)
                self._unloader.begin(self.catalog.entries[version.name], State.UNLOADED)

    async def _second(self, name: str, share: float) -> ModelEntry:
        """A version beside the active one; in memory if it gets a share."""
        if not share:
            return await self.catalog.known(name)
        entry = await self.load(name)
        if entry.state is not State.READY:
            raise Conflict(f"version {name}: {entry.state.value}; this takes a second version")
        return entry

    async def _take_back(self, bad: LoadedModel, violation: str) -> None:
        if bad is not self.registry.active:
            return
        logger.error("taken back", model_version=bad.name, reason=violation)
        del bad  # so that it can be freed
        await self.rollback(violation)
        if self.on_own_switch is not None:
            await self.on_own_switch()

    def _show_canary(self) -> None:
        canary = self.registry.canary
        self._metrics.canary_share.set(canary.share if canary else 0)

    def _refuse_if_pinned(self, name: str) -> None:
        pinned = self.catalog.settings.pinned_version
        if pinned is not None and name != pinned:
            raise Conflict(f"version {pinned} is pinned (QIN_MODEL_POLICY)")

    async def _persist(self) -> None:
        """What a restart serves."""
        async with self._persisting:
            active, previous = self.catalog.active(), self.catalog.previous
            copy = Copy(version=active.name, digest=active.digest or "")
            lost = "a restart may begin with another version"
            await asyncio.to_thread(self._state.try_update, lost, active=copy, previous=previous)

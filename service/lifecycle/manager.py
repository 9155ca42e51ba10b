"""Implements the model operations: load, activate, canary, shadow, promote, rollback, unload.

Each is idempotent. Loads run in the background; a switch changes one reference on the event loop,
so a switch or a rollback never waits for a load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from service.artifacts.importer import ImportedBundle, ImportPolicy
from service.artifacts.local_copies import LocalCopies
from service.artifacts.persisted_state import Copy
from service.errors import Conflict, ServiceError, UnknownVersion
from service.lifecycle.catalog import ModelCatalog, ModelEntry, State
from service.lifecycle.loader import Loader
from service.lifecycle.readiness import Readiness
from service.lifecycle.rollback_monitor import Bounds, RollbackMonitor
from service.lifecycle.unloader import Unloader
from service.models.canary import Canary, seed_of
from service.models.loaded_model import LoadedModel
from service.observability.background import begin
from service.observability.logs import logger
from service.observability.metrics import Metrics

if TYPE_CHECKING:
    from service.encoding.loading import EncoderLoader  # takes an extra


class ModelManager:
    """Changes which versions are loaded, and their roles. Used on the event loop only."""

    def __init__(
        self,
        catalog: ModelCatalog,
        copies: LocalCopies,
        policy: Callable[[], Awaitable[ImportPolicy]],
        metrics: Metrics,
        before_ready: Callable[[LoadedModel], Awaitable[None]],
        encoders: EncoderLoader | None = None,
    ) -> None:
        self.catalog, self.registry, self.shadow = catalog, catalog.registry, catalog.shadow
        self._metrics, self._copies = metrics, copies
        settings = catalog.settings
        self._unloader = Unloader(catalog)
        self._loader = Loader(
            catalog, self._unloader, copies, policy, metrics, before_ready, encoders
        )
        self.load, self.shapes = self._loader.load, self._loader.shapes
        bounds = Bounds(
            settings.rollback_window_s, settings.rollback_error_rate, settings.rollback_p99_ratio
        )
        self.monitor = RollbackMonitor(
            catalog.registry, bounds, self._roll_back, settings.chunk_candidates
        )
        self._unloader.on_begin = self._forget
        self._persisting = asyncio.Lock()
        self._was_active: set[str] = set()
        self._promoted: str | None = None  # by the last promotion, in case it is repeated
        self._rolled_back: str | None = None  # by the last rollback, likewise
        self._followed: set[str] = set()  # loads that reconciling has begun, since it last ended
        # Called after each switch: the version, the one before, and the kind.
        self.on_switch: Callable[[str, str | None, str], None] = lambda *_: None
        # Awaited after an automatic rollback: its kind, and the version that was rolled back.
        self.on_own_switch: Callable[[str, str], Awaitable[None]] | None = None

    async def start(self, imported: ImportedBundle, readiness: Readiness) -> None:
        """Load and activate the first version. BundleError or StoreError."""
        self._switch(await self._loader.load_first(imported, readiness), "start")
        await self._persist()

    async def activate(self, name: str, kind: str = "activate") -> ModelEntry:
        """Switch to a version, loading it first if necessary."""
        self._refuse_if_pinned(name)
        entry, old = await self.load(name), self.registry.active
        if entry.version is None:
            raise Conflict(f"version {name}: {entry.state.value} meanwhile; repeat the call")
        if entry.version is not old:
            self._switch(entry, kind)
            if old is not None:
                self.monitor.begin(entry.version, old)
            await self._persist()
        return entry

    async def rollback(self, violation: str | None = None) -> ModelEntry:
        """Switch back to the previous version, at once if it is in memory."""
        bad, back = self.catalog.active(), self.catalog.previous
        if back is None:
            if self._rolled_back is not None:
                return bad
            raise Conflict("there is no previous version to roll back to")
        self._refuse_if_pinned(back.version)
        entry = self.catalog.entry(back.version)
        if entry.version is None:
            entry = await self._loader.load(back.version, back)
        self._switch(entry, "automatic_rollback" if violation else "rollback")
        self._rolled_back = bad.name
        self.catalog.previous = self.registry.previous = None
        if violation is not None:
            self._unloader.begin(bad, State.FAILED, f"rolled back: {violation}")
        await self._persist()
        return entry

    async def canary(self, name: str, share: float) -> ModelEntry:
        """Answer this share of the users with a version; 0 ends the canary."""
        entry = await self._second(name, share)
        if share and entry.version is not None:
            self.registry.canary = Canary(entry.version, share, seed_of(entry.name))
        elif self.registry.canary and self.registry.canary.version is entry.version:
            self.registry.canary = None
        self._show_canary()
        return entry

    async def set_shadow(self, name: str, share: float) -> ModelEntry:
        """Score a copy of this share of the requests with a version; 0 ends the shadow."""
        entry = await self._second(name, share)
        if share and entry.version is not None:
            self.shadow.begin(entry.version, share)
        elif entry.version is not None and self.shadow.version is entry.version:
            self.shadow.end()
        return entry

    async def promote(self) -> ModelEntry:
        """Activate the canary, or else the shadow."""
        chosen = self.registry.canary.version if self.registry.canary else self.shadow.version
        if chosen is None:
            if self.catalog.active().name != self._promoted:
                raise Conflict("there is neither a canary nor a shadow to promote")
            return self.catalog.active()
        entry = await self.activate(chosen.name, "promote")
        self._promoted = entry.name
        return entry

    async def unload(self, name: str) -> ModelEntry:
        """Free a version after its last answer."""
        entry = await self.catalog.known(name)
        if entry.state is State.ACTIVE:
            raise Conflict(f"version {name}: active; activate another one first")
        if self._loader.is_loading(entry.name):
            raise Conflict(f"version {name}: being loaded; unload it afterwards")
        if entry.version is not None:
            self._unloader.begin(entry, State.UNLOADED)
        elif entry.state is State.FAILED:
            entry.enter(State.UNLOADED)
        await self._unloader.ended(entry.name)
        return entry

    async def reconcile(
        self, wanted: Mapping[str, Any], may_load: Callable[[], Awaitable[None]]
    ) -> None:
        """Serve what the fleet serves: ``wanted`` is another's ``desired_state()``.

        ``may_load`` is awaited before each load. Cancelled, it leaves a load under way; the next
        call frees that version if it is wanted no more. Where the folder of the active or the
        previous version is gone, its copy is loaded, if this machine has it.
        """
        active, previous = Copy(**wanted["active"]), wanted["previous"]
        digests = {active.version: active.digest}
        if previous:
            digests.setdefault(previous["version"], previous["digest"])

        async def loaded(name: str) -> ModelEntry:
            if name not in self.registry.loaded():
                await may_load()
                self._followed.add(name)
            try:
                return await self.load(name)
            except UnknownVersion:
                copy = Copy(version=name, digest=digests.get(name, ""))
                folder = self._copies.copy(copy.digest, name)
                if not copy.digest or not await asyncio.to_thread(folder.is_dir):
                    raise
                return await self.load(name, copy)

        entry = await loaded(active.version)
        if entry.digest != active.digest:
            raise Conflict(f"version {entry.name}: its content differs from the fleet's")
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
                await loaded(asked["version"])
                await verb(asked["version"], asked["share"])
            elif now is not None:
                await verb(now["version"], 0)
        self._unload(set(self.registry.loaded()) - set(wanted["loaded"]))
        await self._persist()
        for name in wanted["loaded"]:
            await loaded(name)
        for name in self._followed - set(wanted["loaded"]):  # of a state that this one replaced
            if self._loader.is_loading(name):
                with suppress(ServiceError):
                    await self.load(name)
            self._unload([name])
        self._followed.clear()

    def _unload(self, names: Iterable[str]) -> None:
        for name in set(self.registry.loaded()).intersection(names):
            self._unloader.begin(self.catalog.entries[name], State.UNLOADED)

    async def close(self) -> None:
        self.monitor.close()
        await self._loader.close()
        await self.shadow.close()
        self._unloader.close()

    def _switch(self, entry: ModelEntry, kind: str) -> None:
        """Switch the active version. Never waits."""
        assert entry.version is not None
        registry, old = self.registry, self.registry.active
        registry.activate(entry.version)
        entry.enter(State.ACTIVE)
        self._was_active.add(entry.name)
        self._rolled_back = self._promoted = None
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
        about = entry.version.about_encoder
        self._metrics.encoder.show(about)
        self.on_switch(entry.name, old.name if old is not None else None, kind)
        logger.info(
            "switched",
            model_version=entry.name,
            before=old and old.name,
            kind=kind,
            **({"encoder": about["version"]} if about else {}),
        )

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
        """Return a version other than the active one, loaded if it gets a share."""
        if not share:
            return await self.catalog.known(name)
        entry = await self.load(name)
        if entry.state is not State.READY:
            raise Conflict(
                f"version {name}: {entry.state.value}; name a version other than the active one"
            )
        return entry

    async def _roll_back(self, bad: LoadedModel, violation: str) -> None:
        if bad is not self.registry.active:
            return
        logger.error("rolling back", model_version=bad.name, reason=violation)
        name = bad.name
        del bad  # it is freed during the rollback
        await self.rollback(violation)
        if self.on_own_switch is not None:
            await self.on_own_switch("automatic_rollback", name)

    def _forget(self, version: LoadedModel) -> None:
        """End the roles of a version that is about to be freed."""
        self.monitor.forget(version)
        self._show_canary()

    def _show_canary(self) -> None:
        canary = self.registry.canary
        self._metrics.canary_share.set(canary.share if canary else 0)

    def _refuse_if_pinned(self, name: str) -> None:
        pinned = self.catalog.settings.pinned_version
        if pinned is not None and name != pinned:
            raise Conflict(f"version {pinned} is pinned (QIN_MODEL_POLICY)")

    async def _persist(self) -> None:
        """Save what a restart serves. Cancelling the caller does not cancel it."""
        await asyncio.shield(begin("model_follow", self._save()))

    async def _save(self) -> None:
        async with self._persisting:  # the last one saves what is so by then
            active, previous = self.catalog.active(), self.catalog.previous
            copy = Copy(version=active.name, digest=active.digest or "")
            lost = "a restart may begin with another version"
            save = partial(self._copies.state.try_update, lost, active=copy, previous=previous)
            await asyncio.to_thread(save)

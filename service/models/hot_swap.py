"""The verbs: load, activate, canary, shadow, promote, rollback, unload. Each may be repeated.

A load takes its time in the background; a switch is one reference that changes on the event loop,
so a switch or a rollback never waits for a load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from feature_store.errors import StoreError
from model_export.bundle import Bundle
from model_export.errors import BundleError
from service.answer import Answer
from service.errors import Conflict, ModelRefused, UnknownVersion
from service.logs import logger
from service.metrics import Metrics
from service.models.catalogue import Catalogue
from service.models.guard import Bounds, Watch
from service.models.intake import TakenIn
from service.models.loader import Loader
from service.models.loading import Stopped
from service.models.loop_lag import LoopLag
from service.models.memory import available_bytes
from service.models.private import Copy, PrivateFolder
from service.models.retirement import retire
from service.models.shadow import Shadow
from service.models.shapes import RecentShapes
from service.models.states import IN_MEMORY, Slot, State
from service.question import Question
from service.readiness import Readiness
from service.settings import Settings
from service.versions import ALIASES, Canary, Version, Versions, seed_of

GUARD_EVERY_S = 0.25
HEADROOM = 1.1  # of the memory a version is expected to take


@dataclass(frozen=True, slots=True)
class Parts:
    """What the verbs work on."""

    settings: Settings
    versions: Versions
    metrics: Metrics
    readiness: Readiness
    catalogue: Catalogue
    private: PrivateFolder
    loader: Loader
    shadow: Shadow


class HotSwap:
    """Every version this process knows, and what may be done with it. On the event loop alone."""

    def __init__(self, parts: Parts) -> None:
        self._p, self._settings = parts, parts.settings
        self.versions, self.shadow = parts.versions, parts.shadow
        self.catalogue, self.private = parts.catalogue, parts.private
        self.slots: dict[str, Slot] = {}
        self.shapes = RecentShapes()
        self.lag = LoopLag(parts.metrics)
        self._loads: dict[str, asyncio.Task[Slot]] = {}
        self._retiring: dict[str, asyncio.Task[None]] = {}
        self._one_load = asyncio.Lock()
        self._persisting = asyncio.Lock()
        self._watch: Watch | None = None
        self._was_active: set[str] = set()
        self._previous: Copy | None = None  # also when it is no longer in memory
        self._taken_back: str | None = None  # by the last rollback; repeating it changes nothing
        self._promoted: str | None = None
        self.on_own_switch: Callable[[], Awaitable[None]] | None = None  # without being told
        self._guarding = asyncio.create_task(self._guard())

    # What a request tells.

    def answered(self, question: Question, answer: Answer) -> None:
        """After every answer."""
        self.shapes.note(len(question.candidates), len(answer.history))
        self.shadow.offer(question, answer)

    # The verbs.

    async def start(self, taken: TakenIn) -> None:
        """The first version: nobody is answered before it is there. BundleError or StoreError."""
        slot = self._slot(taken.copy.version)
        version = await self._bring(slot, taken, hurried=True)
        self._ready(slot, version)
        self._switch(slot, "start")
        await self._persist()

    async def load(self, name: str) -> Slot:
        """Ready to be switched to; the old version goes on answering. ModelRefused says why not."""
        while task := self._retiring.get(name):
            await asyncio.shield(task)
        slot = await self.known(name)
        if slot.state in IN_MEMORY:
            return slot
        if name not in self._loads:
            self._loads[name] = asyncio.create_task(self._load(slot))
            self._loads[name].add_done_callback(lambda _: self._loads.pop(name, None))
        return await asyncio.shield(self._loads[name])  # whoever asked may go away

    async def activate(self, name: str, kind: str = "activate") -> Slot:
        """Loaded if need be, then it answers everybody."""
        self._refuse_if_pinned(name)
        slot = await self.load(name)
        if slot.state not in (State.READY, State.ACTIVE):
            raise Conflict(f"version {name}: {slot.state.value} since; ask again")
        if slot.state is State.READY:
            before = self.versions.active
            self._switch(slot, kind)
            if before is not None and slot.version is not None:
                self._watch = Watch(slot.version, before, self._bounds())
            await self._persist()
        return slot

    async def rollback(self, reason: str | None = None) -> Slot:
        """Back to the version before. At once when it is in memory; repeated, it stays there."""
        active = self._active()
        if self._previous is None:
            if self._taken_back is not None:
                return active
            raise Conflict("there is no version before this one to go back to")
        self._refuse_if_pinned(self._previous.version)
        back = self._previous
        if task := self._retiring.get(back.version):
            await asyncio.shield(task)
        slot = self._slot(back.version)
        if slot.state is not State.READY:
            slot = await self._load_from(slot, back)
        self._switch(slot, "automatic_rollback" if reason else "rollback")
        self._watch, self._previous, self._taken_back = None, None, active.name
        self.versions.previous = None
        if reason is not None:
            self._retire(active, State.FAILED, f"taken back: {reason}")
        await self._persist()
        return slot

    async def canary(self, name: str, share: float) -> Slot:
        """This share of the users is answered by it; 0 ends that."""
        if share == 0:
            slot = await self.known(name)
            if self.versions.canary and self.versions.canary.version.name == name:
                self.versions.canary = None
        else:
            slot = await self.load(name)
            if slot.version is None or slot.state is not State.READY:
                raise Conflict(f"version {name}: {slot.state.value}; a canary is a second version")
            self.versions.canary = Canary(slot.version, share, seed_of(name))
        self._p.metrics.canary_share.set(self.versions.canary.share if self.versions.canary else 0)
        return slot

    async def set_shadow(self, name: str, share: float) -> Slot:
        """It scores a copy of this share of the requests and answers nobody; 0 ends that."""
        if share == 0:
            slot = await self.known(name)
            if self.shadow.version is not None and self.shadow.version.name == name:
                self.shadow.end()
        else:
            slot = await self.load(name)
            if slot.version is None or slot.state is not State.READY:
                raise Conflict(f"version {name}: {slot.state.value}; a shadow is a second version")
            self.shadow.begin(slot.version, share)
        return slot

    async def promote(self) -> Slot:
        """The canary, or else the shadow, becomes active."""
        chosen = self.versions.canary.version if self.versions.canary else self.shadow.version
        if chosen is None:
            if self._active().name == self._promoted:
                return self._active()
            raise Conflict("there is neither a canary nor a shadow to promote")
        if self.shadow.version is chosen:
            self.shadow.end()
        self._promoted = chosen.name
        return await self.activate(chosen.name, "promote")

    async def unload(self, name: str) -> Slot:
        """Out of memory, when its last answer is given."""
        slot = await self.known(name)
        if slot.state is State.ACTIVE:
            raise Conflict(f"version {name}: active; activate another one first")
        if name in self._loads:
            raise Conflict(f"version {name}: being loaded; unload it when that has ended")
        if slot.state is State.READY:
            self._retire(slot, State.UNLOADED)
        elif slot.state is State.FAILED:
            slot.enter(State.UNLOADED)
        if task := self._retiring.get(name):
            await asyncio.shield(task)
        await self._persist()
        return slot

    async def obey(self, wanted: Mapping[str, Any]) -> None:
        """Serve what another process of the fleet serves: ``wanted`` is its ``wanted()``."""
        for name in wanted["loaded"]:
            await self.load(name)
        active, previous = Copy(**wanted["active"]), wanted["previous"]
        slot = await self.load(active.version)
        if slot.digest != active.digest:
            raise Conflict(f"version {slot.name}: here with other content than in the fleet")
        await self.activate(active.version, "fleet")
        self._previous = Copy(**previous) if previous else None
        if self._previous is None:
            self.versions.previous = None
        for verb, current, asked in (
            (self.canary, self.roles()["canary"], wanted["canary"]),
            (self.set_shadow, self.roles()["shadow"], wanted["shadow"]),
        ):
            if asked is not None:
                await verb(asked["version"], asked["share"])
            elif current is not None:
                await verb(current["version"], 0)
        await self._persist()

    def wanted(self) -> dict[str, Any]:
        """What this process serves, for others to serve as well."""
        active, roles = self._active(), self.roles()
        return {
            "active": {"version": active.name, "digest": active.digest},
            "previous": self._previous.model_dump() if self._previous else None,
            "canary": roles["canary"],
            "shadow": roles["shadow"],
            "loaded": self.versions.loaded(),
        }

    async def close(self) -> None:
        self._guarding.cancel()
        await self._p.loader.close()
        await self.shadow.close()
        for task in (*self._loads.values(), *self._retiring.values()):
            task.cancel()

    # What is known.

    async def listing(self) -> list[dict[str, Any]]:
        """Every version there is, newest first."""
        found = await asyncio.to_thread(self.catalogue.versions)
        for name, one in found.items():
            slot = self._slot(name)
            slot.created = one.created or slot.created
            if slot.state is State.AVAILABLE and one.fault:
                slot.reason = one.fault
        for name in [n for n, s in self.slots.items() if n not in found and _is_nothing(s)]:
            del self.slots[name]
        newest = sorted(
            self.slots.values(),
            key=lambda s: (s.created.timestamp() if s.created else 0.0, s.name),
            reverse=True,
        )
        return [self.describe(slot) for slot in newest]

    def describe(self, slot: Slot) -> dict[str, Any]:
        versions, version = self.versions, slot.version
        roles = []
        if self._previous is not None and self._previous.version == slot.name:
            roles.append("previous")
        if version is not None:
            roles += ["canary"] * bool(versions.canary and versions.canary.version is version)
            roles += ["shadow"] * (self.shadow.version is version)
        tally = version.tally if version else None
        return {
            **slot.as_json(),
            "roles": roles,
            "requests_under_way": versions.under_way(version) if version else 0,
            "answers": tally.answers if tally else 0,
            "items": version.table.count if version else 0,
        }

    def roles(self) -> dict[str, Any]:
        canary = self.versions.canary
        return {
            "active": self.versions.active.name if self.versions.active else None,
            "previous": self._previous.version if self._previous else None,
            "canary": {"version": canary.version.name, "share": canary.share} if canary else None,
            "shadow": self.shadow.as_json(),
            "policy": self._settings.model_policy,
        }

    # How it is done.

    async def _load(self, slot: Slot) -> Slot:
        source = await asyncio.to_thread(self.catalogue.folder, slot.name)
        if source is None:
            raise UnknownVersion(f"version {slot.name}: no longer in {self.catalogue.path}")
        return await self._load_from(slot, source)

    async def _load_from(self, slot: Slot, source: Path | Copy) -> Slot:
        async with self._one_load:
            began = perf_counter()
            try:
                slot.enter(State.LOADING, "copying and checking the files")
                with self.lag.watched() as stalls:
                    taken = await self._p.loader.take_in(source)
                    version = await self._bring(slot, taken)
                slot.load_seconds = round(perf_counter() - began, 3)
                slot.worst_stall_ms = round(1e3 * stalls.worst, 2)
            except (BundleError, StoreError, MemoryError, Conflict) as error:
                raise self._failed(slot, str(error) or "out of memory") from error
            except (Stopped, asyncio.CancelledError):
                slot.enter(State.AVAILABLE)
                raise
            except Exception as error:
                logger.exception("load failed unexpectedly", model_version=slot.name)
                raise self._failed(slot, "an unexpected error; it has been logged") from error
            self._ready(slot, version)
            return slot

    async def _bring(self, slot: Slot, taken: TakenIn, *, hurried: bool = False) -> Version:
        slot.digest, slot.signer = taken.copy.digest, taken.signer
        slot.created = taken.bundle.manifest.created
        if not hurried:
            await self._make_room(taken.bundle)
        await asyncio.to_thread(self.private.begin_loading, taken.copy)
        try:
            return await self._p.loader.load(
                taken,
                _Told(slot, self._p.readiness if hurried else None),
                self.shapes.typical(
                    taken.bundle.schema.history_length, self._settings.chunk_candidates
                ),
                self._settings.max_table_items,
                hurried=hurried,
            )
        finally:
            await asyncio.to_thread(self.private.end_loading)

    def _ready(self, slot: Slot, version: Version) -> None:
        slot.version = version
        slot.enter(State.READY)
        self.versions.add(version)
        self._p.metrics.model_loads.labels("ready").inc()
        logger.info(
            "loaded",
            model_version=slot.name,
            seconds=slot.load_seconds,
            worst_stall_ms=slot.worst_stall_ms,
        )

    def _failed(self, slot: Slot, reason: str) -> ModelRefused:
        slot.enter(State.FAILED, reason=reason)
        self._p.metrics.model_loads.labels("failed").inc()
        logger.error("model refused", model_version=slot.name, reason=reason)
        return ModelRefused(
            f"version {slot.name}: {reason}", members={"version": slot.name, "state": "failed"}
        )

    def _switch(self, slot: Slot, kind: str) -> None:
        """The switch itself. Nothing here waits."""
        assert slot.version is not None
        versions, old = self.versions, self.versions.active
        if old is slot.version:
            return
        versions.activate(slot.version)
        slot.enter(State.ACTIVE)
        self._was_active.add(slot.name)
        self._taken_back = None
        if old is not None:
            before = self.slots[old.name]
            before.enter(State.READY)
            self._previous = Copy(version=old.name, digest=before.digest or "")
        if self.shadow.version is slot.version:
            self.shadow.end()
        self._release_old()
        metrics = self._p.metrics
        metrics.model_swaps.labels(kind).inc()
        metrics.model.info({"version": slot.name})
        metrics.canary_share.set(versions.canary.share if versions.canary else 0)
        logger.info("switched", model_version=slot.name, before=old and old.name, kind=kind)

    def _release_old(self) -> None:
        """Versions that were active once and have no role any more; loaded ones wait their turn."""
        versions = self.versions
        kept = {versions.active, self.shadow.version}
        kept |= {versions.canary.version} if versions.canary else set()
        kept |= {versions.previous} if self._settings.keep_previous else set()
        for version in versions.all():
            if version not in kept and version.name in self._was_active:
                self._retire(self.slots[version.name], State.UNLOADED)

    def _retire(self, slot: Slot, after: State, reason: str | None = None) -> None:
        box = [slot.version] if slot.version is not None else []
        slot.version = None
        if not box:
            return
        self.versions.remove(box[0])
        if self.shadow.version is box[0]:
            self.shadow.end()
        if self._watch is not None and self._watch.version is box[0]:
            self._watch = None
        self._was_active.discard(slot.name)
        slot.enter(State.DRAINING)

        async def drain() -> None:
            try:
                await retire(self.versions, box)
            finally:
                self._retiring.pop(slot.name, None)
                slot.enter(after, reason=reason)

        self._retiring[slot.name] = asyncio.create_task(drain())

    async def _make_room(self, bundle: Bundle) -> None:
        """Conflict when there is none; the version before goes first if that helps."""
        most = self._settings.max_loaded_versions
        if len(self.versions.loaded()) >= most and not await self._let_previous_go():
            raise Conflict(
                f"{', '.join(self.versions.loaded())} are in memory and at most {most} may be "
                "(QIN_MAX_LOADED_VERSIONS): unload one"
            )
        wanted, free = self._expected_bytes(bundle), available_bytes()
        if free is not None and wanted > free and await self._let_previous_go():
            logger.warning("the version before was let go to make room", wanted_bytes=wanted)
            free = available_bytes()
        if free is not None and wanted > free:
            raise Conflict(
                f"about {wanted >> 20:,} MiB are needed and {free >> 20:,} MiB are free: unload a "
                "version, or give the process more memory"
            )

    async def _let_previous_go(self) -> bool:
        previous = self.versions.previous
        if previous is None or previous is self.shadow.version:
            return False
        if self.versions.canary is not None and previous is self.versions.canary.version:
            return False
        name = previous.name
        del previous
        self._retire(self.slots[name], State.UNLOADED)
        await asyncio.shield(self._retiring[name])
        return True

    def _expected_bytes(self, bundle: Bundle) -> int:
        """Its files, and a table as full as the one now in use."""
        files = sum(record.size for record in bundle.manifest.files.values())
        active, schema = self.versions.active, bundle.schema
        items = active.table.count if active else 0
        row = 4 * (schema.item_vector_width + schema.network_width + len(schema.context)) + 65
        return int(HEADROOM * (files + items * row))

    def _refuse_if_pinned(self, name: str) -> None:
        pinned = self._settings.pinned_version
        if pinned is not None and name != pinned:
            raise Conflict(f"version {pinned} is pinned (QIN_MODEL_POLICY)")

    async def known(self, name: str) -> Slot:
        """UnknownVersion lists what there is."""
        if name in ALIASES:
            name = self.roles()[name] or name
        if name in self.slots and self.slots[name].state not in (State.AVAILABLE, State.UNLOADED):
            return self.slots[name]
        found = await asyncio.to_thread(self.catalogue.versions)
        if name not in found:
            there = sorted({*found, *self.versions.loaded()})
            raise UnknownVersion(
                f"version {name!r}: not in {self.catalogue.path}; there are: "
                f"{', '.join(there) or 'none'}",
                members={"available": there},
            )
        return self._slot(name)

    def _slot(self, name: str) -> Slot:
        return self.slots.setdefault(name, Slot(name))

    def _active(self) -> Slot:
        if self.versions.active is None:
            raise Conflict("nothing is active yet")
        return self.slots[self.versions.active.name]

    def _bounds(self) -> Bounds:
        s = self._settings
        return Bounds(s.rollback_window_s, s.rollback_error_rate, s.rollback_p99_ratio)

    async def _persist(self) -> None:
        """What a restart serves."""
        async with self._persisting:
            active = self._active()
            copy = Copy(version=active.name, digest=active.digest or "")
            await asyncio.to_thread(self.private.remember, active=copy, previous=self._previous)
            digests = [slot.digest for slot in self.slots.values() if slot.digest and slot.version]
            await asyncio.to_thread(self.private.forget_others, digests)

    async def _guard(self) -> None:
        """Takes a new version back by itself."""
        while True:
            await asyncio.sleep(GUARD_EVERY_S)
            watch = self._watch
            if watch is None:
                continue
            if watch.over or watch.version is not self.versions.active:
                self._watch = None
            elif (complaint := watch.complaint()) is not None:
                self._watch = None
                logger.error("taken back", model_version=watch.version.name, reason=complaint)
                del watch
                try:
                    await self.rollback(complaint)
                    if self.on_own_switch is not None:
                        await self.on_own_switch()
                except Exception:
                    logger.exception("automatic rollback failed")


@dataclass(frozen=True, slots=True)
class _Told:
    """Progress, kept where the listing and /readyz find it."""

    slot: Slot
    readiness: Readiness | None

    def enter(self, state: State, step: str, total: int = 0) -> None:
        self.slot.enter(state, step)
        if self.readiness is not None:
            self.readiness.enter(step, total)

    def advance(self, count: int) -> None:
        if self.readiness is not None:
            self.readiness.done += count


def _is_nothing(slot: Slot) -> bool:
    return slot.version is None and slot.state in (State.AVAILABLE, State.UNLOADED)

"""Loads versions one at a time: import, sandbox, load steps, catalog.

The work is done in a background thread that yields to all other work.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pydantic import ValidationError

from feature_store.errors import StoreError
from model_export.bundle.errors import BundleError, NotYet
from model_export.bundle.modes import Choice
from service.artifacts import chosen_mode, sandbox
from service.artifacts.importer import (
    ImportedBundle,
    ImportPolicy,
    NotTheStoresError,
    import_bundle,
    reopen_copy,
)
from service.artifacts.local_copies import LocalCopies
from service.artifacts.persisted_state import Copy, Loading
from service.artifacts.sandbox import SandboxLimits
from service.engine.niceness import LOWEST, add_niceness, short_turns
from service.errors import Conflict, ModelRefused, UnknownVersion
from service.lifecycle.catalog import IN_MEMORY, ModelCatalog, ModelEntry, State
from service.lifecycle.load_steps import LOOK_EVERY_S, LoadSteps, RecentShapes, Stopped
from service.lifecycle.memory_budget import MemoryBudget
from service.lifecycle.readiness import Readiness
from service.lifecycle.unloader import Unloader
from service.models.loaded_model import LoadedModel
from service.observability.background import begin, failed
from service.observability.event_loop import Stalls, settle, watch_stalls
from service.observability.logs import logger
from service.observability.metrics import Metrics

if TYPE_CHECKING:
    from service.encoding.loading import EncoderLoader  # takes an extra
    from service.encoding.repository import FoundEncoder
    from text.runtime.encoder import TextEncoder

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Reports a load's steps to the listing of models and to /readyz."""

    entry: ModelEntry
    readiness: Readiness | None = None  # of the first load, before anything is served

    @property
    def is_first(self) -> bool:
        return self.readiness is not None

    def enter(self, state: State, step: str, total: int = 0) -> None:
        self.entry.enter(state, step)
        if self.readiness is not None:
            self.readiness.enter(step, total)

    def advance(self, count: int) -> None:
        if self.readiness is not None:
            self.readiness.done += count


class Loader:
    """Single-flight: concurrent calls for a version share one load. Used on the event loop."""

    def __init__(
        self,
        catalog: ModelCatalog,
        unloader: Unloader,
        copies: LocalCopies,
        policy: Callable[[], Awaitable[ImportPolicy]],
        metrics: Metrics,
        before_ready: Callable[[LoadedModel], Awaitable[None]],
        encoders: EncoderLoader | None = None,
    ) -> None:
        """``before_ready`` is awaited for each loaded version right before it can answer;
        ``encoders``: of which each comes with one."""
        settings = catalog.settings
        self._catalog, self._unloader, self._metrics = catalog, unloader, metrics
        self._copies, self._policy, self._before_ready = copies, policy, before_ready
        self._encoders = encoders
        self._limits = SandboxLimits(settings.inspection_memory_mb << 20, settings.inspection_s)
        self._memory = MemoryBudget(catalog, unloader)
        self._one_at_a_time = asyncio.Lock()
        self._under_way: dict[str, asyncio.Task[ModelEntry]] = {}
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="loader", initializer=add_niceness, initargs=(LOWEST,)
        )
        self._stop = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self.shapes = RecentShapes()

    def is_loading(self, name: str) -> bool:
        return name in self._under_way

    async def load(self, name: str, copy: Copy | None = None) -> ModelEntry:
        """Load a version from the models folder, or from ``copy``. ModelRefused gives the reason.

        Cancelling the caller does not cancel the load.
        """
        await self._unloader.ended(name)
        entry = await self._catalog.known(name) if copy is None else self._catalog.entry(name)
        if entry.state in IN_MEMORY:
            return entry
        if entry.name not in self._under_way:
            entry.enter(State.LOADING, "waiting for its turn")
            task = begin("model_load", self._load(entry, copy), expected=(ModelRefused, Stopped))
            task.add_done_callback(lambda _: self._under_way.pop(entry.name, None))
            self._under_way[entry.name] = task
        return await asyncio.shield(self._under_way[entry.name])

    async def load_first(self, imported: ImportedBundle, readiness: Readiness) -> ModelEntry:
        """Load the version to start with, at full priority. BundleError or StoreError."""
        entry = self._catalog.entry(imported.copy.version)
        try:
            found = await self._found_encoder(imported)
            progress = LoadProgress(entry, readiness)
            version = await self._prove_and_open(imported, found, progress)
        except BundleError as error:
            self._failed(entry, str(error))
            raise
        return await self._finish(entry, version)

    async def close(self) -> None:
        """Stop a load that is under way."""
        self._stop.set()
        if self._encoders is not None:
            self._encoders.stop()
        if self._child is not None:
            self._child.kill()
        await asyncio.to_thread(self._thread.shutdown)
        for task in self._under_way.values():
            task.cancel()

    async def _load(self, entry: ModelEntry, copy: Copy | None) -> ModelEntry:
        async with self._one_at_a_time:
            began, stalls = perf_counter(), Stalls()
            try:
                if self._stop.is_set():
                    raise Stopped
                entry.enter(State.LOADING, "copying and checking the files")
                with watch_stalls() as stalls, short_turns():
                    imported = await self._import(entry, copy)
                    found = await self._found_encoder(imported)
                    more = self._encoders.bytes_of(found) if self._encoders and found else 0
                    await self._memory.make_room(imported.bundle, more)
                    version = await self._prove_and_open(imported, found, LoadProgress(entry))
            except NotTheStoresError as error:  # its folder does not change when the store does
                remedy = f"then `python -m service models activate {entry.name}`"
                raise self._failed(entry, f"{error}; {remedy}") from error
            except (BundleError, StoreError, MemoryError, Conflict, UnknownVersion) as error:
                raise self._failed(entry, str(error) or "out of memory") from error
            except (Stopped, asyncio.CancelledError):
                entry.enter(State.AVAILABLE)
                raise
            except Exception as error:
                failed("model_load", "load failed unexpectedly", model_version=entry.name)
                raise self._failed(entry, "an unexpected error; it has been logged") from error
            finally:
                self._metrics.model_load_stall.set(stalls.worst)
            entry.load_seconds = round(perf_counter() - began, 3)
            entry.worst_stall_ms = round(1e3 * stalls.worst, 2)
            loaded = [e.digest for e in self._catalog.entries.values() if e.digest and e.version]
            await asyncio.to_thread(self._copies.remove_others, loaded)
            return await self._finish(entry, version)

    async def _import(self, entry: ModelEntry, copy: Copy | None) -> ImportedBundle:
        if copy is not None:
            return await self._run(False, reopen_copy, copy, self._copies, await self._policy())
        repository = self._catalog.repository
        found = await asyncio.to_thread(repository.look, entry.name)
        entry.mark = found.mark if found else None
        folder = await asyncio.to_thread(repository.folder, entry.name)
        if folder is None:
            raise UnknownVersion(f"no longer in {repository.path}")
        return await self._run(False, import_bundle, folder, self._copies, await self._policy())

    async def _prove_and_open(
        self, imported: ImportedBundle, found: FoundEncoder | None, progress: LoadProgress
    ) -> LoadedModel:
        """Try the bundle in the sandbox, then open it in this process, with its encoder.

        The state file names it meanwhile: after a restart it shows which load killed a process.
        """
        entry, bundle, copy = progress.entry, imported.bundle, imported.copy
        entry.digest, entry.signer = copy.digest, imported.signer
        entry.created = bundle.manifest.created
        settings, registry = self._catalog.settings, self._catalog.registry
        state, opened, first = self._copies.state, list[LoadedModel](), progress.is_first
        loading = Loading.by_this_process(copy)
        if first:  # a service starts even where nothing can be written
            lost = "a crash during this load will not be noticed"
            await asyncio.to_thread(state.try_update, lost, loading=loading)
        else:
            await asyncio.to_thread(state.update, loading=loading)

        def has_table(version: LoadedModel) -> None:  # called in the loading thread
            opened.append(version)
            registry.loading.add(version)

        try:
            choice = await self._prove(imported, progress)
            shapes = self.shapes.typical(bundle.schema.history_length, settings.chunk_candidates)
            encoder = await self._encoder(found, progress)
            loop = asyncio.get_running_loop()

            def at_normal_priority(work: Callable[[], T]) -> T:  # likewise
                return asyncio.run_coroutine_threadsafe(asyncio.to_thread(work), loop).result()

            steps = LoadSteps(
                *(bundle, settings, shapes, progress, self._stop, has_table, encoder, choice),
                niceness=0 if first else LOWEST,
                at_normal_priority=at_normal_priority,
            )
            version = await self._run(first, steps.run)
            settle()
            return version
        except BaseException:
            registry.loading.difference_update(opened)
            raise
        finally:
            lost = "after a restart this version counts as one whose load killed a process"
            await asyncio.to_thread(state.try_update, lost, loading=None)

    async def _found_encoder(self, imported: ImportedBundle) -> FoundEncoder | None:
        """Find the encoder that the version wants; None in a service without. NotYet."""
        if self._encoders is None:
            return None
        content = imported.bundle.manifest.content
        return await self._encoders.find(None if content is None else content.digest)

    async def _encoder(
        self, found: FoundEncoder | None, progress: LoadProgress
    ) -> TextEncoder | None:
        """Load the encoder that the version comes with. NotYet or Stopped."""
        if self._encoders is None or found is None:
            return None
        first = progress.is_first
        progress.enter(State.LOADING, "verifying the encoder")
        run = partial(self._run, first)
        try:
            return await self._encoders.load(found, run, 0 if first else LOWEST)
        except BundleError as error:
            if self._stop.is_set():
                raise Stopped from None
            raise NotYet(f"its encoder: {error}") from error

    async def _prove(self, imported: ImportedBundle, progress: LoadProgress) -> Choice | None:
        """Verify the bundle in the sandbox, unless that was done before, and with precision=auto
        choose its mode there. BundleError or Stopped."""
        bundle, settings = imported.bundle, self._catalog.settings
        if settings.times_modes:
            return await self._chosen_mode(imported, progress)
        kind = sandbox.on_openvino() if settings.runs_on_openvino else sandbox.MODEL
        if not sandbox.is_proved(bundle, kind):
            await self._verify(imported, progress, kind)
        return None

    async def _chosen_mode(self, imported: ImportedBundle, progress: LoadProgress) -> Choice:
        """Return the mode that was chosen on this machine; one process chooses it."""
        bundle, settings = imported.bundle, self._catalog.settings
        provider, rows = settings.provider, settings.chunk_candidates
        kind = sandbox.with_modes(provider, rows)
        while True:
            with chosen_mode.measuring(bundle) as ours:
                known = chosen_mode.recall(bundle, provider, rows)
                if known is not None and sandbox.is_proved(bundle, kind):
                    return known
                if ours:
                    verdict = await self._verify(imported, progress, kind)
                    try:
                        choice = chosen_mode.CHOICE.validate_python(verdict)
                    except ValidationError as error:
                        raise BundleError(f"{bundle.path}: no mode was chosen: {error}") from error
                    await self._run(
                        progress.is_first, chosen_mode.note, bundle, provider, rows, choice
                    )
                    return choice
            if self._stop.is_set():
                raise Stopped
            await asyncio.sleep(LOOK_EVERY_S)

    async def _verify(
        self, imported: ImportedBundle, progress: LoadProgress, kind: sandbox.Kind
    ) -> object:
        """Verify the bundle in the sandbox; return what the child chose. BundleError or Stopped."""
        bundle, first = imported.bundle, progress.is_first
        progress.enter(State.LOADING, "verifying it in the sandbox")
        niceness = 0 if first else LOWEST
        self._child = await asyncio.to_thread(sandbox.start, bundle, self._limits, niceness, kind)
        try:
            choice = await self._run(
                first, sandbox.wait_for_verdict, bundle, self._child, self._limits, kind
            )
        finally:
            self._child.kill()  # if the load was cancelled
            self._child = None
        if self._stop.is_set():
            raise Stopped
        await self._run(first, self._copies.know, imported.copy)
        if not sandbox.is_proved(bundle, kind):
            await self._run(first, sandbox.note_proved, bundle, kind)
        return choice

    async def _run(
        self, first: bool, work: Callable[P, T], /, *arguments: P.args, **named: P.kwargs
    ) -> T:
        """Run ``work`` in the low-priority thread; for the ``first`` load at normal priority."""
        if first:
            return await asyncio.to_thread(work, *arguments, **named)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(work, *arguments, **named))

    async def _finish(self, entry: ModelEntry, version: LoadedModel) -> ModelEntry:
        """Apply the item changes made during the load, then let the version answer."""
        registry = self._catalog.registry
        try:
            await self._before_ready(version)
            entry.version = version
            entry.enter(State.READY)
            registry.add(version)
        finally:
            registry.loading.discard(version)
        self._metrics.model_loads.labels("ready").inc()
        timing = {"seconds": entry.load_seconds, "worst_stall_ms": entry.worst_stall_ms}
        known = {name: value for name, value in timing.items() if value is not None}
        logger.info("loaded", model_version=entry.name, **known)
        return entry

    def _failed(self, entry: ModelEntry, reason: str) -> ModelRefused:
        reason = self._copies.as_published(reason, self._catalog.repository.models)
        entry.enter(State.FAILED, reason=reason)
        self._metrics.model_loads.labels("failed").inc()
        logger.error("model refused", model_version=entry.name, reason=reason)
        return ModelRefused(
            f"version {entry.name}: {reason}", members={"version": entry.name, "state": "failed"}
        )

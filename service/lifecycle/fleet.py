"""Makes all processes that share a feature store serve the same versions.

The desired state is a note in the store. Each process polls it, reconciles in its turn, and writes
a report. A process that cannot reconcile reports the fault and keeps serving what it has.

    fleet/NAME/wanted       the desired state, and the process that set it
    fleet/NAME/process/K    the report of the process in place K
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from dataclasses import dataclass

from feature_store.connect import connect
from feature_store.contract import FeatureStore
from feature_store.errors import StoreError, StoreUnavailable
from feature_store.options import StoreOptions
from model_export.bundle.errors import BundleError
from service.artifacts.arrival import FoundBundle
from service.errors import Conflict, ServiceError, StoreFailure
from service.lifecycle.fleet_notes import (
    DesiredState,
    LivenessTracker,
    Notes,
    Report,
    mark_of_this_process,
    with_unreached,
)
from service.lifecycle.manager import ModelManager
from service.observability.background import begin, count, failed, keep
from service.observability.logs import logger
from service.settings import Settings

PATIENT = StoreOptions(budget_ms=5_000)  # at the start, before requests
LOOK_EVERY_S = 0.5
REPORT_EVERY_S = 10.0
AGAIN_S = 2.0  # between checks whether a failed change may succeed now
FIRST_WAIT_S, LONGEST_WAIT_S = 60.0, 3600.0  # before a retry with unchanged bundles
TURN_S = 120.0  # at most, for each process with a lower place
PLACES = 64


@dataclass(slots=True)
class _Failed:
    """A desired state that this process could not reach."""

    id: str
    marks: list[str] | None  # of the bundles to load, if they can be read
    wait_s: float
    at: float  # ``monotonic``
    looked_at: float = 0.0


def _marks(folders: list[FoundBundle]) -> list[str]:
    return [found.mark for found in folders]


class Fleet:
    """This process as a member of a fleet. Without a fleet name it does nothing."""

    def __init__(self, settings: Settings, store: FeatureStore, manager: ModelManager) -> None:
        self._name, self._store, self._manager = settings.fleet, store, manager
        self._wanted = f"fleet/{self._name}/wanted"  # the note
        host, pid = socket.gethostname(), os.getpid()
        self._me = Report(
            id=f"{host}:{pid}:{secrets.token_hex(4)}",
            host=host,
            pid=pid,
            mark=mark_of_this_process(),
        )
        self._notes, self._liveness = Notes(store), LivenessTracker()
        self._failed: _Failed | None = None
        self._place: int | None = None
        self._leads = not self._name
        self._task: asyncio.Task[None] | None = None
        self._reconciling: asyncio.Task[None] | None = None
        self._pursued = ""  # id of the state that it is to reach
        self._publishing, self._publications = asyncio.Lock(), 0
        manager.on_own_switch = self.publish

    @staticmethod
    async def wanted(settings: Settings) -> str | None:
        """Return the active version of the fleet, for a process that starts. StoreError."""
        if not settings.fleet:
            return None
        store = await connect(settings.store, options=PATIENT)
        try:
            wanted = await Notes(store).get(f"fleet/{settings.fleet}/wanted", DesiredState)
            return wanted.active.version if wanted else None
        finally:
            await store.close()

    def begin(self) -> None:
        if self._name:
            self._task = keep("fleet", self._follow)

    def leads(self) -> bool:
        """Whether this process watches the models folder: the live one in the lowest place does."""
        return self._leads

    async def publish(self, command: str = "rollback", version: str | None = None) -> None:
        """Make what this process serves after ``command`` the desired state, with what it has not
        reached yet of the one before. StoreFailure if it cannot be written."""
        if not self._name:
            return
        try:
            async with self._publishing:
                await self._publish(command, version)
            if self._place is not None:
                await self._write_report(self._place)
        except StoreError as error:
            logger.error("fleet: desired state not written", reason=str(error))
            raise StoreFailure(
                "done in this process only: the feature store did not answer, and the rest of the "
                "fleet was not notified; repeat the call",
                headers={"Retry-After": "1"},
            ) from error

    async def _publish(self, command: str, version: str | None) -> None:
        task, catalog = self._reconciling, self._manager.catalog
        under_way = task is not None and not task.done()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        before = await self._notes.get(self._wanted, DesiredState)
        lacking = self._failed.id if self._failed else None
        unreached = before is not None and (before.id != self._me.done or before.id == lacking)
        served = catalog.desired_state()
        if before is not None and unreached:
            served = with_unreached(served, before, command, version, catalog.freed())
        wanted = DesiredState(id=secrets.token_hex(8), by=self._me.id, **served)
        self._publications += 1  # what was read before is out of date, whether or not this arrives
        await self._store.put_note(self._wanted, wanted.model_dump_json().encode())
        self._me.fault = None
        if not (unreached or under_way):  # else it reaches the rest, and frees what it began
            self._me.done = wanted.id

    async def reports(self) -> list[Report]:
        """Return the reports of live processes, by place. StoreError."""
        return [report for _, report, alive in await self._places() if alive]

    async def close(self) -> None:
        for task in (self._task, self._reconciling):
            if task is not None:
                task.cancel()
        if self._place is not None:
            try:
                await self._store.put_note(self._key(self._place), None)
            except StoreError as error:
                logger.warning("fleet: report not removed", reason=str(error))

    async def _follow(self) -> None:
        reported, silent = 0.0, False
        while True:
            try:
                due = time.monotonic() - reported > REPORT_EVERY_S
                if due or self._me.active != self._active():
                    await self._report()
                    reported = time.monotonic()
                await self._pursue()
                silent = silent and self._reconciling is not None
            except StoreError as error:
                if not silent:
                    logger.warning("fleet: the store does not answer", reason=str(error))
                silent = True
            except Exception:
                failed("fleet", "fleet: failed")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _pursue(self) -> None:
        """Begin to reach what is desired now; what is under way gives way to it, so that a switch
        does not wait for the load before it. StoreUnavailable if the last try only waited."""
        publications, task = self._publications, self._reconciling
        wanted = await self._notes.get(self._wanted, DesiredState)
        if task is not None:
            if not task.done():
                if wanted is None or wanted.id == self._pursued:
                    return
                task.cancel()
                await asyncio.wait([task])
            self._reconciling = None
            if not task.cancelled():
                task.result()
        # The note may be older than a change by this process meanwhile.
        if (
            wanted is not None
            and (wanted.id != self._me.done or await self._may_succeed_now(wanted))
            and self._publications == publications
            and not self._publishing.locked()
        ):
            self._pursued = wanted.id
            self._reconciling = begin("fleet", self._reconcile(wanted), expected=(StoreError,))

    async def _reconcile(self, wanted: DesiredState) -> None:
        """Reach ``wanted``, or note why not. StoreUnavailable while it waits for its turn."""
        folders: list[FoundBundle] | None = []

        async def may_load() -> None:
            nonlocal folders
            folders = None
            folders = await self._folders(wanted)
            arriving = [f"version {f.version}: {f.arriving}" for f in folders if f.arriving]
            if arriving:
                raise Conflict(f"{arriving[0]}; it is waited for")
            await self._turn(wanted)

        try:
            await self._manager.reconcile(wanted.model_dump(), may_load)
            self._me.fault = self._failed = None
        except ServiceError as error:
            self._note_failure(wanted, folders, error.detail)
            logger.error("fleet: desired state not reached", reason=error.detail)
        except BundleError as error:  # the models folder cannot be read
            self._note_failure(wanted, folders, str(error))
            count("fleet")
            logger.error("fleet: desired state not reached", reason=str(error))
        except StoreUnavailable:
            raise
        except Exception:  # retried with a back-off, like the others
            self._note_failure(wanted, folders, "an unexpected error; it has been logged")
            failed("fleet", "fleet: desired state not reached")
        self._me.done = wanted.id
        await self._report()

    def _note_failure(
        self, wanted: DesiredState, folders: list[FoundBundle] | None, fault: str
    ) -> None:
        before = self._failed if self._failed and self._failed.id == wanted.id else None
        wait_s = min(2 * before.wait_s, LONGEST_WAIT_S) if before else FIRST_WAIT_S
        marks = None if folders is None else _marks(folders)
        self._failed = _Failed(wanted.id, marks, wait_s, time.monotonic())
        self._me.fault = fault

    async def _may_succeed_now(self, wanted: DesiredState) -> bool:
        """Whether to retry: the bundles have changed and are complete, or the back-off is over."""
        failure, now = self._failed, time.monotonic()
        if failure is None or failure.id != wanted.id or now < failure.looked_at + AGAIN_S:
            return False
        failure.looked_at = now
        try:
            folders = await self._folders(wanted)
        except BundleError as error:
            return str(error) != self._me.fault
        if any(found.arriving for found in folders):
            return False
        return _marks(folders) != failure.marks or now > failure.at + failure.wait_s

    async def _folders(self, wanted: DesiredState) -> list[FoundBundle]:
        """Look up the bundles that have to be loaded, as far as they exist."""
        needed = self._needed(wanted)
        if not needed:
            return []
        found = await asyncio.to_thread(self._manager.catalog.repository.versions)
        return [found[name] for name in sorted(needed & found.keys())]

    def _needed(self, wanted: DesiredState) -> set[str]:
        named = {wanted.active.version, *wanted.loaded}
        named |= {one.version for one in (wanted.canary, wanted.shadow) if one}
        return named - set(self._manager.registry.loaded())

    async def _turn(self, wanted: DesiredState) -> None:
        """Wait for processes in lower places, so that not all load at once."""
        began = time.monotonic()
        while True:
            before = [
                report
                for place, report, alive in await self._places()
                if alive and place < (self._place or 0) and report.id != wanted.by
            ]
            waiting = [report for report in before if report.done != wanted.id]
            if not waiting or time.monotonic() - began > TURN_S * len(before):
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def _report(self) -> None:
        """Write this process's report, and take a free place if it has none or lost its own."""
        places = {k: report for k, report, alive in await self._places() if alive}
        if self._place is None or places.get(self._place, self._me).id != self._me.id:
            self._place = next((k for k in range(PLACES) if k not in places), None)
        if self._place is None:
            logger.error("fleet: no place free", places=PLACES)
            return
        await self._write_report(self._place)
        self._leads = self._place <= min(places, default=self._place)

    async def _write_report(self, place: int) -> None:
        self._me.active, self._me.at = self._active(), time.time()
        await self._store.put_note(self._key(place), self._me.model_dump_json().encode())

    def _active(self) -> str | None:
        active = self._manager.registry.active
        return active.name if active else None

    async def _places(self) -> list[tuple[int, Report, bool]]:
        """Return place, report and whether its process is alive."""
        found = await asyncio.gather(
            *(self._notes.get(self._key(k), Report) for k in range(PLACES))
        )
        return [
            (place, report, self._liveness.is_alive(place, report))
            for place, report in enumerate(found)
            if report is not None
        ]

    def _key(self, place: int) -> str:
        return f"fleet/{self._name}/process/{place}"

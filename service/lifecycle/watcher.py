"""Implements the policy ``newest``: loads and activates each newly published version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from model_export.bundle.errors import BundleError, NotYet
from service.artifacts.arrival import FoundBundle
from service.artifacts.persisted_state import StateFile
from service.artifacts.repository import ModelRepository, age
from service.errors import ModelRefused, ServiceError
from service.observability.background import count, failed
from service.observability.logs import logger

INCOMPLETE_AFTER_S = 300.0  # without a change
FIRST_WAIT_S, LONGEST_WAIT_S = 60.0, 3600.0  # before a retry, where the bundle is not at fault
LOST = "this version may be followed again after a restart"
Activate = Callable[[str, str], Awaitable[object]]


@dataclass(slots=True)
class _Tried:
    mark: str  # what its folder looked like
    again_at: float | None = None  # ``monotonic``; None: when its folder changes
    wait_s: float = FIRST_WAIT_S


class RepositoryWatcher:
    """Polls the models folder and activates the newest version that can be loaded.

    A rollback or a manual activation stays until a version is published that is newer than the
    last one followed. A refused version is tried again when its folder changes, and does not block
    others.
    """

    def __init__(
        self,
        repository: ModelRepository,
        state: StateFile,
        activate: Activate,
        every_s: float,
        *,
        active: Callable[[], str | None] = lambda: None,
        refused: Mapping[str, str] | None = None,
    ) -> None:
        """``active`` returns the active version; ``refused``: marks of bundles refused at start."""
        self._repository, self._state = repository, state
        self._activate, self._every_s, self._active = activate, every_s, active
        self._tried: dict[str, _Tried] = {}
        self._refused = {} if refused is None else refused  # still added to during the start
        self._followed: datetime | None = None  # ``followed_created``, in case it cannot be saved
        self._logged: dict[str, str] = {}  # version -> what was last logged about it
        self._unreadable: str | None = None  # the last error of the models folder
        self.left_aside = 0  # newer versions, at the last look

    async def follow(self, leads: Callable[[], bool]) -> None:
        """Run forever. ``leads``: whether this process decides for its fleet."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                if not leads():
                    continue
                for found in await asyncio.to_thread(self._look):
                    if await self._try(found):
                        break
                self._unreadable = None
            except BundleError as error:
                count("model_follow")
                if (reason := str(error)) != self._unreadable:
                    logger.error("looking for a newer version failed", reason=reason)
                self._unreadable = reason
            except Exception:
                failed("model_follow", "looking for a newer version failed")

    def _look(self) -> list[FoundBundle]:
        """List versions newer than the last one followed that may be tried now, newest first."""
        versions, chosen = self._repository.versions(), []
        newer = self._newer(versions)
        for found in newer:
            reason = self._not_now(found)
            if reason is None:
                chosen.append(found)
        self.left_aside = len(newer) - len(chosen)
        for gone in (self._tried.keys() | self._logged.keys()) - versions.keys():
            self._tried.pop(gone, None)
            self._logged.pop(gone, None)
        return chosen

    def _newer(self, versions: Mapping[str, FoundBundle]) -> list[FoundBundle]:
        state = self._state.read()
        last = self._followed or state.followed_created
        for name in (state.followed, self._active()):  # earlier releases saved no date
            known = versions.get(name or "")
            if last is None and known is not None and not known.ahead:
                last = known.created
        newer = [
            found
            for found in versions.values()
            if found.version not in (state.followed, state.interrupted)
            and (found.created is None or last is None or found.created > last)
        ]
        return sorted(newer, key=age, reverse=True)

    def _not_now(self, found: FoundBundle) -> str | None:
        """Return why a version is not tried now, and log it once."""
        tried = self._tried.get(found.version)
        if tried is None and found.version in self._refused:
            tried = self._tried[found.version] = _Tried(self._refused[found.version])
        if found.fault is not None:
            self._log_once(found, "not followed", found.fault)
        elif found.arriving is not None:
            what = "incomplete" if found.quiet_s > INCOMPLETE_AFTER_S else "arriving"
            self._log_once(found, what, found.arriving, found.lacks)
        elif found.ahead is not None:
            self._log_once(found, "not followed yet", found.ahead, "ahead")
        elif tried is not None and tried.mark == found.mark:
            if tried.again_at is None or monotonic() < tried.again_at:
                return "refused"
            return None
        elif not found.settled and not self._repository.digests_fit(found.version):
            self._log_once(found, "arriving", "some files do not match the manifest yet")
        else:
            return None
        return "left aside"

    def _log_once(
        self, found: FoundBundle, what: str, reason: str, same: str | None = None
    ) -> None:
        message = f"{what}: {same or reason}"
        if self._logged.get(found.version) == message:
            return
        self._logged[found.version] = message
        log = logger.info if what == "arriving" else logger.warning
        log(what, model_version=found.version, reason=reason)

    async def _try(self, found: FoundBundle) -> bool:
        """Activate a version. Returns whether that succeeded."""
        logger.info("following the newest version", model_version=found.version)
        try:
            await self._activate(found.version, "follow")
        except ServiceError as error:
            if not isinstance(error, ModelRefused):  # which the loader has logged
                logger.error("not followed", model_version=found.version, reason=error.detail)
            self._note(found, error)
            return False
        self._followed = found.created
        self._tried.pop(found.version, None)
        await asyncio.to_thread(
            self._state.try_update, LOST, followed=found.version, followed_created=found.created
        )
        return True

    def _note(self, found: FoundBundle, error: ServiceError) -> None:
        """Set when to retry: after a change of the folder, or after a back-off if the cause was
        a lack of memory, disk, store, contents or encoder."""
        before = self._tried.get(found.version)
        tried = self._tried[found.version] = _Tried(found.mark)
        if _is_fault_of_bundle(error):
            return
        if before is not None and before.mark == found.mark:
            tried.wait_s = min(2 * before.wait_s, LONGEST_WAIT_S)
        tried.again_at = monotonic() + tried.wait_s


def _is_fault_of_bundle(error: ServiceError) -> bool:
    cause = error.__cause__
    if isinstance(cause, NotYet):
        return False
    return isinstance(cause, BundleError) and not isinstance(cause.__cause__, OSError)

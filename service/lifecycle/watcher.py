"""The policy ``newest``: what is published is loaded, proved and switched to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from model_export.bundle.errors import BundleError
from service.artifacts.arrival import FoundBundle
from service.artifacts.persisted_state import StateFile
from service.artifacts.repository import ModelRepository, age
from service.errors import ServiceError
from service.observability.background import count, failed
from service.observability.logs import logger

TOLD_AFTER_S = 300.0  # without a change of an incomplete bundle
FIRST_WAIT_S, LONGEST_WAIT_S = 60.0, 3600.0  # before what failed for another reason is tried again
LOST = "this version may be followed again after a restart"
Activate = Callable[[str, str], Awaitable[object]]


@dataclass(slots=True)
class _Tried:
    mark: str  # what its folder looked like
    again_at: float | None = None  # ``monotonic``; None: when its folder changes
    wait_s: float = FIRST_WAIT_S


class RepositoryWatcher:
    """Looks at the models folder every few seconds, and activates the newest version that can be.

    A rollback to an older one, or an activation by hand, stays until something newer than what was
    followed last is published. A version that is refused is tried again when its folder changes; it
    is in the way of no other.
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
        """``active``: the version that answers. ``refused``: marks that the start passed over."""
        self._repository, self._state = repository, state
        self._activate, self._every_s, self._active = activate, every_s, active
        self._tried: dict[str, _Tried] = {}
        self._refused = {} if refused is None else refused  # a start may still add to it
        self._followed: datetime | None = None  # as ``followed_created``, should that be lost
        self._told: dict[str, str] = {}  # version -> what was logged of it
        self._unreadable: str | None = None  # why the models folder could not be read last
        self.left_aside = 0  # newer versions, at the last look

    async def follow(self, leads: Callable[[], bool]) -> None:
        """For ever. ``leads``: whether this process decides for its fleet."""
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
        """What is newer than what was followed last and may be tried now, the newest first."""
        versions, chosen = self._repository.versions(), []
        newer = self._newer(versions)
        for found in newer:
            reason = self._not_now(found)
            if reason is None:
                chosen.append(found)
        self.left_aside = len(newer) - len(chosen)
        for gone in (self._tried.keys() | self._told.keys()) - versions.keys():
            self._tried.pop(gone, None)
            self._told.pop(gone, None)
        return chosen

    def _newer(self, versions: Mapping[str, FoundBundle]) -> list[FoundBundle]:
        state = self._state.read()
        last = self._followed or state.followed_created
        for name in (state.followed, self._active()):  # of a release that kept the name alone
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
        """Why it is not tried at this look; the log says so once."""
        tried = self._tried.get(found.version)
        if tried is None and found.version in self._refused:
            tried = self._tried[found.version] = _Tried(self._refused[found.version])
        if found.fault is not None:
            self._tell(found, "not followed", found.fault)
        elif found.arriving is not None:
            what = "incomplete" if found.quiet_s > TOLD_AFTER_S else "arriving"
            self._tell(found, what, found.arriving, found.lacks)
        elif found.ahead is not None:
            self._tell(found, "not followed yet", found.ahead, "ahead")
        elif tried is not None and tried.mark == found.mark:
            if tried.again_at is None or monotonic() < tried.again_at:
                return "refused"
            return None
        elif not found.settled and not self._repository.digests_fit(found.version):
            self._tell(found, "arriving", "some of its files are not what the manifest says yet")
        else:
            return None
        return "left aside"

    def _tell(self, found: FoundBundle, what: str, reason: str, same: str | None = None) -> None:
        told = f"{what}: {same or reason}"
        if self._told.get(found.version) == told:
            return
        self._told[found.version] = told
        log = logger.info if what == "arriving" else logger.warning
        log(what, model_version=found.version, reason=reason)

    async def _try(self, found: FoundBundle) -> bool:
        """Whether it answers now."""
        logger.info("following the newest version", model_version=found.version)
        try:
            await self._activate(found.version, "follow")
        except ServiceError as error:
            logger.error("not followed", model_version=found.version, reason=error.detail)
            self._note(found, error)
            return False
        self._followed = found.created
        self._tried.pop(found.version, None)
        await asyncio.to_thread(
            self._state.try_update,
            LOST,
            followed=found.version,
            followed_created=found.created,
        )
        return True

    def _note(self, found: FoundBundle, error: ServiceError) -> None:
        """It is not tried at every look: a bundle that is refused stays so while it is the same;
        without memory, disk or store it is tried again later, and less and less often."""
        before = self._tried.get(found.version)
        tried = self._tried[found.version] = _Tried(found.mark)
        if _is_the_bundles(error):
            return
        if before is not None and before.mark == found.mark:
            tried.wait_s = min(2 * before.wait_s, LONGEST_WAIT_S)
        tried.again_at = monotonic() + tried.wait_s


def _is_the_bundles(error: ServiceError) -> bool:
    cause = error.__cause__
    return isinstance(cause, BundleError) and not isinstance(cause.__cause__, OSError)

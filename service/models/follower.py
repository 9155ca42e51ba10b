"""The policy ``newest``: whatever is published is loaded, proved and switched to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from model_export.errors import BundleError
from service.errors import ServiceError
from service.logs import logger
from service.models.catalogue import Catalogue, Found
from service.models.private import PrivateFolder
from service.observability.background import failed


class Follower:
    """Looks at the models folder every few seconds. A version is tried once; a rollback to an
    older one, or an activation by hand, stays until something newer still is published."""

    def __init__(
        self,
        catalogue: Catalogue,
        private: PrivateFolder,
        activate: Callable[[str, str], Awaitable[object]],
        every_s: float,
    ) -> None:
        self._catalogue, self._private = catalogue, private
        self._activate, self._every_s = activate, every_s

    async def follow(self, leads: Callable[[], bool]) -> None:
        """For ever. ``leads``: whether this process decides for its fleet."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                if leads() and (found := await asyncio.to_thread(self._look)) is not None:
                    await self._try(found)
            except BundleError as error:  # no room to note it; the next look may do better
                logger.error("not followed", reason=str(error))
            except Exception:
                failed("model_follow", "looking for a newer version failed")

    def begin_with(self, version: str) -> None:
        """Nothing that was there when ``version`` was chosen as the newest is newer. Blocks."""
        self._private.remember(followed=version)

    def _look(self) -> Found | None:
        """The newest, if it is newer than the last one followed and no process died of it."""
        versions, state = self._catalogue.versions(), self._private.remembered()
        readable = [one for one in versions.values() if one.created is not None]
        if not readable:
            return None
        newest = max(readable, key=lambda one: (one.created, one.version))
        last = versions.get(state.followed or "")
        if newest.version in (state.followed, state.interrupted):
            return None
        if last is not None and last.created is not None and newest.created is not None:
            return newest if newest.created > last.created else None
        return newest

    async def _try(self, found: Found) -> None:
        # Noted first: a version that cannot be loaded is not tried for ever.
        await asyncio.to_thread(self.begin_with, found.version)
        logger.info("following the newest version", model_version=found.version)
        try:
            await self._activate(found.version, "follow")
        except ServiceError as error:
            logger.error("not followed", model_version=found.version, reason=error.detail)

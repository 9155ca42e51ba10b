"""Runs commands of the admin API, in either dialect: check access, run, publish, log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request

from service.access.admin import Access, audited
from service.lifecycle.catalog import ModelEntry
from service.state import ServiceState

SHARED = ("canary", "shadow")
Command = Callable[[], Awaitable[ModelEntry]]


class AdminCommands:
    def __init__(self, state: ServiceState) -> None:
        self._state, self._access = state, Access(state.settings)

    async def run(
        self, request: Request, action: str, version: str | None, command: Command
    ) -> dict[str, Any]:
        """Describe the version and the roles after the command; publish them to the fleet."""
        return await self.perform(
            request, lambda: self._access.check(request), action, version, command
        )

    async def perform(
        self,
        request: Request,
        who: Callable[[], str],
        action: str,
        version: str | None,
        command: Command,
        **fields: object,
    ) -> dict[str, Any]:
        """Likewise, for a caller that ``who`` names, or refuses by raising."""
        manager, trail = self._state.manager, self._state.trail
        with audited(request, action, trail, model_version=version, **fields) as entry:
            entry["who"] = who()
            found = await command()
            await self._state.fleet.publish(action, found.name)
            entry["model_version"] = found.name
            if action in SHARED:
                part = manager.catalog.roles()[action]
                entry["share"] = part["share"] if part and part["version"] == found.name else 0.0
            if found.version is not None and (about := found.version.about_encoder):
                entry["encoder"] = about["version"]
            return {**manager.catalog.describe(found), **manager.catalog.roles()}

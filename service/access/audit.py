"""Who did what with the versions, to which, with what result: one line each, refusals included."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from starlette.requests import Request

from service.access.admin import Access
from service.application import House
from service.errors import ServiceError
from service.lifecycle.model_entry import ModelEntry
from service.observability.logs import logger

Verb = Callable[[], Awaitable[ModelEntry]]


class Recorder:
    """Does what an operator with access asks for, in either of the admin API's dialects."""

    def __init__(self, house: House) -> None:
        self._house, self._access = house, Access(house.settings)

    async def do(
        self, request: Request, action: str, version: str | None, verb: Verb
    ) -> dict[str, Any]:
        """The version and who plays which part, after the verb; the fleet is told."""
        manager, began, who, outcome = self._house.manager, perf_counter(), "nobody", "failed"
        try:
            who = self._access.check(request)
            entry = await verb()
            await self._house.fleet.publish()
            outcome, version = "done", entry.name
            return {**manager.catalog.describe(entry), **manager.catalog.roles()}
        except ServiceError as error:
            outcome = error.slug
            raise
        finally:
            logger.info(
                "admin",
                who=who,
                address=request.client and request.client.host,
                action=action,
                model_version=version,
                outcome=outcome,
                ms=round(1e3 * (perf_counter() - began), 1),
            )

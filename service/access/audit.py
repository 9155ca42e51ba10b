"""Logs who did what at the admin port, with what result: one line each, refusals included."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from starlette.requests import Request

from service.access.admin import Access
from service.errors import ServiceError
from service.lifecycle.catalog import ModelEntry
from service.observability.logs import logger
from service.state import ServiceState

Verb = Callable[[], Awaitable[ModelEntry]]


@contextmanager
def recorded(request: Request, action: str, **about: object) -> Iterator[dict[str, object]]:
    """Log one line ``admin`` about what is done within; what is put into the dict is told, too."""
    began, told = perf_counter(), {"who": "nobody", "outcome": "failed", **about}
    try:
        yield told
        told["outcome"] = "done"
    except ServiceError as error:
        told["outcome"] = error.slug
        raise
    finally:
        address = request.client and request.client.host
        ms = round(1e3 * (perf_counter() - began), 1)
        logger.info("admin", address=address, action=action, ms=ms, **told)


class Recorder:
    """Does what an operator with access asks for, in either of the admin API's dialects."""

    def __init__(self, state: ServiceState) -> None:
        self._state, self._access = state, Access(state.settings)

    async def do(
        self, request: Request, action: str, version: str | None, verb: Verb
    ) -> dict[str, Any]:
        """The version and who plays which part, after the verb; the fleet is told."""
        manager = self._state.manager
        with recorded(request, action, model_version=version) as told:
            told["who"] = self._access.check(request)
            entry = await verb()
            await self._state.fleet.publish()
            told["model_version"] = entry.name
            return {**manager.catalog.describe(entry), **manager.catalog.roles()}

"""Sends commands to one standalone server."""

from __future__ import annotations

from collections.abc import Sequence

from feature_store.faults import FaultLog
from feature_store.redis.connection import Parts
from feature_store.redis.server import REQUESTS, RedisServer
from feature_store.redis.topology import Command, Reply, place, send, translate_all
from feature_store.redis.url import RedisUrl


class Standalone:
    """One server."""

    def __init__(self, url: RedisUrl, budget_s: float, faults: FaultLog) -> None:
        [address] = url.addresses
        self._server = RedisServer(place(address), url.connection(address), budget_s, faults)

    async def ready(self) -> None:
        await self._server.ready()

    async def call(
        self, commands: Sequence[Command], deadline: float, *, lane: int = REQUESTS
    ) -> list[Reply]:
        return translate_all(await send(self._server, commands, deadline, lane), self._server.place)

    async def on(self, node: int, parts: Parts, deadline: float) -> Reply:
        return (await self.call([Command(parts)], deadline))[0]

    @property
    def masters(self) -> int:
        return 1

    async def close(self) -> None:
        await self._server.close()

    @property
    def open_breakers(self) -> list[str]:
        return [self._server.place] if self._server.breaker_open else []

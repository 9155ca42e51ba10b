"""Sends a store's commands to its servers: within a request's budget, or in bulk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from feature_store.errors import StoreError, StoreMismatch, StoreRefused, StoreUnavailable
from feature_store.faults import FaultLog
from feature_store.redis.connection import Parts
from feature_store.redis.server import BULK, REQUESTS
from feature_store.redis.topology import Command, Reply, Topology

BULK_PATIENCE_S = 5.0  # for one step of a scan, a load or a wait for replicas
COMMANDS_PER_BATCH = 512


class RedisClient:
    """Sends commands to the servers of one store until it is closed."""

    def __init__(self, nodes: Topology, budget_s: float, faults: FaultLog) -> None:
        self._nodes, self.faults = nodes, faults
        self._patience_s = {REQUESTS: budget_s, BULK: max(budget_s, BULK_PATIENCE_S)}
        self._loop = asyncio.get_running_loop()
        self._closed, self._other = False, ""

    def refuse(self, other: str) -> None:
        """From now on raise StoreMismatch: the store is another one, by whose keys and numbers
        nothing that this one knows is found."""
        self._other = other

    async def each(self, commands: Sequence[Command], lane: int = REQUESTS) -> list[Reply]:
        """Return a reply or StoreError for every command."""
        self._refuse_if_closed()
        if not commands:
            return []
        return await self._nodes.call(commands, self._deadline(lane), lane=lane)

    async def all(self, commands: Sequence[Command], lane: int = REQUESTS) -> list[Reply]:
        """Return all replies or raise the first error, with its key only in bulk: a request's key
        identifies its user."""
        replies = await self.each(commands, lane)
        for at, reply in enumerate(replies):
            if isinstance(reply, StoreError):
                raise with_key(reply, commands[at]) if lane == BULK else reply
        return replies

    async def one(self, command: Command, lane: int = REQUESTS) -> Reply:
        return (await self.all([command], lane))[0]

    async def bulk(
        self, commands: Sequence[Command], batch: int = COMMANDS_PER_BATCH
    ) -> list[Reply]:
        """Send batches one after another on the bulk lane, which no request waits for."""
        self._refuse_if_closed()
        replies: list[Reply] = []
        for at in range(0, len(commands), batch):
            replies += await self.all(commands[at : at + batch], BULK)
        return replies

    async def on(self, node: int, parts: Parts, lane: int = BULK) -> Reply:
        """Return the reply of one of the ``masters``; raise its error."""
        self._refuse_if_closed()
        reply = await self._nodes.on(node, parts, self._deadline(lane))
        if isinstance(reply, StoreError):
            raise reply
        return reply

    @property
    def masters(self) -> int:
        self._refuse_if_closed()
        return self._nodes.masters

    @property
    def open_breakers(self) -> list[str]:
        return self._nodes.open_breakers

    async def close(self) -> None:
        self._closed = True
        await self._nodes.close()

    def _deadline(self, lane: int) -> float:
        return self._loop.time() + self._patience_s[lane]

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._other:
            raise StoreMismatch(self._other)


def with_key(error: StoreError, command: Command) -> StoreError:
    """Return the error, naming the command's key if the error concerns one key."""
    if not isinstance(error, StoreRefused) or not error.of_one_key or command.parts[0] == "EVAL":
        return error
    key = command.key.decode(errors="replace")
    named = StoreRefused(str(error).replace("redis-cli TYPE", f"redis-cli TYPE '{key}'"))
    named.of_one_key = True
    return named

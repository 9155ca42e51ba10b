"""What the three topologies have in common: ``standalone``, ``sentinel`` and ``cluster``.

Each command gets its own reply or error, so one failed command does not affect the others of its
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from feature_store.errors import StoreError
from feature_store.redis.connection import Parts
from feature_store.redis.errors import translate
from feature_store.redis.server import REQUESTS, RedisServer
from feature_store.redis.url import Address


@dataclass(frozen=True, slots=True)
class Command:
    """One command, all of whose keys are in one slot."""

    parts: Parts
    key: bytes = b""  # decides the server of a cluster; b"" is any
    again: bool = True  # may be sent a second time when the connection breaks
    per_key_fallback: Callable[[], Sequence[Command]] | None = None
    """The same key by key, for a slot that is being migrated."""


Reply = Any  # as parsed by redis-py, or a StoreError


class Topology(Protocol):
    """The servers of one store."""

    async def ready(self) -> None:
        """Wait until the servers are connected; raise the connection error."""

    async def call(
        self, commands: Sequence[Command], deadline: float, *, lane: int = REQUESTS
    ) -> list[Reply]:
        """Return a reply or StoreError for every command, in order, before ``deadline``."""

    async def on(self, node: int, parts: Parts, deadline: float) -> Reply:
        """Return the reply or StoreError of the ``node``-th server that holds data."""

    @property
    def masters(self) -> int:
        """How many servers hold data."""

    async def close(self) -> None: ...

    @property
    def open_breakers(self) -> list[str]:
        """Names of the servers whose breaker is open."""


async def send(
    server: RedisServer, commands: Sequence[Command], deadline: float, lane: int
) -> list[Any]:
    """Send a batch to one server; a failure of the batch is the reply to each command."""
    again = all(command.again for command in commands)
    try:
        return await server.call(
            [command.parts for command in commands], deadline, lane=lane, again=again
        )
    except StoreError as error:
        return [error] * len(commands)


def translate_all(replies: list[Any], place: str) -> list[Reply]:
    return [translate(r, place) if isinstance(r, Exception) else r for r in replies]


def place(address: Address) -> str:
    host, port = address
    return f"redis {host}:{port}" if port else f"redis {host}"

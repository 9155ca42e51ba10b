"""Which server a command goes to: one server, or the master that the sentinels name.

``feature_store.redis.cluster`` is the third way. All three answer each command by its reply or by
the error that became of it, so that one bad command never costs the others theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis.exceptions import ReadOnlyError

from feature_store.errors import StoreError, StoreUnavailable
from feature_store.parquet.oddities import Oddities, repeat
from feature_store.redis.connection import Parts
from feature_store.redis.errors import translated
from feature_store.redis.replies import endpoint_of, understood
from feature_store.redis.server import REQUESTS, Endpoint
from feature_store.redis.url import Address, RedisUrl

FOLLOW_S = 0.5  # how often the sentinels are asked who the master is
SENTINEL_PATIENCE_S = 0.5


@dataclass(frozen=True, slots=True)
class Command:
    """One command, all of whose keys are in one slot."""

    parts: Parts
    key: bytes = b""  # decides the node of a cluster; b"" is any node
    again: bool = True  # may be sent a second time when the connection breaks
    apart: Callable[[], Sequence[Command]] | None = None
    """The same key by key, while a slot is on its way from one node to another."""


Reply = Any  # what redis-py makes of it, or a StoreError


class Nodes(Protocol):
    """The servers of one store."""

    async def ready(self) -> None:
        """Return once they can be asked. Raises what keeps them from answering."""

    async def call(
        self, commands: Sequence[Command], deadline: float, *, lane: int = REQUESTS
    ) -> list[Reply]:
        """Every command's reply or StoreError, in order, before ``deadline``."""

    async def on(self, node: int, parts: Parts, deadline: float) -> Reply:
        """The reply or StoreError of the ``node``-th server that holds data."""

    @property
    def masters(self) -> int:
        """How many servers hold data."""

    async def close(self) -> None: ...

    @property
    def open_breakers(self) -> list[str]:
        """The places that are known not to answer."""


async def asked(
    endpoint: Endpoint, commands: Sequence[Command], deadline: float, lane: int
) -> list[Any]:
    """Replies and errors as redis-py has them; a failure of the whole is each command's own."""
    again = all(command.again for command in commands)
    try:
        return await endpoint.call(
            [command.parts for command in commands], deadline, lane=lane, again=again
        )
    except StoreError as error:
        return [error] * len(commands)


def told(replies: list[Any], place: str) -> list[Reply]:
    return [translated(r, place) if isinstance(r, Exception) else r for r in replies]


class Standalone:
    """One server."""

    def __init__(self, url: RedisUrl, budget_s: float, oddities: Oddities) -> None:
        [address] = url.addresses
        self._endpoint = Endpoint(place(address), url.connection(address), budget_s, oddities)

    async def ready(self) -> None:
        await self._endpoint.ready()

    async def call(
        self, commands: Sequence[Command], deadline: float, *, lane: int = REQUESTS
    ) -> list[Reply]:
        return told(await asked(self._endpoint, commands, deadline, lane), self._endpoint.place)

    async def on(self, node: int, parts: Parts, deadline: float) -> Reply:
        return (await self.call([Command(parts)], deadline))[0]

    @property
    def masters(self) -> int:
        return 1

    async def close(self) -> None:
        await self._endpoint.close()

    @property
    def open_breakers(self) -> list[str]:
        return [self._endpoint.place] if self._endpoint.breaker_open else []


class Sentinel:
    """The master that the sentinels name, followed in the background."""

    def __init__(self, url: RedisUrl, budget_s: float, oddities: Oddities) -> None:
        self._url, self._budget_s, self._oddities = url, budget_s, oddities
        self._sentinels = {
            address: Endpoint(
                place(address), url.sentinel_connection(address), SENTINEL_PATIENCE_S, oddities
            )
            for address in url.addresses
        }
        self._master: Endpoint | None = None
        self._address: Address | None = None
        self._why: StoreError = StoreUnavailable(f"{url.service}: no master is known yet")
        self._doubt, self._asked = asyncio.Event(), asyncio.Event()
        self._following = asyncio.create_task(
            repeat(f"{url.service}: following the sentinels", self._follow, oddities, FOLLOW_S)
        )

    async def ready(self) -> None:
        await self._asked.wait()
        await self._current().ready()

    async def call(
        self, commands: Sequence[Command], deadline: float, *, lane: int = REQUESTS
    ) -> list[Reply]:
        try:
            master = self._current()
        except StoreError as error:
            return [error] * len(commands)
        replies = await asked(master, commands, deadline, lane)
        if any(isinstance(reply, (ReadOnlyError, StoreUnavailable)) for reply in replies):
            self._doubt.set()
        return told(replies, master.place)

    async def on(self, node: int, parts: Parts, deadline: float) -> Reply:
        return (await self.call([Command(parts)], deadline))[0]

    @property
    def masters(self) -> int:
        return 1

    def _current(self) -> Endpoint:
        if self._master is None:
            raise type(self._why)(str(self._why))
        return self._master

    async def _follow(self) -> None:
        self._doubt.clear()
        try:
            address = await self._ask(asyncio.get_running_loop().time() + SENTINEL_PATIENCE_S)
            if address is not None and address != self._address:
                await self._turn_to(address)
        finally:
            self._asked.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_S):
                await self._doubt.wait()
        await asyncio.sleep(FOLLOW_S / 10)  # a doubt is no reason to ask without pause

    async def _ask(self, deadline: float) -> Address | None:
        """The master that most of the sentinels name, of those that answer."""
        command = Command(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.service))
        answers = await asyncio.gather(
            *(
                asked(sentinel, [command], deadline, REQUESTS)
                for sentinel in self._sentinels.values()
            )
        )
        named: Counter[Address] = Counter()
        for (where, sentinel), [reply] in zip(self._sentinels.items(), answers, strict=True):
            if isinstance(reply, Exception):
                self._why = translated(reply, sentinel.place)
            elif reply is None:
                self._why = StoreUnavailable(
                    f"{sentinel.place}: knows no service {self._url.service!r}"
                )
            else:
                try:
                    with understood(sentinel.place, "SENTINEL GET-MASTER-ADDR-BY-NAME"):
                        named[endpoint_of(reply[0], int(reply[1]), where)] += 1
                except StoreError as odd:
                    self._why = odd
                    self._oddities.note("sentinel: odd reply", odd)
        return named.most_common(1)[0][0] if named else None

    async def _turn_to(self, address: Address) -> None:
        """Take the server for the master once it says so itself: a sentinel may be behind."""
        connection = self._url.connection(address)
        endpoint = Endpoint(place(address), connection, self._budget_s, self._oddities)
        try:
            deadline = asyncio.get_running_loop().time() + SENTINEL_PATIENCE_S
            [role] = await endpoint.call([("ROLE",)], deadline)
            if isinstance(role, Exception):
                raise translated(role, endpoint.place)
            with understood(endpoint.place, "ROLE"):
                is_master = role[0] == b"master"
            if not is_master:
                raise StoreUnavailable(f"{endpoint.place}: named as master, but is a replica yet")
        except StoreError as error:
            self._why = error
            await endpoint.close()
            return
        except BaseException:
            await endpoint.close()
            raise
        before, self._master, self._address = self._master, endpoint, address
        if before is not None:
            await before.close()

    async def close(self) -> None:
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following
        self._why = StoreUnavailable("the store is closed")
        master, self._master = self._master, None
        for endpoint in (*self._sentinels.values(), master):
            if endpoint is not None:
                await endpoint.close()

    @property
    def open_breakers(self) -> list[str]:
        if self._master is None:
            return [self._url.service]
        return [self._master.place] if self._master.breaker_open else []


def place(address: Address) -> str:
    return f"redis {address[0]}:{address[1]}"

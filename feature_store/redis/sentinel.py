"""Sends commands to the master that Redis Sentinel names, and follows it through failovers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence

from redis.exceptions import ReadOnlyError

from feature_store.errors import StoreError, StoreUnavailable
from feature_store.faults import FaultLog, repeat
from feature_store.redis.connection import Parts
from feature_store.redis.errors import translate
from feature_store.redis.replies import address_of, parsing_reply
from feature_store.redis.server import REQUESTS, RedisServer
from feature_store.redis.topology import Command, Reply, place, send, translate_all
from feature_store.redis.url import Address, RedisUrl

FOLLOW_S = 0.5  # between queries of the sentinels for the master
SENTINEL_PATIENCE_S = 0.5


class Sentinel:
    """The master named by the sentinels, queried in the background."""

    def __init__(self, url: RedisUrl, budget_s: float, faults: FaultLog) -> None:
        self._url, self._budget_s, self._faults = url, budget_s, faults
        self._sentinels = {
            address: RedisServer(
                place(address), url.sentinel_connection(address), SENTINEL_PATIENCE_S, faults
            )
            for address in url.addresses
        }
        self._master: RedisServer | None = None
        self._address: Address | None = None
        self._why: StoreError = StoreUnavailable(f"{url.service}: no master is known yet")
        self._doubt, self._asked = asyncio.Event(), asyncio.Event()
        self._following = asyncio.create_task(
            repeat(f"{url.service}: following the sentinels", self._follow, faults, FOLLOW_S)
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
        replies = await send(master, commands, deadline, lane)
        if any(isinstance(reply, (ReadOnlyError, StoreUnavailable)) for reply in replies):
            self._doubt.set()
        return translate_all(replies, master.place)

    async def on(self, node: int, parts: Parts, deadline: float) -> Reply:
        return (await self.call([Command(parts)], deadline))[0]

    @property
    def masters(self) -> int:
        return 1

    def _current(self) -> RedisServer:
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
        await asyncio.sleep(FOLLOW_S / 10)  # bounds the query rate while commands fail

    async def _ask(self, deadline: float) -> Address | None:
        """Query the sentinels; return the master that most of them name."""
        command = Command(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.service))
        answers = await asyncio.gather(
            *(
                send(sentinel, [command], deadline, REQUESTS)
                for sentinel in self._sentinels.values()
            )
        )
        named: Counter[Address] = Counter()
        for (where, sentinel), [reply] in zip(self._sentinels.items(), answers, strict=True):
            if isinstance(reply, Exception):
                self._why = translate(reply, sentinel.place)
            elif reply is None:
                self._why = StoreUnavailable(
                    f"{sentinel.place}: unknown service {self._url.service!r}"
                )
            else:
                try:
                    with parsing_reply(sentinel.place, "SENTINEL GET-MASTER-ADDR-BY-NAME"):
                        named[address_of(reply[0], int(reply[1]), where)] += 1
                except StoreError as odd:
                    self._why = odd
                    self._faults.note("sentinel: odd reply", odd)
        return named.most_common(1)[0][0] if named else None

    async def _turn_to(self, address: Address) -> None:
        """Switch to the server if its ROLE is master: a sentinel may be out of date."""
        connection = self._url.connection(address)
        server = RedisServer(place(address), connection, self._budget_s, self._faults)
        try:
            deadline = asyncio.get_running_loop().time() + SENTINEL_PATIENCE_S
            [role] = await server.call([("ROLE",)], deadline)
            if isinstance(role, Exception):
                raise translate(role, server.place)
            with parsing_reply(server.place, "ROLE"):
                is_master = role[0] == b"master"
            if not is_master:
                raise StoreUnavailable(f"{server.place}: named as master, but still a replica")
        except StoreError as error:
            self._why = error
            await server.close()
            return
        except BaseException:
            await server.close()
            raise
        before, self._master, self._address = self._master, server, address
        if before is not None:
            await before.close()

    async def close(self) -> None:
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following
        self._why = StoreUnavailable("the store is closed")
        master, self._master = self._master, None
        for server in (*self._sentinels.values(), master):
            if server is not None:
                await server.close()

    @property
    def open_breakers(self) -> list[str]:
        if self._master is None:
            return [self._url.service]
        return [self._master.place] if self._master.breaker_open else []

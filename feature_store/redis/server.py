"""One Redis server: its connections, its circuit breaker, and a background health check.

Requests never connect or probe; the health check does. From the first failure on it pings the
server, so that the breaker opens well within a second even if requests are rare. While the breaker
is open it pings once a second; the first reply in time closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import Connection

from feature_store.errors import StoreError, StoreRefused, StoreUnavailable
from feature_store.faults import FaultLog, repeat
from feature_store.redis.breaker import Breaker
from feature_store.redis.connection import Parts, PipelinedConnection
from feature_store.redis.errors import NOT_SERVING, ConnectionLost, translate

REQUESTS, BULK = 0, 1  # lanes: a scan, a load or a WAIT for replicas never delays a request
SUSPECT_PROBE_S = 0.05
OPEN_PROBE_S = 1.0
CONNECT_PATIENCE_S = 0.5  # of the health check; a request waits no longer than its own budget
_PING: Parts = ("PING",)


class RedisServer:
    """A server at one address, with one connection per lane."""

    def __init__(
        self, place: str, connect: Callable[[], Connection], budget_s: float, faults: FaultLog
    ) -> None:
        self.place = place
        self._connect, self._budget_s = connect, budget_s
        self._loop = asyncio.get_running_loop()
        self._connections: list[PipelinedConnection | None] = [None, None]
        self._breaker = Breaker(self._loop.time)
        self._why: StoreError = StoreUnavailable(f"{place}: not connected yet")
        self._suspect, self._settled = asyncio.Event(), asyncio.Event()
        self._closed = False
        self._suspect.set()
        self._faults = faults
        self._watching = asyncio.create_task(
            repeat(f"{place}: watch", self._watch, faults, OPEN_PROBE_S)
        )

    @property
    def healthy(self) -> bool:
        """Whether it is connected and its breaker closed."""
        return self._settled.is_set() and not self._breaker.open and not self._closed

    @property
    def breaker_open(self) -> bool:
        return self._breaker.open

    async def ready(self) -> None:
        """Wait until connected; raise the connection error within a second."""
        await self._settled.wait()
        if not self.healthy:
            raise self._refusal()

    async def call(
        self,
        commands: Sequence[Parts],
        deadline: float,
        *,
        lane: int = REQUESTS,
        again: bool = True,
    ) -> list[Any]:
        """Return the replies, error replies among them; StoreUnavailable past ``deadline``.

        ``again`` allows one retry when the connection breaks: for idempotent commands.
        """
        sent = False
        while True:
            try:
                connection = await self._connected(lane, deadline)
            except StoreUnavailable as refusal:
                refusal.unknown = sent
                raise
            try:
                replies = await connection.send(commands, deadline)
            except StoreUnavailable as error:
                sent = error.unknown = sent or error.unknown
                self._failed(error)
                if not (again and isinstance(error, ConnectionLost)) or self._closed:
                    raise
                again = False
                continue
            busy = next((reply for reply in replies if isinstance(reply, NOT_SERVING)), None)
            if busy is None:
                self._breaker.succeeded()
            else:
                self._failed(translate(busy, self.place))
            return replies

    async def _connected(self, lane: int, deadline: float) -> PipelinedConnection:
        """Return the lane's connection; wait for it until ``deadline``."""
        while True:
            if self._breaker.open or self._closed:
                raise self._refusal()
            connection = self._connections[lane]
            if connection is not None and connection.lost is None:
                return connection
            self._lost()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._settled.wait()
            except TimeoutError:
                raise self._refusal() from None

    def _refusal(self) -> StoreError:
        kind = StoreRefused if isinstance(self._why, StoreRefused) else StoreUnavailable
        return kind(str(self._why))

    def _failed(self, error: StoreError) -> None:
        self._why = error
        if self._breaker.failed():
            self._settled.set()  # calls that wait for a connection fail now
        self._suspect.set()

    def _lost(self) -> None:
        """Make requests wait until the health check has reconnected."""
        if not self._breaker.open:
            self._settled.clear()
        self._suspect.set()

    async def _watch(self) -> None:
        await self._suspect.wait()
        self._suspect.clear()
        while not await self._probe():
            await asyncio.sleep(SUSPECT_PROBE_S)
            if self._breaker.open:
                await asyncio.sleep(OPEN_PROBE_S - SUSPECT_PROBE_S)

    async def _probe(self) -> bool:
        """Reconnect lost connections and ping on every lane; return whether all replied in time."""
        try:
            if self._breaker.open:
                await self._drop("given up")
            for lane, connection in enumerate(self._connections):
                if connection is None or connection.lost is not None:
                    self._connections[lane] = await self._reconnected(connection)
            for connection in self._connections:
                assert connection is not None
                [pong] = await connection.send([_PING], self._loop.time() + self._budget_s)
                if isinstance(pong, Exception):
                    raise translate(pong, self.place)
        except StoreError as error:
            self._failed(error)
            return False
        except Exception as error:
            self._faults.note(f"{self.place}: probe", error, unexpected=True)
            self._failed(StoreUnavailable(f"{self.place}: {type(error).__name__}: {error}"))
            return False
        self._breaker.succeeded()
        self._settled.set()
        return True

    async def _reconnected(self, connection: PipelinedConnection | None) -> PipelinedConnection:
        if connection is not None:
            await connection.close()
        return await PipelinedConnection.open(
            self._connect(), self.place, CONNECT_PATIENCE_S, self._lost, self._faults
        )

    async def _drop(self, why: str) -> None:
        connections, self._connections = self._connections, [None, None]
        for connection in connections:
            if connection is not None:
                await connection.close(why)

    async def close(self) -> None:
        self._closed = True
        self._why = StoreUnavailable(f"{self.place}: the store is closed")
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching
        await self._drop("the store is closed")
        self._settled.set()

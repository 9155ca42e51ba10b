"""One connection to a Redis server that many requests share.

Commands are written in the order they come and replies handed out in that order, so a request
never waits for a free connection, and giving up on a reply costs nothing: the caller goes, the
reply is dropped when it arrives, the connection stays in step. (A pooled connection has to be
closed when its caller gives up, which turns every slow moment into a storm of reconnects.)
The protocol itself (handshake, TLS, packing, parsing) is redis-py's and hiredis's.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from feature_store.errors import StoreUnavailable
from feature_store.parquet.oddities import Oddities
from feature_store.redis.errors import REPLIES, LinkLost, translated

Parts = tuple[bytes | str | int, ...]


class Exchange:
    """Some commands, and their replies as they come."""

    __slots__ = ("commands", "future", "replies", "sent")

    def __init__(self, commands: Sequence[Parts], future: asyncio.Future[list[Any]]) -> None:
        self.commands = commands
        self.future = future
        self.replies: list[Any] = []
        self.sent = False


class Link:
    """An open connection. ``lost`` says why it is not one any more."""

    def __init__(
        self,
        connection: Connection,
        place: str,
        on_lost: Callable[[], None],
        oddities: Oddities,
    ) -> None:
        self.place = place
        self._oddities = oddities
        self.lost: Exception | None = None
        self._connection, self._on_lost = connection, on_lost
        self._outbox: deque[Exchange] = deque()
        self._awaiting: deque[Exchange] = deque()
        self._wake = asyncio.Event()
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._read())]

    @classmethod
    async def open(
        cls,
        connection: Connection,
        place: str,
        patience_s: float,
        on_lost: Callable[[], None],
        oddities: Oddities,
    ) -> Link:
        """Connect and greet. StoreUnavailable or StoreRefused when that fails."""
        try:
            async with asyncio.timeout(patience_s):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:
            await _abort(connection)
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(f"{place}: no connection in {patience_s:.3g} s") from error
            if isinstance(error, (RedisError, OSError)):
                raise translated(error, place) from error
            raise
        return cls(connection, place, on_lost, oddities)

    async def exchange(self, commands: Sequence[Parts], deadline: float) -> list[Any]:
        """The replies; an error reply is in the list, not raised.

        StoreUnavailable past ``deadline`` (a time of the event loop); LinkLost when the connection
        breaks. Both are ``unknown`` when the commands had been sent; otherwise they never will be.
        """
        if self.lost is not None:
            raise LinkLost(str(self.lost))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        exchange = Exchange(commands, future)
        self._outbox.append(exchange)
        self._wake.set()
        timer = loop.call_at(deadline, self._late, exchange)
        try:
            return await future
        finally:
            timer.cancel()

    def _late(self, exchange: Exchange) -> None:
        if not exchange.future.done():
            late = StoreUnavailable(f"{self.place}: no answer in time", unknown=exchange.sent)
            exchange.future.set_exception(late)

    async def _write(self) -> None:
        """Everything that is waiting in one write; what nobody waits for is never sent."""
        try:
            while self.lost is None:
                await self._wake.wait()
                self._wake.clear()
                commands: list[Parts] = []
                while self._outbox:
                    exchange = self._outbox.popleft()
                    if not exchange.future.done():
                        exchange.sent = True
                        self._awaiting.append(exchange)
                        commands += exchange.commands
                if commands:
                    packed = b"".join([pack_command(parts) for parts in commands])  # type: ignore[arg-type]
                    await self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError) as error:
            self._lose(error)
        except Exception as error:
            self._broken(error)

    async def _read(self) -> None:
        try:
            while True:
                try:
                    reply = await self._connection.read_response(
                        timeout=math.inf, disconnect_on_error=False
                    )
                except REPLIES as error:
                    reply = error
                exchange = self._awaiting[0]
                exchange.replies.append(reply)
                if len(exchange.replies) == len(exchange.commands):
                    self._awaiting.popleft()
                    if not exchange.future.done():
                        exchange.future.set_result(exchange.replies)
        except (RedisError, OSError) as error:
            self._lose(error)
        except IndexError:
            self._lose(ConnectionError("a reply that nothing asked for"))
        except Exception as error:  # a reply that redis-py cannot read
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        """End the connection, which is no longer in step, and say why."""
        self._oddities.note(f"{self.place}: connection given up", error, unexpected=True)
        self._lose(ConnectionError(f"{type(error).__name__}: {error}"))

    def _lose(self, error: Exception) -> None:
        if self.lost is None:
            self.lost = translated(error, self.place)
            for exchange in (*self._awaiting, *self._outbox):
                if not exchange.future.done():
                    exchange.future.set_exception(LinkLost(str(self.lost), unknown=exchange.sent))
            self._awaiting.clear()
            self._outbox.clear()
            self._on_lost()

    async def close(self, why: str = "closed") -> None:
        """Give the connection up at once; whoever waits for a reply is told."""
        self._lose(StoreUnavailable(f"{self.place}: {why}"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await _abort(self._connection)


async def _abort(connection: Connection) -> None:
    """Close without waiting for what is still to be written: the peer may never read it."""
    writer = connection._writer  # redis-py can close politely only
    if writer is not None:
        writer.transport.abort()
    with contextlib.suppress(RedisError):
        await connection.disconnect()

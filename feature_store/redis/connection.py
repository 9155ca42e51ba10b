"""A pipelined connection to a Redis server, shared by many requests.

Commands are written in order of arrival and replies are matched in that order. A request never
waits for a free connection, and cancelling one is free: its reply is dropped on arrival and the
connection stays in sync. (A pooled connection must be closed on cancellation, so a slow moment
causes a storm of reconnects.) redis-py and hiredis do handshake, TLS, packing and parsing.
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
from feature_store.faults import FaultLog
from feature_store.redis.errors import REPLIES, ConnectionLost, translate

Parts = tuple[bytes | str | int, ...]


class PendingReplies:
    """Commands sent together, and the replies received so far."""

    __slots__ = ("commands", "future", "replies", "sent")

    def __init__(self, commands: Sequence[Parts], future: asyncio.Future[list[Any]]) -> None:
        self.commands = commands
        self.future = future
        self.replies: list[Any] = []
        self.sent = False


class PipelinedConnection:
    """An open connection; ``lost`` is the error that ended it."""

    def __init__(
        self, connection: Connection, place: str, on_lost: Callable[[], None], faults: FaultLog
    ) -> None:
        self.place = place
        self._faults = faults
        self.lost: Exception | None = None
        self._connection, self._on_lost = connection, on_lost
        self._outbox: deque[PendingReplies] = deque()
        self._awaiting: deque[PendingReplies] = deque()
        self._wake = asyncio.Event()
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._read())]

    @classmethod
    async def open(
        cls,
        connection: Connection,
        place: str,
        patience_s: float,
        on_lost: Callable[[], None],
        faults: FaultLog,
    ) -> PipelinedConnection:
        """Connect and do the handshake. Raises StoreUnavailable or StoreRefused."""
        try:
            async with asyncio.timeout(patience_s):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:
            await _abort(connection)
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(f"{place}: no connection in {patience_s:.3g} s") from error
            if isinstance(error, (RedisError, OSError)):
                raise translate(error, place) from error
            raise
        return cls(connection, place, on_lost, faults)

    async def send(self, commands: Sequence[Parts], deadline: float) -> list[Any]:
        """Return the replies; an error reply is an element of the list, not raised.

        Raises StoreUnavailable past ``deadline`` (event-loop time), ConnectionLost on a broken
        connection: ``unknown`` if the commands had been sent; otherwise they never will be.
        """
        if self.lost is not None:
            raise ConnectionLost(str(self.lost))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        pending = PendingReplies(commands, future)
        self._outbox.append(pending)
        self._wake.set()
        timer = loop.call_at(deadline, self._late, pending)
        try:
            return await future
        finally:
            timer.cancel()

    def _late(self, pending: PendingReplies) -> None:
        if not pending.future.done():
            late = StoreUnavailable(f"{self.place}: no answer in time", unknown=pending.sent)
            pending.future.set_exception(late)

    async def _write(self) -> None:
        """Write all queued commands at once; those whose caller gave up are not sent."""
        try:
            while self.lost is None:
                await self._wake.wait()
                self._wake.clear()
                commands: list[Parts] = []
                while self._outbox:
                    pending = self._outbox.popleft()
                    if not pending.future.done():
                        pending.sent = True
                        self._awaiting.append(pending)
                        commands += pending.commands
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
                pending = self._awaiting[0]
                pending.replies.append(reply)
                if len(pending.replies) == len(pending.commands):
                    self._awaiting.popleft()
                    if not pending.future.done():
                        pending.future.set_result(pending.replies)
        except (RedisError, OSError) as error:
            self._lose(error)
        except IndexError:
            self._lose(ConnectionError("unsolicited reply"))
        except Exception as error:  # a reply that redis-py cannot read
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        """Log the error and end the connection, which is no longer in sync."""
        self._faults.note(f"{self.place}: connection closed", error, unexpected=True)
        self._lose(ConnectionError(f"{type(error).__name__}: {error}"))

    def _lose(self, error: Exception) -> None:
        if self.lost is None:
            self.lost = translate(error, self.place)
            for pending in (*self._awaiting, *self._outbox):
                if not pending.future.done():
                    pending.future.set_exception(
                        ConnectionLost(str(self.lost), unknown=pending.sent)
                    )
            self._awaiting.clear()
            self._outbox.clear()
            self._on_lost()

    async def close(self, why: str = "closed") -> None:
        """Close at once; pending calls fail."""
        self._lose(StoreUnavailable(f"{self.place}: {why}"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await _abort(self._connection)


async def _abort(connection: Connection) -> None:
    """Close without flushing the write buffer: the peer may never read it."""
    writer = connection._writer  # redis-py has no abort
    if writer is not None:
        writer.transport.abort()
    with contextlib.suppress(RedisError):
        await connection.disconnect()

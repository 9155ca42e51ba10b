"""Cancels work for a client that disconnects; defers it for one that may have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from service.context import Connection
from service.errors import ClientGone

GONE = "the client closed the connection before the answer"


class CancelOnDisconnect:
    """``with CancelOnDisconnect(connection):`` around the work for a request.

    Raises ClientGone at the next await in the block when the connection is reset. After a FIN the
    client may have closed the connection or only its side of it, so ``defer`` is called and the
    work goes on. ``connection`` is None on other servers. A disconnect after a pipelined request
    is not noticed: input is not read before the first answer.
    """

    __slots__ = ("_connection", "_defer", "_gone", "_task")

    def __init__(
        self, connection: Connection | None, defer: Callable[[], None] | None = None
    ) -> None:
        self._connection, self._defer, self._gone = connection, defer, False

    def __enter__(self) -> None:
        if self._connection is None:
            return
        if self._connection.has_left:
            raise ClientGone(GONE)
        self._task = asyncio.current_task()
        self._connection.watch(self._leave)
        if self._defer is None:
            return
        if self._connection.has_half_closed:
            self._defer()
        else:
            self._connection.watch_half_close(self._defer)

    def _leave(self) -> None:
        assert self._task is not None, "requests are tasks"
        self._gone = self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is None:
            return
        self._connection.watch(None)
        if self._defer is not None:
            self._connection.watch_half_close(None)
        if not self._gone:
            return
        assert self._task is not None
        if self._task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise ClientGone(GONE) from error

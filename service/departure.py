"""A client that goes away stops costing: whatever is being done for it is cancelled."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

from service.errors import ClientGone


class WhileThere:
    """``with WhileThere(request.receive):`` around what is done for a request whose body is read.

    ClientGone, at the next thing awaited in the block, when the connection is closed.
    """

    __slots__ = ("_gone", "_over", "_receive", "_task", "_watch")

    def __init__(self, receive: Receive) -> None:
        self._receive, self._gone, self._over = receive, False, False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watch = asyncio.create_task(self._until_gone())
        self._watch.add_done_callback(self._stop)

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _stop(self, watch: asyncio.Task[None]) -> None:
        if self._over or watch.cancelled():
            return
        if watch.exception() is None:
            self._gone = self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        self._watch.cancel()
        if self._gone and self._task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise ClientGone("the client went away before its answer") from error

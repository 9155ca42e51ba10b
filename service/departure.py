"""A client that goes away stops costing: whatever is being done for it is cancelled."""

from __future__ import annotations

import asyncio
from types import TracebackType

from service.errors import ClientGone
from service.peer import Peer

GONE = "the client went away before its answer"


class WhileThere:
    """``with WhileThere(peer):`` around what is done for a request.

    ClientGone, at the next thing awaited in the block, when the connection is closed. A server
    that tells nothing of it has no ``peer``: then nothing is cancelled. Nor is it for a client that
    has sent its next request already: no more is read of it before the first is answered.
    """

    __slots__ = ("_gone", "_peer", "_task")

    def __init__(self, peer: Peer | None) -> None:
        self._peer, self._gone = peer, False

    def __enter__(self) -> None:
        if self._peer is None:
            return
        if self._peer.has_left:
            raise ClientGone(GONE)
        self._task = asyncio.current_task()
        self._peer.watch(self._leave)

    def _leave(self) -> None:
        assert self._task is not None, "requests are tasks"
        self._gone = self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._peer is None:
            return
        self._peer.watch(None)
        if not self._gone:
            return
        assert self._task is not None
        if self._task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise ClientGone(GONE) from error

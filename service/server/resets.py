"""Detects resets of half-closed connections.

After a client's FIN the transport no longer reads, so it would notice a reset only on writing. An
epoll for errors and hang-ups alone reports it at once; without epoll, writing does.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from contextlib import suppress


class Resets:
    """Watches the half-closed connections of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watched: dict[int, Callable[[], None]] = {}
        self._loop = loop
        self._poll: select.epoll | None = None

    def watch(self, descriptor: int, on_reset: Callable[[], None]) -> None:
        """Call ``on_reset`` once, from the event loop, unless ``forget`` comes first."""
        if self._poll is None:
            if not hasattr(select, "epoll"):
                return
            self._poll = select.epoll()
            self._loop.add_reader(self._poll.fileno(), self._look)
        try:
            self._poll.register(descriptor, 0)  # errors and hang-ups are always reported
        except FileExistsError:
            self._poll.modify(descriptor, 0)
        self._watched[descriptor] = on_reset

    def forget(self, descriptor: int, on_reset: Callable[[], None]) -> None:
        """Stop watching, unless the closed descriptor belongs to another connection by now."""
        if self._watched.get(descriptor) != on_reset:
            return
        del self._watched[descriptor]
        self._unregister(descriptor)

    def close(self) -> None:
        """Stop watching; connections that end afterwards may still ``forget``."""
        self._watched.clear()
        if self._poll is not None:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None

    def _look(self) -> None:
        assert self._poll is not None, "it is what was read"
        for descriptor, _ in self._poll.poll(0):
            on_reset = self._watched.pop(descriptor, None)
            self._unregister(descriptor)
            if on_reset is not None:
                on_reset()

    def _unregister(self, descriptor: int) -> None:
        assert self._poll is not None, "there is one when something is watched"
        with suppress(OSError):  # closing ended it
            self._poll.unregister(descriptor)

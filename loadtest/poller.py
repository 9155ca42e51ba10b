"""Readiness of sockets with waits that are exact to tens of microseconds.

asyncio (epoll) and libuv round their timers to whole milliseconds, which would show up as send lag.
``select`` takes microseconds, and an epoll descriptor can itself be waited for with it: one extra
system call buys the resolution, and an event loop as small as this one costs far less per request.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from pathlib import Path

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
LONGEST_WAIT = 0.1  # seconds; so that stop flags and limits are looked at

clock = time.monotonic  # shared by all processes of this machine (CLOCK_MONOTONIC)


def precise_timers() -> None:
    """Ask the kernel not to be late by its usual 50 µs when it wakes this process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text("1")


class Poller:
    """An epoll set with a precise ``wait``."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._self = (self._epoll.fileno(),)

    def add(self, sock: socket.socket | int, interest: int) -> None:
        self._epoll.register(sock, interest)

    def change(self, sock: socket.socket | int, interest: int) -> None:
        self._epoll.modify(sock, interest)

    def remove(self, sock: socket.socket | int) -> None:
        self._epoll.unregister(sock)

    def wait(self, seconds: float) -> list[tuple[int, int]]:
        """(descriptor, events) that are ready, at once or within ``seconds`` (at most 0.1)."""
        ready = self._epoll.poll(0)
        if ready or seconds <= 0:
            return ready
        select.select(self._self, (), (), min(seconds, LONGEST_WAIT))
        return self._epoll.poll(0)

    def close(self) -> None:
        self._epoll.close()

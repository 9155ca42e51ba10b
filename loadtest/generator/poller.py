"""Polls sockets with waits that are exact to tens of microseconds.

asyncio (epoll) and libuv round timers to whole milliseconds, which would show as send lag.
``select`` takes microseconds and can wait for an epoll descriptor: one more system call.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from pathlib import Path

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
SPIN = 80e-6  # seconds
LONGEST_WAIT = 0.1  # seconds between checks of stop flag and time limits

clock = time.monotonic  # shared by all processes of this machine (CLOCK_MONOTONIC)


def request_realtime() -> None:
    """Request SCHED_FIFO and the least timer slack for this process, where permitted.

    Under the fair scheduler another process may keep the core for milliseconds, which would be
    measured as lag.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text("1")  # instead of 50 µs
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


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

    def wait(self, until: float) -> list[tuple[int, int]]:
        """Return (descriptor, events) ready at once or by ``until``, at most 0.1 s from now.

        Spins for the last ``SPIN`` seconds, as waking up takes longer than that.
        """
        ready = self._epoll.poll(0)
        while not ready:
            left = until - clock()
            if left <= 0:
                break
            if left > SPIN:
                select.select(self._self, (), (), min(left - SPIN, LONGEST_WAIT))
                ready = self._epoll.poll(0)
                if left > LONGEST_WAIT:
                    break
            else:
                ready = self._epoll.poll(0)
        return ready

    def close(self) -> None:
        self._epoll.close()

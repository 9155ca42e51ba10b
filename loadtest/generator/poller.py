"""Readiness of sockets with waits that are exact to tens of microseconds.

asyncio (epoll) and libuv round their timers to whole milliseconds, which would show up as send lag.
``select`` takes microseconds, and an epoll descriptor can itself be waited for with it: one extra
system call buys the resolution, and an event loop as small as this one costs far less per request.
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
LONGEST_WAIT = 0.1  # seconds; so that stop flags and limits are looked at

clock = time.monotonic  # shared by all processes of this machine (CLOCK_MONOTONIC)


def be_punctual() -> None:
    """Ask the kernel to wake this process on time, and before others, as far as it is allowed.

    Under the fair scheduler a neighbour keeps the core for up to 3 ms; a real-time process does
    not wait for it, and one that sleeps between its requests takes nothing that matters.
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
        """(descriptor, events) that are ready, at once or by ``until`` (at most 0.1 s from now).

        The last microseconds are spent looking instead of sleeping: waking up takes longer.
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

"""The lock of an item table's writers: one thread of one process at a time.

It is never waited for without a bound. A process may be stopped inside (SIGSTOP, a frozen cgroup)
and hold it until it goes on or is killed; then the system releases it.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

# A table's readers take no lock: they rely on seeing another thread's stores in their order, which
# x86 promises and other machines do not. There they take the lock, and no process shares a table.
STORES_IN_ORDER = platform.machine() in ("x86_64", "AMD64", "i386", "i686")
SHORTEST_S, LONGEST_S = 0.0001, 0.002  # between two tries


class TableBusy(Exception):
    """The lock was not to be had in time: another process holds it, perhaps a stopped one."""


class Others(Protocol):
    """The part of the lock that keeps out other processes."""

    def try_enter(self) -> bool: ...
    def leave(self) -> None: ...


class TableLock:
    """Against the threads of this process, then against other processes, if there are any."""

    def __init__(self, others: Others | None = None) -> None:
        self._threads, self._others = threading.Lock(), others

    @contextmanager
    def held(self, within: float) -> Iterator[None]:
        """TableBusy when it is not free ``within`` seconds. Blocks: not for the event loop."""
        deadline = time.monotonic() + within
        if not self._threads.acquire(timeout=within):
            raise TableBusy
        try:
            if self._others is None:
                yield
                return
            pause = SHORTEST_S
            while not self._others.try_enter():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TableBusy
                time.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_S)
            try:
                yield
            finally:
                self._others.leave()
        finally:
            self._threads.release()

"""Writes log lines from a thread: a log that is not read delays no answer.

A full pipe blocks whoever writes to it, for as long as the log driver behind it waits for its
backend or for a full disk. Lines wait in a bounded queue; beyond it they are dropped and counted.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import stat
import sys

from service.observability.background import KeptThread
from service.observability.logs import logger

MOST_LINES = 4096  # some megabytes
AT_EXIT_S = 0.5  # to take the end, and as long to write what is left


class LogWriter(logging.Handler):
    """Formats records in the thread that logs, and writes them in order in one of its own."""

    def __init__(self, descriptor: int, most: int = MOST_LINES) -> None:
        super().__init__()
        self._overflowed = 0  # counted by those that log, under the handler's lock
        self._failed = 0  # counted by the thread
        self._told = 0  # of those that overflowed
        self._descriptor, self._most = descriptor, most
        self._queue: queue.Queue[bytes | None] = queue.Queue(most)
        # A daemon: the process ends although a write still blocks. ``logging`` calls ``close``.
        self._thread = KeptThread("log", self._write_all)

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._overflowed + self._failed

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            self._queue.put_nowait(line)
        except queue.Full:
            self._overflowed += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what is left, for at most a second."""
        try:
            self._queue.put(None, timeout=AT_EXIT_S)
            self._thread.join(AT_EXIT_S)
        except queue.Full:
            pass
        super().close()

    def _write_all(self) -> None:
        while (line := self._queue.get()) is not None:
            self._write(line)
            lines = self._overflowed - self._told
            if lines and self._queue.qsize() < self._most / 2:
                self._told += lines
                logger.warning("log lines dropped: the log was not read in time", lines=lines)

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # another program has made the pipe non-blocking
                select.select([], [self._descriptor], [])
            except OSError:  # the reader has gone, or the disk is full
                self._failed += 1
                return


def write_apart() -> None:
    """Write what ``logs.configure`` has set up from a thread, from now on; into a file, as it was:
    it has no reader that could stall."""
    if sys.stderr is None:  # its descriptor may become another file's
        return
    descriptor, root = sys.stderr.fileno(), logging.getLogger()
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return
    writer = LogWriter(descriptor)
    writer.setFormatter(root.handlers[0].formatter)
    root.handlers[:] = [writer]


def dropped() -> int:
    """Lines that this process has not written because its log was not read."""
    return sum(h.dropped for h in logging.getLogger().handlers if isinstance(h, LogWriter))

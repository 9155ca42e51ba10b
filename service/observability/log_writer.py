"""Writes log lines from a thread: a log that is not read delays no answer.

A write to a full pipe blocks, for as long as the log driver behind it waits for its backend or for
a full disk. Lines wait in a bounded queue; beyond it they are dropped and counted.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import stat
import sys

from service.observability.background import KeptThread

MOST_LINES = 4096
AT_EXIT_S = 1.0  # to write what is left


class LogWriter(logging.Handler):
    """Formats records in the thread that logs, and writes them in order in one of its own."""

    def __init__(self, descriptor: int, most: int = MOST_LINES) -> None:
        super().__init__()
        # Counted by those that log, under the handler's lock; the last by the thread.
        self._overflowed = self._told = self._failed = 0
        self._descriptor, self._most = descriptor, most
        # Unlike ``Queue`` it may be entered again by a destructor that logs.
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._closed = False
        # A daemon: the process ends although a write still blocks. ``logging`` calls ``close``.
        self._thread = KeptThread("log", self._write_all)

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._overflowed + self._failed

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        if self._queue.qsize() >= self._most or (self._closed and self._thread.serves):
            self._overflowed += 1
            return
        self._put_notice()
        if self._closed:
            self._write(line)
        else:
            self._queue.put(line)

    def close(self) -> None:
        """Write what is left, for at most a second."""
        if not self._closed:
            self._closed = True
            self._put_notice()
            self._queue.put(None)
        self._thread.join(AT_EXIT_S)
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _put_notice(self) -> None:
        """Tell how many lines are missing, where they are."""
        if lines := self._overflowed - self._told:
            self._told = self._overflowed
            text = f"log lines dropped, because the log was not read in time: {lines}"
            record = logging.LogRecord("service", logging.WARNING, "", 0, text, None, None)
            self._queue.put(self._line(record))

    def _write_all(self) -> None:
        while (line := self._queue.get()) is not None:
            self._write(line)

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

"""Queue of jobs that wait for an engine thread, in the order of their turns.

Within a class a job that was taken goes back to the end while more of it is left, so everyone has
one chunk after everyone else's. Between classes online goes first, and batch gets a turn in every
``BATCH_TURN`` so that what was let in comes to an end.
"""

from __future__ import annotations

from collections import deque
from queue import SimpleQueue
from typing import Generic, TypeVar

from service.context import HasPriority, Priority

BATCH_TURN = 32


W = TypeVar("W", bound=HasPriority)


class RequestQueue(Generic[W]):
    """No lock of its own: there are never more tokens than jobs, so a token finds one."""

    def __init__(self) -> None:
        self._rings: dict[Priority, deque[W]] = {priority: deque() for priority in Priority}
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._since_batch = 0

    def __len__(self) -> int:
        return self._tokens.qsize()

    def put(self, job: W) -> None:
        self._rings[job.priority].append(job)
        self._tokens.put(True)

    def take(self) -> W | None:
        """The next, once there is one; None when a thread is to end."""
        return self._next() if self._tokens.get() else None

    def end(self) -> None:
        """Of one thread, when nothing is left before it."""
        self._tokens.put(False)

    def _next(self) -> W:
        online, batch = self._rings[Priority.ONLINE], self._rings[Priority.BATCH]
        while True:  # another thread may take what was seen here, and leave what came since
            first, second = (online, batch) if self._since_batch < BATCH_TURN else (batch, online)
            for ring in (first, second):
                if not ring:
                    continue
                try:
                    job = ring.popleft()
                except IndexError:
                    continue
                if ring is online and job.priority is Priority.BATCH:  # it fell while it waited
                    batch.append(job)
                    break
                self._since_batch = self._since_batch + 1 if ring is online and batch else 0
                return job

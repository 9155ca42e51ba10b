"""Queue of jobs for the engine threads: round robin within a priority.

A job that was taken goes back to the end while chunks of it are left. Online goes before batch, but
batch gets one turn in ``BATCH_TURN``, so that admitted batch requests finish.
"""

from __future__ import annotations

from collections import deque
from queue import SimpleQueue
from typing import Generic, TypeVar

from service.context import HasPriority, Priority

BATCH_TURN = 32


W = TypeVar("W", bound=HasPriority)


class RequestQueue(Generic[W]):
    """Lock-free: there are never more tokens than jobs, so a thread with a token finds a job."""

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
        """Wait for the next job; None tells the thread to end."""
        return self._next() if self._tokens.get() else None

    def end(self) -> None:
        """End one thread, once the jobs before are done."""
        self._tokens.put(False)

    def _next(self) -> W:
        online, batch = self._rings[Priority.ONLINE], self._rings[Priority.BATCH]
        while True:  # another thread may have taken the job that was seen here
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

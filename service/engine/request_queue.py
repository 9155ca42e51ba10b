"""Queue of jobs for the engine threads: round robin within a priority.

A job whose turn it is can be shared: other threads take it, too, if no other job waits. When its
turn ends it goes to the end, behind what came meanwhile. Online goes before batch, but batch gets
one turn in ``BATCH_TURN``, so that admitted batch requests finish.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

from service.context import HasPriority, Priority

BATCH_TURN = 32


W = TypeVar("W", bound=HasPriority)


class RequestQueue(Generic[W]):
    """Lock-free: there are never more tokens than jobs, so a thread with a token finds a job."""

    def __init__(self) -> None:
        self._rings: dict[Priority, deque[W]] = {priority: deque() for priority in Priority}
        self._shared: dict[Priority, deque[W]] = {priority: deque() for priority in Priority}
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._since_batch = 0

    def __len__(self) -> int:
        return self._tokens.qsize()

    def put(self, job: W) -> None:
        self._rings[job.priority].append(job)
        self._tokens.put(True)

    def share(self, job: W) -> None:
        """Offer the rest of a taken job to threads that find no other, until ``end_turn``."""
        self._shared[job.priority].append(job)
        self._tokens.put(True)

    def end_turn(self, job: W) -> None:
        """Put a shared job behind the others, unless another thread has taken it."""
        for shared in self._shared.values():
            with suppress(ValueError):
                shared.remove(job)
                self._rings[job.priority].append(job)

    def take(self) -> W | None:
        """Wait for the next job; None tells the thread to end."""
        return self._next() if self._tokens.get() else None

    def end(self) -> None:
        """End one thread, once the jobs before are done."""
        self._tokens.put(False)

    def _next(self) -> W:
        while True:  # another thread may have taken or moved the job that was seen here
            order = [Priority.ONLINE, Priority.BATCH]
            if self._since_batch >= BATCH_TURN:
                order.reverse()
            for priority in order:
                job = _first_of(self._rings[priority], self._shared[priority])
                if job is None:
                    continue
                online, batch = priority is Priority.ONLINE, self._rings[Priority.BATCH]
                if online and job.priority is Priority.BATCH:  # it fell while it waited
                    batch.append(job)
                    break
                self._since_batch = self._since_batch + 1 if online and batch else 0
                return job


def _first_of(*queues: deque[W]) -> W | None:
    for queue in queues:
        with suppress(IndexError):
            return queue.popleft()
    return None

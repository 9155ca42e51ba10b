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
_ONLINE_FIRST = (Priority.ONLINE, Priority.BATCH)
_BATCH_FIRST = (Priority.BATCH, Priority.ONLINE)


W = TypeVar("W", bound=HasPriority)


class Offer(Generic[W]):
    """The rest of a job, offered by the thread whose turn it has. Compared by identity."""

    __slots__ = ("job",)

    def __init__(self, job: W) -> None:
        self.job = job


class RequestQueue(Generic[W]):
    """Lock-free: there are never more tokens than jobs, so a thread with a token finds a job, at
    once or when another thread has moved it.
    """

    def __init__(self) -> None:
        self._rings: dict[Priority, deque[W]] = {priority: deque() for priority in Priority}
        self._offers: dict[Priority, deque[Offer[W]]] = {each: deque() for each in Priority}
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._since_batch = 0

    def __len__(self) -> int:
        return self._tokens.qsize()

    @property
    def has_online(self) -> bool:
        """Whether an online job waits, other than for its turn's end."""
        return bool(self._rings[Priority.ONLINE])

    def put(self, job: W) -> None:
        self._rings[job.priority].append(job)
        self._tokens.put(True)

    def share(self, job: W) -> Offer[W]:
        """Offer the rest of a taken job to threads that find no other, until ``end_turn``."""
        offer = Offer(job)
        self._offers[job.priority].append(offer)
        self._tokens.put(True)
        return offer

    def end_turn(self, offer: Offer[W]) -> None:
        """Put the job behind the others, unless another thread has taken the offer."""
        ring = self._rings[offer.job.priority]
        for offers in self._offers.values():  # its priority may have changed
            with suppress(ValueError):  # not there
                offers.remove(offer)
                ring.append(offer.job)
                return

    def take(self) -> W | None:
        """Wait for the next job; None tells the thread to end."""
        return self._next() if self._tokens.get() else None

    def end(self) -> None:
        """End one thread, once the jobs before are done."""
        self._tokens.put(False)

    def _next(self) -> W:
        batch = self._rings[Priority.BATCH]
        while True:  # another thread may have taken or moved the job that was seen here
            due = self._since_batch >= BATCH_TURN
            for priority in _BATCH_FIRST if due else _ONLINE_FIRST:
                job = _first_of(self._rings[priority], self._offers[priority])
                if job is None:
                    continue
                online = priority is Priority.ONLINE
                if online and job.priority is Priority.BATCH:  # it fell while it waited
                    batch.append(job)
                    break
                self._since_batch = self._since_batch + 1 if online and batch else 0
                return job


def _first_of(ring: deque[W], offers: deque[Offer[W]]) -> W | None:
    with suppress(IndexError):
        return ring.popleft()
    with suppress(IndexError):
        return offers.popleft().job
    return None

"""Runs jobs on worker threads, chunk by chunk, in round robin.

The queue holds jobs, not chunks: a worker takes the next job, runs one chunk of it, and puts it
back behind what came meanwhile. So a list of 5,000 delays a list of 50 by the rest of one
chunk. Several workers share a long job when no other waits.

While short lists come one at a time, a long one whose scores do not depend on how it is cut has
smaller turns. When others wait it has whole ones: its share of the threads stays.

The graphs release the interpreter's lock, so each thread can use a core.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from time import perf_counter

from service.context import HasPriority, Priority
from service.engine.niceness import add_niceness
from service.engine.request_queue import RequestQueue
from service.errors import DeadlinePassed
from service.observability.background import KeptThread, TaskName

Prepare = Callable[[], None]
Run = Callable[[int, int], None]  # rows [start, end)
Span = tuple[int, int]

LONG_CHUNKS = 4  # a job of more rows than these may have smaller turns
SHORT_EXPECTED_S = 1.0  # after a short job
LEAST_TURN = 32  # rows: smaller calls take much more time for each


class Job:
    """One request's computation: a preparation (the history tower), then its chunks."""

    def __init__(
        self,
        prepare: Prepare | None,
        run: Run,
        spans: Sequence[Span],
        deadline: float,
        priority: HasPriority,
        divisible: bool = False,
    ):
        self.prepare, self.run = prepare, run
        self.deadline, self._owner = deadline, priority
        self.waiting = deque(spans)  # touched only by the thread that took the job from the queue
        self.unfinished = len(spans)
        self.divisible = divisible  # its chunks may be cut
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.abandoned = False  # expired, failed or cancelled: no more of its chunks are run
        self.submitted = perf_counter()
        self.started = self.prepared = self.finished = 0.0
        self.busy = 0.0  # seconds that threads spent on it

    @property
    def priority(self) -> Priority:
        """The owner's current priority."""
        return self._owner.priority

    def complete(self, error: BaseException | None) -> None:
        """Set the result that the request awaits. On the event loop."""
        self.abandoned = True
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            self.done.set_exception(error)
        else:  # raised as it is, it would end the event loop, or a future would not accept it
            fault = RuntimeError(f"the graphs raised {type(error).__name__}")
            fault.__cause__ = error
            self.done.set_exception(fault)

    def expire(self) -> None:
        self.complete(too_late())


@lru_cache(maxsize=1024)
def _cut(rows: int, pieces: int) -> tuple[Span, ...]:
    edges = [rows * i // pieces for i in range(pieces + 1)]
    return tuple(pairwise(edges))


def too_late() -> DeadlinePassed:
    return DeadlinePassed("the answer was not ready before its deadline")


def in_time(deadline: float) -> None:
    """Raise DeadlinePassed once ``deadline`` (``perf_counter``) has passed."""
    if perf_counter() >= deadline:
        raise too_late()


class Engine:
    """``threads`` workers over one fair queue. Created on the event loop that awaits it."""

    def __init__(
        self,
        threads: int,
        *,
        chunk: int = 128,
        min_chunk: int = 64,
        niceness: int = 0,
        name: TaskName = "engine",
        cut_as: int | None = None,
    ) -> None:
        """A list is spread over threads in pieces of ``min_chunk`` rows or more; a long one beside
        short ones has turns of about that many, or of 32.

        ``niceness`` is added to the process's own; at 19 threads yield to all other work.

        ``cut_as``: cut lists as an engine of so many threads does, for the bits of its scores.

        A thread that fails is started again; ``waiting_for`` counts those that do not run.
        """
        self.threads, self._name = threads, name
        self._cut_as = threads if cut_as is None else cut_as
        self.begin_counts()
        self.chunk, self._min_chunk, self._niceness = chunk, min_chunk, niceness
        self._loop = asyncio.get_running_loop()
        self._queue = RequestQueue[Job]()
        self._counting = threading.Lock()
        self._workers = [KeptThread(name, self._serve, number) for number in range(threads)]

    def begin_counts(self) -> None:
        """Reset the counts: what was run so far answered no request."""
        self.chunks = 0  # run so far
        self.expired = 0  # requests dropped, or cut short, because their deadline had passed
        self.expired_runs = 0  # calls of the graphs that began after their deadline
        self.busy = 0.0  # seconds, of all threads
        self._short_until = 0.0  # short requests are expected, on ``perf_counter``

    @property
    def queued(self) -> int:
        """Requests that wait for a thread."""
        return len(self._queue)

    @property
    def waiting_for(self) -> str:
        """Why scoring is impaired, for /readyz; empty when it is not."""
        down = sum(not worker.serves for worker in self._workers)
        return f"{self._name} threads: {down} of {self.threads} have ended" if down else ""

    def pieces(self, rows: int) -> int:
        """Number of chunks that a list is cut into."""
        least = -(-rows // self.chunk)
        spread = min(self._cut_as, rows // self._min_chunk)
        return max(1, least, spread)

    def spans(self, rows: int) -> tuple[Span, ...]:
        """Near-equal chunks. Equal lengths are cut alike, so that equal lists get equal bits; only
        jobs that are ``divisible`` are cut further."""
        return _cut(rows, self.pieces(rows))

    async def run(
        self,
        run: Run,
        rows: int,
        deadline: float,
        prepare: Prepare | None = None,
        priority: HasPriority = Priority.ONLINE,
        *,
        divisible: bool = False,
    ) -> Job:
        """Call ``prepare()``, then ``run(start, end)`` over all rows. DeadlinePassed.

        ``deadline`` is on ``perf_counter``. ``divisible``: the results do not depend on how the
        rows are cut, down to two. Returns the finished job, for its clock readings.
        """
        is_long = rows > LONG_CHUNKS * self.chunk
        job = Job(prepare, run, self.spans(rows), deadline, priority, divisible and is_long)
        begins_a_request = prepare is not None
        if begins_a_request and rows <= self.chunk and job.priority is Priority.ONLINE:
            self._short_until = job.submitted + SHORT_EXPECTED_S
        timer = self._loop.call_later(max(0.0, deadline - job.submitted), job.expire)
        self._queue.put(job)
        try:
            await job.done
        except BaseException as error:
            job.abandoned = True
            self.expired += isinstance(error, DeadlinePassed)
            # The job holds the error, whose traceback holds this frame: a reference cycle that
            # would keep the whole request until the next garbage collection.
            del job
            raise
        finally:
            timer.cancel()
        job.abandoned = True
        return job

    def close(self) -> None:
        """Stop after the running chunks. Blocks for at most one chunk."""
        for _ in self._workers:
            self._queue.end()
        for worker in self._workers:
            worker.join()

    def _serve(self) -> None:
        if self._niceness:
            add_niceness(self._niceness)
        while (job := self._queue.take()) is not None:
            error: BaseException | None = None
            try:
                last = self._run_chunk(job)
            except BaseException as failure:  # the request fails, not the thread
                last, error = True, failure
                job.abandoned = True
            if last:
                self._loop.call_soon_threadsafe(job.complete, error)
            # While this thread waits it must not keep the model of its last job.
            del job, error

    def _run_chunk(self, job: Job) -> bool:
        """Run the next chunk. Returns whether it was the last."""
        now = perf_counter()
        if not self._live(job, now):
            return False
        if not job.started:
            job.started = job.prepared = now
            if job.prepare is not None:
                now = job.prepared = self._call(job, now, job.prepare)
                if not self._live(job, now):
                    return False
        start, end = self._next_span(job, now)
        offer = self._queue.share(job) if job.waiting else None
        try:
            self._call(job, now, job.run, start, end)
        finally:
            if offer is not None:
                self._queue.end_turn(offer)
        with self._counting:
            self.chunks += 1
            job.unfinished -= 1
            if job.unfinished:
                return False
        job.finished = perf_counter()
        return True

    def _next_span(self, job: Job, now: float) -> Span:
        """Take the job's next chunk, or a part of it if a short job may come and none waits."""
        start, end = job.waiting.popleft()
        turns = round((end - start) / max(self._min_chunk, LEAST_TURN))
        if not job.divisible or turns < 2 or self._queue.has_online:
            return start, end
        if now >= self._short_until:
            return start, end
        middle = start + (end - start) // turns
        job.waiting.appendleft((middle, end))
        with self._counting:
            job.unfinished += 1
        return start, middle

    def _call(self, job: Job, began: float, call: Callable[..., None], *span: int) -> float:
        """Run and time one call of the graphs; return when it ended.

        ``began`` is what the clock read when the deadline was checked: a second reading could be
        past it without a fault, where the system has taken the core away in between.
        """
        call(*span)
        ended = perf_counter()
        with self._counting:
            self.busy += ended - began
            job.busy += ended - began
            self.expired_runs += began >= job.deadline
        return ended

    @staticmethod
    def _live(job: Job, now: float) -> bool:
        """Expired jobs never reach the graphs; the event loop's timer has completed them."""
        return not job.abandoned and now < job.deadline

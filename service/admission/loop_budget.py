"""Bounds the event loop's time for other work than scoring, so that scoring keeps its latency.

Without scoring requests any such work may run. During scoring it gets a share of the processor time
that scoring and other processes leave, as a token bucket of seconds: work waits for its turn, slice
by slice, first come, first served. Each kind's waiting work is bounded in predicted seconds; more
is refused. Refusals are delayed, because immediate retries would cost as much again.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, perf_counter, process_time, thread_time

from service.engine.engine import too_late
from service.observability.metrics import Metrics

SHARE = 0.1  # of what scoring leaves
LEAST_SHARE = 0.05  # of the loop, when scoring leaves nothing
FAULTS_SHARE = 0.5  # of that: for bodies that a scoring route refuses
BURST_S = 0.005  # of loop time that may be spent at once
FAULTS_BURST_S = 0.02
WINDOW_S = 0.1  # over which the time of scoring is measured
QUIET_S = 0.05  # without a scoring request
LOOK_EVERY_S = 0.01  # whether scoring has ended, before a turn comes
MOST_WAITING_S = 0.05  # of loop time predicted, of each kind
FIRST_GUESS_S, FIRST_GUESS_A_BYTE_S = 0.5e-3, 30e-9
FIRST_GUESS_AN_ID_S = 3e-6  # of missed ones
SMALL = 512  # bytes, or ids: below, the time does not depend on the size
PACE = 0.1  # weight of the newest measurement
RECEIVED_A_BYTE_S = 1.5e-9  # before a request is seen
REFUSAL_S = 0.2e-3
REFUSED_A_UNIT_S = (2e-9, 0.2e-6)  # a byte that was read, an id that was looked up
FAULT_S, FAULT_A_BYTE_S = 0.4e-3, 4e-9
# Delay of a refusal; up to LONGEST_S where refusals would take over REFUSALS_SHARE of the loop.
# At most IN_FLIGHT_SHARE of the requests in flight are delayed, so that others find room.
HELD_S, LONGEST_S, REFUSALS_SHARE, IN_FLIGHT_SHARE = 0.05, 1.0, 0.04, 0.25
# Bound on a bucket's debt, or a flood would keep others out for minutes after its end.
MOST_OWED_S = 5.0
KINDS = (
    *("events", "items", "embeddings", "metrics", "stats", "other"),
    *("explain", "missed", "long"),
)
FAULTS = "faults"


class Bucket:
    """Token bucket of seconds; its level may be negative."""

    def __init__(self, burst: float) -> None:
        self.level = self._burst = burst
        self._since = monotonic()

    def fill(self, now: float, rate: float) -> None:
        owed = max(self.level, -rate * MOST_OWED_S)
        self.level = min(self._burst, owed + rate * (now - self._since))
        self._since = now


class RunDelay:
    """How long this thread has waited for a processor (Linux schedstat)."""

    def __init__(self) -> None:
        self._path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")

    def seconds(self) -> float:
        try:
            return 1e-9 * int(self._path.read_bytes().split()[1])
        except (OSError, IndexError, ValueError):  # another kernel
            return 0.0


class LoopBudget:
    """The budget of one process. On the event loop alone."""

    def __init__(
        self,
        metrics: Metrics,
        scored: Callable[[], float | None],
        workers: int = 1,
        most_in_flight: int = 1000,
    ) -> None:
        """``scored``: number of scoring requests admitted so far; None while one is under way.
        ``workers`` share the cores. ``most_in_flight``: requests that may wait for an answer."""
        self._scored, self._known, self._scored_at = scored, scored(), -math.inf
        self._run_delay = RunDelay()
        self._cores = max(1.0, len(os.sched_getaffinity(0)) / workers)
        self._bucket, self._faults = Bucket(BURST_S), Bucket(FAULTS_BURST_S)
        self._lane, self._large = asyncio.Lock(), asyncio.Lock()
        self._waiting = dict.fromkeys(KINDS, 0.0)
        self._fixed = dict.fromkeys(KINDS, FIRST_GUESS_S)
        self._a_byte = dict.fromkeys(KINDS, FIRST_GUESS_A_BYTE_S)
        self._a_byte["missed"] = FIRST_GUESS_AN_ID_S
        self._spent = 0.0  # since the window began
        self._window = monotonic(), process_time(), thread_time() + self._run_delay.seconds()
        self._rate = SHARE
        self._last_refusal, self._held = 0.0, 0
        self._most_held = int(most_in_flight * IN_FLIGHT_SHARE)
        kinds = (*KINDS, FAULTS)
        self._admitted, self._refused = (
            {kind: metrics.budget.labels(kind, outcome) for kind in kinds}
            for outcome in ("admitted", "refused")
        )
        self._seconds = {kind: metrics.budget_seconds.labels(kind) for kind in kinds}

    def predict(self, kind: str, size: int = 0) -> float:
        """Predict the seconds of the loop that a body of so many bytes takes."""
        return self._fixed[kind] + (size * self._a_byte[kind] if size > SMALL else 0.0)

    def has_room(self, kind: str, predicted: float = 0.0) -> bool:
        """Tell whether more of a kind may wait; always, if none of it does."""
        waiting = self._waiting[kind]
        return waiting <= 0 or waiting + predicted <= MOST_WAITING_S

    def enter(self, kind: str, predicted: float) -> None:
        self._admitted[kind].inc()
        self._waiting[kind] += predicted

    def leave(self, kind: str, predicted: float) -> None:
        left = self._waiting[kind] - predicted
        self._waiting[kind] = left if left > 1e-9 else 0.0

    def learn(self, kind: str, size: int, took: float) -> None:
        if size <= SMALL:
            self._fixed[kind] += PACE * (took - self._fixed[kind])
        else:
            measured = max(0.0, took - self._fixed[kind]) / size
            self._a_byte[kind] += PACE * (measured - self._a_byte[kind])

    def spend(self, kind: str, seconds: float) -> None:
        self._bucket.level -= seconds
        self._spent += seconds
        self._seconds[kind].inc(seconds)

    @contextmanager
    def measured(self, kind: str) -> Iterator[None]:
        """Charge the block, in which nothing is awaited."""
        began = thread_time()
        try:
            yield
        finally:
            self.spend(kind, thread_time() - began)

    @property
    def affords(self) -> bool:
        """Whether work may run now."""
        self._fill()
        return self._bucket.level > 0 or self.is_quiet

    @property
    def is_quiet(self) -> bool:
        """Whether no scoring request has come for a while."""
        now, scored = monotonic(), self._scored()
        if scored is None or scored != self._known:
            self._known, self._scored_at = scored, now
        return now - self._scored_at > QUIET_S

    async def turn(self, deadline: float = math.inf) -> None:
        """Wait before each slice of work, which should take a millisecond at most.

        DeadlinePassed if its turn has not come by ``deadline`` (``perf_counter``).
        """
        left = None if deadline == math.inf else deadline - perf_counter()
        try:
            async with asyncio.timeout(left), self._lane:
                await asyncio.sleep(0)  # what else is ready goes first
                while not self.affords:  # noqa: ASYNC110 — as time goes by
                    await asyncio.sleep(min(LOOK_EVERY_S, 1e-4 - self._bucket.level / self._rate))
        except TimeoutError:
            raise too_late() from None

    async def one_at_a_time(self) -> None:
        """Wait until a large body may be parsed: one in each iteration of the event loop, so that
        other requests, a probe for example, are answered in between."""
        async with self._large:
            await asyncio.sleep(0)

    async def refused(self, kind: str, cost: float = REFUSAL_S, unread: int = 0) -> None:
        """Count a refusal that costs the loop so much, and delay its answer.

        ``unread``: bytes that the client has announced, and may send all the same.
        """
        self._refused[kind].inc()
        self.spend(kind, cost)
        await self._put_off(cost + unread * RECEIVED_A_BYTE_S)

    async def turned_away(self, size: int) -> None:
        """During scoring, delay a refusal for the headers of a request with a body of ``size``.
        Not charged to other work."""
        if self.is_quiet:
            return
        cost = REFUSAL_S + size * RECEIVED_A_BYTE_S
        self._spent += cost
        self._seconds[FAULTS].inc(cost)
        await self._put_off(cost)

    async def _put_off(self, cost: float) -> None:
        """Wait until refusals together take no more than their share."""
        if self._held >= self._most_held:
            return
        now = monotonic()
        due = max(now + HELD_S, self._last_refusal + cost / REFUSALS_SHARE)
        self._last_refusal = due = min(due, now + LONGEST_S)
        await self._hold(due - now)

    async def _hold(self, seconds: float) -> None:
        """Delay an answer."""
        self._held += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._held -= 1

    async def fault(self, size: int) -> None:
        """Charge a body of so many bytes that a scoring route refuses, and delay the answer."""
        self._fill()
        bucket, cost = self._faults, FAULT_S + size * FAULT_A_BYTE_S
        bucket.level -= cost
        self._spent += cost
        self._seconds[FAULTS].inc(cost)
        self._admitted[FAULTS].inc()
        if self.is_quiet:
            bucket.level = max(bucket.level, 0.0)  # there is nothing to protect
        elif bucket.level < 0 and self._held < self._most_held:
            await self._hold(min(LONGEST_S, self._until_paid()))

    @property
    def takes_faults(self) -> bool:
        """Whether large bodies should be read: not while refused ones are in debt."""
        if self._faults.level >= 0:
            return True
        self._fill()
        return self._until_paid() <= LONGEST_S

    def _until_paid(self) -> float:
        return max(0.0, -self._faults.level) / (self._rate * FAULTS_SHARE)

    def _fill(self) -> None:
        now = monotonic()
        self._measure(now)
        self._bucket.fill(now, self._rate)
        self._faults.fill(now, self._rate * FAULTS_SHARE)

    def _measure(self, now: float) -> None:
        """Measure scoring's share of the loop (with waiting for a processor) or of all cores. Set
        the rate from the remainder."""
        began, processor, loop = self._window
        if now - began < WINDOW_S:
            return
        self._window = now, process_time(), thread_time() + self._run_delay.seconds()
        wall = now - began
        of_loop = (self._window[2] - loop - self._spent) / wall
        of_cores = (self._window[1] - processor - self._spent) / (wall * self._cores)
        left = 1.0 - max(of_loop, of_cores, 0.0)
        self._rate, self._spent = max(LEAST_SHARE, SHARE * left), 0.0

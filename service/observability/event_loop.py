"""Monitors what delays the event loop: garbage collections, and code that holds the loop.

``settle`` also keeps collections short and rare.
"""

from __future__ import annotations

import asyncio
import gc
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from prometheus_client import Histogram
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.observability.background import keep
from service.observability.logs import logger

# Seconds: from a young collection to a full one of a loaded service.
PAUSES = (1e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
GENERATIONS = 3
# Net growth, in objects, before a collection. A young one visits all objects since the last that
# are still alive, and with many slow clients those are many. No request or connection needs the
# collector (a test in tests/service/server/test_protocol.py), so it may run rarely.
YOUNG = 50_000
TICK_S = 0.05  # of the lag histogram
LOAD_TICK_S = 0.002  # while a version is loaded


def settle() -> None:
    """Exclude all objects of now from later collections (``gc.freeze``).

    Called after something large has been loaded. Collecting first keeps garbage from being frozen,
    and is short: objects frozen earlier are not visited.
    """
    began = perf_counter()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    took = 1e3 * (perf_counter() - began)
    # Without the number of objects: counting them blocks the event loop for milliseconds.
    logger.info("garbage collector settled", ms=round(took, 2))


class GCPauses(Collector):
    """A histogram of the length of collections, by generation.

    In plain lists: a collection may begin anywhere, also while a metric's lock is held.
    """

    _labelnames = ("generation",)

    def __init__(self, name: str, documentation: str) -> None:
        self._name, self._documentation = name, documentation
        self._counts = [[0] * (len(PAUSES) + 1) for _ in range(GENERATIONS)]
        self._sums = [0.0] * GENERATIONS
        self._began = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Within the block, count collections."""
        gc.callbacks.append(self._called)
        try:
            yield
        finally:
            gc.callbacks.remove(self._called)

    def _called(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = perf_counter()
            return
        took, generation = perf_counter() - self._began, info["generation"]
        self._counts[generation][bisect_left(PAUSES, took)] += 1
        self._sums[generation] += took

    def describe(self) -> Iterable[Metric]:
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for generation, counts in enumerate(self._counts):
            buckets, total = [], 0
            for bound, count in zip([*PAUSES, float("inf")], counts, strict=True):
                total += count
                buckets.append((floatToGoString(bound), total))  # type: ignore[no-untyped-call]
            family.add_metric([str(generation)], buckets, self._sums[generation])
        yield family


async def watch_loop(lag: Histogram) -> None:
    """Observe how late a timer is, for ever. Up to 1 ms of it is the timer's rounding."""
    while True:
        due = perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        lag.observe(max(0.0, perf_counter() - due))


@asynccontextmanager
async def watched(pauses: GCPauses, lag: Histogram) -> AsyncIterator[None]:
    """Within the block, monitor collections and the loop."""
    watching = keep("loop_watch", partial(watch_loop, lag))
    with pauses.counted():
        try:
            yield
        finally:
            watching.cancel()


@dataclass(slots=True)
class Stalls:
    worst: float = 0.0  # seconds
    ticks: int = 0


@contextmanager
def watch_stalls() -> Iterator[Stalls]:
    """Within the block, measure the longest delay of the loop. A few hundred wake-ups a second."""
    stalls, loop = Stalls(), asyncio.get_running_loop()
    due = perf_counter() + LOAD_TICK_S
    timer: asyncio.TimerHandle

    def tick() -> None:
        nonlocal due, timer
        now = perf_counter()
        stalls.worst = max(stalls.worst, now - due)
        stalls.ticks += 1
        due = now + LOAD_TICK_S
        timer = loop.call_later(LOAD_TICK_S, tick)

    timer = loop.call_later(LOAD_TICK_S, tick)
    try:
        yield stalls
    finally:
        timer.cancel()

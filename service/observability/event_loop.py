"""What keeps the event loop from its work: the garbage collector, and whoever holds the loop.

Both are counted, and the first is kept short.
"""

from __future__ import annotations

import asyncio
import gc
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from time import perf_counter
from typing import Any

from prometheus_client import Histogram
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.observability.background import keep
from service.observability.logs import logger

# Seconds: a young collection takes some 10 µs, a full one of a loaded service was 40 ms.
PAUSES = (1e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
GENERATIONS = 3
# Net growth, in objects, before a collection. A young one looks at whatever came since the last and
# is still there, which beside 500 slow clients who come and go was 10 ms at Python's own 700: their
# ends keep the count low while their successors pile up. Nothing of a request or a connection needs
# the collector (a test in tests/service/server/test_protocol.py), so it may come seldom.
YOUNG = 50_000
LOOK_EVERY_S = 0.05


def settle() -> None:
    """What is in memory now is there to stay: later collections need not look at it.

    Called where something large has been loaded. The collection before it keeps garbage from
    staying too, and is short: it looks at what came since the last time alone.
    """
    began = perf_counter()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    took = 1e3 * (perf_counter() - began)
    # Not with the number of objects: to count them is to walk them all, 15 ms on the event loop.
    logger.info("garbage collector settled", ms=round(took, 2))


class GCPauses(Collector):
    """Every collection's length, by generation.

    Counted in plain lists: a collection may begin anywhere, also where a metric's lock is held.
    """

    _labelnames = ("generation",)

    def __init__(self, name: str, documentation: str) -> None:
        self._name, self._documentation = name, documentation
        self._counts = [[0] * (len(PAUSES) + 1) for _ in range(GENERATIONS)]
        self._sums = [0.0] * GENERATIONS
        self._began = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """For the length of the block."""
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
    """How late a timer is, for ever. Up to 1 ms of it is the timer's own rounding."""
    while True:
        due = perf_counter() + LOOK_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)
        lag.observe(max(0.0, perf_counter() - due))


@asynccontextmanager
async def watched(pauses: GCPauses, lag: Histogram) -> AsyncIterator[None]:
    """Collections and the loop, for the length of the block."""
    watching = keep("loop_watch", partial(watch_loop, lag))
    with pauses.counted():
        try:
            yield
        finally:
            watching.cancel()

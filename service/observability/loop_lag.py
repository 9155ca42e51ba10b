"""How long the event loop is kept from its work while a version is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from service.observability.metrics import Metrics

TICK_S = 0.002


@dataclass(slots=True)
class Stalls:
    worst: float = 0.0  # seconds
    ticks: int = 0


class LoopLag:
    """A timer that is looked at closely, and only where it matters: it costs a few hundred
    wake-ups a second."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @contextmanager
    def watched(self) -> Iterator[Stalls]:
        """For the length of the block."""
        stalls, loop = Stalls(), asyncio.get_running_loop()
        due = perf_counter() + TICK_S
        timer: asyncio.TimerHandle

        def tick() -> None:
            nonlocal due, timer
            now = perf_counter()
            stalls.worst = max(stalls.worst, now - due)
            stalls.ticks += 1
            due = now + TICK_S
            timer = loop.call_later(TICK_S, tick)

        timer = loop.call_later(TICK_S, tick)
        try:
            yield stalls
        finally:
            timer.cancel()
            self._metrics.model_load_stall.set(stalls.worst)

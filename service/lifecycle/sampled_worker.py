"""Scores samples of the traffic in the background, after their answers were sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Generic, TypeVar

from service.engine.engine import Engine
from service.engine.niceness import LOWEST
from service.observability.background import TaskName, keep

T = TypeVar("T")
QUEUED = 8  # samples; more are dropped
TIMEOUT_S = 30.0  # for one sample, at the lowest priority


class SampledWorker(Generic[T]):
    """A short queue, and an engine with one thread that yields to all other work."""

    def __init__(self, name: TaskName, chunk: int, process: Callable[[T], Awaitable[None]]) -> None:
        self.engine = Engine(1, chunk=chunk, niceness=LOWEST)
        self._queue: asyncio.Queue[T] = asyncio.Queue(QUEUED)
        self._process = process
        self._task = keep(name, self._work)

    def offer(self, sample: T) -> bool:
        """Queue a sample. False if the queue is full."""
        if self._queue.full():
            return False
        self._queue.put_nowait(sample)
        return True

    @staticmethod
    def deadline() -> float:
        return perf_counter() + TIMEOUT_S

    def clear(self) -> None:
        """Drop queued samples: they keep their version in memory."""
        while not self._queue.empty():
            self._queue.get_nowait()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.to_thread(self.engine.close)

    async def _work(self) -> None:
        while True:
            sample = await self._queue.get()
            await self._process(sample)
            del sample  # it would keep its version in memory until the next one

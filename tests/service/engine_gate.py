"""Holds an engine thread until opened, so that a test decides what is waiting."""

from __future__ import annotations

import asyncio
import threading
from time import perf_counter

from service.context import Priority
from service.engine.engine import Engine

FAR = 60.0  # seconds


class Owner:
    """Has a priority that a test changes."""

    def __init__(self, priority: Priority = Priority.ONLINE) -> None:
        self.priority = priority


class Gate:
    """Of an engine with one thread."""

    def __init__(self, engine: Engine) -> None:
        self._open, self.reached = threading.Event(), threading.Event()
        self.task = asyncio.create_task(engine.run(self._wait, 1, perf_counter() + FAR))

    def _wait(self, start: int, end: int) -> None:
        self.reached.set()
        self._open.wait(FAR)

    async def closed(self) -> None:
        await asyncio.to_thread(self.reached.wait, FAR)

    async def open(self) -> None:
        self._open.set()
        await self.task

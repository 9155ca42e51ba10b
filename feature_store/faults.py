"""Counts and logs faults that cost one reply or one run of a background task."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

logger = logging.getLogger("feature_store")
LOG_INTERVAL_S = 60.0  # per kind of fault


class FaultLog:
    """Counts unexpected replies and failures; logs each kind at most once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def note(self, what: str, error: object, *, unexpected: bool = False) -> None:
        """Count a fault of kind ``what``. ``unexpected`` logs the traceback of ``error`` too."""
        self.count += 1
        times = self._unlogged.get(what, 0) + 1
        now = self._clock()
        if what in self._logged_at and now - self._logged_at[what] < LOG_INTERVAL_S:
            self._unlogged[what] = times
            return
        self._logged_at[what], self._unlogged[what] = now, 0
        trace = error if unexpected and isinstance(error, BaseException) else None
        logger.warning("%s: %s (times: %d)", what, error, times, exc_info=trace)


async def repeat(
    name: str, turn: Callable[[], Awaitable[None]], faults: FaultLog, pause_s: float
) -> None:
    """Run ``turn`` in a loop until cancelled; log a failed one and pause after it."""
    task = asyncio.current_task()
    while True:
        try:
            await turn()
        except asyncio.CancelledError as error:
            if task is None or task.cancelling():
                raise
            # Something that this task awaited was cancelled, not the task itself.
            faults.note(f"{name}: run cancelled", error, unexpected=True)
            await asyncio.sleep(pause_s)
        except Exception as error:
            faults.note(f"{name}: run failed", error, unexpected=True)
            await asyncio.sleep(pause_s)

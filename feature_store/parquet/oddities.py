"""Faults that cost one reply or one turn of background work: counted, logged, and passed over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

logger = logging.getLogger("feature_store")
SAID_EVERY_S = 60.0  # about the same thing


class Oddities:
    """Counts what was not as expected and logs each kind at most once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._clock = clock
        self._said_at: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def note(self, what: str, error: object, *, unexpected: bool = False) -> None:
        """Count one of kind ``what``. ``unexpected`` logs the traceback of ``error`` too."""
        self.count += 1
        times = self._unsaid.get(what, 0) + 1
        now = self._clock()
        if what in self._said_at and now - self._said_at[what] < SAID_EVERY_S:
            self._unsaid[what] = times
            return
        self._said_at[what], self._unsaid[what] = now, 0
        trace = error if unexpected and isinstance(error, BaseException) else None
        logger.warning("%s: %s (times: %d)", what, error, times, exc_info=trace)


async def repeat(
    name: str, turn: Callable[[], Awaitable[None]], oddities: Oddities, pause_s: float
) -> None:
    """Run ``turn`` until cancelled. A turn that raises is noted, and followed by a pause."""
    task = asyncio.current_task()
    while True:
        try:
            await turn()
        except asyncio.CancelledError as error:
            if task is None or task.cancelling():
                raise
            # Not this task was cancelled but something that it waited for.
            oddities.note(f"{name}: a turn was cut short", error, unexpected=True)
            await asyncio.sleep(pause_s)
        except Exception as error:
            oddities.note(f"{name}: a turn failed", error, unexpected=True)
            await asyncio.sleep(pause_s)

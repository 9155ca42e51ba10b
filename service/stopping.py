"""The word to stop, from a signal: the first begins a drain, the second ends all at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

STOPS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """``told`` is set by SIGTERM or SIGINT; after SIGINT, from a terminal, no balancer waits."""

    def __init__(self, on_second: Callable[[], None] = lambda: None) -> None:
        self.told = asyncio.Event()
        self.hurried = False
        self._on_second = on_second
        self._loop = asyncio.get_running_loop()
        for number in STOPS:
            self._loop.add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        if not self.told.is_set():
            self.hurried = number == signal.SIGINT
            self.told.set()
            return
        self._on_second()
        self._loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

"""Signals that end a process: the first begins a drain, a second ends it at once.

SIGTERM, SIGINT, SIGQUIT and SIGHUP begin a drain. A SIGHUP during one changes nothing: a terminal
that is closed sends several. SIGUSR1 and SIGUSR2, which tools send to reopen a log or to reload,
are refused in the log rather than left to kill the process.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from service.observability.logs import logger

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
MEANINGLESS = (signal.SIGUSR1, signal.SIGUSR2)


class StopSignals:
    """``told`` is set by the first of them; after SIGINT, from a terminal, no balancer waits."""

    def __init__(self, on_second: Callable[[], None] = lambda: None) -> None:
        self.told = asyncio.Event()
        self.hurried = False
        self._on_second = on_second
        self._loop = asyncio.get_running_loop()
        for number in STOPS:
            self._loop.add_signal_handler(number, self._stop, number)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup wants it
            self._loop.add_signal_handler(signal.SIGHUP, self.told.set)
        for number in MEANINGLESS:
            self._loop.add_signal_handler(number, _refuse, number)

    def _stop(self, number: signal.Signals) -> None:
        if not self.told.is_set():
            self.hurried = number == signal.SIGINT
            self.told.set()
            return
        self._on_second()
        self._loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _refuse(number: signal.Signals) -> None:
    logger.warning("a signal without a meaning here; SIGTERM stops", signal=number.name)

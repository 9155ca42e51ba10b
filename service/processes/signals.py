"""Shutdown signals: the first one starts a drain, a second one ends the process at once.

SIGTERM, SIGINT, SIGQUIT and SIGHUP start a drain. A further SIGHUP is ignored: a closed terminal
sends several. SIGUSR1 and SIGUSR2, which would kill the process, are logged and ignored: tools send
them to reopen logs or to reload.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from service.observability.logs import logger

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
IGNORED = (signal.SIGUSR1, signal.SIGUSR2)


class ShutdownSignals:
    """``requested`` is set by the first. ``immediate``: it was SIGINT, from a terminal, so that
    load balancers need no notice."""

    def __init__(self, on_second: Callable[[], None] = lambda: None) -> None:
        self.requested = asyncio.Event()
        self.immediate = False
        self._on_second = on_second
        self._loop = asyncio.get_running_loop()
        for number in STOPS:
            self._loop.add_signal_handler(number, self._stop, number)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            self._loop.add_signal_handler(signal.SIGHUP, self.requested.set)
        for number in IGNORED:
            self._loop.add_signal_handler(number, _ignore, number)

    def _stop(self, number: signal.Signals) -> None:
        if not self.requested.is_set():
            self.immediate = number == signal.SIGINT
            self.requested.set()
            return
        self._on_second()
        self._loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _ignore(number: signal.Signals) -> None:
    logger.warning("signal ignored; SIGTERM stops the service", signal=number.name)

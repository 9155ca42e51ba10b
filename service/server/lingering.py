"""Paces the discarding of input from refused connections.

A lingering connection reads and discards until its client has taken the refusal and closes (nginx:
``lingering_close``). A client on a fast network sends gigabytes a second, which would take the
event loop. So all lingering connections of a port read in turn, one at a time, and reads together
take a share of the loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Protocol

LINGER_S = 0.5  # then the connection is closed
SHARE = 0.04  # of the event loop
A_READ_S, A_BYTE_S = 40e-6, 1.5e-9  # what a read takes
LEAST_PAUSE_S = A_READ_S / SHARE  # which is also how long each waits for its client to send


class Flow(Protocol):
    """The flow control of one connection. Both are idempotent, also after its end."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Discarding:
    """The lingering connections of one port. Used on the event loop alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._waiting = loop, OrderedDict[Flow, None]()
        self._reading: Flow | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, flow: Flow) -> None:
        """Let it read in its turn, until ``remove``."""
        flow.pause_reading()
        self._waiting[flow] = None
        if self._timer is None:
            self._next()

    def remove(self, flow: Flow) -> None:
        self._waiting.pop(flow, None)
        if self._reading is flow:
            self._reading = None

    def read(self, flow: Flow, size: int) -> None:
        """Account for ``size`` bytes read: the next turn comes when they are paid for."""
        flow.pause_reading()
        if self._timer is not None:
            self._timer.cancel()
        pause = LEAST_PAUSE_S + size * A_BYTE_S / SHARE
        self._timer = self._loop.call_later(pause, self._next)

    def _next(self) -> None:
        if (flow := self._reading) is not None:
            flow.pause_reading()
            self._waiting[flow] = None
            self._reading = None
        if not self._waiting:
            self._timer = None
            return
        self._reading, _ = self._waiting.popitem(last=False)
        self._timer = self._loop.call_later(LEAST_PAUSE_S, self._next)
        self._reading.resume_reading()

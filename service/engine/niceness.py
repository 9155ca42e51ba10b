"""Threads and processes of lower priority than the one that starts them.

Niceness does not reach the GIL: a thread that holds it keeps all others of its process waiting.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from service.observability.logs import logger

LOWEST = 19
SHORT_TURN_S = 0.0005


def add_niceness(more: int) -> None:
    """Make the calling thread ``more`` nicer than this process, 19 at most.

    Linux keeps niceness per thread, and threads inherit it. It is never lowered, which takes a
    privilege; a refusal is a warning: the thread then works at the priority it has.
    """
    me = threading.get_native_id()
    try:
        wanted = min(LOWEST, os.getpriority(os.PRIO_PROCESS, os.getpid()) + more)
        if wanted > os.getpriority(os.PRIO_PROCESS, me):
            os.setpriority(os.PRIO_PROCESS, me, wanted)
    except OSError as error:
        _warn(more, str(error))


@contextmanager
def short_turns() -> Iterator[None]:
    """Within the block, make threads that run Python give up the GIL after 0.5 ms if another waits
    for it (``sys.setswitchinterval``; 5 ms by default). Used beside requests only: it also makes
    those that serve give it up more often."""
    usual = sys.getswitchinterval()
    if usual <= SHORT_TURN_S:
        yield
        return
    sys.setswitchinterval(SHORT_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


@cache
def _warn(more: int, reason: str) -> None:
    """Once for all threads."""
    logger.warning("the system refused to lower a thread's priority", by=more, reason=reason)

"""Threads and processes of lower priority than the one that starts them."""

from __future__ import annotations

import os
import threading
from functools import cache

from service.observability.logs import logger

LOWEST = 19


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


@cache
def _warn(more: int, reason: str) -> None:
    """Once for all threads."""
    logger.warning("the system refused to lower a thread's priority", by=more, reason=reason)

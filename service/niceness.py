"""Threads that yield to the rest."""

from __future__ import annotations

import os
import threading

LOWEST = 19


def set_niceness(niceness: int) -> None:
    """Of the calling thread alone (Linux keeps it per thread), and of threads it starts."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)

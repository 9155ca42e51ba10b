"""A child process that does not outlive its parent."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here: a forked child should load nothing


def end_with_parent(parent: int) -> None:
    """In a forked child, before its program begins: SIGKILL comes when ``parent`` has ended.

    It also ends a child that is stopped. The setting outlives the call of the program. The parent's
    thread that forks must be its main one: Linux sends the signal when that thread ends.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the setting held
        os._exit(1)

"""Ends a child process with its parent."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before the fork


def end_with_parent(parent: int) -> None:
    """In a forked child, before exec: request SIGKILL for when ``parent`` ends.

    SIGKILL also ends a stopped child, and the request survives exec. The parent must fork from its
    main thread: Linux sends the signal when the forking thread ends.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the request
        os._exit(1)

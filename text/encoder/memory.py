"""Keeps the memory that a step frees for the next one."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # options of mallopt(3)
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed memory in this process instead of returning it to the kernel, for good.

    A step of training frees some 10² blocks of megabytes; without this each is returned, then
    mapped and zeroed again. Return false, and change nothing, where the C library is not glibc.
    Source: mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))

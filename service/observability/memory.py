"""Reads the memory that is available, and returns freed memory to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Memory this process may still allocate: of the system, or of its container if less."""
    system, container = int(psutil.virtual_memory().available), _of_container()
    return system if container is None else min(system, container)


def trim() -> None:
    """Return freed pages to the system: glibc keeps them otherwise."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # not in musl, which keeps none
        libc.malloc_trim(0)


def _of_container() -> int | None:
    try:
        most = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        held = (CGROUP / "memory.stat").read_text()
    except OSError:
        return None
    if most == "max":
        return None
    reclaimable = sum(
        int(line.split()[1]) for line in held.splitlines() if line.startswith("inactive_file ")
    )
    return int(most) - used + reclaimable

"""Fits a load's connections to the limits of open files, of which each takes one."""

from __future__ import annotations

import resource

SPARE = 64  # beside connections


def fitting(connections: int, generators: int, lanes: int) -> int:
    """Lower the connections to an address to what the hard limit leaves to all generators."""
    hard = hard_limit()
    if hard is None:
        return connections
    return max(0, min(connections, generators * ((hard - SPARE) // lanes)))


def hard_limit() -> int | None:
    """The hard limit of a process; None if there is none."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def raise_soft_limit(connections: int) -> None:
    """Raise the soft limit of this process to what its connections may take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and SPARE + connections > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (SPARE + connections, hard))

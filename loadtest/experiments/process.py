"""Reads memory and open descriptors of a process and its descendants."""

from __future__ import annotations

import contextlib

import psutil


class ProcessGone(LookupError):
    """The process does not exist."""


def resident_mib(pid: int) -> float:
    """Resident memory in MiB; shared pages count once (Pss) where that may be read."""
    total = 0
    for member in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # a child that ended meanwhile
            try:
                total += member.memory_full_info().pss
            except psutil.AccessDenied:
                total += member.memory_info().rss
    return total / 2**20


def descriptors(pid: int) -> int:
    total = 0
    for member in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += member.num_fds()
    return total


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        raise ProcessGone(f"pid {pid}: no such process") from None

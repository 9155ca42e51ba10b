"""Memory and descriptors of a process and its children, from /proc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


class ProcessGone(LookupError):
    """The watched process does not exist (any more)."""


def family(pid: int) -> list[int]:
    """The process and everything below it."""
    members = [pid]
    for member in members:
        members.extend(_children(member))
    return members


def resident_mib(pid: int) -> float:
    """Of the whole family; memory shared by its members is counted once (Pss where allowed)."""
    return sum(_memory_kib(member) for member in _alive(pid)) / 1024


def descriptors(pid: int) -> int:
    return sum(len(list((PROC / str(member) / "fd").iterdir())) for member in _alive(pid))


def _alive(pid: int) -> list[int]:
    if not (PROC / str(pid)).exists():
        raise ProcessGone(f"pid {pid}: no such process")
    return family(pid)


def _children(pid: int) -> Iterator[int]:
    try:
        tasks = list((PROC / str(pid) / "task").iterdir())
        for task in tasks:
            yield from map(int, (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return


def _memory_kib(pid: int) -> int:
    for name, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = (PROC / str(pid) / name).read_text().splitlines()
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
        for line in lines:
            if line.startswith(key):
                return int(line.split()[1])
    return 0

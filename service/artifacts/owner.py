"""Tells whether the process that left something behind still runs.

A process number alone does not: in a container they are few and given out again, and the first is 1
after every restart. With the machine's boot and the process's start it is one process for ever.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
NAME = re.compile(
    r"(?P<host>.+?)\.(?P<pid>\d+)(\.(?P<started>\d+)-(?P<boot>[0-9a-f-]+))?\.[0-9a-f]+"
)


@dataclass(frozen=True, slots=True)
class Owner:
    """One process; ``boot`` and ``started`` are unknown of those of earlier releases."""

    host: str
    pid: int
    boot: str | None = None
    started: int | None = None  # clock ticks after the boot

    @classmethod
    def this_process(cls) -> Owner:
        pid = os.getpid()
        return cls(socket.gethostname(), pid, boot_id(), started(pid))

    @classmethod
    def of_name(cls, name: str) -> Owner | None:
        """From the name that ``name`` gave to a file or folder."""
        found = NAME.fullmatch(name)
        if found is None:
            return None
        at = found["started"]
        return cls(found["host"], int(found["pid"]), found["boot"], int(at) if at else None)

    def name(self, random: str) -> str:
        """For a file or folder that is this process's; ``random``: hexadecimal digits."""
        return f"{self.host}.{self.pid}.{self.started or 0}-{self.boot or '0'}.{random}"

    @property
    def is_here(self) -> bool:
        """Whether it can be told from here if it runs: it was of this host."""
        return self.host == socket.gethostname()

    @property
    def runs(self) -> bool:
        """Of one that ``is_here``."""
        if self.boot is not None and self.boot != boot_id():
            return False
        now = started(self.pid)
        return now is not None and self.started in (None, now)


def boot_id() -> str | None:
    """Another one after every start of the machine."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def started(pid: int) -> int | None:
    """When a process began, in clock ticks after the boot; None when it does not run."""
    try:
        line = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; after it: state, and 18 more, and the start.
    fields = line.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])

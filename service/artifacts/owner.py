"""Identifies the process that owns a file, and tells whether it still runs.

A pid is reused, in containers soon: after each restart the first is 1. Together with the machine's
boot and the process's start time it is unique.
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
    """One process. Earlier releases did not record ``boot`` and ``started``."""

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
        """Parse a file or folder name made by ``name``."""
        found = NAME.fullmatch(name)
        if found is None:
            return None
        at = found["started"]
        return cls(found["host"], int(found["pid"]), found["boot"], int(at) if at else None)

    def name(self, random: str) -> str:
        """Make a file or folder name; ``random``: hexadecimal digits."""
        return f"{self.host}.{self.pid}.{self.started or 0}-{self.boot or '0'}.{random}"

    @property
    def is_here(self) -> bool:
        """Whether the process was on this host, so that ``runs`` is known."""
        return self.host == socket.gethostname()

    @property
    def runs(self) -> bool:
        """Whether a process of this host still runs."""
        if self.boot is not None and self.boot != boot_id():
            return False
        now = started(self.pid)
        return now is not None and self.started in (None, now)


def boot_id() -> str | None:
    """Return the id of the machine's boot."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def started(pid: int) -> int | None:
    """Return a process's start time in clock ticks after the boot; None if it does not run."""
    try:
        line = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name, in parentheses, may contain anything; fields after it: state, 18 more, start time.
    fields = line.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])

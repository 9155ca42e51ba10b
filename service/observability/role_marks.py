"""Marks changes of roles on the time axis of the console's graphs.

Of several processes the first one keeps the marks, in a file that the others read, so that all show
the same. A process that starts in its place goes on with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

KEPT_S, MOST = 3600.0, 500
SETTLED_S = 10.0  # a process that starts again gets its roles back one after the other
ACTIVE = "active"

Roles = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Mark:
    """What is marked."""

    at: float  # seconds since the epoch
    what: str  # the role that changed: active, canary or shadow
    text: str  # what has it since


class RoleMarks:
    """The marks of the last hour."""

    def __init__(self, file: Path | None = None, *, writes: bool = True) -> None:
        """``file``: shared with the other processes of the service, if there are several."""
        self._file, self._writes = file, writes
        self._roles: dict[str, str | None] = {}
        self._settled_at = 0.0
        self._known = (0, 0)  # the file that was read: time and inode
        self.marks: list[Mark] = []

    def look(self, roles: Roles, at: float) -> None:
        """Mark what has changed by ``at``; of another process's file, read it. OSError."""
        if not self._writes:
            self._read()
            return
        if not self._roles:
            self._read()
            if not self._roles:  # the first process
                self._roles = dict(roles)
                self._write()
                return
            self._settled_at = at + SETTLED_S
        changed = self._changed(roles, at)
        if changed:
            self._roles |= changed
            self.marks += [Mark(at, role, has or "none") for role, has in changed.items()]
            self.marks = [mark for mark in self.marks if mark.at >= at - KEPT_S][-MOST:]
            self._write()

    def _changed(self, roles: Roles, at: float) -> dict[str, str | None]:
        """Roles that something else has, but for those that nothing has yet after a start."""
        waits = at < self._settled_at or roles[ACTIVE] is None
        return {
            role: has
            for role, has in roles.items()
            if has != self._roles.get(role) and not (waits and has is None)
        }

    def _read(self) -> None:
        if self._file is None:
            return
        try:
            found = self._file.stat()
            known = found.st_mtime_ns, found.st_ino
            if known == self._known:
                return
            content = orjson.loads(self._file.read_bytes())
        except FileNotFoundError:  # the first process has not begun
            return
        self._known, self._roles = known, content["roles"]
        self.marks = [Mark(**mark) for mark in content["marks"]]

    def _write(self) -> None:
        """Replace the file: a reader sees the old one or the new one."""
        if self._file is None:
            return
        content = {"roles": self._roles, "marks": [asdict(mark) for mark in self.marks]}
        beside = self._file.with_suffix(".new")
        beside.write_bytes(orjson.dumps(content))
        beside.replace(self._file)

"""Keeps the latest actions of administrators, and switches made without one, in a file.

The log has every action; this is what the console shows. The file outlives the process, and the
workers of a service share it.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from time import time
from typing import Any

import orjson

from service.observability.background import failed

MOST_SHOWN = 500
MOST_BYTES = 1 << 20  # of the file; then it is put aside as one with the suffix .old
OPEN = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
OWN = 0o600
Entry = dict[str, Any]


class AuditTrail:
    """Used on the event loop, but for ``latest``, which reads the file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept = deque[Entry](maxlen=MOST_SHOWN)  # of this process, should the file fail

    def add(self, **entry: object) -> None:
        """Write down an action: who, action, outcome, and what else there is to say."""
        whole = {"at": round(time(), 3), **entry}
        self._kept.append(whole)
        try:
            self._append(orjson.dumps(whole, default=str) + b"\n")
        except OSError:
            failed("other", "cannot write the audit file", file=str(self._file))

    def latest(self, version: str | None = None) -> list[Entry]:
        """Return the latest entries, newest first; those of one version, if it is named."""
        entries = self._read() or list(self._kept)
        found = [e for e in reversed(entries) if version in (None, e.get("model_version"))]
        return found[:MOST_SHOWN]

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self._file, OPEN, OWN)
        try:
            os.write(descriptor, line)
            full = os.fstat(descriptor).st_size > MOST_BYTES
        finally:
            os.close(descriptor)
        if full:
            os.replace(self._file, self._file.with_suffix(".old"))

    def _read(self) -> list[Entry]:
        """What is in both files, the oldest first; lines that are none are left out."""
        entries = list[Entry]()
        for file in (self._file.with_suffix(".old"), self._file):
            try:
                lines = file.read_bytes().splitlines()
            except OSError:
                continue
            for line in lines[-4 * MOST_SHOWN :]:
                try:
                    entry = orjson.loads(line)
                except orjson.JSONDecodeError:  # cut short by a full disk
                    continue
                if isinstance(entry, dict):
                    entries.append(entry)
        return entries

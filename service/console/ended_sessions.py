"""Remembers sessions that were logged out, for as long as their cookies would be valid.

A file each in the private folder, so that every worker of the service refuses the cookie at once,
and a restart that keeps the key does. They are bounded: beyond that number all sessions so far end.
"""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from math import ceil
from pathlib import Path
from time import time

from service.console.sessions import Session
from service.private_directory import make_private
from service.settings import PREFIX

MOST = 1000
ALL = "all"  # the file of which the time is that until which every session has ended
OPEN = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
OWN = 0o600


class EndedSessions:
    """The content of one folder: files without content, of which the time counts."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._all = folder, f"{folder}/{ALL}"

    def has(self, session: Session) -> bool:
        """Whether a session was logged out. What cannot be looked up counts as ended."""
        try:
            os.stat(self._file(session))
            return True
        except FileNotFoundError:
            pass
        except OSError:
            return True
        try:
            return session.began <= os.stat(self._all).st_mtime
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def add(self, session: Session) -> None:
        """End a session; drop those that are over by now. Blocks. OSError: it goes on."""
        make_private(self._folder, f"{PREFIX}PRIVATE")
        now, left = time(), list[os.DirEntry[str]]()
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name == ALL:
                    continue
                if entry.stat(follow_symlinks=False).st_mtime < now:
                    _remove(entry)
                else:
                    left.append(entry)
        if len(left) >= MOST:
            _touch(self._all, now)
            for entry in left:
                _remove(entry)
        _touch(self._file(session), session.until)

    def _file(self, session: Session) -> str:
        return f"{self._folder}/{sha256(session.nonce.encode()).hexdigest()[:32]}"


def _touch(file: str, at: float) -> None:
    """Set the file's time, rounded up: file systems may keep whole seconds."""
    descriptor = os.open(file, OPEN, OWN)
    try:
        os.utime(descriptor, (ceil(at), ceil(at)))
    finally:
        os.close(descriptor)


def _remove(entry: os.DirEntry[str]) -> None:
    with suppress(FileNotFoundError):  # by another worker
        os.unlink(entry.path)

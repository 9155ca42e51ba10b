"""Folders that are written under a temporary name and renamed when they are whole."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = re.compile(r"\..+\.[0-9a-f]{8}\.partial")
LEFT_S = 86_400.0  # longer than one is written, where locks of other machines are not seen


@contextmanager
def temporary_folder(parent: Path, label: str) -> Iterator[Path]:
    """Make a hidden folder in ``parent``; removed at the end unless it was renamed.

    Those that killed processes left there are removed, too, after a day. The name is random: in a
    container the next process often has the same number. Raises OSError.
    """
    _remove_left(parent)
    folder = parent / f".{label}.{secrets.token_hex(4)}.partial"
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_left(parent: Path) -> None:
    """Remove old folders that no process holds."""
    for folder in parent.glob(".*.partial"):
        if not NAME.fullmatch(folder.name):
            continue
        with suppress(OSError):  # no folder, another user's, held, or removed meanwhile
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(descriptor).st_mtime > LEFT_S:
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)

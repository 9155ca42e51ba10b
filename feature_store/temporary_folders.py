"""Folders that are written under a temporary name and renamed when they are whole."""

from __future__ import annotations

import ctypes
import errno
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
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2
NOT_HERE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}  # a kernel or file system without it
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


def replace_folder(new: Path, folder: Path) -> None:
    """Rename a temporary folder to ``folder``, which it takes the place of at once if the file
    system can: a process that is killed leaves the one or the other there. Raises OSError.
    """
    if not folder.exists():
        new.rename(folder)
        return
    try:
        _exchange(new, folder)  # what was there is removed with the temporary folder
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
        old = new.with_name(f"{new.name}-old")
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> None:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    paths = os.fsencode(one), os.fsencode(other)
    if call(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


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

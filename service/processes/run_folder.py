"""A folder for one run of the service, in memory if possible; removed when the run ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 — new folders of our own in it
NAME, BEING_MADE = "qin-run-", "qin-new-"
MADE_WITHIN_S = 60.0
OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def place() -> Path:
    return MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())


@contextmanager
def run_folder() -> Iterator[Path]:
    """A new folder, locked while this process lives: the next run removes unlocked ones.

    It is renamed once it is locked; until then its age decides.
    """
    made = Path(tempfile.mkdtemp(prefix=BEING_MADE, dir=place()))
    lock = os.open(made, OPEN)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = made.rename(made.with_name(made.name.replace(BEING_MADE, NAME)))
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def remove_left() -> None:
    """Remove the folders of killed runs."""
    for path in place().glob("qin-*"):
        try:
            if _is_left(path):
                shutil.rmtree(path)
        except OSError:  # another user's, or removed meanwhile
            continue


def _is_left(path: Path) -> bool:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return False
    if path.name.startswith(BEING_MADE):
        return found.st_mtime < time.time() - MADE_WITHIN_S
    if not path.name.startswith(NAME):
        return False
    directory = os.open(path, OPEN)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(directory)
    return True

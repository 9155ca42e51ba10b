"""A lock that one process at a time holds on what it writes for long: a run, a study."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger("training")


@contextmanager
def alone(lock: Path, busy: Exception) -> Iterator[None]:
    """Hold the file ``lock``, which is removed at the end. Raises ``busy`` where another process
    holds it.

    A killed process leaves the file, and holds it no longer. Where it cannot be made or the file
    system has no locks, there is none.
    """
    descriptor = _held(lock, busy)
    if descriptor is None:
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink(missing_ok=True)
        os.close(descriptor)


def _held(lock: Path, busy: Exception) -> int | None:
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)  # NFS locks what is writable
        except OSError as error:
            logger.debug("%s: cannot be made: %s", lock, error)
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(lock, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise busy from None
        except OSError as error:
            logger.debug("%s: not locked: %s", lock, error)
            os.close(descriptor)
            return None
        os.close(descriptor)  # the process that held it has removed it meanwhile


def _is_at(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(lock), os.fstat(descriptor))
    except FileNotFoundError:
        return False

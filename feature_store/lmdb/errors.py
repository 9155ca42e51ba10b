"""LMDB's errors, and those of its file system, in the store's own terms."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import lmdb

from feature_store.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreMismatch,
    StoreRefused,
    StoreUnavailable,
)

FULL = (errno.ENOSPC, errno.EDQUOT)
PROBE_BYTES = 1 << 20


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise errors of the environment in the folder ``path`` as StoreErrors."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise told(path, error) from error


def told(path: Path, error: lmdb.Error | OSError) -> StoreError:
    """An error of the environment in the folder ``path`` as a StoreError."""
    if full := _no_room(path, error):
        return full
    match error:
        case lmdb.InvalidError() | lmdb.VersionMismatchError():
            return StoreMismatch(f"{path}: not an LMDB environment: {error}")
        case lmdb.CorruptedError() | lmdb.PageNotFoundError() | lmdb.PanicError():
            return StoreCorrupt(f"{path}: damaged, load it again: {error}")
        case lmdb.BadValsizeError():
            return StoreRefused(f"{path}: a key or a value is too large: {error}")
        case lmdb.DiskError() | lmdb.ReadonlyError() | PermissionError():
            return StoreRefused(f"{path}: cannot be written: {error}")
    return StoreUnavailable(f"{path}: {error}")


def _no_room(path: Path, error: lmdb.Error | OSError) -> StoreFull | None:
    """What there is no room in: the disk, the quota, or the address space of the map."""
    text = str(error)
    if isinstance(error, lmdb.MapFullError):
        return StoreFull(
            f"{path}: LMDB's memory map is full and could not grow: raise the limit on address "
            f"space (ulimit -v) or use a 64-bit system ({text})"
        )
    code = error.errno if isinstance(error, OSError) else None
    for known in (*FULL, errno.EIO):
        if os.strerror(known) in text:
            code = known
    if code == errno.EIO:  # LMDB's name for a page of which only a part could be written
        code = _when_written(path)
    if code == errno.ENOSPC:
        return StoreFull(f"{path}: the disk is full: free space or move the store ({text})")
    if code == errno.EDQUOT:
        return StoreFull(f"{path}: the disk quota is used up: free space or raise it ({text})")
    return None


def _when_written(path: Path) -> int | None:
    """The error of a file that is written beside the store; None when it can be written."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
    except OSError as error:
        return error.errno
    return None

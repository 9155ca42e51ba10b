"""Translates errors of LMDB and its file system to StoreErrors."""

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
    """Raise LMDB and OS errors inside the block as StoreErrors that name ``path``."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise store_error(path, error) from error


def store_error(path: Path, error: lmdb.Error | OSError) -> StoreError:
    """Return the StoreError for an error of the environment at ``path``."""
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
    """Return a StoreFull naming what is full (disk, quota, address space); None otherwise."""
    text = str(error)
    if isinstance(error, lmdb.MapFullError):
        return StoreFull(
            f"{path}: LMDB's memory map is full and could not grow: raise the limit on address "
            f"space (ulimit -v) or use a 64-bit system ({text})"
        )
    code = error.errno if isinstance(error, OSError) else None
    for known in (*FULL, errno.EFBIG, errno.EIO):
        if os.strerror(known) in text:
            code = known
    if code == errno.EIO:  # LMDB's error for a partly written page
        code = _when_written(path)
    if code == errno.ENOSPC:
        return StoreFull(f"{path}: the disk is full: free space or move the store ({text})")
    if code == errno.EDQUOT:
        return StoreFull(f"{path}: the disk quota is used up: free space or raise it ({text})")
    if code == errno.EFBIG:
        return StoreFull(
            f"{path}: the limit on the size of a file is reached: raise it (ulimit -f, LimitFSIZE "
            f"of systemd) ({text})"
        )
    return None


def _when_written(path: Path) -> int | None:
    """Write a probe file beside the store, and beyond the store's own size, without what is before;
    return its errno, None if it succeeds."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.pwrite(file.fileno(), b"\0", (path / "data.mdb").stat().st_size + PROBE_BYTES)
    except OSError as error:
        return error.errno
    return None

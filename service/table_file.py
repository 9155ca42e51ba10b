"""Item tables in files that the processes of a machine map together.

A table's file lives as long as somebody uses it: every user holds a shared lock on it, which the
system releases however the process ends. Whoever finds a file that nobody holds makes a new one in
its place, so no process ever begins with rows of another time. The folder is best kept in memory
(/dev/shm), where a page is written to nowhere else.

    VERSION-DIGEST.table   the arrays of ``service.item_memory``; users hold it shared
    VERSION-DIGEST.write   held by whoever writes to the table
    VERSION-DIGEST.fill    held by whoever fills it
    opening                held while a file is looked for, made or removed
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from feature_store.schema import FeatureSchema
from model_export.bundle import Bundle
from model_export.manifest import MANIFEST
from service.item_memory import FILLED, FORMAT, SLOTS, TableMemory, size_of

LAYOUT = 3  # grows when the arrays mean something else
PRIVATE = 0o600


class TableFile:
    """One user's hold on one table. Released when it is no longer referred to."""

    def __init__(self, path: Path, schema: FeatureSchema, slots: int) -> None:
        """Joins the table at ``path``, or begins one of ``slots``. OSError says what is short."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _held(path.parent / "opening"):
            _sweep(path.parent)
            data = _opened(path)
            if data is None:
                data = _begun(path, schema, slots)
            fcntl.flock(data, fcntl.LOCK_SH)
            mapping = mmap.mmap(data, 0)
            known = TableMemory.header_of(mapping)
            self.memory = TableMemory.within(mapping, schema, int(known[SLOTS]))
        self._write = _lock_file(path.with_suffix(".write"))
        self._fill = _lock_file(path.with_suffix(".fill"))
        self._end = weakref.finalize(self, _release, path, data, self._write, self._fill)

    @property
    def capacity(self) -> int:
        return int(self.memory.header[SLOTS])

    @property
    def filled(self) -> bool:
        return bool(self.memory.header[FILLED])

    @contextmanager
    def filling(self) -> Iterator[bool]:
        """Whether it is ours to fill: nobody else does, and nobody has."""
        try:
            fcntl.flock(self._fill, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield not self.filled
        finally:
            fcntl.flock(self._fill, fcntl.LOCK_UN)

    def fill_is_done(self) -> None:
        self.memory.header[FILLED] = 1

    def __enter__(self) -> None:
        """Nobody else writes."""
        fcntl.flock(self._write, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        fcntl.flock(self._write, fcntl.LOCK_UN)


def table_path(folder: Path, bundle: Bundle, store: str) -> Path:
    """Where processes find the same table: that of the same bundle and the same store."""
    digest = blake2b((bundle.path / MANIFEST).read_bytes(), digest_size=12)
    digest.update(b"\0" + store.encode() + b"\0" + str(LAYOUT).encode())
    return folder / f"{bundle.version}-{digest.hexdigest()}.table"


def _opened(path: Path) -> int | None:
    """A file that somebody uses."""
    try:
        data = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if _is_free(data):
        os.close(data)
        return None
    return data


def _begun(path: Path, schema: FeatureSchema, slots: int) -> int:
    """A new file with room for all of it: running out later would end the process."""
    making = path.with_suffix(".new")
    making.unlink(missing_ok=True)
    data = os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    size = size_of(schema, slots)
    try:
        os.posix_fallocate(data, 0, size)
    except OSError as error:
        os.close(data)
        making.unlink()
        raise OSError(
            error.errno,
            f"{path.parent}: no room for an item table of {size / 1e6:,.0f} MB: "
            f"{error.strerror}; make room, lower QIN_MAX_TABLE_ITEMS or unset QIN_TABLE_FOLDER",
        ) from error
    with mmap.mmap(data, size) as mapping:
        header = TableMemory.header_of(mapping)
        header[SLOTS], header[FORMAT] = slots, LAYOUT
        TableMemory.within(mapping, schema, slots).begin()
        del header
    making.rename(path)
    return data


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed have left."""
    for path in folder.glob("*.table"):
        data = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if _is_free(data):
            _remove(path)
        os.close(data)


def _release(path: Path, data: int, *locks: int) -> None:
    with _held(path.parent / "opening"):
        fcntl.flock(data, fcntl.LOCK_UN)
        if _is_free(data):
            _remove(path)
        for descriptor in (data, *locks):
            os.close(descriptor)


def _remove(path: Path) -> None:
    for suffix in (".table", ".write", ".fill"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def _is_free(data: int) -> bool:
    """Nobody uses it; then this descriptor holds it alone."""
    try:
        fcntl.flock(data, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    descriptor = _lock_file(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

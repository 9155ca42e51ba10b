"""Item tables in files that the processes of a machine map together.

A table's file lives as long as a process uses it: each holds a shared lock on it, which the system
releases however the process ends. A process that finds a file without such a lock makes a new one
in its place, so none ever begins with rows of another time. The folder is best kept in memory
(/dev/shm), where a page is written to nowhere else.

The folder is private (``private_directory``), and so is every file: what they hold is scored, and
a file cut short would end every process that maps it.

    VERSION-DIGEST.table   the arrays of ``service.items.table_layout``; users hold it shared
    VERSION-DIGEST.write   locked by the process that writes to the table
    VERSION-DIGEST.fill    locked by the process that fills it
    opening                held while a file is looked for, made or removed
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import platform
import stat
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from feature_store.schema import FeatureSchema
from model_export.bundle.bundle import Bundle
from model_export.bundle.manifest import MANIFEST
from service.items.table_layout import FILLED, FORMAT, SLOTS, TableMemory, size_of
from service.items.table_lock import STORES_IN_ORDER
from service.private_directory import make_private, open_private

LAYOUT = 6  # grows when the arrays mean something else
PRIVATE = 0o600
SETTING = "QIN_TABLE_FOLDER"
OPEN_WITHIN_S = 60.0  # another process may be making a table of gigabytes, or be stopped
RELEASE_WITHIN_S = 2.0
LOOK_EVERY_S = 0.002


class NotShared(OSError):
    """Processes of this machine cannot share item tables, or not this one."""


def check_shared(folder: Path) -> None:
    """NotShared or NotPrivate, with the remedy, where tables cannot be shared."""
    if not STORES_IN_ORDER:
        raise NotShared(
            f"QIN_TABLE_FOLDER: item tables are shared on x86 alone, and this machine is "
            f"{platform.machine()}: unset it; then every process has a table of its own"
        )
    make_private(folder, SETTING)


class TableFile:
    """One user's hold on one table. Released when it is no longer referred to."""

    def __init__(self, path: Path, schema: FeatureSchema, slots: int) -> None:
        """Join the table at ``path``, or begin one of ``slots``. OSError says what is short."""
        check_shared(path.parent)
        folder = _Folder(path.parent)
        with ExitStack() as failed:
            failed.callback(folder.close)
            with folder.opening(OPEN_WITHIN_S):
                folder.sweep()
                data = folder.open_used(path.name)
                if data is None:
                    data = folder.begin(path.name, schema, slots)
                failed.callback(os.close, data)
                fcntl.flock(data, fcntl.LOCK_SH)
                mapping, slots = folder.map(data, path.name, schema)
            self.memory = TableMemory.within(mapping, schema, slots)
            self._write = folder.lock_file(path.with_suffix(".write").name)
            failed.callback(os.close, self._write)
            self._fill = folder.lock_file(path.with_suffix(".fill").name)
            failed.pop_all()
        self._data = data
        self._end = weakref.finalize(self, folder.release, path.name, data, self._write, self._fill)

    @property
    def others(self) -> TableFile:
        """The lock against writers in other processes."""
        return self

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file, first, and what else a process that fills it is to keep open: as long as it
        runs, also after this one has ended, no other process begins to fill the table."""
        return self._data, self._fill

    @property
    def capacity(self) -> int:
        return int(self.memory.header[SLOTS])

    @property
    def filled(self) -> bool:
        return bool(self.memory.header[FILLED])

    @contextmanager
    def filling(self) -> Iterator[bool]:
        """Whether this process is to fill the table: no other one does, or has."""
        if not _locked(self._fill):
            yield False
            return
        try:
            yield not self.filled
        finally:
            fcntl.flock(self._fill, fcntl.LOCK_UN)

    def fill_is_done(self) -> None:
        self.memory.header[FILLED] = 1

    def try_enter(self) -> bool:
        """Become the only process that writes, if none does."""
        return _locked(self._write)

    def leave(self) -> None:
        fcntl.flock(self._write, fcntl.LOCK_UN)


def remove_unused(path: Path) -> None:
    """Remove the tables that killed processes left in a folder. OSError, TableBusy."""
    folder = _Folder(path)
    try:
        with folder.opening(RELEASE_WITHIN_S):
            folder.sweep()
    finally:
        folder.close()


def table_path(folder: Path, bundle: Bundle, store: str) -> Path:
    """Where processes find the same table: that of the same bundle and the same store."""
    digest = blake2b((bundle.path / MANIFEST).read_bytes(), digest_size=12)
    digest.update(b"\0" + store.encode() + b"\0" + str(LAYOUT).encode())
    return folder / f"{bundle.version}-{digest.hexdigest()}.table"


class _Folder:
    """The files of all tables, opened below the directory that was checked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory = open_private(path, SETTING)

    def close(self) -> None:
        os.close(self._directory)

    def open_used(self, name: str) -> int | None:
        """A table that a process uses, if there is one of that name."""
        try:
            data = self._open(name)
        except FileNotFoundError:
            return None
        if _locked(data):
            os.close(data)
            return None
        return data

    def begin(self, name: str, schema: FeatureSchema, slots: int) -> int:
        """A new file with room for all of it: running out later would end the process."""
        making = f"{name}.new"
        self._unlink(making)
        data = self._open(making, os.O_CREAT | os.O_EXCL)
        size = size_of(schema, slots)
        try:
            room = os.fstatvfs(data)
            if room.f_blocks and size > room.f_bavail * room.f_frsize:
                # Reserving would fill the disk before it fails, and others write there.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.posix_fallocate(data, 0, size)
        except OSError as error:
            os.close(data)
            self._unlink(making)
            raise OSError(
                error.errno,
                f"{self.path}: no room for an item table of {size / 1e6:,.0f} MB: "
                f"{error.strerror}; make room, lower QIN_MAX_TABLE_ITEMS or unset QIN_TABLE_FOLDER",
            ) from error
        with mmap.mmap(data, size) as mapping:
            header = TableMemory.header_of(mapping)
            header[SLOTS], header[FORMAT] = slots, LAYOUT
            TableMemory.within(mapping, schema, slots).begin()
            del header
        os.rename(making, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        return data

    def map(self, data: int, name: str, schema: FeatureSchema) -> tuple[mmap.mmap, int]:
        """The whole of a table, and its slots. NotShared when it is not as long as it should be."""
        size = os.fstat(data).st_size
        if size >= size_of(schema, 0):
            mapping = mmap.mmap(data, size)
            slots = int(TableMemory.header_of(mapping)[SLOTS])
            if size_of(schema, slots) == size:
                return mapping, slots
        raise NotShared(f"{self.path / name}: {size} bytes are no whole item table; remove it")

    def sweep(self) -> None:
        """Remove what processes that were killed have left."""
        for name in os.listdir(self._directory):
            if name.endswith(".new"):  # they are made under the lock that is held here
                self._unlink(name)
            if not name.endswith(".table"):
                continue
            data = self._open(name)
            if _locked(data):
                self._remove(name)
            os.close(data)

    def release(self, name: str, data: int, *locks: int) -> None:
        """Close the files, and remove them if this was their last user."""
        with suppress(NotShared), self.opening(RELEASE_WITHIN_S):  # or the next to open one does
            fcntl.flock(data, fcntl.LOCK_UN)
            if _locked(data):
                self._remove(name)
        for descriptor in (data, *locks, self._directory):
            os.close(descriptor)

    def lock_file(self, name: str) -> int:
        return self._open(name, os.O_CREAT)

    @contextmanager
    def opening(self, within: float) -> Iterator[None]:
        """No other process looks for a file, makes or removes one. NotShared."""
        descriptor = self.lock_file("opening")
        try:
            deadline = time.monotonic() + within
            while not _locked(descriptor):
                if time.monotonic() > deadline:
                    raise NotShared(
                        f"{self.path / 'opening'}: locked by another process for {within:.0f} s; "
                        "if that is stopped, end it or let it go on"
                    )
                time.sleep(LOOK_EVERY_S)
            yield
        finally:
            os.close(descriptor)

    def _open(self, name: str, create: int = 0) -> int:
        """NotShared unless it is a file of ours alone: as this module makes them."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | create
        try:
            descriptor = os.open(name, flags, PRIVATE, dir_fd=self._directory)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EACCES):
                raise self._foreign(name) from error
            raise
        found = os.fstat(descriptor)
        if (
            not stat.S_ISREG(found.st_mode)
            or found.st_uid != os.geteuid()
            or found.st_mode & 0o077
            or found.st_nlink != 1
        ):
            os.close(descriptor)
            raise self._foreign(name)
        return descriptor

    def _foreign(self, name: str) -> NotShared:
        path = self.path / name
        return NotShared(
            f"{path}: not a file that this service made (a link, another user's, or open to "
            f"others); remove it, or set {SETTING} to another directory"
        )

    def _remove(self, name: str) -> None:
        for suffix in (".table", ".write", ".fill"):
            self._unlink(str(Path(name).with_suffix(suffix)))

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)


def _locked(descriptor: int) -> bool:
    """Lock a file if no process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

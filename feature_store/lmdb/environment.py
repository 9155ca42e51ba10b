"""Shares one LMDB environment per process and path, and grows its memory map.

LMDB forbids opening a path twice in one process, and resizing the map while a transaction of this
process is open. So environments are reference-counted here, writers take turns, and a resize
excludes readers; a read is a memory look-up, so the readers' lock is held for microseconds.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TypeAlias, TypeVar

import lmdb

from feature_store.errors import (
    StoreError,
    StoreFull,
    StoreMismatch,
    StoreRefused,
    StoreUnavailable,
)
from feature_store.lmdb.errors import FULL, translated
from feature_store.schema_record import settled
from feature_store.wording import worded

T = TypeVar("T")
Txn: TypeAlias = "lmdb.Transaction[bytes]"
FIRST_MAP_BYTES = 64 << 20
MOST_READERS = 1024
OPENS_WITHIN_S = 10.0
LOCK_FILE_BYTES = 256 + 64 * MOST_READERS  # a header, and a line of the cache per reader
LOCK = "lock.mdb"
DATABASES = ("meta", "items", "histories", "changes", "seen_keys", "seen_times", "notes")
NAMES = "names"  # in a store of text ids: their texts
USERS = "users"  # in a store of user features: their records
DESCRIPTIONS = "descriptions"  # in a store that keeps items' texts
LATER = (USERS, DESCRIPTIONS)  # made by the load that needs them


class LmdbEnvironment:
    """The databases of one store, read and written by short functions of a transaction."""

    def __init__(
        self, path: Path, *, create: bool, read_only: bool = False, names: bool = False
    ) -> None:
        self.path, self.read_only, self._names = path, read_only, names
        self.users = 0
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        with translated(self.path):
            on_disk = path / "data.mdb"
            size = max(FIRST_MAP_BYTES, on_disk.stat().st_size if on_disk.exists() else 0)
            lock = not read_only or os.access(path / LOCK, os.W_OK)
            if not read_only:
                _reserve(path / LOCK)
            self._env = lmdb.open(
                str(path),
                map_size=size,
                max_dbs=len((*DATABASES, NAMES, *LATER)),
                max_readers=MOST_READERS,
                create=create,
                mode=0o640,
                readahead=False,
                readonly=read_only,
                lock=lock,
            )
            self._file = _number_of(on_disk)
            if lock:
                self._env.reader_check()  # slots of readers that were killed
        self.db: dict[str, lmdb._Database] = {}
        self.opened: Future[None] = Future()

    def open_databases(self, create: bool) -> None:
        """Open the databases, then complete ``opened``; waits for LMDB's write lock, unless they
        are to be read alone."""
        try:
            with translated(self.path):
                if self.read_only:
                    self.db = {
                        name: self._env.open_db(name.encode(), create=False) for name in DATABASES
                    }
                    for name in (NAMES, *LATER):
                        with contextlib.suppress(lmdb.NotFoundError):
                            self.db[name] = self._env.open_db(name.encode(), create=False)
                else:
                    self._open_for_writing(create)
        except StoreError as error:
            if isinstance(error.__cause__, lmdb.NotFoundError):
                text = f"{self.path} is an LMDB environment but not a feature store"
                error = StoreMismatch(text)
            self.opened.set_exception(error)
        except BaseException as error:
            self.opened.set_exception(error)
        else:
            self.opened.set_result(None)

    def _open_for_writing(self, create: bool) -> None:
        # In an explicit transaction: py-lmdb's own would hold the GIL while it waits for LMDB's
        # write lock.
        with self._env.begin(write=True) as txn:
            self.db = {
                name: self._env.open_db(name.encode(), txn=txn, create=create) for name in DATABASES
            }
            made_now = {NAMES: create and self._names, **dict.fromkeys(LATER, False)}
            for name, made in made_now.items():
                with contextlib.suppress(lmdb.NotFoundError):
                    self.db[name] = self._env.open_db(name.encode(), txn=txn, create=made)

    def open_later(self, name: str, *, create: bool) -> None:
        """Open one of ``LATER`` if it was made since; waits for LMDB's write lock."""
        with translated(self.path), self._writing, contextlib.suppress(lmdb.NotFoundError):
            if name in self.db:
                return
            if self.read_only:
                self.db[name] = self._env.open_db(name.encode(), create=False)
                return
            with self._env.begin(write=True) as txn:
                made = self._env.open_db(name.encode(), txn=txn, create=create)
            self.db[name] = made  # valid once its transaction has been committed

    def get(self, key: bytes, db: lmdb._Database) -> bytes | None:
        """Read one record. Fast path of ``read``, for once per request."""
        try:
            with self._reading, self._env.begin(db=db) as txn:
                record: bytes | None = txn.get(key)
                return record
        except lmdb.Error:
            return self.read(lambda txn: txn.get(key, db=db))

    def read(self, look: Callable[[Txn], T]) -> T:
        """Run ``look`` on one consistent snapshot. It must be quick and keep no view."""
        with translated(self.path), self._reading:
            try:
                with self._env.begin() as txn:
                    return look(txn)
            except lmdb.MapResizedError:  # another process grew the map
                self._env.set_mapsize(0)
                with self._env.begin() as txn:
                    return look(txn)

    def refuse_if_replaced(self) -> None:
        """StoreMismatch if the folder has another file, or none: what this process wrote would be
        lost."""
        with contextlib.suppress(OSError):  # a folder that cannot be read says nothing
            if _number_of(self.path / "data.mdb") == self._file:
                return
            raise StoreMismatch(
                f"{self.path}: was removed or replaced while it was open; restart this process"
            )

    def write(self, change: Callable[[Txn], T]) -> T:
        """Run ``change`` and commit. It is run again after the map has grown."""
        self.refuse_if_replaced()
        with translated(self.path), self._writing:
            while True:
                try:
                    with self._env.begin(write=True) as txn:
                        return change(txn)
                except lmdb.MapFullError as full:
                    with self._reading:
                        self._grow(full)
                except lmdb.MapResizedError:
                    with self._reading:
                        self._env.set_mapsize(0)

    def _grow(self, full: lmdb.MapFullError) -> None:
        try:
            self._env.set_mapsize(2 * self._env.info()["map_size"])
        except (lmdb.Error, MemoryError, OverflowError) as error:
            raise lmdb.MapFullError(f"{full}; {error}") from error

    @property
    def syncs(self) -> bool:
        """Whether a commit waits for fsync."""
        flags = self._env.flags()
        return bool(flags["sync"] and flags["metasync"])

    def bytes_on_disk(self) -> int:
        return (self.path / "data.mdb").stat().st_blocks * 512

    def close(self) -> None:
        with self._writing, self._reading:
            self._env.close()


_open: dict[tuple[int, Path], LmdbEnvironment] = {}  # LMDB's own rule: one per process and path
_opening = threading.RLock()


def acquire(
    path: Path,
    *,
    create: bool,
    read_only: bool = False,
    names: bool = False,
    patience_s: float = OPENS_WITHIN_S,
) -> LmdbEnvironment:
    """Return the environment at ``path``; every acquire needs one release.

    ``names``: with ``create``, also create the database of a store of text ids.

    Raises StoreUnavailable if another process holds its write lock for ``patience_s``.
    """
    with _opening:
        key = os.getpid(), path.resolve()
        environment = _open.get(key)
        if environment is None:
            _prepare_folder(path, create)
            environment = LmdbEnvironment(
                path.resolve(), create=create, read_only=read_only, names=names
            )
            _open[key] = environment
            # A daemon thread: it may be blocked for as long as another process holds the lock.
            opening = environment.open_databases
            threading.Thread(
                target=opening, args=(create,), name="lmdb-opening", daemon=True
            ).start()
        else:
            environment.refuse_if_replaced()
            if environment.read_only and not read_only:
                raise StoreRefused(f"{path}: is open in this process for reading alone")
        environment.users += 1
    try:
        environment.opened.result(patience_s)
    except FutureTimeout:
        release(environment)
        raise StoreUnavailable(
            f"{path}: cannot be opened: another process has held its write lock for more than "
            f"{patience_s:g} s (fuser {path}/data.mdb lists the processes)"
        ) from None
    except BaseException:
        release(environment)
        raise
    return environment


def release(environment: LmdbEnvironment) -> None:
    with _opening:
        environment.users -= 1
    environment.opened.add_done_callback(lambda _: _close_unused(environment))


def _close_unused(environment: LmdbEnvironment) -> None:
    key = os.getpid(), environment.path
    with _opening:
        if environment.users == 0 and _open.get(key) is environment:
            del _open[key]
            environment.close()


def _prepare_folder(path: Path, create: bool) -> None:
    data = path / "data.mdb"
    try:
        there = data.exists()
    except PermissionError as error:
        raise StoreRefused(
            f"{data}: cannot be read by this user: a folder on the way there may not be entered; "
            "let its group enter it (chmod g+x)"
        ) from error
    if there:
        if not os.access(data, os.R_OK):
            raise StoreRefused(
                f"{data}: cannot be read by this user; stores are made with mode 0640, so that "
                "the members of their group read them"
            )
        return
    if not create:
        settled(str(path), None, None, create=False)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(each.name != LOCK for each in path.iterdir()):  # of a load that found no room
            raise StoreMismatch(f"{path}: holds other files; a new store needs an empty folder")
    except OSError as error:
        if error.errno in FULL:
            raise StoreFull(f"{path}: {worded(error)}") from error
        raise StoreRefused(f"{path}: cannot be created: {worded(error)}") from error


def _number_of(file: Path) -> tuple[int, int] | None:
    """Device and number of a file; None if there is none."""
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _reserve(lock_file: Path) -> None:
    """Preallocate the lock file: it is mapped, and a full disk would cause SIGBUS later."""
    try:
        file = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o640)
    except OSError as error:
        if error.errno in FULL:
            raise
        return  # LMDB's own error is more precise
    try:
        if os.fstat(file).st_blocks * 512 < LOCK_FILE_BYTES:
            os.posix_fallocate(file, 0, LOCK_FILE_BYTES)
    except OSError as error:
        if error.errno in FULL:
            raise
    finally:
        os.close(file)

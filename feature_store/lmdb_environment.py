"""One LMDB environment per process and path, with a map that grows by itself.

LMDB forbids opening a path twice in one process, and resizing the map while a transaction of this
process is open. So environments are shared and counted here, writers take turns, and a resize
excludes readers; reads are memory look-ups of microseconds, so their lock is never held for long.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias, TypeVar

import lmdb

from feature_store.errors import (
    StoreCorrupt,
    StoreMismatch,
    StoreRefused,
    StoreUnavailable,
)
from feature_store.schema_record import settled

T = TypeVar("T")
Txn: TypeAlias = "lmdb.Transaction[bytes]"
FIRST_MAP_BYTES = 64 << 20
DATABASES = ("meta", "items", "histories", "changes", "seen_keys", "seen_times", "notes")


class LmdbEnvironment:
    """The databases of one store, read and written by short functions of a transaction."""

    def __init__(self, path: Path, *, create: bool) -> None:
        self.path = path
        self.users = 0
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        with self._translated():
            on_disk = path / "data.mdb"
            size = max(FIRST_MAP_BYTES, on_disk.stat().st_size if on_disk.exists() else 0)
            self._env = lmdb.open(
                str(path),
                map_size=size,
                max_dbs=len(DATABASES),
                max_readers=1024,
                create=create,
                mode=0o640,
                readahead=False,
            )
            self._env.reader_check()  # slots of readers that were killed
        try:
            self.db = self._open_databases(create)
        except BaseException:
            self._env.close()
            raise

    def _open_databases(self, create: bool) -> dict[str, lmdb._Database]:
        with self._translated():
            try:
                return {name: self._env.open_db(name.encode(), create=create) for name in DATABASES}
            except lmdb.NotFoundError as error:
                raise StoreMismatch(
                    f"{self.path} is an LMDB environment but not a feature store"
                ) from error

    def get(self, key: bytes, db: lmdb._Database) -> bytes | None:
        """One record, as ``read`` would find it: once a request, so without its ceremony."""
        try:
            with self._reading, self._env.begin(db=db) as txn:
                record: bytes | None = txn.get(key)
                return record
        except lmdb.Error:
            return self.read(lambda txn: txn.get(key, db=db))

    def read(self, look: Callable[[Txn], T]) -> T:
        """What ``look`` returns of one consistent snapshot. It must be quick and keep no view."""
        with self._translated(), self._reading:
            try:
                with self._env.begin() as txn:
                    return look(txn)
            except lmdb.MapResizedError:  # another process grew the map
                self._env.set_mapsize(0)
                with self._env.begin() as txn:
                    return look(txn)

    def write(self, change: Callable[[Txn], T]) -> T:
        """What ``change`` returns, once it is durable. It is run again after the map has grown."""
        with self._translated(), self._writing:
            while True:
                try:
                    with self._env.begin(write=True) as txn:
                        return change(txn)
                except lmdb.MapFullError:
                    with self._reading:
                        self._env.set_mapsize(2 * self._env.info()["map_size"])
                except lmdb.MapResizedError:
                    with self._reading:
                        self._env.set_mapsize(0)

    def bytes_on_disk(self) -> int:
        return (self.path / "data.mdb").stat().st_blocks * 512

    def close(self) -> None:
        with self._writing, self._reading:
            self._env.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.InvalidError, lmdb.VersionMismatchError) as error:
            raise StoreMismatch(f"{self.path}: not an LMDB environment: {error}") from error
        except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError) as error:
            raise StoreCorrupt(f"{self.path}: damaged, load it again: {error}") from error
        except (lmdb.DiskError, lmdb.ReadonlyError, PermissionError) as error:
            raise StoreRefused(f"{self.path}: cannot be written: {error}") from error
        except (lmdb.Error, OSError) as error:
            raise StoreUnavailable(f"{self.path}: {error}") from error


_open: dict[tuple[int, Path], LmdbEnvironment] = {}  # LMDB's own rule: one per process and path
_opening = threading.Lock()


def acquire(path: Path, *, create: bool) -> LmdbEnvironment:
    """The environment at ``path``; every acquire needs one release."""
    with _opening:
        key = os.getpid(), path.resolve()
        environment = _open.get(key)
        if environment is None:
            _prepare_folder(path, create)
            environment = _open[key] = LmdbEnvironment(path.resolve(), create=create)
        environment.users += 1
        return environment


def release(environment: LmdbEnvironment) -> None:
    with _opening:
        environment.users -= 1
        if environment.users == 0:
            del _open[os.getpid(), environment.path]
            environment.close()


def _prepare_folder(path: Path, create: bool) -> None:
    if (path / "data.mdb").exists():
        return
    if not create:
        settled(str(path), None, None, create=False)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise StoreMismatch(f"{path}: holds other files; a new store needs an empty folder")
    except OSError as error:
        raise StoreRefused(f"{path}: cannot be made: {error}") from error

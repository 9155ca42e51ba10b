"""An output folder: files that are whole or absent."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batch.errors import OutputConflict
from feature_store.output_files import is_device

LOCK = "_lock"
PARTIAL = ".partial"


class Folder:
    """Files by name. A name that begins with ``_`` or ``.`` is no part, as for Spark and Hive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> set[str]:
        """Return the names of all whole files."""
        try:
            found = os.listdir(self.path)
        except FileNotFoundError:
            return set()
        return {name for name in found if not name.endswith(PARTIAL)}

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes; None if there is none."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Write a file so that it is whole on disk, or absent. OSError."""
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / f".{name}.{secrets.token_hex(4)}{PARTIAL}"
        try:
            with naming(self.path / name), partial.open("xb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(self.path / name)
        finally:
            partial.unlink(missing_ok=True)
        sync(self.path)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed processes have left half written."""
        for path in self.path.glob(f".*{PARTIAL}"):
            path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only run that writes here. OutputConflict. A folder that was made and is empty at
        the end is removed."""
        made = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputConflict(f"{self.path}: not a folder; give --output a folder") from error
        descriptor = self._locked()
        try:
            yield
        finally:
            (self.path / LOCK).unlink(missing_ok=True)
            os.close(descriptor)
            if made:
                with suppress(OSError):  # something was written
                    self.path.rmdir()

    def _locked(self) -> int:
        lock = self.path / LOCK
        while True:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink:
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise OutputConflict(
                    f"{self.path}: another run writes here; wait for it, or end it"
                ) from None
            os.close(descriptor)  # of a run that has just ended, and removed it


def put_file(path: Path, data: bytes) -> None:
    """Write a file that the user names so that it is whole, or absent; a link keeps pointing to it.
    Write to a device or a pipe as it is. OSError."""
    if is_device(path):
        with naming(path):
            path.write_bytes(data)
        return
    whole = path.resolve() if path.is_symlink() else path
    Folder(whole.parent).put(whole.name, data)


@contextmanager
def naming(what: Path | str) -> Iterator[None]:
    """Let errors of writing name a file: as it was asked for, and also where the disk is full."""
    try:
        yield
    except OSError as error:
        named = error.filename is not None and not str(error.filename).endswith(PARTIAL)
        if named or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(what)) from error


def sync(folder: Path) -> None:
    """Force a folder's names to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

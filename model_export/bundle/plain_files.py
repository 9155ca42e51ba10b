"""Opens untrusted files: only plain ones, without following links, bounded in size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_export.bundle.errors import BundleError

COPY_IT = "copy the bundle again, with plain files"


@contextmanager
def opened(file: Path, folder: int | None = None) -> Iterator[tuple[int, os.stat_result]]:
    """Yield descriptor and status of ``file``, relative to the open ``folder`` if given.

    Raises BundleError for a link, a named pipe or another special file and for one that cannot be
    opened; FileNotFoundError if there is none.
    """
    # Non-blocking: opening a named pipe would wait for its writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        name = file if folder is None else file.name
        descriptor = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = "a symbolic link" if os.path.islink(file) else error.strerror
        remedy = "let this user read it" if isinstance(error, PermissionError) else COPY_IT
        raise BundleError(f"{file}: cannot be opened: {reason}; {remedy}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BundleError(f"{file}: not a plain file; {COPY_IT}")
        yield descriptor, found
    finally:
        os.close(descriptor)


def read(file: Path, most_bytes: int) -> bytes:
    """Read ``file``. Raises as ``opened``, and BundleError beyond ``most_bytes``."""
    with opened(file) as (descriptor, found):
        return read_opened(file, descriptor, found.st_size, most_bytes)


def read_opened(file: Path, descriptor: int, size: int, most_bytes: int) -> bytes:
    """Read an open ``file``. Raises BundleError beyond ``most_bytes``."""
    if size > most_bytes:
        raise BundleError(f"{file}: {size:,} bytes, at most {most_bytes:,} are allowed")
    try:
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            content = stream.read(size + 1)
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error
    if len(content) != size:
        raise BundleError(f"{file}: changed while being read; {COPY_IT}")
    return content

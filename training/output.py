"""Names the file in errors of the system while it is written: a full disk above all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise errors of the system as OSError with ``path``, in place of a temporary name or none.

    pyarrow's have no file; those of torch and safetensors are of types of their own.
    """
    try:
        yield
    except Exception as error:
        if (number := _number(error)) is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is complete or as it was; a link stays one. Raises OSError, which
    names it."""
    target = path.resolve()
    partial = target.with_name(f"{target.name}.partial")
    with writing(path):
        try:
            partial.write_bytes(content)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def _number(error: Exception) -> int | None:
    """The system's number of an error, or of that from which it arose."""
    origin = error.__context__ if type(error) is RuntimeError else error  # torch
    if isinstance(origin, OSError):
        return origin.errno
    found = re.search(r"\(os error (\d+)\)", str(error))  # safetensors
    return int(found[1]) if found else None

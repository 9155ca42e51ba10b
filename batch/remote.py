"""Objects in a store such as S3, by URL, through pyarrow and the environment that it reads."""

from __future__ import annotations

from pathlib import PosixPath
from typing import Any

import pyarrow as pa
from pyarrow import fs

from batch.errors import BatchError

SEPARATOR = "://"
FROM_THE_ROOT = ("file", "hdfs", "viewfs")  # schemes whose paths begin with a slash


class UrlPath(PosixPath):
    """The address of an object, for messages: it names no file here."""

    def __str__(self) -> str:
        scheme = self.parts[0].removesuffix(":")
        slash = "/" if scheme in FROM_THE_ROOT else ""
        return super().__str__().replace(":/", SEPARATOR + slash, 1)


def is_remote(place: str) -> bool:
    """Whether a place is a URL."""
    return SEPARATOR in place


def filesystem_of(url: str) -> tuple[Any, str]:
    """Return a file system and the path in it. BatchError."""
    try:
        found, path = fs.FileSystem.from_uri(url)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise BatchError(f"{shown(url)}: {' '.join(str(error).split())}") from error
    path = path.rstrip("/")
    if "//" in path:
        raise BatchError(f"{shown(url)}: two slashes in a row; write one")
    return found, path


def address(url: str, path: str) -> UrlPath:
    """Return the address of a path in the file system of ``url``."""
    return UrlPath(url.partition(SEPARATOR)[0] + SEPARATOR + path)


def path_of(address: object) -> str:
    """Return the path of an address in its file system."""
    return str(address).partition(SEPARATOR)[2]


def shown(url: str) -> str:
    """Return the URL without what may hold a key."""
    scheme, _, rest = url.partition(SEPARATOR)
    return scheme + SEPARATOR + rest.partition("?")[0].rpartition("@")[2]

"""Opens parquet files in an object store, by the rules of files here."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

from pyarrow import fs

from batch.job import Stamp
from batch.remote import SEPARATOR, address, filesystem_of, path_of, shown
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.table import ParquetTable, is_hidden, partition_of

MOST_ALONE = 8


def remote_tables(url: str, buffer_bytes: int, objects: Sequence[Path]) -> list[ParquetTable]:
    """Open objects at or below ``url``. DataFileError."""
    files, path = filesystem_of(url)
    try:
        return [
            ParquetTable(
                each,
                partition_of(path_of(each).removeprefix(path).strip("/").split("/")[:-1]),
                buffer_bytes,
                files.open_input_file(path_of(each)),
            )
            for each in objects
        ]
    except OSError as error:
        raise _refused(url, error) from error


def objects_of(url: str) -> list[Path]:
    """List an object, or those below a prefix in the order of their names. DataFileError."""
    files, path = filesystem_of(url)
    try:
        (info,) = files.get_file_info([path])
        found = [path] if info.is_file else _parts(files, path)
    except OSError as error:
        raise _refused(url, error) from error
    if not found:
        raise DataFileError(f"{shown(url)}: no such object, and no parquet files below it")
    addresses: list[Path] = [address(url, each) for each in found]
    for each, key in zip(addresses, found, strict=True):
        if path_of(each) != key:
            raise DataFileError(
                f"{url.partition(SEPARATOR)[0]}{SEPARATOR}{key}: its key has an empty part or a "
                "dot between slashes, and cannot be read; rename the object"
            )
    return addresses


def stamps_of_objects(url: str, objects: Sequence[Path]) -> dict[Path, Stamp]:
    """Return what objects at or below ``url`` are now. A listing has a thousand at a time, where
    each alone is a request. OSError."""
    files, path = filesystem_of(url)
    wanted: Any = [path_of(each) for each in objects]
    if len(wanted) > MOST_ALONE:
        wanted = fs.FileSelector(path, recursive=True, allow_not_found=True)
    found = {
        info.path: (info.size, info.mtime_ns)
        for info in files.get_file_info(wanted)
        if info.is_file
    }
    return {each: found.get(path_of(each)) for each in objects}


def _refused(url: str, error: OSError) -> DataFileError:
    return DataFileError(f"{shown(url)}: {' '.join(str(error).split())}")


def opened_remotely(files: Any, path: str) -> IO[bytes]:
    """Open an object to be read by lines."""
    return cast(IO[bytes], io.BufferedReader(files.open_input_file(path)))


def _parts(files: fs.FileSystem, path: str) -> list[str]:
    selected = fs.FileSelector(path, recursive=True, allow_not_found=True)
    within = sorted(
        info.path
        for info in files.get_file_info(selected)
        if info.is_file
        and not any(map(is_hidden, info.path.removeprefix(path).strip("/").split("/")))
    )
    named = [each for each in within if each.endswith((".parquet", ".parq"))]
    return named or within

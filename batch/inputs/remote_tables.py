"""Opens parquet files in an object store, by the rules of files here."""

from __future__ import annotations

import io
from typing import IO, Any, cast

from pyarrow import fs

from batch.remote import address, filesystem_of, shown
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.table import ParquetTable, is_hidden, partition_of


def remote_tables(url: str, buffer_bytes: int) -> list[ParquetTable]:
    """Open an object, or those below a prefix in the order of their names. DataFileError."""
    files, path = filesystem_of(url)
    try:
        (info,) = files.get_file_info([path])
        found = [path]
        if not info.is_file:
            found = _parts(files, path)
        if not found:
            raise DataFileError(f"{shown(url)}: no such object, and no parquet files below it")
        return [
            ParquetTable(
                address(url, each),
                partition_of(each.removeprefix(path).strip("/").split("/")[:-1]),
                buffer_bytes,
                files.open_input_file(each),
            )
            for each in found
        ]
    except OSError as error:
        raise DataFileError(f"{shown(url)}: {' '.join(str(error).split())}") from error


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

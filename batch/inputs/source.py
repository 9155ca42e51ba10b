"""Opens an input, and reads ranges of its rows in ascending order without starting over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow as pa

from batch.inputs.remote_tables import remote_tables
from batch.remote import filesystem_of, is_remote, path_of
from feature_store.parquet.parts import ParquetParts

BUFFER_BYTES = 1 << 20  # of each column: row groups may be larger than memory
READ_BYTES = 1 << 22
ELEMENTS = 65_536  # read at a time, about

Batch = tuple[int, Path, dict[str, pa.Array]]  # number of the first row, file, columns


def open_input(path: str) -> ParquetParts:
    """Open a parquet file or a folder of them, here or by URL. DataFileError."""
    if is_remote(path):
        return ParquetParts(remote_tables(path, BUFFER_BYTES))
    return ParquetParts.read(Path(path), BUFFER_BYTES)


def digest_of(parts: ParquetParts, root: str) -> str:
    """Digest names, in their order, and contents of all files."""
    whole, within = sha256(), root
    open_: Callable[[Path], IO[bytes]] = _open_here
    if is_remote(root):
        files, within = filesystem_of(root)
        open_ = partial(_open_there, files)
    for table in parts.tables:
        name = str(table.path) if open_ is _open_here else path_of(table.path)
        within_root = name.removeprefix(within).strip("/") or table.path.name
        whole.update(orjson.dumps([within_root, _file_digest(open_(table.path))]))
    return whole.hexdigest()


def _open_here(path: Path) -> IO[bytes]:
    return path.open("rb")


def _open_there(files: Any, path: Path) -> IO[bytes]:
    stream: IO[bytes] = files.open_input_stream(path_of(path))
    return stream


def _file_digest(opened: IO[bytes]) -> str:
    digest = sha256()
    with opened as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


class ForwardReader:
    """Reads ranges of rows. A range that begins before the end of the last one is read from the
    start of its row group: a file of one row group should be read in order."""

    def __init__(self, parts: ParquetParts, columns: Sequence[str], batch_rows: int) -> None:
        self._parts, self._columns, self._rows = parts, columns, batch_rows
        self._batches: Iterator[Batch] = iter(())
        self._left: Batch | None = None
        self._at = parts.rows  # the next row that ``_batches`` would give

    def read(self, start: int, end: int) -> Iterator[Batch]:
        """Yield the rows [start, end) in batches, each of one file. DataFileError."""
        if start < self._at or start > self._at + 64 * self._rows:
            self._batches = self._parts.batches(self._columns, self._rows, start)
            self._left, self._at = None, start
        while start < end:
            batch = self._left or next(self._batches)
            first, path, arrays = batch
            count = len(arrays[self._columns[0]])
            low, high = max(0, start - first), min(count, end - first)
            self._left = None
            if high < count:
                self._left = (first + high, path, _part(arrays, high, count))
            self._at = first + high
            if low < high:
                yield first + low, path, _part(arrays, low, high)
                start = first + high


def _part(arrays: dict[str, pa.Array], low: int, high: int) -> dict[str, pa.Array]:
    return {name: array.slice(low, high - low) for name, array in arrays.items()}

"""Opens an input, and reads ranges of its rows in ascending order without starting over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa

from batch.inputs.remote_tables import objects_of, opened_remotely, remote_tables
from batch.inputs.request_log import LogTable, is_log
from batch.job import Columns
from batch.remote import address, filesystem_of, is_remote, path_of
from feature_store.parquet.arrays import flattened, is_list
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.parts import ParquetParts
from feature_store.wording import worded

BUFFER_BYTES = 1 << 20  # of each column: row groups may be larger than memory
READ_BYTES = 1 << 22
ELEMENTS = 65_536  # read at a time, about
LISTS = 64  # read at a time at most, and then ``cut``: lists may be long
WIDE_ROWS = 1024  # read at a time of columns that may be wide

Batch = tuple[int, Path, dict[str, pa.Array]]  # number of the first row, file, columns


def open_input(path: str, files: Iterable[Path] | None = None) -> ParquetParts:
    """Open a parquet file, a folder of them or a log of requests, here or by URL. DataFileError.

    ``files``: those of a folder or below a prefix; by default all that are there now.
    """
    if is_log(path):
        return ParquetParts([_open_log(path)])
    if is_remote(path):
        objects = objects_of(path) if files is None else list(files)
        return ParquetParts(remote_tables(path, BUFFER_BYTES, objects))
    return ParquetParts.read(Path(path), BUFFER_BYTES, None if files is None else list(files))


def _open_log(path: str) -> LogTable:
    try:
        if is_remote(path):
            files, within = filesystem_of(path)
            return LogTable(address(path, within), partial(opened_remotely, files, within))
        return LogTable(Path(path), partial(_open_here, Path(path)))
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read: {worded(error)}") from error


def rows_at_once(parts: ParquetParts, columns: Columns) -> int:
    """Return how many rows to read at a time, so that lists and wide values fit in memory."""
    if columns.layout == "lists":
        longest = max((table.values_of_a_row(columns.item) for table in parts.tables), default=0)
        return max(1, min(LISTS, int(ELEMENTS / max(1, longest))))
    return WIDE_ROWS if wide_columns(parts, columns.kept) else ELEMENTS


def wide_columns(parts: ParquetParts, names: Sequence[str]) -> list[str]:
    """Return the columns whose values may be of any size."""
    return [name for name in names if not _is_narrow(parts.tables[0].kind(name))]


def _is_narrow(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_primitive(kind) or types.is_null(kind) or types.is_decimal(kind))


def cut(batch: Batch, item: str) -> Iterator[Batch]:
    """Cut a batch of lists into ones of at most ``ELEMENTS`` elements, or of one list."""
    first, path, arrays = batch
    if not is_list(arrays[item].type):
        yield batch
        return
    ends = np.cumsum(flattened(arrays[item])[1])
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + ELEMENTS, side="right")))
        yield first + start, path, _part(arrays, start, end)
        start = end


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

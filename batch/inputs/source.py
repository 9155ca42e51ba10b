"""Opens an input, and reads ranges of its rows in ascending order without starting over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import orjson
import pyarrow as pa

from feature_store.parquet.parts import ParquetParts

BUFFER_BYTES = 1 << 20  # of each column: row groups may be larger than memory
READ_BYTES = 1 << 22
ELEMENTS = 65_536  # read at a time, about

Batch = tuple[int, Path, dict[str, pa.Array]]  # number of the first row, file, columns


def open_input(path: str) -> ParquetParts:
    """Open a parquet file or a folder of them. DataFileError."""
    return ParquetParts.read(Path(path), BUFFER_BYTES)


def digest_of(parts: ParquetParts, root: str) -> str:
    """Digest names, in their order, and contents of all files."""
    whole = sha256()
    for table in parts.tables:
        within = table.path.relative_to(root) if table.path != Path(root) else table.path.name
        whole.update(orjson.dumps([str(within), file_digest(table.path)]))
    return whole.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    digest = sha256()
    with path.open("rb") as file:
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

"""Opens parquet files, and folders of them, as other programs write them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contract import MAX_ID
from feature_store.lfs_pointer import LFS_BYTES, lfs_fault
from feature_store.parquet.arrays import is_list, plain
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.open_files import make_room
from feature_store.wording import worded

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
DIGITS = len(str(MAX_ID))
UNREADABLE = (OSError, ValueError, pa.ArrowException)  # ValueError: a name that is not UTF-8


class ParquetTable:
    """One parquet file, read column by column.

    ``partition``: columns that the names of its folders have (``dt=2026-11-01``), unless the file
    has them itself.
    """

    def __init__(
        self,
        path: Path,
        partition: Mapping[str, str | None] | None = None,
        buffer_bytes: int = 0,
        source: pa.NativeFile | None = None,
    ) -> None:
        """``buffer_bytes``: read a column so many bytes at a time instead of a row group at a time,
        for files whose row groups are larger than memory. ``source``: the file, opened elsewhere
        than at ``path``, which names it."""
        self.path = path
        if path.exists() and not path.is_file():
            raise DataFileError(f"{path}: not a plain file; copy it to one")
        try:
            self._file = pq.ParquetFile(source or path, buffer_size=buffer_bytes)
            names = tuple(self._file.schema_arrow.names)
        except UNREADABLE as error:
            raise DataFileError(f"{path}: {_why_unreadable(path, error)}") from error
        partition = partition or {}
        self._partition = {name: partition[name] for name in partition if name not in names}
        self.columns = (*names, *self._partition)
        self.rows: int = self._file.metadata.num_rows

    def require(self, column: str) -> None:
        if column not in self.columns:
            raise DataFileError(
                f"{self.path}: has no column {column!r} (it has: {', '.join(self.columns)})"
            )
        if self.columns.count(column) > 1:
            raise DataFileError(
                f"{self.path}: column {column}: the file has it {self.columns.count(column)} "
                "times; write it once"
            )

    @property
    def schema(self) -> pa.Schema:
        """The file's own columns, without those of its folders' names."""
        return self._file.schema_arrow

    def kind(self, column: str) -> pa.DataType:
        """Return the type of a column as ``batches`` yields it."""
        if column in self._partition:
            return self._constants([column], 0)[column].type
        return plain(pa.nulls(0, self.schema.field(column).type)).type

    def values_of_a_row(self, column: str) -> float:
        """Return the mean of a column's values (of lists, elements) in a row of the row group that
        has most. Does not read the column."""
        metadata, found = self._file.metadata, 1.0
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for leaf in map(group.column, range(group.num_columns)):
                if f"{leaf.path_in_schema}.".startswith(f"{column}.") and group.num_rows:
                    found = max(found, leaf.num_values / group.num_rows)
        return found

    def batches(
        self, columns: Sequence[str], batch_size: int, start: int = 0, *, unwrap: bool = True
    ) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        """(number of the first row, columns) from row ``start`` on; skips whole row groups.

        ``unwrap``: ``plain`` arrays; otherwise of the file's types.
        """
        for name in columns:
            self.require(name)
        groups, first, row = [], 0, 0
        for group in range(self._file.metadata.num_row_groups):
            row += self._file.metadata.row_group(group).num_rows
            if row > start:
                groups.append(group)
            else:
                first = row
        row = first
        own = [name for name in columns if name not in self._partition]
        # Arrow reads lists of dictionaries (polars' categories) from one row group at a time.
        runs = [[group] for group in groups] if self._has_lists_of_dictionaries(own) else [groups]
        try:
            for batch in chain.from_iterable(
                self._file.iter_batches(batch_size, row_groups=run, columns=own) for run in runs
            ):
                skip = max(0, start - row)
                if skip < batch.num_rows:
                    part = batch.slice(skip)
                    arrays = {name: part.column(name) for name in own}
                    if unwrap:
                        arrays = {name: plain(array) for name, array in arrays.items()}
                    arrays |= self._constants(columns, part.num_rows)
                    yield row + skip, arrays
                row += batch.num_rows
        except UNREADABLE as error:
            if isinstance(error, DataFileError):
                raise
            why = " ".join(str(error).split())
            raise DataFileError(
                f"{self.path}: column {self._damaged(own)}: cannot be read after row {row}: {why}"
            ) from error

    def _has_lists_of_dictionaries(self, columns: Sequence[str]) -> bool:
        kinds = [self.schema.field(name).type for name in columns]
        return any(is_list(kind) and pa.types.is_dictionary(kind.value_type) for kind in kinds)

    def _damaged(self, columns: Sequence[str]) -> str:
        """Name the first column that cannot be read."""
        for name in columns:
            try:
                for _ in self._file.iter_batches(columns=[name]):
                    pass
            except UNREADABLE:
                return name
        return ", ".join(columns)

    def _constants(self, columns: Sequence[str], rows: int) -> dict[str, pa.Array]:
        """Columns of the folders' names: integers where all digits, else text."""
        arrays = {}
        for name in columns:
            if name in self._partition:
                value = self._partition[name]
                digits = value is not None and value.isascii() and value.isdigit()
                number = digits and len(value or "") <= DIGITS and int(value or 0) <= MAX_ID
                scalar = pa.scalar(int(value or 0) if number else value)
                arrays[name] = pa.repeat(scalar, rows)
        return arrays


def tables_of(
    path: Path,
    alike: frozenset[str] = frozenset(),
    buffer_bytes: int = 0,
    files: Sequence[Path] | None = None,
) -> list[ParquetTable]:
    """Open a parquet file, or the parts in a folder in the order of their names; ``files``: these
    parts.

    Parts are ``*.parquet`` or ``*.parq`` at any depth; names that begin with ``.`` or ``_`` are
    other files, as for Spark and Hive (``_SUCCESS``, checksums). Without such names every other
    file is a part. Raises DataFileError unless all parts have the same of the columns ``alike``.
    """
    if not path.is_dir():
        return [ParquetTable(path, buffer_bytes=buffer_bytes)]
    files = files_of(path) if files is None else files
    if not files:
        raise DataFileError(f"{path}: the folder has no parquet files")
    make_room(path, len(files))
    tables = [
        ParquetTable(file, partition_of(file.relative_to(path).parts[:-1]), buffer_bytes)
        for file in files
    ]
    first = tables[0]
    for table in tables[1:]:
        differing = sorted(alike & (set(table.columns) ^ set(first.columns)))
        if differing:
            raise DataFileError(
                f"{table.path}: column {', '.join(differing)}: only in this file or only in "
                f"{first.path}; the parts of a folder need the same columns"
            )
    return tables


def files_of(path: Path) -> list[Path]:
    """List the files of a source: the file itself, or the parts in a folder."""
    if not path.is_dir():
        return [path]
    files = []

    def unreadable(error: OSError) -> None:
        raise DataFileError(f"{error.filename}: the folder cannot be read: {worded(error)}")

    for folder, folders, names in os.walk(path, onerror=unreadable):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found = (Path(folder, name) for name in names if not is_hidden(name))
        files += [file for file in found if not file.is_dir()]
    files.sort()
    named = [file for file in files if file.suffix in (".parquet", ".parq")]
    return named or files


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name holds no rows, as for Spark and Hive."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def partition_of(folders: Sequence[str]) -> dict[str, str | None]:
    """Read the columns in the names of folders."""
    found: dict[str, str | None] = {}
    for folder in folders:
        name, equals, value = folder.partition("=")
        if equals and name:
            found[unquote(name)] = None if value == NULL_PARTITION else unquote(value)
    return found


def _why_unreadable(path: Path, error: Exception) -> str:
    words = " ".join(str(error).split())
    if isinstance(error, UnicodeEncodeError):
        words = "its name is not UTF-8; rename it"
    elif isinstance(error, FileNotFoundError):
        words = "no such file or folder"
    elif isinstance(error, PermissionError):
        words = "permission denied; make it readable for this user"
    elif isinstance(error, OSError) and error.errno:
        words = os.strerror(error.errno)
    elif path.is_file():
        with path.open("rb") as file:
            head = file.read(LFS_BYTES)
        words = lfs_fault(head) or words if head else "it is empty"
    return f"not a readable parquet file: {words}"

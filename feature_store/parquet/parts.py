"""Reads several parquet files with the same columns as one table: the parts of an export."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from feature_store.parquet.columns import RejectedRow
from feature_store.parquet.table import ParquetTable, tables_of


class Table(Protocol):
    """A file of rows, read column by column: see ``ParquetTable``."""

    @property
    def path(self) -> Path: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def rows(self) -> int: ...
    def require(self, column: str) -> None: ...
    def kind(self, column: str) -> pa.DataType: ...
    def values_of_a_row(self, column: str) -> float: ...
    def batches(
        self, columns: Sequence[str], batch_size: int, start: int = 0
    ) -> Iterator[tuple[int, dict[str, pa.Array]]]: ...


class ParquetParts:
    """Rows are numbered across the files; ``place`` maps a number to its file and row."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        self._starts = [0, *accumulate(table.rows for table in tables)]
        self.rows = self._starts[-1]

    @classmethod
    def read(
        cls, path: Path, buffer_bytes: int = 0, files: Sequence[Path] | None = None
    ) -> ParquetParts:
        """Open a file or a folder of parts, of these ``files`` alone; ``buffer_bytes``: see
        ``ParquetTable``."""
        return cls(tables_of(path, buffer_bytes=buffer_bytes, files=files))

    @property
    def columns(self) -> tuple[str, ...]:
        """The first file's."""
        return self._tables[0].columns

    def require(self, column: str) -> None:
        for table in self._tables:
            table.require(column)

    @property
    def tables(self) -> Sequence[Table]:
        return self._tables

    @property
    def path(self) -> Path:
        """The first file's."""
        return self._tables[0].path

    def __str__(self) -> str:
        others = len(self._tables) - 1
        return f"{self.path} and {others} more" if others else str(self.path)

    def batches(
        self, columns: Sequence[str], batch_size: int, start: int = 0
    ) -> Iterator[tuple[int, Path, dict[str, pa.Array]]]:
        """Yield (number of the first row, file, columns) from row ``start`` on, per file."""
        for table, first in zip(self._tables, self._starts, strict=False):
            if first + table.rows > start:
                for row, arrays in table.batches(columns, batch_size, max(0, start - first)):
                    yield first + row, table.path, arrays

    def place(self, row: int) -> tuple[Path, int]:
        """Return the file and the row in it."""
        at = bisect_right(self._starts, row) - 1
        return self._tables[at].path, row - self._starts[at]

    def rejected(self, row: int, column: str, reason: str) -> RejectedRow:
        path, in_file = self.place(row)
        return RejectedRow(str(path), in_file, column, reason)


def grouped(
    tables: Sequence[ParquetTable], names: frozenset[str]
) -> list[tuple[frozenset[str], ParquetParts]]:
    """Group tables that have the same of the columns ``names``, in order of first occurrence."""
    groups: dict[frozenset[str], list[ParquetTable]] = {}
    for table in tables:
        groups.setdefault(names & frozenset(table.columns), []).append(table)
    return [(columns, ParquetParts(parts)) for columns, parts in groups.items()]

"""Reads parquet columns as numpy arrays and reports faults per row.

A fault of a whole file (missing, not parquet, a column absent or of another type) is a
``DataFileError``; a fault of one row is a reason in ``Column.faults``, for the caller to handle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray


class DataFileError(ValueError):
    """An unusable data file; the message names the file, the column and the row."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One rejected row. Rows are counted from 0."""

    file: str
    row: int
    column: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: row {self.row}, column {self.column}: {self.reason}"


@dataclass(slots=True)
class Column:
    """Values in the order of the file. The value of a row with a fault is undefined."""

    values: NDArray[np.generic]
    faults: dict[int, str] = field(default_factory=dict)  # row of the batch -> first reason

    def reject(self, where: NDArray[np.bool_], reason: str) -> None:
        for row in np.flatnonzero(where).tolist():
            self.faults.setdefault(row, reason)


class ParquetTable:
    """One parquet file, read column by column."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise DataFileError(f"{path}: not a plain file; copy it to one")
        try:
            self._file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise DataFileError(f"{path}: not a readable parquet file: {error}") from error
        self.columns = tuple(self._file.schema_arrow.names)
        self.rows: int = self._file.metadata.num_rows

    def require(self, column: str) -> None:
        if column not in self.columns:
            raise DataFileError(
                f"{self.path}: has no column {column!r} (it has: {', '.join(self.columns)})"
            )

    def batches(
        self, columns: Sequence[str], batch_size: int, start: int = 0
    ) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        """(number of the first row, columns) from row ``start`` on; skips whole row groups."""
        groups, first, row = [], 0, 0
        for group in range(self._file.metadata.num_row_groups):
            row += self._file.metadata.row_group(group).num_rows
            if row > start:
                groups.append(group)
            else:
                first = row
        row = first
        try:
            for batch in self._file.iter_batches(batch_size, row_groups=groups, columns=columns):
                skip = max(0, start - row)
                if skip < batch.num_rows:
                    part = batch.slice(skip)
                    yield row + skip, {name: part.column(name) for name in columns}
                row += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise DataFileError(f"{self.path}: damaged after row {row}: {error}") from error


def integers(array: pa.Array, source: str, *, below: int, limit: str) -> Column:
    """(N,) int64 in 0 … ``below`` − 1; ``limit`` describes the bound in messages."""
    if not pa.types.is_integer(array.type):
        raise DataFileError(f"{source}: holds {array.type}, not integers")
    missing = array.is_null().to_numpy(zero_copy_only=False)
    column = Column(_numbers(array))
    column.reject(missing, "null")
    _reject_range(column, column.values, np.arange(len(array)), below, limit)
    column.values = column.values.astype(np.int64)
    return column


def list_elements(
    array: pa.Array, source: str, *, below: int, limit: str
) -> tuple[NDArray[np.int64], NDArray[np.intp], dict[int, str]]:
    """All elements of all lists (E,), the row of each (E,), and the faults by row."""
    column = Column(np.zeros(0, np.int64))
    flat, rows, _ = _integer_elements(array, source, column, below, limit)
    return flat.astype(np.int64), rows, column.faults


def integer_lists(array: pa.Array, source: str, *, slots: int, below: int, limit: str) -> Column:
    """(N, slots) int64, shorter lists 0-padded on the left."""
    column = Column(np.zeros((len(array), slots), np.int64))
    flat, rows, lengths = _integer_elements(array, source, column, below, limit)
    column.reject(lengths > slots, f"more than {slots} values")
    if (lengths == slots).all():
        column.values = flat.astype(np.int64).reshape(-1, slots)
    else:
        ends = np.cumsum(lengths)[rows]
        slot = slots - (ends - np.arange(len(flat)))
        fits = slot >= 0
        column.values[rows[fits], slot[fits]] = flat[fits]
    return column


def dense(
    array: pa.Array,
    source: str,
    *,
    size: int,
    dtype: np.dtype[np.generic],
    within: tuple[float, str] | None = None,
) -> Column:
    """(N, size) finite floats of ``dtype``; a plain number is a vector of size 1.

    ``within``: the largest magnitude and its origin; by default the range of ``dtype``.
    """
    if size == 1 and _is_number(array.type):
        array = pa.FixedSizeListArray.from_arrays(array, 1)
    if not (_is_list(array.type) and _is_number(array.type.value_type)):
        raise DataFileError(f"{source}: holds {array.type}, not lists of numbers")
    column = Column(np.zeros((len(array), size), dtype))
    flat, rows, lengths = _flattened(array, column)
    for row in np.flatnonzero(lengths != size).tolist():
        column.faults.setdefault(row, f"{lengths[row]} values instead of {size}")
    whole = (lengths == size)[rows]
    vectors = flat[whole].reshape(-1, size)
    kept = np.flatnonzero(lengths == size)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = vectors.astype(dtype)
    most, limit = within or (float(np.finfo(rounded.dtype).max), f"the range of {dtype}")
    good = np.isfinite(rounded)
    if most < np.finfo(rounded.dtype).max:
        good &= (-most <= vectors) & (vectors <= most)
    wrong = ~good
    for at in np.flatnonzero(wrong.any(axis=1)).tolist():
        element = int(wrong[at].argmax())
        reason = _not_storable(vectors[at, element], limit)
        if size > 1:
            reason = f"element {element}: {reason}"
        column.faults.setdefault(int(kept[at]), reason)
    column.values[kept] = rounded
    return column


def _not_storable(value: np.generic, limit: str) -> str:
    if np.isnan(value):
        return "NaN"
    return "infinite" if np.isinf(value) else f"{value:g} is beyond {limit}"


def _integer_elements(
    array: pa.Array, source: str, column: Column, below: int, limit: str
) -> tuple[NDArray[np.generic], NDArray[np.intp], NDArray[np.int64]]:
    if not (_is_list(array.type) and pa.types.is_integer(array.type.value_type)):
        raise DataFileError(f"{source}: holds {array.type}, not lists of integers")
    flat, rows, lengths = _flattened(array, column)
    _reject_range(column, flat, rows, below, limit)
    return flat, rows, lengths


def _flattened(
    array: pa.Array, column: Column
) -> tuple[NDArray[np.generic], NDArray[np.intp], NDArray[np.int64]]:
    """All elements (E,), the row each belongs to (E,), and the rows' lengths (N,)."""
    missing = array.is_null().to_numpy(zero_copy_only=False)
    column.reject(missing, "null")
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(array)), lengths)
    elements = array.flatten()
    if elements.null_count:
        column.reject(_rows_mask(rows[elements.is_null().to_numpy(False)], len(array)), "null")
    return _numbers(elements), rows, lengths.astype(np.int64)


def _reject_range(
    column: Column, flat: NDArray[np.generic], rows: NDArray[np.intp], below: int, limit: str
) -> None:
    for at in np.flatnonzero(flat < 0).tolist():  # type: ignore[operator]
        column.faults.setdefault(int(rows[at]), f"{flat[at]} is negative")
    if below > np.iinfo(flat.dtype).max:  # type: ignore[type-var]
        return
    for at in np.flatnonzero(flat >= below).tolist():  # type: ignore[operator]
        column.faults.setdefault(int(rows[at]), f"{flat[at]} is {limit}")


def _rows_mask(rows: NDArray[np.intp], count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def _numbers(array: pa.Array) -> NDArray[np.generic]:
    filled = array.fill_null(0) if array.null_count else array
    values: NDArray[np.generic] = filled.to_numpy(zero_copy_only=False)
    return values


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))

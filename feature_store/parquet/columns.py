"""Reads parquet columns as numpy arrays and reports faults per row.

A fault of a whole file (missing, not parquet, a column absent or of another type) is a
``DataFileError``; a fault of one row is a reason in ``Column.faults``, for the caller to handle.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.parquet.arrays import flattened, is_list, is_number, numbers, whole_numbers


class DataFileError(ValueError):
    """An unusable data file; the message names the file, the column and the row."""


INDICES = (
    "; give its values the indices 1, 2, … (0 is missing), and keep the table for clients that "
    "send the feature"
)


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

    def reject_null_elements(self, elements: pa.Array, rows: NDArray[np.intp]) -> None:
        """Reject rows (E,) of lists' elements that are null."""
        if elements.null_count:
            for row in np.unique(rows[elements.is_null().to_numpy(False)]).tolist():
                self.faults.setdefault(row, "null")


def integers(array: pa.Array, source: str, *, below: int, limit: str, remedy: str = "") -> Column:
    """(N,) int64 in 0 … ``below`` − 1; ``limit`` describes the bound in messages, ``remedy`` what
    to do about values of another type."""
    read = whole_numbers(array)
    if read is None:
        raise DataFileError(f"{source}: holds {array.type}, not integers{remedy}")
    column = Column(*read)
    column.reject(array.is_null().to_numpy(zero_copy_only=False), "null")
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


def integer_lists(
    array: pa.Array, source: str, *, slots: int, below: int, limit: str, remedy: str = ""
) -> Column:
    """(N, slots) int64, shorter lists 0-padded on the left."""
    column = Column(np.zeros((len(array), slots), np.int64))
    flat, rows, lengths = _integer_elements(array, source, column, below, limit, remedy)
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
    if size == 1 and is_number(array.type):
        array = pa.FixedSizeListArray.from_arrays(array, 1)
    column = Column(np.zeros((len(array), size), dtype))
    elements, rows, lengths = lists(array, column)
    if elements is None or not is_number(elements.type):
        raise DataFileError(f"{source}: holds {array.type}, not lists of numbers")
    column.reject_null_elements(elements, rows)
    flat = numbers(elements)
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
    array: pa.Array, source: str, column: Column, below: int, limit: str, remedy: str = ""
) -> tuple[NDArray[np.generic], NDArray[np.intp], NDArray[np.int64]]:
    elements, rows, lengths = lists(array, column)
    read = None if elements is None else whole_numbers(elements)
    if read is None:
        raise DataFileError(f"{source}: holds {array.type}, not lists of integers{remedy}")
    column.reject_null_elements(elements, rows)
    flat, faults = read
    for at, reason in faults.items():
        column.faults.setdefault(int(rows[at]), reason)
    _reject_range(column, flat, rows, below, limit)
    return flat, rows, lengths


def lists(
    array: pa.Array, column: Column
) -> tuple[pa.Array | None, NDArray[np.intp], NDArray[np.int64]]:
    """All elements (E,), the row each belongs to (E,), and the rows' lengths (N,).

    None for the elements: the column holds no lists. One without any value has the type null.
    """
    if pa.types.is_null(array.type):
        array = array.cast(pa.list_(pa.null()))
    if not is_list(array.type):
        return None, np.zeros(0, np.intp), np.zeros(0, np.int64)
    missing = array.is_null().to_numpy(zero_copy_only=False)
    column.reject(missing, "null")
    elements, lengths = flattened(array)
    rows = np.repeat(np.arange(len(array)), lengths)
    return elements, rows, lengths


def _reject_range(
    column: Column, flat: NDArray[np.generic], rows: NDArray[np.intp], below: int, limit: str
) -> None:
    for at in np.flatnonzero(flat < 0).tolist():  # type: ignore[operator]
        column.faults.setdefault(int(rows[at]), f"{flat[at]} is negative")
    if below > np.iinfo(flat.dtype).max:  # type: ignore[type-var]
        return
    for at in np.flatnonzero(flat >= below).tolist():  # type: ignore[operator]
        column.faults.setdefault(int(rows[at]), f"{flat[at]} is {limit}")

"""Finds out what the columns of an input mean, and reads their rows as requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.errors import BatchError
from batch.inputs.request_log import HISTORY, LogTable
from batch.inputs.requests import FeatureValues, Requests
from batch.job import Columns
from feature_store.contract import MAX_ID, Ids
from feature_store.parquet.arrays import is_list, is_number, numbers, whole_numbers
from feature_store.parquet.columns import DataFileError, integers, list_elements
from feature_store.parquet.id_columns import LIMIT, IdReader
from feature_store.parquet.parts import ParquetParts
from feature_store.schema import FeatureSchema, Numeric
from feature_store.text_ids import TextIds
from model_export.bundle.vectors import Indices

LISTS, ROWS = "item_ids", "item_id"
WRITTEN = ("score", "scores", "model_version", "item_status", "user_status", "rank")
LARGEST = float(np.finfo(np.float32).max)
Note = Callable[[Mapping[int, str]], None]  # row -> reason, of one column


@dataclass(frozen=True, slots=True)
class Naming:
    """Names that the command gives; None: the usual ones."""

    user: str = "user_id"
    item: str | None = None
    time: str | None = None
    kept: Sequence[str] = ()


def columns_of(parts: ParquetParts, schema: FeatureSchema, naming: Naming) -> Columns:
    """Name the columns of an input. DataFileError if one is missing.

    Columns called as the model's context and request features are those of the requests.
    """
    names = set().union(*(table.columns for table in parts.tables))
    item = next((name for name in (LISTS, ROWS) if name in names), ROWS)
    if naming.item is not None:
        item = naming.item
    if item == naming.user:
        raise BatchError(f"column {item}: given for both users and items; name two")
    time = () if naming.time is None else (naming.time,)
    for name in (naming.user, item, *time, *naming.kept):
        parts.require(name)
    taken = sorted({naming.user, item, *naming.kept} & set(WRITTEN))
    if taken:
        raise BatchError(f"column {taken[0]}: the output has one of that name; rename the input's")
    context = tuple(f.name for f in schema.context if f.name in names)
    request = tuple(f.name for f in schema.request if f.name in names)
    for name in (*context, *request):
        parts.require(name)
    for name in (naming.user, item, *naming.kept):
        _require_one_kind(parts, name)
    table = parts.tables[0]
    return Columns(
        "lists" if is_list(table.kind(item)) else "rows",
        naming.user,
        item,
        HISTORY if isinstance(table, LogTable) and table.has_history else None,
        context,
        request,
        naming.time,
        tuple(naming.kept),
    )


def _require_one_kind(parts: ParquetParts, column: str) -> None:
    """DataFileError unless a column that is passed through has one type in all files."""
    first, *others = parts.tables
    for table in others:
        if table.kind(column) != first.kind(column):
            raise DataFileError(
                f"{table.path}: column {column}: holds {table.kind(column)}, and in {first.path} "
                f"{first.kind(column)}; write one type"
            )


class RequestReader:
    """Reads consecutive rows of the input as requests; a request of a row is of one candidate."""

    def __init__(
        self,
        columns: Columns,
        schema: FeatureSchema,
        text_ids: TextIds | None = None,
    ) -> None:
        self._columns, self._schema, self._ids = columns, schema, IdReader(text_ids)
        self._vocabulary = {f.name: f.vocabulary for f in schema.context}
        self._request = {f.name: f for f in schema.request}

    def read(
        self, file: Path, arrays: Mapping[str, pa.Array], left_out: Mapping[int, str] | None = None
    ) -> Requests:
        """Read a batch of rows. A row with a fault is in ``faults``, its values are undefined.

        ``left_out``: rows without their list, and why. DataFileError if a column is of another
        type.
        """
        columns = self._columns
        faults = {row: (columns.item, reason) for row, reason in (left_out or {}).items()}

        def source(name: str) -> str:
            return f"{file}: column {name}"

        def note(name: str, found: Mapping[int, str]) -> None:
            for row, reason in found.items():
                faults.setdefault(row, (name, reason))

        users = self._ids.column(arrays[columns.user], source(columns.user))
        note(columns.user, users.faults)
        items = arrays[columns.item]
        if columns.layout == "rows":
            read = self._ids.column(items, source(columns.item))
            lengths = np.ones(len(items), np.int64)
            note(columns.item, read.faults)
        else:
            read = self._ids.lists(items, source(columns.item))
            lengths = np.bincount(read.row, minlength=len(items))
            note(columns.item, read.faults)
            empty = np.flatnonzero(lengths == 0).tolist()
            note(columns.item, dict.fromkeys(empty, "an empty list"))
        context = {
            name: self._context(arrays[name], source(name), lengths, partial(note, name), name)
            for name in columns.context
        }
        features = {
            name: self._feature(arrays[name], source(name), partial(note, name), name)
            for name in columns.features
        }
        times = None
        if columns.time is not None:
            times = read_times(
                arrays[columns.time], source(columns.time), partial(note, columns.time)
            )
        histories = None
        if columns.history is not None:
            name = columns.history
            histories = self._histories(arrays[name], source(name), partial(note, name))
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return Requests(
            users.values, starts, read.values, context, features, times, histories, faults
        )

    def _histories(self, array: pa.Array, source: str, note: Note) -> list[Ids | None]:
        """Read lists of items, oldest first; null: the stored history."""
        missing = array.is_null().to_numpy(zero_copy_only=False)
        read = self._ids.lists(array, source)
        note({row: reason for row, reason in read.faults.items() if not missing[row]})
        ends = np.cumsum(np.bincount(read.row, minlength=len(array)))
        parts = np.split(read.values, ends[:-1]) if len(ends) else []
        return [
            None if none else part[::-1].copy() for part, none in zip(parts, missing, strict=True)
        ]

    def _context(
        self, array: pa.Array, source: str, lengths: Ids, note: Note, name: str
    ) -> Indices:
        """Read one value per candidate (E,)."""
        below = self._vocabulary[name]
        limit = f"above {below - 1}"
        if self._columns.layout == "rows":
            column = integers(array, source, below=below, limit=limit)
            note(column.faults)
            return _clipped(column.values, below)
        values, row, faults = list_elements(array, source, below=below, limit=limit)
        note(faults)
        counts = np.bincount(row, minlength=len(lengths))
        wrong = np.flatnonzero(counts != lengths).tolist()
        note({at: f"{counts[at]} values for {lengths[at]} candidates" for at in wrong})
        if not wrong:
            return _clipped(values, below)
        within = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
        place = np.repeat(np.cumsum(lengths) - lengths, counts) + within
        kept = np.zeros(int(lengths.sum()), np.int64)
        right = (counts == lengths)[row]
        kept[place[right]] = values[right]
        return _clipped(kept, below)

    def _feature(self, array: pa.Array, source: str, note: Note, name: str) -> FeatureValues:
        """Read one value per row; nulls are missing."""
        feature = self._request[name]
        if isinstance(feature, Numeric):
            if not is_number(array.type):
                raise DataFileError(f"{source}: holds {array.type}, not numbers")
            values = numbers(array).astype(np.float64)
            values[array.is_null().to_numpy(zero_copy_only=False)] = np.nan
            beyond = np.flatnonzero(np.abs(values) > LARGEST).tolist()
            note({at: f"{values[at]:g} is beyond {LARGEST:g}" for at in beyond})
            return values
        read = whole_numbers(array)
        if read is None:
            raise DataFileError(f"{source}: holds {array.type}, not integers")
        indices, faults = read
        missing = array.is_null().to_numpy(zero_copy_only=False)
        note({at: reason for at, reason in faults.items() if not missing[at]})
        whole, below = indices.astype(np.int64), feature.vocabulary
        outside = np.flatnonzero((whole < 0) | (whole >= below)).tolist()
        note({at: f"{whole[at]} is not in 0 … {below - 1}" for at in outside})
        return _clipped(whole, below)


def read_times(array: pa.Array, source: str, note: Note) -> Ids:
    """Read moments as integers: a timestamp's microseconds, or numbers as they are."""
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    column = integers(array, source, below=MAX_ID + 1, limit=LIMIT)
    note(column.faults)
    return column.values.astype(np.int64)


def _clipped(values: NDArray[Any], below: int) -> Indices:
    """As int32: a value beyond it is one with a fault."""
    clipped: Indices = np.clip(values, 0, below - 1).astype(np.int32)
    return clipped

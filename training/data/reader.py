"""Reads the challenge's row files (train, valid, test) into memory-mapped arrays.

A file is read once, in batches, into a folder of ``.npy`` files; later calls map that folder. Its
name is derived from the sources (the file's size and time, the schema, the catalogue's ids), so
that no stale data is used; it is written under another name and renamed: complete or absent.

Columns: ``user_id``, ``item_seq`` (item ids, as many in every row, 0-padded on the left, newest
last), ``item_id`` (the candidate), one per context feature, one per request feature (a null is a
missing value, as is NaN of a numeric one), one per user feature that no table of users has, and
``label``, or ``ID`` in a file to predict. An ``item_seq`` is cut to the newest items, or padded on
the left, to the schema's history length.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.contract import Ids
from feature_store.parquet.arrays import is_number, numbers
from feature_store.parquet.columns import (
    INDICES,
    DataFileError,
    dense,
    integers,
)
from feature_store.parquet.histories import RIGHT_PADDED
from feature_store.parquet.id_columns import IdReader
from feature_store.parquet.items import feature_column
from feature_store.parquet.parts import ParquetParts
from feature_store.schema import Categorical, Numeric, RequestFeature, Stored
from feature_store.temporary_folders import temporary_folder
from feature_store.wording import worded
from training.data.catalogue import Catalogue
from training.data.row_cache import cache_name, new_array, publish, remove_stale
from training.data.rows import Rows
from training.data.user_ids import USER, UserIdReader, UserTexts, check_agreement
from training.data.users import ID, DistinctUsers, RowUsers, UserTable
from training.output import writing
from training.progress import OnProgress, no_progress

logger = logging.getLogger("training")
ReaderError = DataFileError
SEQUENCE, TARGET, LABEL, UNLABELLED = "item_seq", "item_id", "label", "ID"
USER_TEXTS = "user_texts.parquet"  # of a cache whose user ids are texts
BATCH_ROWS = 16_384


def read_rows(
    path: Path,
    items: Catalogue,
    cache: Path,
    on_progress: OnProgress = no_progress,
    tables: Sequence[UserTable] = (),
) -> Rows:
    """Read the rows of ``path``, from ``cache`` if they were read before.

    ``tables`` have user features by user id; the schema's others are columns of the rows.

    Raises ReaderError, naming the file, the row (counted from 0) and the column, for: a column
    that is missing or of another type, histories of different widths, an item that is not in the
    catalogue, a context index beyond its vocabulary, a null, NaN, a negative number, a label
    other than 0 and 1, a file without rows.
    """
    table = ParquetParts.read(path)
    if not table.rows:
        raise ReaderError(f"{path}: holds no rows")
    reader = _Reader(path, table, items, tables)
    folder = cache / cache_name(path, items, reader.user_columns)
    if not folder.exists():
        remove_stale(folder)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with temporary_folder(cache, "rows") as partial:
                reader.read_into(partial, on_progress)
                publish(partial, folder)
        except OSError as error:
            raise ReaderError(
                f"{cache}: cannot keep the rows of {path}: {worded(error)}; "
                "give another folder as --cache"
            ) from error

    def mapped(name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="r")
        return array

    users, texts = None, UserTexts.read(folder / USER_TEXTS)
    for other in tables:
        if len(other.ids) and other.source != USER:
            check_agreement(str(path), texts, other.source, other.texts)
    if items.schema.user:
        distinct, row = np.load(folder / "users.npy"), mapped("user_row")
        users, unknown = RowUsers.of(items.schema, distinct, row, tables)
        for source, count in unknown.items():
            if count and source != USER:
                logger.warning("warning: %d users of %s are not in %s", count, path, source)
    return Rows(
        items,
        user=mapped("user"),
        history=mapped("history"),
        target=mapped("target"),
        context=mapped("context"),
        label=mapped("label"),
        request=mapped("request") if items.schema.request else None,
        users=users,
        user_texts=texts,
    )


class _Reader:
    """Reads one file once."""

    def __init__(
        self, path: Path, table: ParquetParts, items: Catalogue, tables: Sequence[UserTable]
    ) -> None:
        self.path, self.table, self.items, self.schema = path, table, items, items.schema
        self.labelled = LABEL in table.columns or UNLABELLED not in table.columns
        self.user_columns = self._user_columns(tables)
        features = (*self.schema.context, *self.schema.request, *self.user_columns)
        columns = [USER, SEQUENCE, TARGET, *(f.name for f in features)]
        self.columns = list(dict.fromkeys(columns))
        if self.labelled:
            self.columns.append(LABEL)
        for column in self.columns:
            table.require(column)
        self._user_ids = UserIdReader(path, self.schema)
        self.width: int | None = None  # of item_seq, as the first row has it

    def read_into(self, folder: Path, on_progress: OnProgress) -> None:
        rows, length = self.table.rows, self.schema.history_length
        user = new_array(folder / "user.npy", np.int64, (rows,))
        history = new_array(folder / "history.npy", np.int32, (rows, length))
        target = new_array(folder / "target.npy", np.int32, (rows,))
        context = new_array(folder / "context.npy", np.int32, (rows, len(self.schema.context)))
        label = new_array(folder / "label.npy", np.float32, (rows,))
        label[:] = np.nan
        request = [
            (f.name, "<f4" if isinstance(f, Numeric) else "<i4") for f in self.schema.request
        ]
        if request:
            asked = new_array(folder / "request.npy", np.dtype(request), (rows,))
        if self.schema.user:
            user_row = new_array(folder / "user_row.npy", np.int32, (rows,))
        distinct = DistinctUsers(self.user_columns, self.schema)
        for first, _, columns in self.table.batches(self.columns, BATCH_ROWS):
            count = len(columns[USER])
            part = slice(first, first + count)
            user[part] = self._user(first, columns[USER])
            history[part] = self._history(first, columns[SEQUENCE])
            target[part] = self._target(first, columns[TARGET])
            for i, feature in enumerate(self.schema.context):
                context[part, i] = self._context(first, columns[feature.name], feature)
            for wanted in self.schema.request:
                asked[wanted.name][part] = self._request(first, columns[wanted.name], wanted)
            if self.schema.user:
                user_row[part] = distinct.add(self._users(first, user[part], columns, distinct))
            if self.labelled:
                label[part] = self._label(first, columns[LABEL])
            on_progress(f"read {self.path.name}", part.stop, rows)
        if self.schema.user:
            records = distinct.records
            new_array(folder / "users.npy", records.dtype, records.shape)[:] = records
        if (texts := self._user_ids.texts) is not None:
            with writing(folder / USER_TEXTS):
                texts.write(folder / USER_TEXTS)

    def _user_columns(self, tables: Sequence[UserTable]) -> list[Stored]:
        """Select the user features to be read from the rows."""
        given = {f.name: table.source for table in tables for f in table.features}
        for name in given:
            if name in self.table.columns and USER not in (name, given[name]):
                logger.warning(
                    "warning: %s: column %s: not read; %s has it, too", self.path, name, given[name]
                )
        wanted = [f for f in self.schema.user if f.name not in given]
        files = ", ".join(sorted({table.source for table in tables} - {USER}))
        for name in (f.name for f in wanted if f.name not in self.table.columns):
            raise ReaderError(
                f"{self.path}: has no column {name!r}, and "
                + (f"{files} has none, either" if files else "there is no users file")
                + ": a user feature is a column of either"
            )
        return wanted

    def _users(
        self,
        first: int,
        ids: Ids,
        columns: dict[str, pa.Array],
        distinct: DistinctUsers,
    ) -> NDArray[np.void]:
        """Read user id and user features of rows (N,) as records."""
        records = np.zeros(len(ids), distinct.dtype)
        records[ID] = ids
        for feature in self.user_columns:
            place = self._place(feature.name)
            column = feature_column(feature, columns[feature.name], place, known=True)
            self._refuse(first, feature.name, column.faults)
            records[feature.name] = column.values.reshape(records[feature.name].shape)
        return records

    def _request(self, first: int, array: pa.Array, feature: RequestFeature) -> NDArray[Any]:
        """Read a request feature (N,); missing: 0, of a numeric one NaN."""
        missing = array.is_null().to_numpy(zero_copy_only=False)
        if isinstance(feature, Categorical):
            limit = f"not in the vocabulary of {feature.vocabulary}"
            place = self._place(feature.name)
            column = integers(array, place, below=feature.vocabulary, limit=limit, remedy=INDICES)
            faults = {row: why for row, why in column.faults.items() if not missing[row]}
            self._refuse(first, feature.name, faults)
            return column.values
        if not is_number(array.type):
            raise ReaderError(f"{self._place(feature.name)}: holds {array.type}, not numbers")
        given = numbers(array).astype(np.float64)
        with np.errstate(over="ignore"):
            values = given.astype(np.float32)
        for row in np.flatnonzero(np.isinf(values))[:1]:
            why = "infinite" if np.isinf(given[row]) else f"{given[row]:g} is beyond float32"
            raise self._fault(first + row, feature.name, why)
        values[missing] = np.nan
        return values

    def _user(self, first: int, array: pa.Array) -> Ids:
        users = self._user_ids.column(array)
        self._refuse(first, USER, users.faults)
        return users.values

    def _target(self, first: int, array: pa.Array) -> NDArray[np.int32]:
        ids = IdReader().column(array, self._place(TARGET))
        self._refuse(first, TARGET, ids.faults)
        target = self._items(first, TARGET, ids.values)
        for row in np.flatnonzero(target == 0)[:1]:
            raise self._fault(first + row, TARGET, "0 is padding, not an item")
        return target

    def _history(self, first: int, array: pa.Array) -> NDArray[np.int32]:
        ids = IdReader().lists(array, self._place(SEQUENCE))
        self._refuse(first, SEQUENCE, ids.faults)
        widths = np.bincount(ids.row, minlength=len(array))
        self.width = int(widths[0]) if self.width is None else self.width
        for row in np.flatnonzero(widths != self.width)[:1]:
            reason = f"{widths[row]} items, but the rows before it have {self.width}"
            raise self._fault(first + row, SEQUENCE, reason)
        if not self.width:
            raise self._fault(first, SEQUENCE, "an empty list; a user without history has all 0")
        history = self._items(first, SEQUENCE, ids.values).reshape(len(array), self.width)
        for row in np.flatnonzero((history[:, -1] == 0) & history.any(axis=1))[:1]:
            raise self._fault(first + row, SEQUENCE, RIGHT_PADDED)
        length = self.schema.history_length
        return np.pad(history[:, -length:], ((0, 0), (max(0, length - self.width), 0)))

    def _context(self, first: int, array: pa.Array, feature: Categorical) -> Ids:
        limit = f"not in the vocabulary of {feature.vocabulary}"
        place = self._place(feature.name)
        values = integers(array, place, below=feature.vocabulary, limit=limit, remedy=INDICES)
        self._refuse(first, feature.name, values.faults)
        return values.values.astype(np.int64, copy=False)

    def _label(self, first: int, array: pa.Array) -> NDArray[np.float32]:
        if pa.types.is_boolean(array.type):
            array = array.cast(pa.int8())
        if not is_number(array.type):
            raise ReaderError(f"{self._place(LABEL)}: holds {array.type}, not numbers")
        column = dense(array, self._place(LABEL), size=1, dtype=np.dtype(np.float32))
        self._refuse(first, LABEL, column.faults)
        label = column.values[:, 0].astype(np.float32, copy=False)
        for row in np.flatnonzero((label != 0) & (label != 1))[:1]:
            raise self._fault(first + row, LABEL, f"{label[row]:g} is neither 0 nor 1")
        return label

    def _items(self, first: int, column: str, ids: Ids) -> NDArray[np.int32]:
        """Look up catalogue rows of ids (E,), the same number for each row of the file."""
        found = self.items.row_of(ids)
        for at in np.flatnonzero(found < 0)[:1]:
            per_row = self.width if column == SEQUENCE and self.width else 1
            reason = f"item {ids[at]} is not in the catalogue"
            raise self._fault(first + at // per_row, column, reason)
        return found

    def _refuse(self, first: int, column: str, faults: dict[int, str]) -> None:
        for row in sorted(faults)[:1]:
            raise self._fault(first + row, column, faults[row])

    def _fault(self, row: int, column: str, reason: str) -> ReaderError:
        return ReaderError(str(self.table.rejected(row, column, reason)))

    def _place(self, column: str) -> str:
        return f"{self.path}: column {column}"

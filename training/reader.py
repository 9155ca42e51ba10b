"""Reads the challenge's row files (train, valid, test) into memory-mapped arrays.

A file is read once, in batches, into a folder of ``.npy`` files; later calls map that folder. Its
name is derived from the sources (the file's size and time, the schema, the catalogue's ids), so
that no stale data is used; it is written under another name and renamed: complete or absent.

Columns: ``user_id``, ``item_seq`` (item ids, as many in every row, 0-padded on the left, newest
last), ``item_id`` (the candidate), one per context feature, and ``label``, or ``ID`` in a file to
predict. An ``item_seq`` is cut to the newest items, or padded on the left, to the schema's history
length.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from feature_store.contract import MAX_ID, Ids
from feature_store.parquet.arrays import is_number
from feature_store.parquet.columns import (
    DataFileError,
    dense,
    integers,
    list_elements,
)
from feature_store.parquet.histories import RIGHT_PADDED
from feature_store.parquet.parts import ParquetParts
from feature_store.parquet.table import files_of
from feature_store.schema import Categorical
from training.catalogue import Catalogue
from training.progress import OnProgress, no_progress
from training.rows import Rows

ReaderError = DataFileError
USER, SEQUENCE, TARGET, LABEL, UNLABELLED = "user_id", "item_seq", "item_id", "label", "ID"
FORMAT = 1  # of the cached arrays
BATCH_ROWS = 16_384


def read_rows(
    path: Path, items: Catalogue, cache: Path, on_progress: OnProgress = no_progress
) -> Rows:
    """Read the rows of ``path``, from ``cache`` if they were read before.

    Raises ReaderError, naming the file, the row (counted from 0) and the column, for: a column
    that is missing or of another type, histories of different widths, an item that is not in the
    catalogue, a context index beyond its vocabulary, a null, NaN, a negative number, a label
    other than 0 and 1, a file without rows.
    """
    table = ParquetParts.read(path)
    if not table.rows:
        raise ReaderError(f"{path}: holds no rows")
    folder = cache / _name(path, items)
    if not folder.exists():
        _remove_stale(folder)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
        except OSError as error:
            raise ReaderError(
                f"{cache}: cannot keep the rows of {path}: {error}; "
                "training takes another folder as --cache"
            ) from error
        try:
            _Reader(path, table, items).read_into(partial, on_progress)
            _publish(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    names = ("user", "history", "target", "context", "label")
    return Rows(items, *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))


class _Reader:
    """Reads one file once."""

    def __init__(self, path: Path, table: ParquetParts, items: Catalogue) -> None:
        self.path, self.table, self.items, self.schema = path, table, items, items.schema
        self.labelled = LABEL in table.columns or UNLABELLED not in table.columns
        self.columns = [USER, SEQUENCE, TARGET, *(f.name for f in self.schema.context)]
        if self.labelled:
            self.columns.append(LABEL)
        for column in self.columns:
            table.require(column)
        self.width: int | None = None  # of item_seq, as the first row has it

    def read_into(self, folder: Path, on_progress: OnProgress) -> None:
        rows, length = self.table.rows, self.schema.history_length
        user = _array(folder / "user.npy", np.int64, (rows,))
        history = _array(folder / "history.npy", np.int32, (rows, length))
        target = _array(folder / "target.npy", np.int32, (rows,))
        context = _array(folder / "context.npy", np.int32, (rows, len(self.schema.context)))
        label = _array(folder / "label.npy", np.float32, (rows,))
        label[:] = np.nan
        for first, _, columns in self.table.batches(self.columns, BATCH_ROWS):
            count = len(columns[USER])
            part = slice(first, first + count)
            user[part] = self._user(first, columns[USER])
            history[part] = self._history(first, columns[SEQUENCE])
            target[part] = self._target(first, columns[TARGET])
            for i, feature in enumerate(self.schema.context):
                context[part, i] = self._context(first, columns[feature.name], feature)
            if self.labelled:
                label[part] = self._label(first, columns[LABEL])
            on_progress(f"read {self.path.name}", part.stop, rows)

    def _user(self, first: int, array: pa.Array) -> Ids:
        users = integers(array, self._place(USER), below=MAX_ID + 1, limit="beyond 63 bits")
        self._refuse(first, USER, users.faults)
        return users.values.astype(np.int64, copy=False)

    def _target(self, first: int, array: pa.Array) -> NDArray[np.int32]:
        ids = integers(array, self._place(TARGET), below=MAX_ID + 1, limit="beyond 63 bits")
        self._refuse(first, TARGET, ids.faults)
        target = self._items(first, TARGET, ids.values.astype(np.int64, copy=False))
        for row in np.flatnonzero(target == 0)[:1]:
            raise self._fault(first + row, TARGET, "0 is padding, not an item")
        return target

    def _history(self, first: int, array: pa.Array) -> NDArray[np.int32]:
        ids, rows, faults = list_elements(
            array, self._place(SEQUENCE), below=MAX_ID + 1, limit="beyond 63 bits"
        )
        self._refuse(first, SEQUENCE, faults)
        widths = np.bincount(rows, minlength=len(array))
        self.width = int(widths[0]) if self.width is None else self.width
        for row in np.flatnonzero(widths != self.width)[:1]:
            reason = f"{widths[row]} items, but the rows before it have {self.width}"
            raise self._fault(first + row, SEQUENCE, reason)
        if not self.width:
            raise self._fault(first, SEQUENCE, "an empty list; a user without history has all 0")
        history = self._items(first, SEQUENCE, ids).reshape(len(array), self.width)
        for row in np.flatnonzero((history[:, -1] == 0) & history.any(axis=1))[:1]:
            raise self._fault(first + row, SEQUENCE, RIGHT_PADDED)
        length = self.schema.history_length
        return np.pad(history[:, -length:], ((0, 0), (max(0, length - self.width), 0)))

    def _context(self, first: int, array: pa.Array, feature: Categorical) -> Ids:
        limit = f"not in the vocabulary of {feature.vocabulary}"
        place = self._place(feature.name)
        values = integers(array, place, below=feature.vocabulary, limit=limit)
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


def _array(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    array: NDArray[Any] = open_memmap(path, mode="w+", dtype=kind, shape=shape)
    return array


def _name(path: Path, items: Catalogue) -> str:
    """Name the cache folder: FILE-SOURCE-MEANING (schema, catalogue and format)."""
    facts = [str(path.resolve())]
    for file in files_of(path):
        found = file.stat()
        facts += [] if file == path else [str(file.relative_to(path))]
        facts += [str(found.st_size), str(found.st_mtime_ns)]
    source = _short(*facts)
    meaning = _short(str(FORMAT), items.schema.model_dump_json(), items.digest)
    return f"{path.stem}-{source}-{meaning}"


def _short(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _remove_stale(folder: Path) -> None:
    """Remove folders of earlier contents of the same file."""
    stem, source, _ = folder.name.rsplit("-", 2)
    for other in folder.parent.glob(f"{stem}-{'?' * 16}-{'?' * 16}"):
        if other.name.rsplit("-", 2)[1] != source:
            shutil.rmtree(other, ignore_errors=True)


def _publish(partial: Path, folder: Path) -> None:
    partial.chmod(0o755)
    try:
        os.rename(partial, folder)
    except OSError:
        if not folder.exists():  # else another process published the same content
            raise

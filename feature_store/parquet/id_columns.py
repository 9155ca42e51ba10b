"""Reads id columns as numbers: integers, or in a mapped store the texts of ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.contract import MAX_ID, Ids
from feature_store.errors import TextCollision
from feature_store.parquet.arrays import is_list, is_number, plain
from feature_store.parquet.columns import Column, DataFileError, integers, list_elements, lists
from feature_store.parquet.texts import texts
from feature_store.text_ids import LONGEST, TextIds, shown

LIMIT = "beyond 63 bits"
REMEDY = (
    "a store made with `load --ids mapped` takes texts, `feature_store ids` makes integers of them"
)


@dataclass(slots=True)
class IdColumn:
    """The ids of consecutive rows, E in all: one per row, or the elements of a list per row."""

    values: Ids  # (E,) numbers; in lists 0 is padding
    row: NDArray[np.intp]  # (E,) ascending: the row each belongs to
    faults: dict[int, str]  # row -> reason; its values are undefined
    distinct: DistinctTexts | None = None  # of a mapped store's

    def texts(self, where: NDArray[np.bool_]) -> dict[int, str]:
        """Return number and text of these ids (E,), none of them null; none in a numeric store."""
        return {} if self.distinct is None else self.distinct.used(where)

    def shown(self, at: int) -> str:
        """Return the id at a position, for messages."""
        return str(self.values[at]) if self.distinct is None else self.distinct.shown(at)


@dataclass(frozen=True, slots=True)
class DistinctTexts:
    """The D distinct texts among E ids."""

    numbers: Ids  # (D,)
    array: pa.Array  # (D,)
    index: NDArray[np.int64]  # (E,) which text each has; D of a null

    def used(self, where: NDArray[np.bool_]) -> dict[int, str]:
        used = np.zeros(len(self.numbers) + 1, np.bool_)
        used[self.index[where]] = True
        texts = self.array.filter(pa.array(used[:-1])).to_pylist()
        return dict(zip(self.numbers[used[:-1]].tolist(), texts, strict=True))

    def shown(self, at: int) -> str:
        known = self.index[at] < len(self.numbers)
        return shown(self.array[int(self.index[at])].as_py()) if known else "null"


class IdReader:
    """Reads the ids of one store's kind. ``text_ids``: those of a mapped store."""

    def __init__(self, text_ids: TextIds | None = None) -> None:
        self.text_ids = text_ids
        self.zero = 0 if text_ids is None else text_ids.number("0")
        """The number of the integer 0: an item file's all-zero row of this id is padding."""

    def column(self, array: pa.Array, source: str) -> IdColumn:
        """Read an id per row. A null, or a text that is no id, is a fault."""
        row = np.arange(len(array))
        if self.text_ids is None:
            _refuse_texts(array.type, array, source)
            column = integers(array, source, below=MAX_ID + 1, limit=LIMIT)
            return IdColumn(column.values.astype(np.int64, copy=False), row, column.faults)
        column = Column(np.zeros(0, np.int64))
        column.reject(array.is_null().to_numpy(zero_copy_only=False), "null")
        return self._numbered(array, array, source, row, column.faults, padded=False)

    def lists(self, array: pa.Array, source: str) -> IdColumn:
        """Read a list of ids per row. 0, and an empty or missing text, are padding."""
        if self.text_ids is None:
            if is_list(array.type):
                _refuse_texts(array.type.value_type, array, source)
            values, row, faults = list_elements(array, source, below=MAX_ID + 1, limit=LIMIT)
            return IdColumn(values, row, faults)
        column = Column(np.zeros(0, np.int64))
        elements, row, _ = lists(array, column)
        if elements is None:
            raise DataFileError(f"{source}: holds {array.type}, not lists of ids")
        if is_number(elements.type):
            column.reject_null_elements(elements, row)
        return self._numbered(elements, array, source, row, column.faults, padded=True)

    def _numbered(
        self,
        ids: pa.Array,
        array: pa.Array,
        source: str,
        row: NDArray[np.intp],
        faults: dict[int, str],
        *,
        padded: bool,
    ) -> IdColumn:
        """Number texts, each distinct one once. ``padded``: 0 and "" are padding, not ids."""
        assert self.text_ids is not None
        read = texts(ids)
        if read is None:
            raise DataFileError(f"{source}: holds {array.type}, not ids")
        for at, reason in read[1].items():
            faults.setdefault(int(row[at]), reason)
        encoded = read[0].dictionary_encode()
        distinct = encoded.dictionary
        length = pc.utf8_length(distinct).to_numpy(zero_copy_only=False)
        wrong = (length > LONGEST) | ((length == 0) & (not padded))
        if padded:  # items of histories come again in other batches: remembered
            numbers = self.text_ids.numbers(distinct.to_pylist())
        else:
            numbers = self.text_ids.bulk_numbers(distinct.cast(pa.large_binary()).to_pylist())
        _refuse_collisions(numbers, distinct, source)
        padding = length == 0
        if padded and is_number(ids.type):
            padding |= pc.equal(distinct, "0").to_numpy(zero_copy_only=False)
        of_ids = np.append(np.where(padding, 0, numbers), 0)  # and of a null
        index = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
        for at in np.flatnonzero(np.append(wrong, False)[index]).tolist():
            reason = f"{length[index[at]]} characters instead of 1 to {LONGEST}"
            faults.setdefault(int(row[at]), reason)
        return IdColumn(of_ids[index], row, faults, DistinctTexts(numbers, distinct, index))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds ids as texts."""
    ids = plain(pa.nulls(0, kind))
    return not is_number(ids.type) and texts(ids) is not None


def _refuse_texts(kind: pa.DataType, array: pa.Array, source: str) -> None:
    """Name the remedy for text ids in a numeric store."""
    if is_text(kind):
        raise DataFileError(f"{source}: holds {array.type}, not integers; {REMEDY}")


def _refuse_collisions(numbers: Ids, distinct: pa.Array, source: str) -> None:
    if (np.diff(np.sort(numbers)) != 0).all():
        return
    order = np.argsort(numbers, kind="stable")
    for at in np.flatnonzero(np.diff(numbers[order]) == 0)[:1].tolist():
        first, second = (str(distinct[int(order[i])]) for i in (at, at + 1))
        raise TextCollision(source, int(numbers[order[at]]), first, second)

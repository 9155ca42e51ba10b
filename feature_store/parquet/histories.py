"""Reads behaviour histories from the challenge's parquet files: train, valid and test alike.

``user_id`` and ``item_seq`` (item ids, 0-padded on the left, newest last). A user's last valid row
in file order counts (of several files, in the last one). 0 is padding, so item 0 cannot be in a
history of such a file. For a mapped store ids are texts, and null and empty ones are padding, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.contract import Ids
from feature_store.parquet.columns import RejectedRow
from feature_store.parquet.id_columns import IdColumn, IdReader
from feature_store.parquet.parts import ParquetParts
from feature_store.text_ids import TextIds

USER, SEQUENCE = "user_id", "item_seq"
RIGHT_PADDED = "ends in padding, which belongs on the left: the newest item is last"
INSIDE = {
    True: "clicks on item 0 inside histories of {} are left out: 0 is padding here; give that item "
    "another id",
    False: "empty ids inside histories of {} are left out: 0, null and empty texts are padding",
}
SURVEY_ROWS = 65_536  # batch size of the first pass, which finds each user's last row


@dataclass(frozen=True, slots=True)
class HistoryParquetBatch:
    """The histories that count among consecutive rows, newest first."""

    histories: dict[int, Ids]
    rejected: list[RejectedRow]
    next_row: int
    user_texts: dict[int, str] = field(default_factory=dict)  # mapped store: of the histories
    item_texts: dict[int, str] = field(default_factory=dict)  # and of all items in them


@dataclass(frozen=True, slots=True)
class _Rows:
    """Consecutive rows (N) and the elements (E) of all their lists."""

    users: IdColumn  # (N,)
    items: IdColumn  # (E,) padding included
    rejected: dict[int, tuple[str, str]]  # row -> column, reason; in order


class HistoryParquet:
    """The histories of one file, or of the parts in a folder.

    ``text_ids``: those of a mapped store.
    """

    def __init__(self, path: Path, text_ids: TextIds | None = None) -> None:
        self._reader = IdReader(text_ids)
        self._table = ParquetParts.read(path)
        self._table.require(USER)
        self._table.require(SEQUENCE)
        self.warnings: list[str] = []
        inside = 0
        owners, sound = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for first, file, arrays in self._table.batches([USER, SEQUENCE], SURVEY_ROWS):
            rows = self._read(file, arrays[USER], arrays[SEQUENCE])
            taken = np.delete(np.arange(len(arrays[USER])), list(rows.rejected))
            owners.append(rows.users.values[taken])
            sound.append(first + taken)
            inside += _zeros_inside(rows, taken)
        if inside:
            self.warnings.append(f"{inside} {INSIDE[text_ids is None].format(path)}")
        every, row = np.concatenate(owners), np.concatenate(sound)
        self.sound = len(every)  # rows that are not rejected
        self.users, from_the_end = np.unique(every[::-1], return_index=True)
        self._counts = np.zeros(self.rows, bool)  # rows that are their user's last valid one
        self._counts[row[len(row) - 1 - from_the_end]] = True

    @staticmethod
    def probe(path: Path, text_ids: TextIds | None) -> None:
        """Raise DataFileError if the columns are missing or, in the first row, of other types."""
        table, reader = ParquetParts.read(path), IdReader(text_ids)
        for _, file, arrays in islice(table.batches([USER, SEQUENCE], 1), 1):
            reader.column(arrays[USER], f"{file}: column {USER}")
            reader.lists(arrays[SEQUENCE], f"{file}: column {SEQUENCE}")

    @property
    def rows(self) -> int:
        return self._table.rows

    def batches(self, batch_size: int = 8192, start: int = 0) -> Iterator[HistoryParquetBatch]:
        for first, file, arrays in self._table.batches([USER, SEQUENCE], batch_size, start):
            yield self._batch(first, file, arrays[USER], arrays[SEQUENCE])

    def _batch(
        self, first: int, file: Path, users: pa.Array, sequences: pa.Array
    ) -> HistoryParquetBatch:
        rows = self._read(file, users, sequences)
        counts = self._counts[first : first + len(users)]
        real = rows.items.values != 0
        newest_last, row = rows.items.values[real], rows.items.row[real]
        ends = np.searchsorted(row, np.arange(len(users)), side="right")
        starts = np.concatenate([[0], ends[:-1]]) if len(users) else ends
        histories = {
            user: newest_last[start:end][::-1]
            for counted, user, start, end in zip(
                counts.tolist(),
                rows.users.values.tolist(),
                starts.tolist(),
                ends.tolist(),
                strict=True,
            )
            if counted
        }
        return HistoryParquetBatch(
            histories,
            [self._table.rejected(first + at, *why) for at, why in rows.rejected.items()],
            first + len(users),
            rows.users.texts(counts),
            rows.items.texts(real & counts[rows.items.row]),
        )

    def _read(self, path: Path, users: pa.Array, sequences: pa.Array) -> _Rows:
        owner = self._reader.column(users, f"{path}: column {USER}")
        clicked = self._reader.lists(sequences, f"{path}: column {SEQUENCE}")
        items, row, faults = clicked.values, clicked.row, clicked.faults
        last = np.flatnonzero(np.diff(row, append=len(users)))  # of each list that is not empty
        ends_in_padding = row[last[items[last] == 0]]
        for at in np.intersect1d(ends_in_padding, row[items != 0]).tolist():
            faults.setdefault(at, RIGHT_PADDED)
        rejected = {at: (SEQUENCE, reason) for at, reason in faults.items()}
        rejected |= {at: (USER, reason) for at, reason in owner.faults.items()}
        return _Rows(owner, clicked, dict(sorted(rejected.items())))


def _zeros_inside(rows: _Rows, sound: NDArray[np.intp]) -> int:
    """Count zeros after the first real item of their list: none in a left-padded list."""
    items, row, count = rows.items.values, rows.items.row, len(rows.users.values)
    zeros = np.flatnonzero(items == 0)
    if not len(zeros):
        return 0
    real = np.flatnonzero(items)
    starts = np.flatnonzero(np.diff(row[real], prepend=-1))
    first = np.full(count, len(items))  # position of each list's first real item
    first[row[real[starts]]] = real[starts]
    is_sound = np.zeros(count, np.bool_)
    is_sound[sound] = True
    row = row[zeros]
    return int((is_sound[row] & (zeros > first[row])).sum())

"""Reads behaviour histories from the challenge's parquet files: train, valid and test alike.

``user_id`` and ``item_seq`` (item ids, 0-padded on the left, newest last). A user's last valid row
in file order counts (of several files, in the last one). 0 is padding, so item 0 cannot be in a
history of such a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.contract import MAX_ID, Ids
from feature_store.parquet.columns import RejectedRow, integers, list_elements
from feature_store.parquet.parts import ParquetParts

USER, SEQUENCE = "user_id", "item_seq"
RIGHT_PADDED = "ends in padding, which belongs on the left: the newest item is last"
SURVEY_ROWS = 65_536  # batch size of the first pass, which finds each user's last row


@dataclass(frozen=True, slots=True)
class HistoryParquetBatch:
    """The histories that count among consecutive rows, newest first."""

    histories: dict[int, Ids]
    rejected: list[RejectedRow]
    next_row: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """Consecutive rows (N) and the elements (E) of all their lists."""

    users: Ids  # (N,)
    items: Ids  # (E,) padding included
    row: NDArray[np.intp]  # (E,) ascending: the row each belongs to
    rejected: dict[int, tuple[str, str]]  # row -> column, reason; in order


class HistoryParquet:
    """The histories of one file, or of the parts in a folder."""

    def __init__(self, path: Path) -> None:
        self._table = ParquetParts.read(path)
        self._table.require(USER)
        self._table.require(SEQUENCE)
        self.warnings: list[str] = []
        inside = 0
        owners, sound = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for first, file, arrays in self._table.batches([USER, SEQUENCE], SURVEY_ROWS):
            rows = self._read(file, arrays[USER], arrays[SEQUENCE])
            taken = np.delete(np.arange(len(rows.users)), list(rows.rejected))
            owners.append(rows.users[taken])
            sound.append(first + taken)
            inside += _zeros_inside(rows, taken)
        if inside:
            self.warnings.append(
                f"{inside} clicks on item 0 inside histories of {path} are left out: 0 is padding "
                "here; give that item another id"
            )
        every, row = np.concatenate(owners), np.concatenate(sound)
        self.sound = len(every)  # rows that are not rejected
        self.users, from_the_end = np.unique(every[::-1], return_index=True)
        self._counts = np.zeros(self.rows, bool)  # rows that are their user's last valid one
        self._counts[row[len(row) - 1 - from_the_end]] = True

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
        counts = self._counts[first : first + len(users)].tolist()
        real = rows.items != 0
        newest_last = rows.items[real]
        ends = np.searchsorted(rows.row[real], np.arange(len(users)), side="right")
        starts = np.concatenate([[0], ends[:-1]]) if len(users) else ends
        histories = {
            user: newest_last[start:end][::-1]
            for counted, user, start, end in zip(
                counts, rows.users.tolist(), starts.tolist(), ends.tolist(), strict=True
            )
            if counted
        }
        rejected = [self._table.rejected(first + row, *why) for row, why in rows.rejected.items()]
        return HistoryParquetBatch(histories, rejected, first + len(users))

    def _read(self, path: Path, users: pa.Array, sequences: pa.Array) -> _Rows:
        below, limit = MAX_ID + 1, "beyond 63 bits"
        owner = integers(users, f"{path}: column {USER}", below=below, limit=limit)
        items, row, faults = list_elements(
            sequences, f"{path}: column {SEQUENCE}", below=below, limit=limit
        )
        last = np.flatnonzero(np.diff(row, append=len(users)))  # of each list that is not empty
        ends_in_padding = row[last[items[last] == 0]]
        for at in np.intersect1d(ends_in_padding, row[items != 0]).tolist():
            faults.setdefault(at, RIGHT_PADDED)
        rejected = {at: (SEQUENCE, reason) for at, reason in faults.items()}
        rejected |= {at: (USER, reason) for at, reason in owner.faults.items()}
        users_of_rows: Ids = owner.values.astype(np.int64, copy=False)
        return _Rows(users_of_rows, items, row, dict(sorted(rejected.items())))


def _zeros_inside(rows: _Rows, sound: NDArray[np.intp]) -> int:
    """Count zeros after the first real item of their list: none in a left-padded list."""
    zeros = np.flatnonzero(rows.items == 0)
    if not len(zeros):
        return 0
    real = np.flatnonzero(rows.items)
    starts = np.flatnonzero(np.diff(rows.row[real], prepend=-1))
    first = np.full(len(rows.users), len(rows.items))  # position of each list's first real item
    first[rows.row[real[starts]]] = real[starts]
    is_sound = np.zeros(len(rows.users), np.bool_)
    is_sound[sound] = True
    row = rows.row[zeros]
    return int((is_sound[row] & (zeros > first[row])).sum())

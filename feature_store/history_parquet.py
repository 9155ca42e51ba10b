"""Behaviour histories in the challenge's parquet files: train, valid and test alike.

``user_id`` and ``item_seq`` (item ids, 0-padded on the left, newest last). Of a user the last row
in file order counts (and of several files the last one). 0 is padding here, so an item of id 0
cannot be in a history that comes from such a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_store.contract import MAX_ID, Ids
from feature_store.parquet_columns import Column, ParquetTable, RejectedRow, integers, list_elements

USER, SEQUENCE = "user_id", "item_seq"


@dataclass(frozen=True, slots=True)
class HistoryParquetBatch:
    """The histories that count among some consecutive rows, newest first."""

    histories: dict[int, Ids]
    rejected: list[RejectedRow]
    next_row: int


class HistoryParquet:
    """The histories of one file."""

    def __init__(self, path: Path) -> None:
        self._table = ParquetTable(path)
        self._table.require(USER)
        self._table.require(SEQUENCE)
        parts = [
            self._users(arrays[USER]).values for _, arrays in self._table.batches([USER], 262_144)
        ]
        every = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        self.users, from_the_end = np.unique(every[::-1], return_index=True)
        self._counts = np.zeros(len(every), bool)  # rows that are their user's last
        self._counts[len(every) - 1 - from_the_end] = True

    @property
    def rows(self) -> int:
        return self._table.rows

    def batches(self, batch_size: int = 8192, start: int = 0) -> Iterator[HistoryParquetBatch]:
        for first, arrays in self._table.batches([USER, SEQUENCE], batch_size, start):
            yield self._batch(first, arrays[USER], arrays[SEQUENCE])

    def _batch(self, first: int, users: pa.Array, sequences: pa.Array) -> HistoryParquetBatch:
        path, count = str(self._table.path), len(users)
        owner = self._users(users)
        counts = self._counts[first : first + count].tolist()
        flat, rows, faults = list_elements(
            sequences, f"{path}: column {SEQUENCE}", below=MAX_ID + 1, limit="beyond 63 bits"
        )
        rejected = {row: (SEQUENCE, reason) for row, reason in faults.items()}
        rejected |= {row: (USER, reason) for row, reason in owner.faults.items()}
        real = flat != 0
        newest_last, rows = flat[real], rows[real]
        ends = np.searchsorted(rows, np.arange(count), side="right")
        starts = np.concatenate([[0], ends[:-1]]) if count else ends
        histories = {
            user: newest_last[start:end][::-1]
            for row, (user, start, end) in enumerate(
                zip(owner.values.tolist(), starts.tolist(), ends.tolist(), strict=True)
            )
            if counts[row] and row not in rejected
        }
        faulty = [RejectedRow(path, first + row, *rejected[row]) for row in sorted(rejected)]
        return HistoryParquetBatch(histories, faulty, first + count)

    def _users(self, array: pa.Array) -> Column:
        source = f"{self._table.path}: column {USER}"
        return integers(array, source, below=MAX_ID + 1, limit="beyond 63 bits")

"""Columns that a further parquet file adds to the items of the first."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids, ItemRows
from feature_store.parquet_columns import Column


@dataclass(slots=True)
class JoinedColumns:
    """Columns of one further file, whole in memory, found by item id."""

    path: Path
    ids: Ids  # (M,) ascending, each once
    row: Ids  # (M,) row in the file
    rejected: dict[int, str]  # row in the file -> why its id finds no item
    columns: dict[str, Column] = field(default_factory=dict)
    context: list[str] = field(default_factory=list)
    context_defaulted: int = 0

    @classmethod
    def of(
        cls, path: Path, ids: list[Column], parts: dict[str, list[Column]], context: list[str]
    ) -> JoinedColumns:
        """Of an id the first row counts, as in the first file."""
        keys = _merged(ids)
        every: Ids = keys.values.astype(np.int64, copy=False)
        sound = np.delete(np.arange(len(every)), list(keys.faults))
        found, first = np.unique(every[sound], return_index=True)
        rejected = dict(keys.faults)
        for row in np.delete(sound, first).tolist():
            rejected[row] = f"id {every[row]} once more"
        columns = {name: _merged(of_it) for name, of_it in parts.items()}
        return cls(path, found, sound[first], dict(sorted(rejected.items())), columns, context)

    def fill(
        self, rows: ItemRows, ids: Ids, is_item: NDArray[np.bool_]
    ) -> dict[int, tuple[str, str]]:
        """Put our columns into ``rows``. Row -> (column, reason) where that cannot be."""
        faults: dict[int, tuple[str, str]] = {}
        if not self.columns:
            return faults
        at = np.searchsorted(self.ids, ids, side="right") - 1
        known = at >= 0
        known[known] = self.ids[at[known]] == ids[known]
        source = self.row[at[known]]
        for name, column in self.columns.items():
            rows[name][known] = column.values[source].reshape(rows[name][known].shape)
            if column.faults:
                for row, origin in zip(
                    np.flatnonzero(known).tolist(), source.tolist(), strict=True
                ):
                    if origin in column.faults:
                        reason = f"{self.path} row {origin}: {column.faults[origin]}"
                        faults.setdefault(row, (name, reason))
        absent = ~known & is_item
        needed = [name for name in self.columns if name not in self.context]
        if needed:
            for row in np.flatnonzero(absent).tolist():
                faults.setdefault(row, (needed[0], f"id {ids[row]} is not in {self.path}"))
        elif self.context:
            self.context_defaulted += int(absent.sum())
        return faults


def _merged(parts: list[Column]) -> Column:
    """Consecutive batches of one column as one."""
    merged = Column(np.concatenate([part.values for part in parts] or [np.zeros(0, np.int64)]))
    first = 0
    for part in parts:
        merged.faults |= {first + row: why for row, why in part.faults.items()}
        first += len(part.values)
    return merged

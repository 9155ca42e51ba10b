"""Joins columns of further parquet files to the items of the first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids, ItemRows
from feature_store.parquet.columns import Column
from feature_store.parquet.id_columns import IdColumn
from feature_store.parquet.parts import ParquetParts

Digests = NDArray[np.uint64]
ROWS_AT_ONCE = 4096


@dataclass(slots=True)
class JoinedColumns:
    """Columns of one further file or of its parts, in memory, looked up by item id."""

    parts: ParquetParts
    ids: Ids  # (M,) ascending, each once
    row: Ids  # (M,) row in the parts
    rejected: dict[int, str]  # row in the parts -> why its id is invalid
    repeated: Ids  # rows in the parts whose id an earlier one has
    columns: dict[str, Column] = field(default_factory=dict)
    context: list[str] = field(default_factory=list)
    shared: dict[str, Digests] = field(default_factory=dict)  # (rows,) of columns of other files
    context_defaulted: int = 0
    differing: int = 0  # items with a conflicting shared column
    differing_columns: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        parts: ParquetParts,
        ids: list[Column],
        columns: dict[str, list[Column]],
        context: list[str],
        shared: dict[str, list[Digests]],
    ) -> JoinedColumns:
        """Index the columns by id; the first row of an id counts, as in the first file."""
        keys = _merged(ids)
        every: Ids = keys.values.astype(np.int64, copy=False)
        sound = np.delete(np.arange(len(every)), list(keys.faults))
        found, first = np.unique(every[sound], return_index=True)
        return cls(
            parts,
            found,
            sound[first],
            keys.faults,
            np.delete(sound, first),
            {name: _merged(of_it) for name, of_it in columns.items()},
            context,
            {name: np.concatenate([np.zeros(0, np.uint64), *d]) for name, d in shared.items()},
        )

    def renumber(self, numbers: Ids) -> None:
        """Give the ids other numbers: those of all rows in the parts."""
        order = np.argsort(numbers[self.row])
        self.row = self.row[order]
        self.ids = numbers[self.row]

    def fill(
        self, rows: ItemRows, keys: IdColumn, is_item: NDArray[np.bool_]
    ) -> dict[int, tuple[str, str]]:
        """Copy the columns into ``rows``. Returns row -> (column, reason) of faults."""
        faults: dict[int, tuple[str, str]] = {}
        if not self.columns:
            return faults
        known, source = self._found(keys.values)
        for name, column in self.columns.items():
            rows[name][known] = column.values[source].reshape(rows[name][known].shape)
            if column.faults:
                for row, origin in zip(
                    np.flatnonzero(known).tolist(), source.tolist(), strict=True
                ):
                    if origin in column.faults:
                        path, in_file = self.parts.place(origin)
                        reason = f"{path} row {in_file}: {column.faults[origin]}"
                        faults.setdefault(row, (name, reason))
        absent = ~known & is_item
        needed = [name for name in self.columns if name not in self.context]
        if needed:
            for row in np.flatnonzero(absent).tolist():
                faults.setdefault(row, (needed[0], f"id {keys.shown(row)} is not in {self.parts}"))
        elif self.context:
            self.context_defaulted += int(absent.sum())
        return faults

    def compare(self, rows: ItemRows, ids: Ids) -> NDArray[np.bool_]:
        """(N,) where a shared column has another value here."""
        differs = np.zeros(len(ids), np.bool_)
        known, source = self._found(ids)
        for name, theirs in self.shared.items():
            unequal = digests(rows[name][known]) != theirs[source]
            if unequal.any():
                self.differing_columns.add(name)
                differs[np.flatnonzero(known)[unequal]] = True
        self.differing += int(differs.sum())
        return differs

    def _found(self, ids: Ids) -> tuple[NDArray[np.bool_], Ids]:
        """(N,) which ids are here, and the row in the parts of each that is."""
        at = np.searchsorted(self.ids, ids, side="right") - 1
        known = at >= 0
        known[known] = self.ids[at[known]] == ids[known]
        return known, self.row[at[known]]


def digests(values: NDArray[Any]) -> Digests:
    """(N,) 64-bit digests of the rows' bytes; −0 counts as 0."""
    if values.dtype.kind == "f":
        values = values + values.dtype.type(0)
    count = len(values)
    row = np.ascontiguousarray(values).view(np.uint8).reshape(count, -1) if count else values
    found = np.zeros(count, np.uint64)
    weights = np.random.default_rng(0).integers(1, 2**63, row.shape[-1] if count else 0, np.uint64)
    for start in range(0, count, ROWS_AT_ONCE):
        part = row[start : start + ROWS_AT_ONCE].astype(np.uint64)
        total = (part * (weights | np.uint64(1))).sum(axis=1)
        found[start : start + ROWS_AT_ONCE] = total + np.uint64(1)  # 0 means no digest
    return found


def _merged(parts: list[Column]) -> Column:
    """Concatenate consecutive batches of one column."""
    merged = Column(np.concatenate([part.values for part in parts] or [np.zeros(0, np.int64)]))
    first = 0
    for part in parts:
        merged.faults |= {first + row: why for row, why in part.faults.items()}
        first += len(part.values)
    return merged

"""Item features in parquet files, read as batches of ids and stored item rows.

The first file gives the items; further files give the columns it lacks, joined on the id column
(``item_info.parquet`` and, for the level buckets, ``item_feature.parquet``). A column is named as
its feature is. The id column is ``item_id`` where there is one, else the identity feature's own:
ids are the caller's, while the embedding index is a feature, and the two may differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_store.contract import MAX_ID, Ids, ItemRows
from feature_store.parquet_columns import (
    Column,
    DataFileError,
    ParquetTable,
    RejectedRow,
    dense,
    integer_lists,
    integers,
)
from feature_store.parquet_join import JoinedColumns
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema

Feature = Categorical | CategoricalList | Dense


@dataclass(frozen=True, slots=True)
class ItemParquetBatch:
    """The items of some consecutive rows of the first file."""

    ids: Ids  # (N,)
    rows: ItemRows  # (N,) of schema.item_dtype
    rejected: list[RejectedRow]
    next_row: int  # where the first file is to be read on


def read_items(
    paths: Sequence[Path],
    schema: FeatureSchema,
    batch_size: int = 8192,
    *,
    id_column: str | None = None,
    strict: bool = False,
) -> Iterator[ItemParquetBatch]:
    """Every item of the files. See ``ItemParquet``."""
    return ItemParquet(paths, schema, id_column=id_column, strict=strict).batches(batch_size)


class ItemParquet:
    """The items of one or more parquet files.

    The all-zero row of id 0 is padding, not an item, and is passed over. Without ``strict`` a bad
    row is reported in its batch (one of a further file in the first batch) and an index beyond the
    vocabulary is taken (it is newer than the model, so it is served as cold). With ``strict``, for
    training, either raises DataFileError.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        schema: FeatureSchema,
        *,
        id_column: str | None = None,
        strict: bool = False,
    ) -> None:
        if not paths:
            raise DataFileError("no item file was given")
        self.schema = schema
        self.strict = strict
        self.warnings: list[str] = []
        self._main, *others = (ParquetTable(path) for path in paths)
        self.id_column = id_column or self._default_id_column()
        self._main.require(self.id_column)
        self._here: list[Feature] = []
        lacking: list[Feature] = []
        for feature in (*schema.item, *schema.context):
            (self._here if feature.name in self._main.columns else lacking).append(feature)
        self._rejected: list[RejectedRow] = []  # of the further files
        self._joined = [self._join(table, lacking) for table in others]
        self._say_missing(lacking, [table.path for table in (self._main, *others)])
        self._again = self._repeated_ids()

    @property
    def rows(self) -> int:
        """Rows of the first file."""
        return self._main.rows

    def batches(self, batch_size: int = 8192, start: int = 0) -> Iterator[ItemParquetBatch]:
        """Batches from row ``start`` of the first file on. ``warnings`` is complete after them."""
        columns = list(dict.fromkeys([self.id_column, *(f.name for f in self._here)]))
        for first, arrays in self._main.batches(columns, batch_size, start):
            batch = self._batch(first, arrays)
            if first == 0:  # a load that goes on has told them already
                batch.rejected[:0] = self._rejected
            yield batch
        for joined in self._joined:
            if joined.context_defaulted:
                self.warnings.append(
                    f"{joined.context_defaulted} items are not in {joined.path}: their "
                    f"{', '.join(joined.context)} is 0 (padding)"
                )
                joined.context_defaulted = 0

    def _batch(self, first: int, arrays: dict[str, pa.Array]) -> ItemParquetBatch:
        path = self._main.path
        keys = self._ids(self._main, arrays[self.id_column])
        faults = {row: (self.id_column, reason) for row, reason in keys.faults.items()}
        rows = np.zeros(len(keys.values), self.schema.item_dtype)
        for feature in self._here:
            column = self._column(feature, arrays[feature.name], f"{path}: column {feature.name}")
            rows[feature.name] = column.values.reshape(rows[feature.name].shape)
            for row, reason in column.faults.items():
                faults.setdefault(row, (feature.name, reason))
        ids: Ids = keys.values.astype(np.int64, copy=False)
        is_item = np.ones(len(ids), bool)
        for row in np.flatnonzero(ids == 0).tolist():
            is_item[row] = any(rows[row].tobytes())
        for joined in self._joined:
            for row, fault in joined.fill(rows, ids, is_item).items():
                faults.setdefault(row, fault)
        for row in self._again[(self._again >= first) & (self._again < first + len(ids))].tolist():
            faults.setdefault(row - first, (self.id_column, f"id {ids[row - first]} once more"))
        rejected = [
            RejectedRow(str(path), first + row, column, reason)
            for row, (column, reason) in sorted(faults.items())
        ]
        if self.strict and rejected:
            raise DataFileError(str(rejected[0]))
        is_item[list(faults)] = False
        return ItemParquetBatch(ids[is_item], rows[is_item], rejected, first + len(ids))

    def _column(self, feature: Feature, array: pa.Array, source: str) -> Column:
        match feature:
            case Dense():
                within = feature.most, feature.limit
                size, dtype = feature.size, feature.dtype
                return dense(array, source, size=size, dtype=dtype, within=within)
            case Categorical() | CategoricalList():
                below, limit = 2**31, "beyond int32"
                if self.strict:
                    below = feature.vocabulary
                    limit = f"not in the vocabulary of {below}"
                if isinstance(feature, Categorical):
                    return integers(array, source, below=below, limit=limit)
                return integer_lists(array, source, slots=feature.slots, below=below, limit=limit)

    def _ids(self, table: ParquetTable, array: pa.Array) -> Column:
        source = f"{table.path}: column {self.id_column}"
        return integers(array, source, below=MAX_ID + 1, limit="beyond 63 bits")

    def _default_id_column(self) -> str:
        for name in ("item_id", self.schema.identity):
            if name in self._main.columns:
                return str(name)
        raise DataFileError(
            f"{self._main.path}: has no column item_id; name the id column "
            f"(it has: {', '.join(self._main.columns)})"
        )

    def _join(self, table: ParquetTable, lacking: list[Feature]) -> JoinedColumns:
        """Take from ``table`` what is still lacking, whole in memory, ordered by id."""
        table.require(self.id_column)
        taken = [feature for feature in lacking if feature.name in table.columns]
        lacking[:] = [feature for feature in lacking if feature not in taken]
        ids: list[Column] = []
        columns: dict[str, list[Column]] = {feature.name: [] for feature in taken}
        for _, arrays in table.batches([self.id_column, *columns], 65_536):
            ids.append(self._ids(table, arrays[self.id_column]))
            for feature in taken:
                source = f"{table.path}: column {feature.name}"
                columns[feature.name].append(self._column(feature, arrays[feature.name], source))
        context = [f.name for f in taken if f in self.schema.context]
        joined = JoinedColumns.of(table.path, ids, columns, context)
        if taken:  # else nothing of the file is used, and its faults are nobody's
            for row, reason in joined.rejected.items():
                self._rejected.append(RejectedRow(str(table.path), row, self.id_column, reason))
        if self.strict and self._rejected:
            raise DataFileError(str(self._rejected[0]))
        return joined

    def _say_missing(self, lacking: list[Feature], paths: list[Path]) -> None:
        names = ", ".join(str(path) for path in paths)
        for feature in lacking:
            if feature not in self.schema.context:
                raise DataFileError(f"{names}: no column {feature.name!r}, which the schema needs")
        if lacking:
            missing = ", ".join(feature.name for feature in lacking)
            self.warnings.append(f"no column {missing} in {names}: 0 (padding) for every item")

    def _repeated_ids(self) -> Ids:
        """Row numbers whose id an earlier row has already given."""
        parts = [
            self._ids(self._main, arrays[self.id_column]).values
            for _, arrays in self._main.batches([self.id_column], 262_144)
        ]
        every = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        _, first = np.unique(every, return_index=True)
        again = np.ones(len(every), bool)
        again[first] = False
        return np.flatnonzero(again)

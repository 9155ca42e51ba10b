"""Reads item features from parquet files as batches of ids and stored item rows.

Files with the same columns are parts: further rows; a folder is read as its parts. The first file
and its parts give the items; other files (and their parts) give the columns that those lack, joined
on the id column (``item_info.parquet`` and, for the level buckets, ``item_feature.parquet``). A
column is named as its feature is. The id column is ``item_id`` where there is one, else the
identity feature's own: ids are the caller's, while the embedding index is a feature, and the two
may differ. For a mapped store the ids are texts; joins use their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.contents import Contents
from feature_store.contract import Ids, ItemRows
from feature_store.parquet.arrays import is_number
from feature_store.parquet.columns import (
    INDICES,
    Column,
    DataFileError,
    RejectedRow,
    dense,
    integer_lists,
    integers,
)
from feature_store.parquet.content_digests import (
    digest_column,
    feature_with_digests,
    read_digests,
)
from feature_store.parquet.id_columns import IdColumn, IdReader
from feature_store.parquet.join import Digests, JoinedColumns, digests
from feature_store.parquet.parts import ParquetParts, grouped
from feature_store.parquet.table import ParquetTable, tables_of
from feature_store.parquet.text_columns import read_descriptions, text_columns
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema
from feature_store.text_ids import TextIds

Feature = Categorical | CategoricalList | Dense
SURVEY_ROWS = 65_536  # batch size of the passes before ``batches``


@dataclass(frozen=True, slots=True)
class ItemParquetBatch:
    """The items of consecutive rows of the first file and its parts."""

    ids: Ids  # (N,)
    rows: ItemRows  # (N,) of schema.item_dtype
    rejected: list[RejectedRow]
    next_row: int  # of the first files, to continue at
    differing: int = 0  # items with conflicting values in a column that several files have
    texts: dict[int, str] = field(default_factory=dict)  # mapped store: of the ids
    contents: Contents | None = None  # (N,) origins of vectors, where the first files have them
    descriptions: dict[int, dict[str, str]] = field(default_factory=dict)  # likewise, of the ids


def read_items(
    paths: Sequence[Path],
    schema: FeatureSchema,
    batch_size: int = 8192,
    *,
    id_column: str | None = None,
    strict: bool = False,
) -> Iterator[ItemParquetBatch]:
    """Yield every item of the files. See ``ItemParquet``."""
    return ItemParquet(paths, schema, id_column=id_column, strict=strict).batches(batch_size)


class ItemParquet:
    """The items of one or more parquet files.

    With ``padded``, the all-zero row of id 0 is padding and is skipped. Without ``strict``, an
    invalid row is reported in its batch (one of a further file in the first batch), and an index
    beyond the vocabulary is accepted (newer than the model: served as cold). With ``strict``, for
    training, both raise DataFileError. ``text_ids``: those of a mapped store; ``id_option``: the
    option of the id column, for messages.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        schema: FeatureSchema,
        *,
        id_column: str | None = None,
        strict: bool = False,
        text_ids: TextIds | None = None,
        id_option: str = "--id-column",
        padded: bool = True,
    ) -> None:
        if not paths:
            raise DataFileError("no item file was given")
        self.schema = schema
        self.strict = strict
        self._reader, self._id_option, self._padded = IdReader(text_ids), id_option, padded
        self.warnings: list[str] = []
        features = schema.stored_item
        names = frozenset(feature.name for feature in features)
        tables = [table for path in paths for table in tables_of(path, names)]
        self.id_column = id_column or _default_id_column(tables[0], schema)
        self._id_is_a_feature = self.id_column in names
        for table in tables:
            table.require(self.id_column)
        (here, self._main), *others = grouped(tables, names)
        self._here = [feature for feature in features if feature.name in here]
        lacking = [feature for feature in features if feature.name not in here]
        keeps = schema.descriptions and not strict
        self._texts = (
            text_columns(self._main.columns, schema.item_dtype.names or ()) if keeps else []
        )
        self._content = None if strict else feature_with_digests(self._here, self._main.columns)
        self._rejected: list[RejectedRow] = []  # of the further files
        self._joined = [self._join(parts, columns, lacking) for columns, parts in others]
        self._say_missing(lacking, [table.path for table in tables])
        self._say_unread_digests(tables)
        ids, self._again = self._repeated_ids()
        self.joined_to_nothing = sum(self._say_unjoined(joined, ids) for joined in self._joined)

    @property
    def rows(self) -> int:
        """Rows of the first file and its parts."""
        return self._main.rows

    def renumber(self, text_ids: TextIds) -> None:
        """Use the numbers of another mapped store, made after the files were opened."""
        self._reader = IdReader(text_ids)
        for joined in self._joined:
            batches = joined.parts.batches([self.id_column], SURVEY_ROWS)
            columns = [self._ids(path, arrays[self.id_column]) for _, path, arrays in batches]
            joined.renumber(np.concatenate([column.values for column in columns]))

    def batches(self, batch_size: int = 8192, start: int = 0) -> Iterator[ItemParquetBatch]:
        """Yield batches from row ``start`` of the first files. Completes ``warnings``."""
        for joined in self._joined:
            joined.context_defaulted = joined.differing = 0
        columns = list(dict.fromkeys([self.id_column, *(f.name for f in self._here)]))
        columns += [digest_column(self._content)] if self._content else []
        columns += self._texts
        for first, path, arrays in self._main.batches(columns, batch_size, start):
            batch = self._batch(first, path, arrays)
            if first == 0:  # a resumed load has reported them before
                batch.rejected[:0] = self._rejected
            yield batch
        for joined in self._joined:
            if joined.context_defaulted:
                self.warnings.append(
                    f"{joined.context_defaulted} items are not in {joined.parts}: their "
                    f"{', '.join(joined.context)} is 0 (padding)"
                )
            if joined.differing:
                names = ", ".join(sorted(joined.differing_columns))
                self.warnings.append(
                    f"{joined.differing} items have another {names} in {joined.parts} than in the "
                    f"files before it, which count"
                )

    def _batch(self, first: int, path: Path, arrays: dict[str, pa.Array]) -> ItemParquetBatch:
        keys = self._ids(path, arrays[self.id_column])
        faults = {row: (self.id_column, reason) for row, reason in keys.faults.items()}
        ids = keys.values
        rows = np.zeros(len(ids), self.schema.item_dtype)
        for feature in self._here:
            column = self._column(feature, arrays[feature.name], f"{path}: column {feature.name}")
            rows[feature.name] = column.values.reshape(rows[feature.name].shape)
            for row, reason in column.faults.items():
                faults.setdefault(row, (feature.name, reason))
        contents = None
        if self._content:
            digests = digest_column(self._content)
            origins, wrong = read_digests(arrays[digests], f"{path}: column {digests}")
            contents = Contents.of(self._content, origins, rows.dtype)
            for row, reason in wrong.items():
                faults.setdefault(row, (digests, reason))
        is_item = np.ones(len(ids), bool)
        for row in np.flatnonzero(self._may_be_padding(ids)).tolist():
            is_item[row] = _has_features(rows[row])
        for joined in self._joined:
            for row, fault in joined.fill(rows, keys, is_item).items():
                faults.setdefault(row, fault)
        for row in np.flatnonzero(~is_item).tolist():  # a later file may have features of id 0
            is_item[row] = _has_features(rows[row])
        again = self._again[(self._again >= first) & (self._again < first + len(ids))] - first
        for row in again.tolist():
            faults.setdefault(row, (self.id_column, f"id {keys.shown(row)} repeated"))
        rejected = [
            self._main.rejected(first + row, column, reason)
            for row, (column, reason) in sorted(faults.items())
        ]
        if self.strict and rejected:
            raise DataFileError(str(rejected[0]))
        is_item[list(faults)] = False
        named = is_item.copy()
        named[again] = True  # the store refuses another text of the same number
        texts = keys.texts(named)
        next_row, ids, rows = first + len(ids), ids[is_item], rows[is_item]
        differing = [joined.compare(rows, ids) for joined in self._joined if joined.shared]
        count = int(np.logical_or.reduce(differing).sum()) if differing else 0
        contents = None if contents is None else contents.take(is_item)
        described = {name: arrays[name] for name in self._texts}
        read = read_descriptions(described, str(path), self._main.place(first)[1])
        kept = (read[row] for row in np.flatnonzero(is_item).tolist()) if read else ()
        by_id = dict(zip(ids.tolist(), kept, strict=False))
        return ItemParquetBatch(ids, rows, rejected, next_row, count, texts, contents, by_id)

    def _may_be_padding(self, ids: Ids) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (ids == self._reader.zero) & self._padded
        return found

    def _column(
        self, feature: Feature, array: pa.Array, source: str, *, compared: bool = False
    ) -> Column:
        """Read a column. ``compared``: not used, so indices are not checked."""
        return feature_column(feature, array, source, known=self.strict and not compared)

    def _ids(self, path: Path, array: pa.Array) -> IdColumn:
        source = f"{path}: column {self.id_column}"
        if self._reader.text_ids and self._id_is_a_feature and not is_number(array.type):
            raise DataFileError(
                f"{source}: holds {array.type}, but the schema's feature {self.id_column} is an "
                "integer, the index: write the ids to another column and name it by "
                f"{self._id_option}"
            )
        return self._reader.column(array, source)

    def _shown(self, parts: ParquetParts, rows: Ids) -> dict[int, str]:
        """Return the ids of some rows as messages show them."""
        found: dict[int, str] = {}
        for first, path, arrays in parts.batches([self.id_column], SURVEY_ROWS, min(rows)):
            keys = self._ids(path, arrays[self.id_column])
            here = rows[(rows >= first) & (rows < first + len(keys.values))]
            found |= {row: keys.shown(row - first) for row in here.tolist()}
        return found

    def _join(
        self, parts: ParquetParts, here: frozenset[str], lacking: list[Feature]
    ) -> JoinedColumns:
        """Read the lacking columns of ``parts`` into memory, ordered by id, and digests of the
        columns that other files have, too."""
        taken = [feature for feature in lacking if feature.name in here]
        lacking[:] = [feature for feature in lacking if feature not in taken]
        features = {f.name: f for f in self.schema.stored_item}
        others = here - {feature.name for feature in taken} - {self.id_column}
        shared = [features[name] for name in features if name in others]
        ids: list[Column] = []
        columns: dict[str, list[Column]] = {feature.name: [] for feature in taken}
        compared: dict[str, list[Digests]] = {feature.name: [] for feature in shared}
        wanted = list(dict.fromkeys([self.id_column, *sorted(here)]))
        for _, path, arrays in parts.batches(wanted, SURVEY_ROWS):
            keys = self._ids(path, arrays[self.id_column])
            ids.append(Column(keys.values, keys.faults))  # without the texts, for memory's sake
            for feature in taken:
                source = f"{path}: column {feature.name}"
                columns[feature.name].append(self._column(feature, arrays[feature.name], source))
            for feature in shared:
                compared[feature.name].append(self._digests(feature, arrays[feature.name]))
        context = [f.name for f in taken if f in self.schema.context]
        joined = JoinedColumns.of(parts, ids, columns, context, compared)
        if taken:  # else the files are unused and their faults do not matter
            if len(joined.repeated):
                shown = self._shown(parts, joined.repeated)
                joined.rejected |= {row: f"id {text} repeated" for row, text in shown.items()}
            for row, reason in sorted(joined.rejected.items()):
                self._rejected.append(parts.rejected(row, self.id_column, reason))
        if self.strict and self._rejected:
            raise DataFileError(str(self._rejected[0]))
        return joined

    def _digests(self, feature: Feature, array: pa.Array) -> Digests:
        """Digest each row's value as stored; arbitrary for an invalid one."""
        try:
            column = self._column(feature, array, feature.name, compared=True)
        except DataFileError:  # of another type
            return np.zeros(len(array), np.uint64)
        field = self.schema.item_dtype[feature.name]
        values = np.zeros(len(array), field)
        with np.errstate(over="ignore"):
            values[:] = column.values.reshape(values.shape).astype(field.base)
        found = digests(values)
        found[list(column.faults)] = 0
        return found

    def _say_unjoined(self, joined: JoinedColumns, ids: Ids) -> int:
        """Count ids of the further files that are missing in the first; 0 is padding."""
        real = joined.ids[~self._may_be_padding(joined.ids)]
        unjoined = np.setdiff1d(real, ids, assume_unique=True)
        if len(unjoined):
            rows = joined.row[np.searchsorted(joined.ids, unjoined[:3])]
            texts = self._shown(joined.parts, rows)
            shown = ", ".join(texts[row] for row in rows.tolist())
            self.warnings.append(
                f"{len(unjoined)} ids of {joined.parts} are not in {self._main}: not loaded "
                f"({shown}{', …' if len(unjoined) > 3 else ''})"
            )
        return len(unjoined)

    def _say_missing(self, lacking: list[Feature], paths: list[Path]) -> None:
        names = ", ".join(str(path) for path in paths)
        for feature in lacking:
            if feature not in self.schema.context:
                raise DataFileError(f"{names}: no column {feature.name!r}, which the schema needs")
        if lacking:
            missing = ", ".join(feature.name for feature in lacking)
            self.warnings.append(f"no column {missing} in {names}: 0 (padding) for every item")

    def _say_unread_digests(self, tables: Sequence[ParquetTable]) -> None:
        """Warn of digests in further files: they are of the first one's rows alone."""
        for table in () if self.strict or self._content else tables:
            if name := feature_with_digests(self.schema.item, table.columns):
                self.warnings.append(
                    f"{table.path}: column {digest_column(name)} is not read, so {name} is loaded "
                    "as given; give this file first"
                )

    def _repeated_ids(self) -> tuple[Ids, Ids]:
        """Every id once, ascending; and the row numbers of repeated ids."""
        found, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for first, path, arrays in self._main.batches([self.id_column], 262_144):
            keys = self._ids(path, arrays[self.id_column])
            sound = np.delete(np.arange(len(keys.values)), list(keys.faults))
            found.append(keys.values[sound])
            numbers.append(first + sound)
        every, rows = np.concatenate(found), np.concatenate(numbers)
        ids, at = np.unique(every, return_index=True)
        again = np.ones(len(every), np.bool_)
        again[at] = False
        return ids, rows[again]


def feature_column(feature: Feature, array: pa.Array, source: str, *, known: bool) -> Column:
    """Read a feature's values; ``known``: an index must be in the vocabulary."""
    match feature:
        case Dense():
            within = feature.most, feature.limit
            return dense(array, source, size=feature.size, dtype=feature.dtype, within=within)
        case Categorical() | CategoricalList():
            below, limit = 2**31, "beyond int32"
            if known:
                below = feature.vocabulary
                limit = f"not in the vocabulary of {below}"
            if isinstance(feature, Categorical):
                return integers(array, source, below=below, limit=limit, remedy=INDICES)
            slots = feature.slots
            return integer_lists(
                array, source, slots=slots, below=below, limit=limit, remedy=INDICES
            )


def _default_id_column(table: ParquetTable, schema: FeatureSchema) -> str:
    for name in ("item_id", schema.identity):
        if name in table.columns:
            return str(name)
    raise DataFileError(
        f"{table.path}: has no column item_id; name the id column "
        f"(it has: {', '.join(table.columns)})"
    )


def _has_features(row: np.void) -> bool:
    """Whether a value is not zero; a negative zero, as of 0 times a negative number, is zero."""
    return any(np.any(row[name]) for name in row.dtype.names or ())

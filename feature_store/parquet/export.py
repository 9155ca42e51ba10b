"""Writes a store to parquet files that ``load`` reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contract import CORRUPT, FOUND, FeatureStore, ItemRows
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.histories import SEQUENCE, USER
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema

ITEMS, HISTORIES, SCHEMA = "items.parquet", "histories.parquet", "schema.yaml"


async def export_items(
    store: FeatureStore, path: Path, id_column: str
) -> AsyncIterator[tuple[int, list[int]]]:
    """Write every item; yield (items written so far, ids of damaged ones) after each batch."""
    schema = store.schema
    written = 0
    with _written(path, _item_columns(schema, id_column)) as writer:
        async for batch in store.scan_items():
            good = batch.status == FOUND
            ids, rows = batch.ids[good], batch.rows[good]
            if id_column in (rows.dtype.names or ()) and (rows[id_column] != ids).any():
                raise DataFileError(
                    f"{path}: items' ids differ from their feature {id_column!r}; "
                    "name another id column with --id-column"
                )
            arrays = [pa.array(ids)] + [
                _array(rows, name) for name in writer.schema.names if name != id_column
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=writer.schema))
            written += len(ids)
            yield written, batch.ids[batch.status == CORRUPT].tolist()


async def export_histories(store: FeatureStore, path: Path) -> AsyncIterator[tuple[int, list[int]]]:
    """Write every history, newest last; yield (users so far, users whose history has an id 0).

    Id 0 is padding in such a file: those clicks cannot be read back.
    """
    written = 0
    columns = pa.schema([(USER, pa.int64()), (SEQUENCE, pa.list_(pa.int64()))])
    with _written(path, columns) as writer:
        async for batch in store.scan_histories():
            users, newest_last = list(batch), [ids[::-1] for ids in batch.values()]
            arrays = [pa.array(users, pa.int64()), pa.array(newest_last, columns.field(1).type)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=columns))
            written += len(users)
            yield written, [user for user, ids in batch.items() if not ids.all()]


def _item_columns(schema: FeatureSchema, id_column: str) -> pa.Schema:
    """The id column, then the features except one of the same name."""
    columns = [(id_column, pa.int64())]
    for feature in schema.stored_item:
        if feature.name == id_column:
            continue
        match feature:
            case Categorical():
                columns.append((feature.name, pa.int32()))
            case CategoricalList():
                columns.append((feature.name, pa.list_(pa.int32(), feature.slots)))
            case Dense():
                columns.append((feature.name, pa.list_(pa.float32(), feature.size)))
    return pa.schema(columns)


def _array(rows: ItemRows, name: str) -> Any:
    values = np.ascontiguousarray(rows[name])
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


@contextmanager
def _written(path: Path, columns: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Write a file atomically: complete or absent."""
    partial = path.with_name(path.name + ".partial")
    try:
        with pq.ParquetWriter(partial, columns) as writer:
            yield writer
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

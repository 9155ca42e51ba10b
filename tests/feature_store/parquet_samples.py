"""Parquet files for the store tests, written as their users write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contract import Ids, ItemRows
from feature_store.schema import Dense, FeatureSchema


def write(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(dict(columns)), path, **options)
    return path


def item_columns(schema: FeatureSchema, item_ids: Ids, rows: ItemRows) -> dict[str, Any]:
    """The columns of an item file; floats as the challenge has them, in double precision."""
    columns: dict[str, Any] = {"item_id": pa.array(item_ids)}
    for feature in (*schema.item, *schema.context):
        values = rows[feature.name]
        if isinstance(feature, Dense):
            values = values.astype(np.float64)
        columns[feature.name] = pa.array(list(values) if values.ndim > 1 else values)
    return columns

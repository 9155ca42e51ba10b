"""Leaves out lists that are too long before anything is made of their elements."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch.job import Columns
from feature_store.parquet.arrays import is_list

Faults = dict[int, str]  # row -> reason


def without_long(
    arrays: Mapping[str, pa.Array], columns: Columns, most: int
) -> tuple[dict[str, pa.Array], Faults]:
    """Return the columns with null in place of a list of more than ``most`` candidates, and of the
    contexts beside it; and why."""
    items = arrays[columns.item]
    if columns.layout == "rows" or not is_list(items.type):
        return dict(arrays), {}
    lengths = pc.list_value_length(items).fill_null(0).to_numpy(zero_copy_only=False)
    long = np.flatnonzero(lengths > most)
    if not len(long):
        return dict(arrays), {}
    rows = np.arange(len(lengths))
    kept = pa.array(rows, mask=lengths > most)  # a null takes null
    shortened = {
        name: array.take(kept) if name in (columns.item, *columns.context) else array
        for name, array in arrays.items()
    }
    return shortened, {row: too_long(int(lengths[row]), most) for row in long.tolist()}


def too_long(length: int, most: int) -> str:
    """Word why a list or a user is left out."""
    return f"{length} candidates, above --max-candidates {most}"

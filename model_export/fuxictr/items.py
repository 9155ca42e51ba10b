"""Reads the number of tag slots from the item table: a state_dict does not have it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc

from feature_store.parquet.arrays import is_list
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.parts import ParquetParts

TAGS = "item_tags"


def slots_of(items: list[Path]) -> int:
    """The largest number of tags of an item. Raises DataFileError if no file has tags."""
    for path in items:
        table = ParquetParts.read(path)
        if TAGS not in table.columns:
            continue
        most = 0
        for _, _, columns in table.batches([TAGS], 65_536):
            tags = columns[TAGS]
            if not is_list(tags.type):
                raise DataFileError(f"{path}: column {TAGS}: holds {tags.type}, not lists")
            most = max(most, pc.max(pc.list_value_length(tags)).as_py() or 0)
        if not most:
            raise DataFileError(f"{path}: column {TAGS}: no item has a tag")
        return int(most)
    raise DataFileError(f"{', '.join(map(str, items))}: no file has a column {TAGS!r}")

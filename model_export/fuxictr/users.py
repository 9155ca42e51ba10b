"""Reads the index of each user from a users file, where indices are not the users' ids."""

from __future__ import annotations

from pathlib import Path

from feature_store.parquet.columns import DataFileError
from feature_store.schema import FeatureSchema
from training.data.user_ids import USER
from training.data.users import UserTable

INDEX = "user_index"  # the feature's name, as ``user_id`` is the id


def indices_of(path: Path, schema: FeatureSchema) -> UserTable:
    """Read columns ``user_id`` and ``user_index``. Raises DataFileError (file, row, column)."""
    if schema.user_identity != INDEX:
        raise DataFileError(f"{path}: the checkpoint has no users: import it without --users")
    table = UserTable.read(path, schema)
    if not table.features:
        raise DataFileError(f"{path}: has no column {INDEX!r}: the index of each {USER}")
    if not len(table.ids):
        raise DataFileError(f"{path}: holds no users: import without --users to use ids as indices")
    return table

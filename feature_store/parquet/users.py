"""Reads user features from parquet files: a user id and a column per user feature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from feature_store.parquet.columns import DataFileError
from feature_store.parquet.histories import USER
from feature_store.parquet.items import ItemParquet
from feature_store.schema import FeatureSchema
from feature_store.text_ids import TextIds


def user_parquet(
    paths: Sequence[Path],
    schema: FeatureSchema,
    *,
    id_column: str | None = None,
    text_ids: TextIds | None = None,
) -> ItemParquet:
    """Open users files, by the rules of item files: parts, further columns, rejected rows. A user 0
    is one as others are.

    Batches have rows of ``schema.user_dtype``. The id column is ``user_id`` by default; a feature
    of that name is read from it, too. DataFileError if the schema has no user features.
    """
    if not schema.user:
        raise DataFileError(
            f"{paths[0]}: the schema has no user features; give one that has by --schema"
        )
    alone = FeatureSchema(name=schema.name, history_length=1, item=schema.user)
    return ItemParquet(
        paths,
        alone,
        id_column=id_column or USER,
        text_ids=text_ids,
        id_option="--user-id-column",
        padded=False,
    )

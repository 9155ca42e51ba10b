"""Small schemas and networks for this room's tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from feature_store.schema import FeatureSchema
from training.data.catalogue import Catalogue
from training.data.rows import Rows
from training.data.users import RowUsers
from training.qin import QINSizes

SIZES = QINSizes(attention_width=12, layers=2, rows=3)

SMALL = FeatureSchema.from_yaml(
    """
name: small
history_length: 6
item:
  - {name: item_id, kind: categorical, vocabulary: 40, width: 4}
  - {name: item_tags, kind: categorical_list, vocabulary: 20, slots: 3, width: 6}
  - {name: item_emb_d128, kind: dense, size: 5, width: 4, storage: float16}
identity: item_id
context:
  - {name: likes_level, vocabulary: 11, width: 3}
  - {name: views_level, vocabulary: 11, width: 2}
""",
    source="small",
)


def small_rows(count: int, seed: int, schema: FeatureSchema = SMALL) -> Rows:
    """Random rows over 30 items whose labels depend on the target alone: quickly learned."""
    rng = np.random.default_rng(0)
    items = np.zeros(31, schema.item_dtype)
    items["item_id"] = np.arange(31)
    items["item_tags"][1:] = rng.integers(0, 20, (30, 3))
    items["item_emb_d128"][1:] = rng.standard_normal((30, 5))
    rng = np.random.default_rng(seed)
    full = schema.history_length
    history = rng.integers(1, 31, (count, full)).astype(np.int32)
    history[np.arange(full) < rng.integers(0, full + 1, (count, 1))] = 0
    target = rng.integers(1, 31, count).astype(np.int32)
    return Rows(
        Catalogue(schema, np.arange(31), items),
        user=rng.integers(1, 9, count),
        history=history,
        target=target,
        context=rng.integers(0, 11, (count, 2)).astype(np.int32),
        label=(rng.random(count) < np.where(target % 3 == 0, 0.8, 0.1)).astype(np.float32),
    )


def small_rows_of_users(count: int, seed: int, users: int) -> Rows:
    """Small rows of so many known users, and of some unknown ones."""
    fields = SMALL.model_dump() | {
        "user": [
            {"name": "user_index", "kind": "categorical", "vocabulary": users + 1, "width": 4},
            {"name": "likes", "kind": "categorical_list", "vocabulary": 9, "slots": 2, "width": 2},
        ],
        "user_identity": "user_index",
    }
    schema = FeatureSchema.model_validate(fields)
    rows = small_rows(count, seed, schema)
    rng = np.random.default_rng(seed)
    distinct = np.zeros(users + 1, np.dtype([("ID", "<i8"), *schema.user_dtype.descr]))
    distinct["ID"] = distinct["user_index"] = np.arange(users + 1)
    distinct["likes"][1:] = np.random.default_rng(0).integers(0, 9, (users, 2))
    row = rng.integers(0, users + 1, count).astype(np.int32)
    of_rows, _ = RowUsers.of(schema, distinct, row, [])
    return replace(rows, user=row.astype(np.int64), users=of_rows)

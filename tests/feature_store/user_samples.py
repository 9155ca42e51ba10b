"""Schemas and rows of users for the store tests."""

from __future__ import annotations

import numpy as np

from feature_store.contract import UserRows
from feature_store.schema import FeatureSchema
from tests.feature_store.samples import SHOP

COUNTRY = {"name": "country", "kind": "categorical", "vocabulary": 9, "width": 3}
LIKES = {"name": "likes", "kind": "categorical_list", "vocabulary": 9, "slots": 3, "width": 2}
AGE = {"name": "age", "kind": "categorical", "vocabulary": 100, "width": 2}
DEVICE = {"name": "device", "kind": "categorical", "vocabulary": 5, "width": 2}
TASTE = {"name": "taste", "kind": "dense", "size": 4, "width": 3, "storage": "float16"}


def with_users(*features: dict[str, object]) -> FeatureSchema:
    return FeatureSchema.model_validate(SHOP.model_dump() | {"user": list(features)})


SCHEMA = with_users(COUNTRY, LIKES, TASTE)


def user_rows(count: int, seed: int = 0, schema: FeatureSchema = SCHEMA) -> UserRows:
    random = np.random.default_rng(seed)
    rows = np.zeros(count, schema.user_dtype)
    for name in rows.dtype.names or ():
        shape = rows[name].shape
        rows[name] = random.normal(size=shape) if name == "taste" else random.integers(1, 9, shape)
    return rows

"""Schemas and rows for the store tests."""

from __future__ import annotations

import numpy as np

from feature_store.contract import Ids, ItemRows
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema

# Nothing of it is called as MicroLens calls things: the store must not depend on those names.
SHOP = FeatureSchema(
    name="shop",
    history_length=8,
    item=(
        Categorical(name="sku", vocabulary=500, width=4),
        Categorical(name="brand", vocabulary=20, width=2),
        CategoricalList(name="colours", kind="categorical_list", vocabulary=30, slots=3, width=4),
        Dense(name="picture", kind="dense", size=6, width=4, storage="float16"),
        Dense(name="price", kind="dense", size=1, width=1),
    ),
    identity="sku",
    context=(Categorical(name="stock_level", vocabulary=4, width=2),),
)


def bounded(most: float) -> FeatureSchema:
    """SHOP with a ``max_abs`` of its picture."""
    item = [f.model_copy(update={"max_abs": most}) if f.name == "picture" else f for f in SHOP.item]
    return SHOP.model_copy(update={"item": tuple(item)})


def ids(*values: int) -> Ids:
    return np.array(values, np.int64)


def random_rows(schema: FeatureSchema, count: int, seed: int = 0) -> ItemRows:
    """(count,) item rows with every feature in its range."""
    random = np.random.default_rng(seed)
    rows = np.zeros(count, schema.item_dtype)
    for feature in (*schema.item, *schema.context):
        shape = rows[feature.name].shape
        if isinstance(feature, Dense):
            rows[feature.name] = random.normal(size=shape)
        else:
            rows[feature.name] = random.integers(0, feature.vocabulary, shape)
    return rows

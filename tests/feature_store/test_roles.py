"""A store serves, and is loaded by, schemas that have its features in other roles and orders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from feature_store import FeatureSchema, FeatureStore
from feature_store.codec import ItemCodec, by_name
from feature_store.contract import FOUND
from feature_store.errors import StoreMismatch
from feature_store.lmdb.environment import acquire, release
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect

STOCK = SHOP.context[0]
COUNTRY = {"name": "country", "kind": "categorical", "vocabulary": 9, "width": 3}
TASTE = {"name": "taste", "kind": "dense", "size": 4, "width": 3}


def schema_of(base: FeatureSchema, **changes: object) -> FeatureSchema:
    return FeatureSchema.model_validate(base.model_dump() | changes)


# The stock level is the candidate's context in SHOP; here it is a part of the item, too, and first.
LEVELS = schema_of(SHOP, item=[f.model_dump() for f in (STOCK, *SHOP.item[::-1])])
WITH_USERS = schema_of(SHOP, user=[COUNTRY], user_identity="country", request=[
    {"name": "hour", "kind": "numeric", "width": 2}])  # fmt: skip


async def recorded(url: str) -> FeatureSchema:
    store = await connect(url)
    await store.close()
    return store.schema


@pytest.mark.parametrize(("kept", "served"), [(SHOP, LEVELS), (LEVELS, SHOP)])
async def test_a_store_serves_a_schema_with_its_features_in_other_roles(
    store_url: str, kept: FeatureSchema, served: FeatureSchema
) -> None:
    rows = random_rows(SHOP, 3)
    loader = await connect(store_url, kept, create=True)
    await loader.put_items(ids(1, 2, 3), rows)
    await loader.close()
    store = await connect(store_url, served)
    batch = await store.items(ids(1, 2, 3))
    assert (batch.status == FOUND).all()
    assert (by_name(batch.rows, SHOP.item_dtype) == rows).all()
    await store.put_items(ids(4), random_rows(served, 1, seed=4))
    await store.close()
    store = await connect(store_url)
    written = by_name((await store.items(ids(4))).rows, served.item_dtype)
    assert (written == random_rows(served, 1, seed=4)).all()
    assert store.schema.layout == kept.layout
    await store.close()


async def test_a_load_in_other_roles_keeps_the_records(store: FeatureStore, store_url: str) -> None:
    rows = random_rows(SHOP, 2)
    await store.put_items(ids(1, 2), rows)
    loader = await connect(store_url, LEVELS, create=True)
    assert (await loader.items(ids(1, 2))).rows.tobytes() == rows.tobytes()
    await loader.close()
    assert await recorded(store_url) == SHOP


async def test_a_load_adds_user_features_in_place(store: FeatureStore, store_url: str) -> None:
    rows = random_rows(SHOP, 2)
    await store.put_items(ids(1, 2), rows)
    await store.append(7, [1])
    with pytest.raises(StoreMismatch, match=r"user\.country: not in the store"):
        await connect(store_url, WITH_USERS)
    await (await connect(store_url, WITH_USERS, create=True)).close()
    more = schema_of(SHOP, user=[TASTE, COUNTRY])
    await (await connect(store_url, more, create=True)).close()
    assert [f.name for f in (await recorded(store_url)).user] == ["country", "taste"]
    for schema in (None, SHOP, WITH_USERS, more):
        again = await connect(store_url, schema)
        assert (await again.items(ids(1, 2))).rows.tobytes() == rows.tobytes()
        history = await again.history(7)
        assert history is not None
        assert history.tolist() == [1]
        await again.close()
    await (await connect(store_url, SHOP, create=True)).close()  # a load without them keeps them
    assert [f.name for f in (await recorded(store_url)).user] == ["country", "taste"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"item": [f.model_dump() for f in SHOP.item[:-1]]}, "item.price: in the store alone"),
        ({"identity": None}, "identity: None against the store's 'sku'"),
        ({"context": []}, "item.stock_level: in the store alone"),
        (
            {"user": [TASTE | {"size": 5}]},
            "user.taste: dense of 5 float32 against the store's dense of 4",
        ),
    ],
)
async def test_a_load_with_other_features_is_refused(
    store_url: str, changes: dict[str, object], named: str
) -> None:
    await (await connect(store_url, schema_of(SHOP, user=[TASTE]), create=True)).close()
    with pytest.raises(StoreMismatch) as refused:
        await connect(store_url, schema_of(SHOP, **changes), create=True)
    assert named in str(refused.value)


async def test_the_record_has_what_is_stored_alone(store_url: str) -> None:
    shared = schema_of(LEVELS, user=WITH_USERS.model_dump()["user"], request=[
        {"name": "hour", "kind": "numeric", "width": 2}])  # fmt: skip
    assert shared.shared
    await (await connect(store_url, shared, create=True)).close()
    schema = await recorded(store_url)
    assert (schema.request, schema.context) == ((), ())
    assert schema.layout == shared.layout
    assert not shared.unserved_by(schema)


@pytest.mark.parametrize(
    ("schema", "numeric", "mapped"), [(SHOP, b"1", b"2"), (WITH_USERS, b"3", b"4")]
)
async def test_earlier_releases_refuse_a_store_with_user_features_by_its_format(
    tmp_path: Path, schema: FeatureSchema, numeric: bytes, mapped: bytes
) -> None:
    for kind, expected in (("numeric", numeric), ("mapped", mapped)):
        url = f"lmdb://{tmp_path / kind}"
        await (await connect(url, schema, create=True, ids=kind)).close()
        environment = acquire(tmp_path / kind, create=False)
        assert environment.get(b"format", environment.db["meta"]) == expected
        release(environment)
        store = await connect(url)
        assert (store.text_ids is None) == (kind == "numeric")
        await store.close()


def test_rows_are_encoded_by_name() -> None:
    rows = random_rows(LEVELS, 5)
    numbers = np.arange(5)
    codec = ItemCodec(SHOP)
    assert (codec.decode(numbers, codec.encode(numbers, rows)).rows["sku"] == rows["sku"]).all()

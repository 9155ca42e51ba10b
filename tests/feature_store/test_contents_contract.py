"""What every store promises of contents, unchanged on each backend."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from feature_store import FeatureStore
from feature_store.contents import Contents, Origin, Wanted
from feature_store.contract import ItemRows
from feature_store.errors import ContentMismatch, StoreMismatch
from feature_store.schema_record import CONTENTS, STORE_FORMAT, parse
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect
from tests.feature_store.test_contents import FEATURE, NEW, OLD
from tests.feature_store.test_contract import changed

EXPECTED = {OLD: 1.0, NEW: 2.0}


async def put(store: FeatureStore, digest: str, *item_ids: int) -> ItemRows:
    rows = random_rows(SHOP, len(item_ids))
    rows[FEATURE] = EXPECTED[digest]
    contents = Contents.all_of(Origin(FEATURE, digest), len(item_ids), SHOP.item_dtype)
    await store.put_items(ids(*item_ids), rows, contents)
    return rows


async def add(store: FeatureStore, digest: str, item: int) -> bool:
    def change(row: ItemRows) -> None:
        row[FEATURE] = EXPECTED[digest]

    return await store.patch_item(item, change, Origin(FEATURE, digest))


async def vectors(store: FeatureStore, digest: str, *item_ids: int) -> list[float | None]:
    """The first number of each item's vector of a digest; None where it is lacking."""
    batch = await store.items(ids(*item_ids))
    rows, lacks = batch.choose(Wanted(Origin(FEATURE, digest)))
    assert not rows[FEATURE][lacks].any()
    found = rows[FEATURE][:, 0].tolist()
    return [None if no else value for value, no in zip(found, lacks.tolist(), strict=True)]


async def test_two_contents_of_an_item_are_read_by_their_digests(store: FeatureStore) -> None:
    rows = await put(store, OLD, 3, 67, 4)
    assert await vectors(store, OLD, 4, 3, 67, 5) == [1, 1, 1, None]
    assert await add(store, NEW, 67)
    assert not await add(store, NEW, 5)
    assert await vectors(store, OLD, 3, 67) == [1, 1]
    assert await vectors(store, NEW, 3, 67) == [None, 2]
    batch = await store.items(ids(3, 4))
    assert batch.rows.tobytes() == rows[[0, 2]].tobytes()


async def test_a_whole_put_leaves_no_earlier_content(store: FeatureStore) -> None:
    await put(store, OLD, 3)
    await add(store, NEW, 3)
    await store.put_items(ids(3), random_rows(SHOP, 1))
    assert await vectors(store, OLD, 3) == await vectors(store, NEW, 3) == [None]
    assert (await store.items(ids(3))).contents is None


async def test_the_change_log_has_each_new_content(store: FeatureStore) -> None:
    await put(store, OLD, 3, 4)
    start = (await store.changes(None)).cursor
    await add(store, NEW, 4)
    assert set((await changed(store, start))[0]) == {4}


async def test_contents_are_scanned(store: FeatureStore) -> None:
    await put(store, OLD, *range(100))
    await asyncio.gather(*(add(store, NEW, item) for item in range(0, 100, 2)))
    found: dict[int, bool] = {}
    async for batch in store.scan_items(7):
        _, lacks = batch.choose(Wanted(Origin(FEATURE, NEW)))
        found |= dict(zip(batch.ids.tolist(), (~lacks).tolist(), strict=True))
    assert found == {item: item % 2 == 0 for item in range(100)}


async def test_concurrent_contents_are_both_kept(store: FeatureStore) -> None:
    await store.put_items(ids(3), random_rows(SHOP, 1))
    await asyncio.gather(add(store, OLD, 3), add(store, NEW, 3))
    assert [await vectors(store, digest, 3) for digest in (OLD, NEW)] == [[1], [2]]


async def test_a_store_has_contents_of_one_feature(store: FeatureStore) -> None:
    await put(store, OLD, 3)
    price = Origin("price", NEW)
    with pytest.raises(ContentMismatch, match="contents of picture, not of price"):
        await store.patch_item(3, lambda row: None, price)
    contents = Contents.all_of(price, 1, SHOP.item_dtype)
    with pytest.raises(ContentMismatch, match="contents of picture, not of price"):
        await store.put_items(ids(4), np.zeros(1, SHOP.item_dtype), contents)
    assert await vectors(store, OLD, 3, 4) == [1, None]


async def test_earlier_releases_refuse_a_store_with_contents(store_url: str) -> None:
    store = await connect(store_url, SHOP, create=True)
    assert await recorded_format(store) == 1
    await put(store, OLD, 3)
    assert await recorded_format(store) == 1 + CONTENTS
    await store.close()
    again = await connect(store_url, SHOP, create=True)  # a load keeps it
    assert await recorded_format(again) == 1 + CONTENTS
    assert await vectors(again, OLD, 3) == [1]
    await again.close()
    with pytest.raises(StoreMismatch, match="newer than this program's"):
        parse("store", str(STORE_FORMAT + 1).encode(), b"")


async def recorded_format(store: FeatureStore) -> int:
    """The format in a store's metadata."""
    from feature_store.lmdb.store import LmdbStore
    from feature_store.redis.store import RedisStore
    from feature_store.redis.topology import Command

    if isinstance(store, LmdbStore):
        environment = store._env()
        meta = environment.db["meta"]
        return int(environment.read(lambda txn: txn.get(b"format", db=meta)))
    assert isinstance(store, RedisStore)
    key = store._layout.changes.removesuffix(b"changes") + b"meta"
    return int(await store._client.one(Command(("HGET", key, "format"), key)))

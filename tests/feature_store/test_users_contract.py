"""User records beside histories: what every store promises, unchanged on each backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from feature_store import FeatureStore
from feature_store.contract import FOUND, MAX_ID, MISSING, STALE, UserRows
from feature_store.errors import StoreCorrupt, StoreMismatch, StoreUnavailable, TextCollision
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect
from tests.feature_store.user_samples import (
    AGE,
    COUNTRY,
    DEVICE,
    LIKES,
    SCHEMA,
    TASTE,
    user_rows,
    with_users,
)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[FeatureStore]:
    opened = await connect(store_url, SCHEMA, create=True)
    yield opened
    await opened.close()


@pytest.fixture
async def mapped(store_url: str) -> AsyncIterator[FeatureStore]:
    opened = await connect(store_url, SCHEMA, create=True, ids="mapped")
    yield opened
    await opened.close()


async def test_a_user_is_history_and_record(store: FeatureStore) -> None:
    rows = user_rows(2)
    await store.put_users(ids(7, MAX_ID), rows)
    await store.append(7, [1, 2])
    await store.append(8, [3])
    seven, eight, last, none = [await store.user(user) for user in (7, 8, MAX_ID, 0)]
    assert seven.history is not None
    assert seven.history.tolist() == [2, 1]
    assert (seven.status, seven.row.tobytes()) == (FOUND, rows[:1].tobytes())
    assert eight.history is not None
    assert (eight.status, any(eight.row.tobytes())) == (MISSING, False)
    assert (last.history, last.row.tobytes()) == (None, rows[1:].tobytes())
    assert (none.history, none.status, none.row.shape) == (None, MISSING, (1,))
    with pytest.raises(ValueError, match="user id"):
        await store.user(-1)


async def test_records_come_back_in_the_order_asked(store: FeatureStore) -> None:
    rows = user_rows(700)
    await store.put_users(np.arange(700) * 3, rows)
    asked = np.random.default_rng(1).permutation(800)
    batch = await store.users(asked * 3)
    assert (batch.ids == asked * 3).all()
    assert (batch.status == np.where(asked < 700, FOUND, MISSING)).all()
    assert batch.rows.dtype == SCHEMA.user_dtype
    assert batch.rows[asked < 700].tobytes() == rows[asked[asked < 700]].tobytes()
    assert not any(batch.rows[asked >= 700].tobytes())
    assert len((await store.users(ids())).rows) == 0


async def test_a_record_is_replaced_and_the_last_of_a_repeated_id_stays(
    store: FeatureStore,
) -> None:
    rows = user_rows(4)
    await store.put_users(ids(5), rows[:1])
    await store.put_users(ids(5, 3, 5), rows[1:])
    assert (await store.user(5)).row.tobytes() == rows[3:].tobytes()
    assert await store.count_users() == 2
    await store.put_users(ids(), rows[:0])


async def test_a_user_s_patches_are_all_kept(store: FeatureStore) -> None:
    await store.put_users(ids(3), np.zeros(1, SCHEMA.user_dtype))

    def one_more(row: UserRows) -> None:
        row["country"] += 1

    def fail(row: UserRows) -> None:
        row["country"] = 0
        raise ValueError("country: not that")

    await asyncio.gather(*(store.patch_user(3, one_more) for _ in range(8)))
    with pytest.raises(ValueError, match="country: not that"):
        await store.patch_user(3, fail)
    assert (await store.user(3)).row["country"].tolist() == [8]
    assert not await store.patch_user(4, one_more)


async def test_every_record_is_scanned_once(store: FeatureStore) -> None:
    rows, users = user_rows(2_500), np.arange(2_500) * 1_000_003
    await store.put_users(users, rows)
    await store.put_histories({1: ids(5), 1_000_003: ids(5)})  # which are no records
    batches = [batch async for batch in store.scan_users(batch_size=100)]
    seen = np.concatenate([batch.ids for batch in batches])
    order = np.argsort(seen)
    assert (seen[order] == users).all()
    assert np.concatenate([batch.rows for batch in batches])[order].tobytes() == rows.tobytes()
    assert await store.count_users() == 2_500
    assert await store.count_histories() == 2


async def test_record_and_history_are_deleted_each_alone(store: FeatureStore) -> None:
    await store.put_users(ids(7), user_rows(1))
    await store.append(7, [1])
    assert await store.delete_history(7)
    assert (await store.user(7)).status == FOUND
    await store.append(7, [1])
    assert await store.delete_user(7)
    assert not await store.delete_user(7)
    assert (await store.user(7)).status == MISSING
    assert (await store.user(7)).history is not None


async def test_a_forgotten_user_leaves_nothing(store: FeatureStore) -> None:
    await store.put_users(ids(7, 8), user_rows(2))
    for key in "abc":
        await store.append(7, [1], key)
    await store.append(8, [1], "a")
    await store.append(9, [1])
    assert await store.forget_user(7)
    assert not await store.forget_user(7)
    assert await store.forget_user(9)
    forgotten = await store.user(7)
    assert (forgotten.history, forgotten.status) == (None, MISSING)
    assert (await store.user(8)).status == FOUND
    assert await store.append(7, [1], "a")  # the key is forgotten, too
    assert not await store.append(8, [1], "a")


async def test_many_keys_of_a_user_are_forgotten(store: FeatureStore) -> None:
    keys = [str(number) for number in range(2_100)]
    for key in keys:
        await store.append(7, [], key)
    assert not await store.forget_user(7)  # there was neither record nor history
    assert all([await store.append(7, [], key) for key in keys[::100]])


async def test_a_text_lives_as_long_as_record_or_history(mapped: FeatureStore) -> None:
    for number, text in {1: "one", 2: "two", 3: "three"}.items():
        await mapped.put_users(ids(number), user_rows(1), {number: text})
        await mapped.put_histories({number: ids(5)}, {number: text})
    assert await mapped.delete_history(1)
    assert await mapped.delete_user(2)
    assert await mapped.user_texts([1, 2, 3]) == ["one", "two", "three"]
    assert await mapped.delete_user(1)
    await mapped.put_histories({2: ids()})
    assert await mapped.forget_user(3)
    assert await mapped.user_texts([1, 2, 3]) == [None, None, None]


async def test_records_of_texts_name_them(mapped: FeatureStore) -> None:
    await mapped.put_users(ids(1), user_rows(1), {1: "one"})
    with pytest.raises(TextCollision):
        await mapped.put_users(ids(1), user_rows(1, seed=1), {1: "other"})
    with pytest.raises(ValueError, match="user id 2: its text is missing"):
        await mapped.put_users(ids(1, 2), user_rows(2), {1: "one"})
    assert (await mapped.user(1)).row.tobytes() == user_rows(1).tobytes()
    assert (await mapped.user(2)).status == MISSING
    assert await mapped.patch_user(1, lambda row: row.__setitem__("country", 2))


async def test_a_numeric_store_takes_no_texts_of_users(store: FeatureStore) -> None:
    with pytest.raises(StoreMismatch, match="its ids are numeric"):
        await store.put_users(ids(1), user_rows(1), {1: "one"})


async def test_a_store_without_user_features_has_histories_alone(store_url: str) -> None:
    store = await connect(store_url, SHOP, create=True)
    await store.append(7, [1])
    user = await store.user(7)
    assert user.history is not None
    assert (user.history.tolist(), user.status, user.row.dtype.names) == ([1], MISSING, ())
    assert (await store.users(ids(7, 8))).status.tolist() == [MISSING, MISSING]
    assert [batch async for batch in store.scan_users()] == []
    assert await store.count_users() == 0
    assert await store.user_fault(7) is None
    with pytest.raises(StoreMismatch, match="no user features"):
        await store.put_users(ids(7), np.zeros(1, SHOP.user_dtype))
    with pytest.raises(StoreMismatch, match="no user features"):
        await store.patch_user(7, lambda row: None)
    assert not await store.delete_user(7)
    assert await store.forget_user(7)
    assert await store.history(7) is None
    await store.close()


async def test_a_record_from_before_a_feature_was_added_lacks_it(
    store: FeatureStore, store_url: str
) -> None:
    rows = user_rows(1)
    await store.put_users(ids(7), rows)
    loader = await connect(store_url, with_users(COUNTRY, LIKES, TASTE, DEVICE), create=True)
    user = await loader.user(7)
    assert (user.status, user.row["device"].tolist()) == (FOUND, [0])
    for name in SCHEMA.user_dtype.names or ():
        assert user.row[name].tobytes() == rows[name].tobytes()
    assert await loader.patch_user(7, lambda row: row.__setitem__("device", 2))
    assert (await loader.user(7)).row["device"].tolist() == [2]
    await loader.close()


async def test_features_added_by_another_process_are_seen(
    store: FeatureStore, store_url: str
) -> None:
    more = with_users(COUNTRY, LIKES, TASTE, DEVICE)
    loader = await connect(store_url, more, create=True)
    rows = np.zeros(2, more.user_dtype)
    rows["device"] = [3, 4]
    await loader.put_users(ids(7, 8), rows)
    await loader.close()
    assert (await store.users(ids(7))).status.tolist() == [STALE]
    assert await store.user_fault(7) == "written with another schema"
    with pytest.raises(StoreCorrupt, match="user 7: written with another schema"):
        await store.patch_user(7, lambda row: None)
    user = await store.user(7)  # reads the schema again
    assert (user.status, user.row["device"].tolist()) == (FOUND, [3])
    assert store.schema.user == more.user
    assert (await store.users(ids(8))).rows["device"].tolist() == [4]
    await store.put_users(ids(9), user_rows(1))  # a row of the schema before
    assert (await store.user(9)).row["country"] == user_rows(1)["country"]


async def test_features_that_two_loads_add_at_once_are_all_kept(
    store: FeatureStore, store_url: str
) -> None:
    with_device, with_age = with_users(COUNTRY, DEVICE), with_users(COUNTRY, AGE)
    loaders = await asyncio.gather(
        connect(store_url, with_device, create=True), connect(store_url, with_age, create=True)
    )
    for user, (loader, name) in enumerate(zip(loaders, ("device", "age"), strict=True)):
        rows = np.zeros(1, loader.schema.user_dtype)
        rows[name] = 3
        await loader.put_users(ids(user), rows)
        await loader.close()
    reader = await connect(store_url)
    assert {f.name for f in reader.schema.user} == {"country", "likes", "taste", "device", "age"}
    batch = await reader.users(ids(0, 1))
    assert batch.status.tolist() == [FOUND, FOUND]
    assert (batch.rows["device"].tolist(), batch.rows["age"].tolist()) == ([3, 0], [0, 3])
    await reader.close()


async def test_two_that_make_a_store_at_once_agree_on_it(store_url: str) -> None:
    turned = SCHEMA.model_copy(update={"item": SCHEMA.item[::-1], "user": SCHEMA.user[::-1]})
    pair = await asyncio.gather(
        *(connect(store_url, one, create=True, ids="mapped") for one in (SCHEMA, turned))
    )
    numbers = list[int]()
    for store in pair:
        assert store.text_ids is not None
        numbers.append(store.text_ids.number("ada"))
        await store.put_users(ids(numbers[-1]), user_rows(1), {numbers[-1]: "ada"})
        await store.put_items(ids(3), random_rows(store.schema, 1))
        for reader in pair:
            assert (await reader.users(ids(numbers[0]))).status.tolist() == [FOUND]
            assert (await reader.items(ids(3))).status.tolist() == [FOUND]
    assert numbers[0] == numbers[1]
    for store in pair:
        await store.close()


async def test_user_features_added_to_a_store_in_use_are_served_after_a_refresh(
    store_url: str,
) -> None:
    store = await connect(store_url, SHOP, create=True)
    await store.append(7, [1])
    loader = await connect(store_url, SCHEMA, create=True)
    await loader.put_users(ids(7), user_rows(1))
    await loader.close()
    assert (await store.user(7)).status == MISSING
    assert (await store.refresh_schema()).user == SCHEMA.user
    user = await store.user(7)
    assert (user.status, user.row.tobytes()) == (FOUND, user_rows(1).tobytes())
    assert user.history is not None
    await store.close()


async def test_a_closed_store_has_no_users(store: FeatureStore) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.user(7)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.forget_user(7)

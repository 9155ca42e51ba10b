"""What every store of text ids promises, unchanged on each backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store import FeatureStore
from feature_store.contract import FOUND, MISSING, Append
from feature_store.errors import StoreMismatch, StoreUnavailable, TextCollision
from feature_store.text_ids import LONGEST, TextIds
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect

ODD = [
    "sku-1",
    "3f1c2f0e-7f5d-4d2b-9a35-2b8f5f1d0c11",
    "größe/42 grün",
    " leading and trailing ",
    "🛍" * LONGEST,
    "{braces}:qin:it:{3}:7",
    "line\nand\0nul\tand\x7f",
    "e\u0301",  # not normalised to the one below
    "é",
    "7",
    "x" * LONGEST,
]


@pytest.fixture
async def mapped(store_url: str) -> AsyncIterator[FeatureStore]:
    opened = await connect(store_url, SHOP, create=True, ids="mapped")
    yield opened
    await opened.close()


def ids_of(store: FeatureStore) -> TextIds:
    assert store.text_ids is not None
    return store.text_ids


def named(store: FeatureStore, texts: list[str]) -> dict[int, str]:
    return dict(zip(ids_of(store).numbers(texts).tolist(), texts, strict=True))


def click(store: FeatureStore, user: str, *items: int, key: str | None = None) -> Append:
    return Append(ids_of(store).number(user), items, key, user_text=user)


async def history(store: FeatureStore, user_id: int) -> list[int] | None:
    found = await store.history(user_id)
    return None if found is None else found.tolist()


async def test_texts_of_items_come_back_as_they_were_given(mapped: FeatureStore) -> None:
    numbers = ids_of(mapped).numbers(ODD)
    await mapped.name_items(named(mapped, ODD))
    assert await mapped.item_texts(numbers) == ODD
    assert await mapped.item_texts(numbers[::-1]) == ODD[::-1]
    assert await mapped.item_texts(ids(3, int(numbers[0]), 4)) == [None, ODD[0], None]
    assert await mapped.user_texts(numbers.tolist()) == [None] * len(ODD)
    assert await mapped.count_items() == 0


async def test_texts_of_users_come_back_as_they_were_given(mapped: FeatureStore) -> None:
    assert await mapped.append_all([click(mapped, user, 1) for user in ODD]) == [True] * len(ODD)
    users = ids_of(mapped).numbers(ODD).tolist()
    assert await mapped.user_texts([*users, 5]) == [*ODD, None]
    assert await mapped.item_texts(np.array(users)) == [None] * len(ODD)
    assert [await history(mapped, user) for user in users] == [[1]] * len(ODD)


async def test_no_texts_asked_or_given_is_none(mapped: FeatureStore) -> None:
    await mapped.name_items({})
    assert await mapped.item_texts(ids()) == []
    assert await mapped.user_texts([]) == []


async def test_many_texts_are_kept_and_read(mapped: FeatureStore) -> None:
    texts = [f"item {n}" for n in range(2_000)]
    await mapped.name_items(named(mapped, texts))
    await mapped.name_items(named(mapped, texts))  # a repeated load is no collision
    assert await mapped.item_texts(ids_of(mapped).numbers(texts)) == texts


async def test_every_connection_gives_the_same_numbers(
    store_url: str, mapped: FeatureStore
) -> None:
    for options in ({}, {"ids": "mapped"}):
        other = await connect(store_url, SHOP, **options)
        assert ids_of(other).numbers(ODD).tolist() == ids_of(mapped).numbers(ODD).tolist()
        await other.close()


async def test_two_loaders_that_create_at_once_have_one_key(store_url: str) -> None:
    stores = await asyncio.gather(
        *(connect(store_url, SHOP, create=True, ids="mapped") for _ in range(4))
    )
    later = await connect(store_url, SHOP)
    assert {ids_of(store).key for store in stores} == {ids_of(later).key}
    for store in (*stores, later):
        await store.close()


async def test_two_stores_give_other_numbers(
    store_url: str, mapped: FeatureStore, redis_url: str
) -> None:
    other = await connect(redis_url + "2", SHOP, create=True, ids="mapped")
    assert ids_of(other).key != ids_of(mapped).key
    await other.close()


async def test_a_collision_of_items_is_refused_and_names_both(mapped: FeatureStore) -> None:
    await mapped.name_items({7: "kept", 8: "also kept"})
    with pytest.raises(TextCollision) as caught:
        await mapped.name_items({7: "given"})
    assert "item id 'given' has the number 7, which is that of 'kept'" in str(caught.value)
    assert await mapped.item_texts(ids(7, 8)) == ["kept", "also kept"]


async def test_a_collision_among_many_items_overwrites_nothing(mapped: FeatureStore) -> None:
    texts = {number: f"item {number}" for number in range(0, 6_000, 2)}
    await mapped.name_items(texts)
    with pytest.raises(TextCollision, match="'given' has the number 4000"):
        await mapped.name_items({3_999: "new", 4_000: "given", **{n: texts[n] for n in (0, 2)}})
    assert await mapped.item_texts(np.array(list(texts))) == list(texts.values())


async def test_a_collision_of_users_refuses_that_append_alone(mapped: FeatureStore) -> None:
    await mapped.append_all([Append(7, [1], user_text="kept")])
    first, refused, last = await mapped.append_all(
        [
            Append(8, [1], user_text="another"),
            Append(7, [2], "k", user_text="given"),
            Append(7, [3], user_text="kept"),
        ]
    )
    assert (first, last) == (True, True)
    assert isinstance(refused, TextCollision)
    assert "user id 'given' has the number 7, which is that of 'kept'" in str(refused)
    assert await history(mapped, 7) == [3, 1]
    assert await mapped.user_texts([7, 8]) == ["kept", "another"]
    # Its idempotency key was not used up.
    assert await mapped.append_all([Append(7, [2], "k", user_text="kept")]) == [True]


async def test_a_collision_in_a_load_replaces_no_history(mapped: FeatureStore) -> None:
    await mapped.put_histories({7: ids(2, 1)}, {7: "kept"})
    with pytest.raises(TextCollision, match="'given' has the number 7, which is that of 'kept'"):
        await mapped.put_histories({7: ids(9)}, {7: "given"})
    assert await history(mapped, 7) == [2, 1]
    assert await mapped.user_texts([7]) == ["kept"]


async def test_a_repeated_key_is_not_applied_again(mapped: FeatureStore) -> None:
    appends = [click(mapped, "ada", 1, key="a"), click(mapped, "ada", 2, key="b")]
    assert await mapped.append_all([*appends, appends[0]]) == [True, True, False]
    assert await history(mapped, ids_of(mapped).number("ada")) == [2, 1]


async def test_a_repeated_key_of_a_deleted_history_keeps_no_text(mapped: FeatureStore) -> None:
    append = click(mapped, "ada", 1, key="a")
    assert await mapped.append_all([append]) == [True]
    assert await mapped.delete_history(append.user_id)
    assert await mapped.append_all([append]) == [False]
    assert await mapped.user_texts([append.user_id]) == [None]


async def test_an_append_without_clicks_keeps_nothing(mapped: FeatureStore) -> None:
    assert await mapped.append_all([click(mapped, "ada")]) == [True]
    user = ids_of(mapped).number("ada")
    assert await mapped.history(user) is None
    assert await mapped.user_texts([user]) == [None]


async def test_a_forgotten_users_text_is_gone(mapped: FeatureStore) -> None:
    await mapped.append_all([click(mapped, "ada", 1), click(mapped, "bob", 2)])
    ada, bob = ids_of(mapped).numbers(["ada", "bob"]).tolist()
    assert await mapped.delete_history(ada)
    assert not await mapped.delete_history(ada)
    assert await mapped.user_texts([ada, bob]) == [None, "bob"]
    assert await mapped.history(ada) is None
    await mapped.append_all([Append(ada, [3], user_text="another")])  # its number is free again
    assert await mapped.user_texts([ada]) == ["another"]


async def test_loaded_histories_have_their_texts_and_empty_ones_none(mapped: FeatureStore) -> None:
    texts = named(mapped, ["ada", "bob", "eve"])
    ada, bob, eve = texts
    await mapped.put_histories({ada: ids(2, 1), bob: ids(3), eve: ids()}, texts)
    assert await mapped.user_texts([ada, bob, eve]) == ["ada", "bob", None]
    await mapped.put_histories({ada: ids(4), bob: ids()}, {ada: "ada"})
    assert await mapped.user_texts([ada, bob]) == ["ada", None]
    assert await history(mapped, ada) == [4]
    assert await history(mapped, bob) is None


async def test_scans_find_histories_and_items_and_no_texts(mapped: FeatureStore) -> None:
    users, items = named(mapped, ODD), named(mapped, [f"item {n}" for n in range(300)])
    await mapped.put_histories({user: ids(1) for user in users}, users)
    await mapped.name_items(items)
    numbers = np.array(list(items))
    await mapped.put_items(numbers, random_rows(SHOP, len(numbers)))
    scanned = [user async for batch in mapped.scan_histories(7) for user in batch]
    assert sorted(scanned) == sorted(users)
    assert await mapped.user_texts(scanned) == [users[user] for user in scanned]
    found = np.concatenate([batch.ids async for batch in mapped.scan_items(50)])
    assert sorted(found.tolist()) == sorted(items)
    assert await mapped.item_texts(found) == [items[item] for item in found.tolist()]
    assert await mapped.count_items() == len(items)
    assert await mapped.count_histories() == len(users)


async def test_a_deleted_items_text_stays(mapped: FeatureStore) -> None:
    await mapped.name_items({7: "seven"})
    await mapped.put_items(ids(7), random_rows(SHOP, 1))
    assert (await mapped.items(ids(7))).status.tolist() == [FOUND]
    assert await mapped.delete_items(ids(7)) == 1
    assert (await mapped.items(ids(7))).status.tolist() == [MISSING]
    assert await mapped.item_texts(ids(7)) == ["seven"]


async def test_texts_are_there_after_reopening(store_url: str, mapped: FeatureStore) -> None:
    await mapped.name_items({7: "seven"})
    await mapped.append_all([Append(8, [7], user_text="ada")])
    await mapped.close()
    again = await connect(store_url)
    assert await again.item_texts(ids(7)) == ["seven"]
    assert await again.user_texts([8]) == ["ada"]
    assert (await again.describe())["ids"] == "mapped"
    await again.close()


async def test_a_store_of_the_other_kind_is_refused(store_url: str, mapped: FeatureStore) -> None:
    for create in (False, True):
        with pytest.raises(StoreMismatch, match=r"ids are mapped, not numeric.*another store"):
            await connect(store_url, SHOP, create=create, ids="numeric")
    again = await connect(store_url, SHOP, create=True)  # takes it as it is
    assert ids_of(again).key == ids_of(mapped).key
    await again.close()


async def test_a_numeric_store_keeps_no_texts(store_url: str, store: FeatureStore) -> None:
    assert store.text_ids is None
    with pytest.raises(StoreMismatch, match=r"ids are numeric, not mapped.*another store"):
        await connect(store_url, SHOP, ids="mapped")
    with pytest.raises(StoreMismatch, match="ids are numeric: texts are not kept"):
        await store.name_items({7: "seven"})
    with pytest.raises(StoreMismatch, match="ids are numeric: texts are not kept"):
        await store.put_histories({7: ids(1)}, {7: "ada"})
    with pytest.raises(StoreMismatch, match="ids are numeric: texts are not kept"):
        await store.append_all([Append(8, [1]), Append(7, [1], user_text="ada")])
    assert await store.histories([7, 8]) == [None, None]
    assert await store.item_texts(ids(7, 8)) == [None, None]
    assert await store.user_texts([7]) == [None]
    assert (await store.describe())["ids"] == "numeric"


async def test_a_refused_load_of_texts_leaves_a_numeric_store_numeric(
    store_url: str, store: FeatureStore
) -> None:
    await store.close()
    with pytest.raises(StoreMismatch, match="ids are numeric, not mapped"):
        await connect(store_url, SHOP, create=True, ids="mapped")
    again = await connect(store_url, SHOP)
    assert again.text_ids is None
    with pytest.raises(StoreMismatch, match="ids are numeric: texts are not kept"):
        await again.name_items({7: "seven"})
    assert await again.item_texts(ids(7)) == [None]
    await again.delete_history(7)
    await again.close()


@pytest.mark.parametrize("wrong", [-1, 2**63])
async def test_numbers_out_of_range_are_refused(mapped: FeatureStore, wrong: int) -> None:
    with pytest.raises(ValueError, match="item id"):
        await mapped.name_items({7: "seven", wrong: "wrong"})
    with pytest.raises(ValueError, match="item id"):
        await mapped.item_texts(np.array([7, wrong], np.uint64 if wrong > 0 else np.int64))
    with pytest.raises(ValueError, match="user id"):
        await mapped.user_texts([7, wrong])
    assert await mapped.item_texts(ids(7)) == [None]


async def test_a_closed_store_reads_and_keeps_no_texts(mapped: FeatureStore) -> None:
    await mapped.close()
    for call in (
        mapped.name_items({7: "seven"}),
        mapped.item_texts(ids(7)),
        mapped.user_texts([7]),
        mapped.append_all([Append(7, [1], user_text="ada")]),
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            await call


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=LONGEST)


async def test_any_texts_are_kept(mapped: FeatureStore) -> None:
    texts = []

    @settings(max_examples=300, database=None, suppress_health_check=list(HealthCheck))
    @given(WORDS)
    def drawn(text: str) -> None:
        texts.append(text)

    drawn()
    users = items = named(mapped, sorted(set(texts)))
    await mapped.name_items(items)
    await mapped.put_histories({user: ids(1) for user in users}, users)
    assert await mapped.item_texts(np.array(list(items))) == list(items.values())
    assert await mapped.user_texts(list(users)) == list(users.values())

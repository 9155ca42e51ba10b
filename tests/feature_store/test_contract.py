"""What every store promises, unchanged on each backend."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from feature_store import FeatureSchema, FeatureStore
from feature_store.contract import FOUND, MAX_ID, MISSING, Append, ItemRows
from feature_store.errors import StoreMismatch, StoreUnavailable
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect


async def history(store: FeatureStore, user_id: int) -> list[int] | None:
    found = await store.history(user_id)
    return None if found is None else found.tolist()


async def recorded_schema(url: str) -> FeatureSchema:
    store = await connect(url)
    await store.close()
    return store.schema


async def test_a_user_never_seen_has_no_history(store: FeatureStore) -> None:
    assert await store.history(7) is None


async def test_history_is_newest_first(store: FeatureStore) -> None:
    await store.append(7, [1, 2, 3])
    await store.append(7, [4])
    assert await history(store, 7) == [4, 3, 2, 1]


async def test_history_is_trimmed_to_its_length(store: FeatureStore) -> None:
    for item in range(20):
        await store.append(7, [item])
    assert await history(store, 7) == [19, 18, 17, 16, 15, 14, 13, 12]
    await store.append(8, list(range(100)))
    assert await history(store, 8) == [99, 98, 97, 96, 95, 94, 93, 92]


async def test_appending_nothing_changes_nothing(store: FeatureStore) -> None:
    await store.append(7, [])
    assert await store.history(7) is None


async def test_the_same_item_clicked_twice_is_there_twice(store: FeatureStore) -> None:
    await store.append(7, [5, 5])
    assert await history(store, 7) == [5, 5]


async def test_the_largest_and_the_smallest_ids_are_kept(store: FeatureStore) -> None:
    await store.append(MAX_ID, [0, MAX_ID])
    await store.append(0, [1])
    rows = random_rows(SHOP, 2)
    await store.put_items(ids(0, MAX_ID), rows)
    assert await history(store, MAX_ID) == [MAX_ID, 0]
    assert await history(store, 0) == [1]
    assert (await store.items(ids(MAX_ID, 0))).rows.tobytes() == rows[::-1].tobytes()


@pytest.mark.parametrize("wrong", [-1, 2**63])
async def test_ids_out_of_range_are_refused(store: FeatureStore, wrong: int) -> None:
    with pytest.raises(ValueError, match="user id"):
        await store.history(wrong)
    with pytest.raises(ValueError, match="item id"):
        await store.append(1, [wrong])
    assert await store.history(1) is None


async def test_the_next_read_sees_each_append(store: FeatureStore) -> None:
    expected: list[int] = []
    for click in range(1_000):
        await store.append(7, [click])
        expected = [click, *expected][: SHOP.history_length]
        assert await history(store, 7) == expected


async def test_concurrent_appends_are_all_kept(store: FeatureStore) -> None:
    await asyncio.gather(*(store.append(7, [click]) for click in range(SHOP.history_length)))
    assert sorted(await history(store, 7) or []) == list(range(SHOP.history_length))


async def test_a_repeated_key_is_not_applied_again(store: FeatureStore) -> None:
    assert await store.append(7, [1], key="a")
    assert not await store.append(7, [1], key="a")
    assert await store.append(7, [1], key="b")
    assert await store.append(8, [1], key="a")  # keys belong to a user
    assert await history(store, 7) == [1, 1]
    assert await history(store, 8) == [1]


async def test_a_batch_of_appends_is_applied_in_order(store: FeatureStore) -> None:
    results = await store.append_all(
        [Append(7, [1, 2]), Append(8, [3], "k"), Append(7, [4]), Append(8, [3], "k")]
    )
    assert results == [True, True, True, False]
    assert await history(store, 7) == [4, 2, 1]
    assert await history(store, 8) == [3]
    assert await store.append_all([]) == []


async def test_a_batch_with_an_id_out_of_range_applies_nothing(store: FeatureStore) -> None:
    with pytest.raises(ValueError, match="item id"):
        await store.append_all([Append(7, [1]), Append(7, [-1])])
    assert await store.history(7) is None


async def test_several_histories_come_in_the_order_asked(store: FeatureStore) -> None:
    await store.put_histories({7: ids(3, 2), 9: ids(1)})
    found = await store.histories([9, 8, 7, 9])
    assert [None if f is None else f.tolist() for f in found] == [[1], None, [3, 2], [1]]
    assert await store.histories([]) == []


async def test_whole_histories_are_replaced_or_removed(store: FeatureStore) -> None:
    await store.append(7, [1])
    await store.append(8, [1])
    await store.put_histories({7: ids(3, 2), 8: ids(), 9: ids(*range(50))})
    assert await history(store, 7) == [3, 2]
    assert await history(store, 8) is None
    assert await history(store, 9) == list(range(SHOP.history_length))
    assert await store.count_histories() == 2


async def test_a_forgotten_user_is_gone(store: FeatureStore) -> None:
    await store.append(7, [1])
    assert await store.delete_history(7)
    assert not await store.delete_history(7)
    assert await store.history(7) is None


async def test_every_history_is_scanned_once(store: FeatureStore) -> None:
    written = {user * 1_000_003: ids(user, 1) for user in range(2_500)}
    await store.put_histories(written)
    seen: dict[int, list[int]] = {}
    async for batch in store.scan_histories(batch_size=100):
        assert not seen.keys() & batch.keys()
        seen |= {user: found.tolist() for user, found in batch.items()}
    assert seen == {user: found.tolist() for user, found in written.items()}


async def test_items_come_back_in_the_order_asked(store: FeatureStore) -> None:
    rows = random_rows(SHOP, 100)
    await store.put_items(np.arange(100) * 7, rows)
    asked = np.random.default_rng(1).permutation(100)
    batch = await store.items(asked * 7)
    assert (batch.ids == asked * 7).all()
    assert (batch.status == FOUND).all()
    assert batch.rows.dtype == SHOP.item_dtype
    assert batch.rows.tobytes() == rows[asked].tobytes()


async def test_missing_items_are_zero_rows_and_said(store: FeatureStore) -> None:
    row = random_rows(SHOP, 1)
    await store.put_items(ids(3), row)
    batch = await store.items(ids(9, 3, 4, 3))
    assert batch.status.tolist() == [MISSING, FOUND, MISSING, FOUND]
    assert batch.rows[[1, 3]].tobytes() == 2 * row.tobytes()
    assert not any(batch.rows[[0, 2]].tobytes())


async def test_no_items_asked_is_no_items_answered(store: FeatureStore) -> None:
    batch = await store.items(ids())
    assert len(batch.ids) == len(batch.rows) == len(batch.status) == 0
    await store.put_items(ids(), random_rows(SHOP, 0))
    assert await store.delete_items(ids()) == 0


async def test_putting_an_item_again_replaces_it(store: FeatureStore) -> None:
    first, second = random_rows(SHOP, 1, seed=1), random_rows(SHOP, 1, seed=2)
    await store.put_items(ids(3), first)
    await store.put_items(ids(3), second)
    assert (await store.items(ids(3))).rows.tobytes() == second.tobytes()
    assert await store.count_items() == 1


async def test_of_an_id_given_twice_the_last_row_stays(store: FeatureStore) -> None:
    rows = random_rows(SHOP, 3)
    await store.put_items(ids(5, 3, 5), rows)
    assert (await store.items(ids(5))).rows.tobytes() == rows[2:].tobytes()


async def test_deleted_items_are_missing(store: FeatureStore) -> None:
    await store.put_items(ids(1, 2, 3), random_rows(SHOP, 3))
    assert await store.delete_items(ids(1, 3, 4)) == 2
    assert (await store.items(ids(1, 2, 3))).status.tolist() == [MISSING, FOUND, MISSING]


async def test_every_item_is_scanned_once(store: FeatureStore) -> None:
    rows, keys = random_rows(SHOP, 2_500), np.arange(2_500) * 1_000_003
    await store.put_items(keys, rows)
    batches = [batch async for batch in store.scan_items(batch_size=100)]
    seen = np.concatenate([batch.ids for batch in batches])
    order = np.argsort(seen)
    assert (seen[order] == keys).all()
    assert np.concatenate([b.rows for b in batches])[order].tobytes() == rows.tobytes()
    assert all((batch.status == FOUND).all() for batch in batches)


async def test_a_patch_changes_what_it_names(store: FeatureStore) -> None:
    rows = random_rows(SHOP, 1)
    await store.put_items(ids(3), rows)

    def restock(row: ItemRows) -> None:
        row["stock_level"] = 2

    assert await store.patch_item(3, restock)
    assert not await store.patch_item(4, restock)
    rows["stock_level"] = 2
    assert (await store.items(ids(3))).rows.tobytes() == rows.tobytes()
    assert await store.count_items() == 1


async def test_concurrent_patches_are_all_kept(store: FeatureStore) -> None:
    await store.put_items(ids(3), np.zeros(1, SHOP.item_dtype))

    def one_more(row: ItemRows) -> None:
        row["sku"] += 1

    await asyncio.gather(*(store.patch_item(3, one_more) for _ in range(10)))
    assert (await store.items(ids(3))).rows["sku"].tolist() == [10]


async def test_a_patch_that_fails_changes_nothing(store: FeatureStore) -> None:
    rows = random_rows(SHOP, 1)
    await store.put_items(ids(3), rows)

    def fail(row: ItemRows) -> None:
        row["sku"] = 7
        raise ValueError("sku: not that")

    with pytest.raises(ValueError, match="sku: not that"):
        await store.patch_item(3, fail)
    assert (await store.items(ids(3))).rows.tobytes() == rows.tobytes()


async def changed(store: FeatureStore, cursor: str) -> tuple[list[int], str]:
    """Every id changed since the cursor, and where it now is."""
    seen: list[int] = []
    while True:
        answer = await store.changes(cursor)
        assert not answer.lost
        seen += answer.ids.tolist()
        cursor = answer.cursor
        if not len(answer.ids):
            return seen, cursor


async def test_item_changes_are_told_from_a_cursor_on(store: FeatureStore) -> None:
    await store.put_items(ids(1), random_rows(SHOP, 1))
    start = (await store.changes(None)).cursor
    assert await changed(store, start) == ([], start)
    await store.put_items(ids(5, 6), random_rows(SHOP, 2))
    await store.patch_item(5, lambda row: row.__setitem__("sku", 3))
    await store.delete_items(ids(6, 7))
    seen, cursor = await changed(store, start)
    assert seen[:2] == [5, 6]
    assert set(seen[2:]) >= {5, 6}
    assert await changed(store, cursor) == ([], cursor)


async def test_a_new_store_has_no_changes(store: FeatureStore) -> None:
    first = await store.changes(None)
    assert not len(first.ids)
    await store.put_items(ids(5), random_rows(SHOP, 1))
    assert (await changed(store, first.cursor))[0] == [5]


async def test_a_large_put_is_told_whole(store: FeatureStore) -> None:
    start = (await store.changes(None)).cursor
    await store.put_items(np.arange(5_000), random_rows(SHOP, 5_000))
    seen, _ = await changed(store, start)
    assert sorted(set(seen)) == list(range(5_000))


async def test_changes_too_old_to_tell_are_said_to_be_lost(store_url: str) -> None:
    store = await connect(store_url, SHOP, create=True, changes_kept=5)
    start = (await store.changes(None)).cursor
    for item in range(1_000):
        await store.put_items(ids(item), random_rows(SHOP, 1))
    answer = await store.changes(start)
    assert answer.lost
    assert not len(answer.ids)
    assert await changed(store, answer.cursor) == ([], answer.cursor)
    assert (await store.changes("of another store")).lost
    await store.close()


async def test_a_sound_or_missing_item_has_no_fault(store: FeatureStore) -> None:
    await store.put_items(ids(3), random_rows(SHOP, 1))
    assert await store.fault(3) is None
    assert await store.fault(4) is None


async def test_the_store_describes_itself(store: FeatureStore) -> None:
    told = await store.describe()
    assert told["backend"]
    assert all(isinstance(value, str | int) for value in told.values())


async def test_notes_are_kept_replaced_and_removed(store: FeatureStore) -> None:
    assert await store.get_note("load") is None
    await store.put_note("load", b"half")
    await store.put_note("load", b"whole \x00\xff")
    assert await store.get_note("load") == b"whole \x00\xff"
    await store.put_note("load", None)
    assert await store.get_note("load") is None


async def test_what_was_written_is_there_after_reopening(
    store_url: str, store: FeatureStore
) -> None:
    rows = random_rows(SHOP, 1)
    await store.append(7, [1, 2])
    await store.put_items(ids(3), rows)
    await store.close()
    again = await connect(store_url, SHOP)
    assert await history(again, 7) == [2, 1]
    assert (await again.items(ids(3))).rows.tobytes() == rows.tobytes()
    await again.close()


async def test_two_connections_see_each_others_writes(store_url: str, store: FeatureStore) -> None:
    other = await connect(store_url, SHOP)
    await store.append(7, [1])
    assert await history(other, 7) == [1]
    await other.close()
    assert await history(store, 7) == [1]


async def test_without_a_schema_the_recorded_one_is_used(
    store_url: str, store: FeatureStore
) -> None:
    assert await recorded_schema(store_url) == SHOP


async def test_another_layout_is_refused_with_its_features_named(
    store_url: str, store: FeatureStore
) -> None:
    text = SHOP.to_yaml().replace("slots: 3", "slots: 4").replace("name: price", "name: cost")
    other = FeatureSchema.from_yaml(text, source="other")
    for create in (False, True):
        with pytest.raises(StoreMismatch) as caught:
            await connect(store_url, other, create=create)
        assert "item.colours: categorical_list of 4 slots" in str(caught.value)
        assert "item.cost: not in the store" in str(caught.value)
        assert f"does not fit the schema {other.name!r}: " in str(caught.value)
        assert "feature_store load STORE --schema FILE" in str(caught.value)


async def test_a_grown_vocabulary_is_no_other_layout(store_url: str, store: FeatureStore) -> None:
    text = SHOP.to_yaml().replace("vocabulary: 500", "vocabulary: 600")
    grown = FeatureSchema.from_yaml(text, source="grown")
    other = await connect(store_url, grown)
    assert other.schema == grown
    await other.close()
    assert await recorded_schema(store_url) == SHOP
    loader = await connect(store_url, grown, create=True)  # a load records what it was given
    await loader.close()
    assert await recorded_schema(store_url) == grown


async def test_a_place_without_a_store_is_refused(store_url: str) -> None:
    for schema in (SHOP, None):
        with pytest.raises(StoreMismatch, match="python -m feature_store load"):
            await connect(store_url, schema)


async def test_a_closed_store_says_so(store: FeatureStore) -> None:
    await store.ping()
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.history(7)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.append(7, [1])

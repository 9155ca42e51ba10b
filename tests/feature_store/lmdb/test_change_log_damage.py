"""Entries of the change log that another program has put there cost themselves alone."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from feature_store import FeatureStore
from feature_store.errors import StoreRefused
from feature_store.lmdb.environment import acquire, release
from tests.feature_store.redis_servers import Server
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect
from tests.feature_store.test_contract import changed

ODD_FIELDS: list[dict[str, Any]] = [
    {"ids": "one two"},
    {"ids": "3 -4"},
    {"ids": str(2**63)},
    {"ids": "9" * 30},
    {"ids": "1.5"},
    {"ids": b"\xff\xfe"},
    {"ids": " ".join(["1"] * 40_000)},
    {"names": "3"},
    {"ids": "3", "more": "4"},
    {"": ""},
]
ODD_VALUES = [b"noise", b"\xff" * 8, struct.pack("<qq", 4, -1), bytes(80_000), b"x"]


async def all_changes(store: FeatureStore, cursor: str) -> tuple[list[int], int]:
    """Every id told from the cursor on, and how many entries could not be read."""
    seen: list[int] = []
    unreadable = 0
    while True:
        answer = await store.changes(cursor)
        assert not answer.lost
        seen += answer.ids.tolist()
        unreadable += answer.unreadable
        if answer.cursor == cursor:
            return seen, unreadable
        cursor = answer.cursor


async def test_redis_an_entry_that_is_no_list_of_ids_is_passed_over(
    redis: Server, redis_url: str
) -> None:
    store = await connect(redis_url, SHOP, create=True)
    key = f"{redis_url.rpartition('prefix=')[2]}:changes"
    start = (await store.changes(None)).cursor
    for item, fields in enumerate(ODD_FIELDS):
        await store.put_items(ids(item), random_rows(SHOP, 1))
        redis.client().xadd(key, fields)  # type: ignore[arg-type]
    await store.put_items(ids(99), random_rows(SHOP, 1))
    assert await all_changes(store, start) == ([*range(len(ODD_FIELDS)), 99], len(ODD_FIELDS))
    assert store.odd_replies == len(ODD_FIELDS)
    await store.close()


async def test_redis_a_log_of_another_type_is_refused_by_name_and_nothing_is_written(
    redis: Server, redis_url: str
) -> None:
    """Neither read nor written: an item that cannot be announced is not put."""
    store = await connect(redis_url, SHOP, create=True)
    key = f"{redis_url.rpartition('prefix=')[2]}:changes"
    before = random_rows(SHOP, 1, seed=1)
    await store.put_items(ids(3), before)
    start = (await store.changes(None)).cursor
    redis.client().delete(key)
    redis.client().set(key, "text")
    with pytest.raises(StoreRefused, match="redis-cli TYPE") as refused:
        await store.changes(start)
    assert refused.value.of_one_key
    with pytest.raises(StoreRefused, match="redis-cli TYPE"):
        await store.put_items(ids(3), random_rows(SHOP, 1, seed=2))
    with pytest.raises(StoreRefused, match="redis-cli TYPE"):
        await store.patch_item(3, lambda row: row.__setitem__("sku", 7))
    with pytest.raises(StoreRefused, match="redis-cli TYPE"):
        await store.delete_items(ids(3))
    assert (await store.items(ids(3))).rows.tobytes() == before.tobytes()
    redis.client().delete(key)
    assert (await store.changes(start)).lost
    await store.put_items(ids(3), random_rows(SHOP, 1, seed=2))
    await store.close()


async def test_redis_a_log_that_was_removed_is_lost_once(redis: Server, redis_url: str) -> None:
    """And not again at every look, until something is written."""
    store = await connect(redis_url, SHOP, create=True)
    cursor = (await store.changes(None)).cursor
    redis.client().delete(f"{redis_url.rpartition('prefix=')[2]}:changes")
    told = [answer := await store.changes(cursor)]
    for _ in range(2):
        told.append(answer := await store.changes(answer.cursor))
    assert [answer.lost for answer in told] == [True, False, False]
    await store.put_items(ids(5), random_rows(SHOP, 1))
    answer = await store.changes(answer.cursor)
    assert answer.lost  # what was written and trimmed since is not known
    assert not (await store.changes(answer.cursor)).lost
    await store.close()


async def test_lmdb_an_entry_that_is_no_list_of_ids_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = await connect(f"lmdb://{path}", SHOP, create=True)
    start = (await store.changes(None)).cursor
    environment = acquire(path, create=False)
    db = environment.db["changes"]

    def put(key: bytes, value: bytes) -> None:
        environment.write(lambda txn: txn.put(key, value, db=db))

    for item, value in enumerate(ODD_VALUES):
        await store.put_items(ids(item), random_rows(SHOP, 1))
        last = int((await store.changes(None)).cursor)
        put(struct.pack(">Q", last + 1), value)
    for key in (b"k", b"a longer key", b"\xff" * 8, b"\x00"):  # before, between and behind ours
        put(key, b"")
    await store.put_items(ids(99), random_rows(SHOP, 1))
    seen, unreadable = await all_changes(store, start)
    assert seen == [*range(len(ODD_VALUES)), 99]
    assert len(ODD_VALUES) <= unreadable <= len(ODD_VALUES) + 4
    again = (await store.changes(None)).cursor
    assert await changed(store, again) == ([], again)  # what is behind the end is told of once
    await store.append(7, [1], key="k")
    release(environment)
    await store.close()


async def test_redis_a_key_of_another_type_is_named_where_no_request_asks_for_it(
    redis: Server, redis_url: str
) -> None:
    """The key of a request may tell who its user is; it is not."""
    store = await connect(redis_url, SHOP, create=True)
    await store.put_items(ids(3), random_rows(SHOP, 1))
    prefix = redis_url.rpartition("prefix=")[2]
    client = redis.client()
    for key in (f"{prefix}:ids:{{3}}", f"{prefix}:h:{{5}}"):
        client.delete(key)
        client.set(key, "text")
    with pytest.raises(StoreRefused, match=rf"redis-cli TYPE '{prefix}:ids:.3.'"):
        async for _ in store.scan_items():
            pass
    with pytest.raises(StoreRefused, match=r"redis-cli TYPE\)"):
        await store.history(5)
    await store.close()
    client.delete(f"{prefix}:meta")
    client.set(f"{prefix}:meta", "text")
    with pytest.raises(StoreRefused, match=f"redis-cli TYPE '{prefix}:meta'"):
        await connect(redis_url, SHOP)

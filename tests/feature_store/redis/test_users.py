"""User records in Redis: the documented keys, their expiry, round trips, what forgetting leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.crc import key_slot

from feature_store import FeatureStore
from feature_store.contract import CORRUPT, FOUND, Append, ItemRows, UserRows
from feature_store.errors import StoreCorrupt, StoreRefused
from feature_store.redis.replies import UnexpectedReply
from tests.feature_store.redis.test_layout import calls, prefix_of
from tests.feature_store.redis_moves import migrating, move
from tests.feature_store.redis_servers import ClusterGroup, Server, standalone, until
from tests.feature_store.samples import SHOP, ids
from tests.feature_store.scripted_redis import scripted
from tests.feature_store.stores import connect
from tests.feature_store.user_samples import SCHEMA, user_rows


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[FeatureStore]:
    opened = await connect(redis_url, SCHEMA, create=True, history_ttl_s=1_000)
    yield opened
    await opened.close()


@pytest.fixture
async def mapped(redis_url: str) -> AsyncIterator[FeatureStore]:
    opened = await connect(redis_url, SCHEMA, create=True, ids="mapped", history_ttl_s=1_000)
    yield opened
    await opened.close()


async def test_a_record_has_a_key_of_its_own_that_stays(
    redis: Server, redis_url: str, store: FeatureStore
) -> None:
    plain, prefix = redis.client(), prefix_of(redis_url)
    await store.put_users(ids(7), user_rows(1))
    await store.append(7, [1])
    assert await store.patch_user(7, lambda row: row.__setitem__("country", 2))
    assert plain.type(f"{prefix}:u:{{7}}") == b"string"
    assert plain.ttl(f"{prefix}:u:{{7}}") == -1
    assert plain.hget(f"{prefix}:meta", "format") == b"3"


async def test_each_of_many_patches_at_once_is_tried_once(
    redis: Server, store: FeatureStore
) -> None:
    await store.put_users(ids(7), user_rows(1))
    await store.put_items(ids(7), np.zeros(1, SCHEMA.item_dtype))
    redis.client().config_resetstat()

    def change(row: UserRows | ItemRows) -> None:
        row.view(np.uint8)[-1] += 1  # another record each time

    users = [store.patch_user(7, change) for _ in range(30)]
    items = [store.patch_item(7, change) for _ in range(30)]
    assert all(await asyncio.gather(*users, *items))
    assert calls(redis)["eval"] == 60


async def test_history_and_record_are_one_round_trip(
    redis: Server, store: FeatureStore, redis_url: str
) -> None:
    await store.put_users(np.arange(200), user_rows(200))
    plain = redis.client()
    plain.config_resetstat()
    await store.user(7)
    assert calls(redis) == {"lrange": 1, "get": 1}
    plain.config_resetstat()
    await store.history(7)
    assert calls(redis) == {"lrange": 1}
    without = await connect(f"{redis_url}x", SHOP, create=True)
    plain.config_resetstat()
    await without.user(7)
    assert calls(redis) == {"lrange": 1}
    await without.close()


async def test_a_text_expires_with_the_history_once_the_record_is_deleted(
    redis: Server, redis_url: str, mapped: FeatureStore
) -> None:
    plain, prefix = redis.client(), prefix_of(redis_url)
    text = f"{prefix}:ut:{{7}}"
    await mapped.append_all([Append(7, [1], user_text="ada")])
    assert 990 < plain.ttl(text) <= 1_000
    await mapped.put_users(ids(7), user_rows(1), {7: "ada"})
    assert plain.ttl(text) == -1
    await mapped.append_all([Append(7, [2], "k", user_text="ada")])
    await mapped.put_histories({7: ids(3)}, {7: "ada"})
    assert plain.ttl(text) == -1
    plain.expire(f"{prefix}:h:{{7}}", 500)
    assert await mapped.delete_user(7)
    assert 490 < plain.ttl(text) <= 500


async def test_a_text_goes_with_a_history_that_is_about_to_expire(
    redis: Server, redis_url: str, mapped: FeatureStore
) -> None:
    plain, prefix = redis.client(), prefix_of(redis_url)
    text, history = f"{prefix}:ut:{{7}}", f"{prefix}:h:{{7}}"
    await mapped.put_users(ids(7), user_rows(1), {7: "ada"})
    async with asyncio.timeout(20):
        while True:
            await mapped.append_all([Append(7, [1], user_text="ada")])
            plain.pexpire(history, 400)  # which TTL rounds to 0
            assert await mapped.delete_user(7)
            if plain.exists(history):
                break
            await mapped.put_users(ids(7), user_rows(1), {7: "ada"})
    until(lambda: not plain.exists(text), "the text has expired", within_s=20)


@pytest.mark.parametrize("user_text", [None, "ada"])
async def test_a_forgotten_user_leaves_no_key(
    redis: Server, redis_url: str, store: FeatureStore, user_text: str | None
) -> None:
    url, plain = f"{redis_url}y", redis.client()
    kind = "numeric" if user_text is None else "mapped"
    other = await connect(url, SCHEMA, create=True, ids=kind)
    before = set(plain.scan_iter(f"{prefix_of(url)}:*"))
    await other.put_users(ids(7), user_rows(1), None if user_text is None else {7: user_text})
    for key in ("a", "b", "a"):
        await other.append_all([Append(7, [1], key, user_text=user_text)])
    assert len(set(plain.scan_iter(f"{prefix_of(url)}:*")) - before) == 5 + (user_text is not None)
    plain.config_resetstat()
    assert await other.forget_user(7)
    assert calls(redis) == {"zrange": 1, "eval": 1}  # and no scan of the keyspace
    assert set(plain.scan_iter(f"{prefix_of(url)}:*")) == before
    await other.close()


async def test_the_keys_of_a_user_are_listed_until_they_expire(
    redis: Server, redis_url: str
) -> None:
    store = await connect(redis_url, SCHEMA, create=True, idempotency_ttl_s=1_000)
    plain, prefix = redis.client(), prefix_of(redis_url)
    listed = f"{prefix}:ks:{{7}}"
    await store.append(7, [1])
    assert not plain.exists(listed)
    await store.append(7, [1], "a")
    [(key, until)] = plain.zrange(listed, 0, -1, withscores=True)
    assert key == f"{prefix}:k:{{7}}:a".encode()
    assert 990 < until - plain.time()[0] <= 1_000
    assert 990 < plain.ttl(listed) <= 1_000
    plain.zadd(listed, {key: plain.time()[0] - 1})  # it has expired
    await store.append(7, [1], "b")
    assert plain.zrange(listed, 0, -1) == [f"{prefix}:k:{{7}}:b".encode()]
    await store.close()


async def test_a_redis_user_without_sorted_sets_appends_as_before(tmp_path: Path) -> None:
    with standalone(tmp_path / "redis") as server:
        earlier = (
            "ping hget hmget lrange get mget eval set del hset lpush rpush ltrim expire exists"
        )
        allowed = [f"+{name}" for name in (*earlier.split(), "xadd", "xrevrange", "client|setname")]
        plain = server.client()
        plain.execute_command("ACL", "SETUSER", "writer", "on", ">PASSWORD", "~qin:*", *allowed)
        url = f"redis://writer:PASSWORD@127.0.0.1:{server.port}"
        store = await connect(url, SHOP, create=True)
        assert await store.append(7, [1], "k")
        assert not await store.append(7, [1], "k")
        assert await store.append(7, [1], "l")
        await store.close()


async def test_a_user_in_a_slot_on_the_move_is_read_and_forgotten(
    cluster: ClusterGroup, redis_cluster_url: str
) -> None:
    prefix = prefix_of(redis_cluster_url)
    store = await connect(redis_cluster_url, SCHEMA, create=True, ids="mapped")
    await store.put_users(ids(7), user_rows(1), {7: "ada"})
    await store.append_all([Append(7, [1], "k", user_text="ada")])
    source, target, finish = migrating(cluster, key_slot(f"{prefix}:u:{{7}}".encode()))
    move(source, target, f"{prefix}:u:{{7}}".encode())
    move(source, target, f"{prefix}:k:{{7}}:k".encode())
    user = await store.user(7)
    assert user.history is not None
    assert (user.status, user.row.tobytes()) == (FOUND, user_rows(1).tobytes())
    assert await store.forget_user(7)
    assert not await store.forget_user(7)
    finish()
    assert await store.user_texts([7]) == [None]
    for server in cluster.servers:
        assert not list(server.client().scan_iter(f"{prefix}:*{{7}}*"))
    await store.close()


async def test_a_damaged_record_costs_the_record_alone(
    redis: Server, redis_url: str, store: FeatureStore
) -> None:
    await store.put_users(ids(7), user_rows(1))
    await store.append(7, [1])
    redis.client().set(f"{prefix_of(redis_url)}:u:{{7}}", b"noise")
    user = await store.user(7)
    assert user.history is not None
    assert (user.status, any(user.row.tobytes())) == (CORRUPT, False)
    assert await store.user_fault(7) == "not a user record"
    with pytest.raises(StoreCorrupt, match="user 7: not a user record; replace the whole record"):
        await store.patch_user(7, lambda row: None)


@pytest.mark.parametrize("damage", [lambda r, k: r.rpush(k, "x"), lambda r, k: r.set(k, "x")])
async def test_a_damaged_history_costs_the_history_alone(
    redis: Server, redis_url: str, store: FeatureStore, damage: Callable[[Any, str], Any]
) -> None:
    await store.put_users(ids(7), user_rows(1))
    damage(redis.client(), f"{prefix_of(redis_url)}:h:{{7}}")
    user = await store.user(7)
    assert (user.status, user.row.tobytes()) == (FOUND, user_rows(1).tobytes())
    assert user.history is None
    assert isinstance(user.history_fault, StoreCorrupt | StoreRefused)
    with pytest.raises(type(user.history_fault)):
        await store.history(7)


async def test_a_record_of_another_type_costs_the_record_alone(
    redis: Server, redis_url: str, store: FeatureStore
) -> None:
    await store.append(7, [1])
    redis.client().rpush(f"{prefix_of(redis_url)}:u:{{7}}", "x")
    user = await store.user(7)
    assert user.history is not None
    assert (user.status, user.history_fault) == (CORRUPT, None)
    await store.put_users(ids(7), user_rows(1))
    assert (await store.user(7)).status == FOUND


@pytest.mark.parametrize("odd", [4, [4, 5], []])
async def test_an_odd_reply_to_users_is_a_store_error(odd: object) -> None:
    record = [b"3", SCHEMA.to_yaml().encode(), b"64", None]
    async with scripted(lambda parts: record if parts[0] == b"HMGET" else odd) as port:
        store = await connect(f"redis://127.0.0.1:{port}", SCHEMA)
        with pytest.raises(UnexpectedReply):
            await store.users(ids(3))
        with pytest.raises(UnexpectedReply):
            await store.user(3)
        with pytest.raises(UnexpectedReply):
            await store.patch_user(3, lambda row: None)
        with pytest.raises(UnexpectedReply):
            await store.forget_user(3)
        await store.close()

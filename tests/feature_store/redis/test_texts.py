"""Text ids in Redis: the documented keys, their expiry, round trips, slots on the move, faults."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.crc import key_slot

from feature_store import FeatureStore
from feature_store.contract import FOUND, Append
from feature_store.errors import (
    StoreCorrupt,
    StoreError,
    StoreMismatch,
    StoreRefused,
    StoreUnavailable,
    TextCollision,
)
from feature_store.redis.replies import UnexpectedReply
from tests.feature_store.fault_proxy import Fault, proxied
from tests.feature_store.golden_records import GOLDEN
from tests.feature_store.redis.test_layout import calls, prefix_of
from tests.feature_store.redis_moves import migrating, move
from tests.feature_store.redis_servers import ClusterGroup, SentinelGroup, Server, standalone
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.scripted_redis import scripted
from tests.feature_store.stores import connect

PAGE = (Path(__file__).parents[3] / "docs" / "feature-store.md").read_text()
WITHIN_S = 20.0
INSIDE = {"get", "setnx", "rpush"}  # commands of scripts; nothing here sends them by themselves


@pytest.fixture
async def mapped(redis_url: str) -> AsyncIterator[FeatureStore]:
    store = await connect(redis_url, SHOP, create=True, ids="mapped", history_ttl_s=1_000)
    yield store
    await store.close()


@pytest.mark.parametrize(
    ("before", "after", "other"),
    [
        ({"ids": "mapped"}, {"ids": "mapped"}, True),
        ({"partitions": 64}, {"partitions": 8}, True),
        ({}, {}, False),
    ],
)
async def test_a_store_that_was_made_anew_with_other_numbers_is_refused(
    redis: Server, redis_url: str, before: dict[str, Any], after: dict[str, Any], other: bool
) -> None:
    """By the numbers and keys of the one before all users and items would be unknown."""
    store, plain = await connect(redis_url, SHOP, create=True, **before), redis.client()
    cursor = (await store.changes(None)).cursor
    plain.delete(*plain.scan_iter(f"{prefix_of(redis_url)}:*"))
    assert (await store.changes(cursor)).lost  # emptied: all is unknown, which is true
    await (await connect(redis_url, SHOP, create=True, **after)).close()
    asked = [lambda: store.changes(cursor), lambda: store.history(7), lambda: store.append(7, [1])]
    for ask in asked if other else ():
        with pytest.raises(StoreMismatch, match="was emptied and loaded anew"):
            await ask()
    if not other:
        assert (await store.changes(cursor)).lost
        assert await store.append(7, [1])
    await store.close()


def named(users: range) -> dict[int, str]:
    return {user: f"user {user}" for user in users}


async def test_the_keys_are_those_of_the_documentation(
    redis: Server, redis_url: str, mapped: FeatureStore
) -> None:
    plain, prefix = redis.client(), prefix_of(redis_url)
    await mapped.name_items({81: "größe/42"})
    await mapped.append_all([Append(7, [81], user_text="ada")])
    found = {key.decode().removeprefix(prefix) for key in plain.scan_iter(f"{prefix}:*")}
    assert found == {":h:{7}", ":ut:{7}", ":it:{17}:81", ":changes", ":meta"}
    assert plain.get(f"{prefix}:ut:{{7}}") == b"ada"
    assert plain.get(f"{prefix}:it:{{17}}:81").decode() == "größe/42"
    meta = plain.hgetall(f"{prefix}:meta")
    assert set(meta) == {b"format", b"schema", b"partitions", b"id_key", b"made"}
    assert meta[b"format"] == b"2"
    assert mapped.text_ids is not None
    assert meta[b"id_key"] == mapped.text_ids.key


async def test_a_numeric_store_is_recorded_as_earlier_releases_do(
    redis: Server, redis_url: str
) -> None:
    await (await connect(redis_url, SHOP, create=True)).close()
    meta = redis.client().hgetall(f"{prefix_of(redis_url)}:meta")
    assert len(meta.pop(b"made")) == 16  # which earlier releases do not ask for
    assert meta == {b"format": b"1", b"schema": SHOP.to_yaml().encode(), b"partitions": b"64"}


async def test_a_store_of_an_earlier_release_is_numeric(redis: Server, redis_url: str) -> None:
    plain, prefix, golden = redis.client(), prefix_of(redis_url), GOLDEN / "v1"
    schema = (golden / "schema.yaml").read_text()
    plain.hset(f"{prefix}:meta", mapping={"format": 1, "schema": schema, "partitions": 64})
    plain.set(f"{prefix}:i:{{1}}:1", (golden / "item-1.bin").read_bytes())
    plain.rpush(f"{prefix}:h:{{7}}", 3, 2, 1)
    store = await connect(redis_url)
    assert store.text_ids is None
    assert (await store.items(ids(1))).status.tolist() == [FOUND]
    found = await store.history(7)
    assert found is not None
    assert found.tolist() == [3, 2, 1]
    await store.close()


async def test_a_users_text_expires_with_the_history_and_an_items_stays(
    redis: Server, redis_url: str, mapped: FeatureStore
) -> None:
    plain, prefix = redis.client(), prefix_of(redis_url)
    await mapped.append_all([Append(7, [1], "k", user_text="ada")])
    await mapped.put_histories({8: ids(1)}, {8: "bob"})
    for user in (7, 8):
        assert 990 < plain.ttl(f"{prefix}:h:{{{user}}}") <= 1_000
        assert 990 < plain.ttl(f"{prefix}:ut:{{{user}}}") <= 1_000
    for key in (f"{prefix}:h:{{7}}", f"{prefix}:ut:{{7}}"):
        plain.expire(key, 10)
    await mapped.append_all([Append(7, [1], "k", user_text="ada")])  # a repeat: no click
    assert plain.ttl(f"{prefix}:ut:{{7}}") <= 10
    await mapped.append_all([Append(7, [2], user_text="ada")])
    assert plain.ttl(f"{prefix}:h:{{7}}") > 990
    assert plain.ttl(f"{prefix}:ut:{{7}}") > 990
    await mapped.name_items({81: "an item"})
    assert plain.ttl(f"{prefix}:it:{{17}}:81") == -1


async def test_each_request_is_one_round_trip(redis: Server, mapped: FeatureStore) -> None:
    plain = redis.client()
    users = named(range(200))
    await mapped.put_histories({user: ids(user) for user in users}, users)
    steps: list[tuple[Any, dict[str, int]]] = [
        (lambda: mapped.append_all([Append(7, [1], user_text="user 7")]), {"eval": 1}),
        (lambda: mapped.append_all([Append(7, [1], "k", user_text="user 7")]), {"eval": 1}),
        (lambda: mapped.name_items(named(range(512))), {"eval": 1}),
        (lambda: mapped.item_texts(np.arange(512)), {"mget": 1}),
        (lambda: mapped.user_texts(range(200)), {"mget": 1}),
        (lambda: mapped.delete_history(8), {"eval": 1}),
    ]
    for step, expected in steps:
        plain.config_resetstat()
        await step()
        sent = {name: count for name, count in calls(redis).items() if name not in INSIDE}
        assert sent == expected


async def test_a_cluster_is_asked_for_texts_once_per_partition(
    cluster: ClusterGroup, redis_cluster_url: str
) -> None:
    store = await connect(redis_cluster_url, SHOP, create=True, ids="mapped")
    items = named(range(0, 512 * 7, 7))
    for server in cluster.servers:
        server.client().config_resetstat()
    await store.name_items(items)
    assert await store.item_texts(np.array(list(items))) == list(items.values())
    sent = [calls(server) for server in cluster.servers]
    assert sum(found.get("eval", 0) for found in sent) == 64
    assert sum(found.get("mget", 0) for found in sent) == 64
    await store.close()


async def test_texts_in_a_slot_on_the_move_are_kept_and_read(
    cluster: ClusterGroup, redis_cluster_url: str
) -> None:
    prefix = prefix_of(redis_cluster_url)
    store = await connect(redis_cluster_url, SHOP, create=True, ids="mapped")
    items = named(range(17, 64 * 40, 64))
    numbers = np.array(list(items))
    await store.name_items({item: items[item] for item in numbers[:20].tolist()})
    known = Append(17, [1], user_text="ada")  # user 17 shares the hash tag, so the slot
    assert await store.append_all([known]) == [True]
    source, target, finish = migrating(cluster, key_slot(f"{prefix}:it:{{17}}:17".encode()))

    for item in numbers[:10].tolist():
        move(source, target, f"{prefix}:it:{{17}}:{item}".encode())
    await store.name_items(items)  # some are kept here, some there, some nowhere yet
    with pytest.raises(TextCollision, match="'given' has the number 17, which is that of 'user 17"):
        await store.name_items({17: "given", 17 + 64: items[17 + 64]})
    assert await store.item_texts(numbers) == list(items.values())
    assert await store.append_all([known]) == [True]
    assert await store.user_texts([17]) == ["ada"]

    move(source, target, f"{prefix}:ut:{{17}}".encode())
    [refused] = await store.append_all([known])  # its two keys are on two servers
    assert isinstance(refused, StoreUnavailable)
    assert not refused.unknown
    assert await store.delete_history(17)
    assert not await store.delete_history(17)
    assert await store.user_texts([17]) == [None]

    finish()
    assert await store.item_texts(numbers) == list(items.values())
    assert await store.append_all([known]) == [True]
    assert await store.user_texts([17]) == ["ada"]
    await store.close()


async def test_a_collision_is_named_while_replicas_are_waited_for(
    sentinels: SentinelGroup, redis_sentinel_url: str
) -> None:
    store = await connect(redis_sentinel_url, SHOP, create=True, ids="mapped", wait_replicas=1)
    appends = [Append(7, [1], user_text="ada"), Append(7, [2], user_text="bob")]
    applied, refused = await store.append_all([*appends])
    assert applied is True
    assert isinstance(refused, TextCollision)
    await store.close()


@pytest.mark.parametrize("damaged", [b"", b"short", b"x" * 17])
async def test_a_damaged_key_of_text_ids_is_said(
    redis: Server, redis_url: str, mapped: FeatureStore, damaged: bytes
) -> None:
    redis.client().hset(f"{prefix_of(redis_url)}:meta", "id_key", damaged)
    with pytest.raises(StoreCorrupt, match="key of its text ids is damaged"):
        await connect(redis_url)


async def test_a_text_of_another_type_is_refused_and_nothing_is_written(
    redis: Server, redis_url: str, mapped: FeatureStore
) -> None:
    plain, prefix = redis.client(), prefix_of(redis_url)
    plain.rpush(f"{prefix}:ut:{{7}}", "not a text")
    plain.rpush(f"{prefix}:it:{{17}}:81", "not a text")
    [refused] = await mapped.append_all([Append(7, [1], user_text="ada")])
    assert isinstance(refused, StoreRefused)
    assert await mapped.history(7) is None
    with pytest.raises(StoreRefused, match="WRONGTYPE"):
        await mapped.put_histories({7: ids(1)}, {7: "ada"})
    with pytest.raises(StoreRefused, match="WRONGTYPE"):
        await mapped.name_items({81: "an item"})


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
async def test_a_fault_costs_texts_what_it_costs_every_read(
    redis: Server, redis_url: str, fault: Fault
) -> None:
    async with proxied(redis.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}?{redis_url.partition('?')[2]}"
        await (await connect(url, SHOP, create=True, ids="mapped")).close()
        store = await connect(url, SHOP, budget_ms=150.0)  # less than the slow fault's delay
        await store.name_items({3: "three"})
        await store.append_all([Append(7, [3], user_text="ada")])
        await proxy.become(fault)
        refused = 0
        async with asyncio.timeout(WITHIN_S):
            while not store.open_breakers:
                try:
                    assert await store.item_texts(ids(3)) == ["three"]  # was already under way
                    assert await store.user_texts([7]) == ["ada"]
                except StoreUnavailable:
                    refused += 1
                await asyncio.sleep(0.005)
        assert refused
        for call in (
            lambda: store.item_texts(ids(3)),
            lambda: store.user_texts([7]),
            lambda: store.name_items({3: "three"}),
        ):
            with pytest.raises(StoreUnavailable):
                await call()
        await proxy.become(Fault.NONE)
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(StoreError):
                    assert await store.item_texts(ids(3)) == ["three"]
                    break
                await asyncio.sleep(0.01)
        await store.close()


@pytest.mark.parametrize("odd", [4, b"text", None, [4, 5], []])
async def test_an_odd_reply_to_texts_is_a_store_error(odd: object) -> None:
    record = [b"2", SHOP.to_yaml().encode(), b"64", bytes(16)]
    async with scripted(lambda parts: record if parts[0] == b"HMGET" else odd) as port:
        store = await connect(f"redis://127.0.0.1:{port}", SHOP)
        with pytest.raises(UnexpectedReply):
            await store.name_items({3: "three"})
        with pytest.raises(UnexpectedReply):
            await store.item_texts(ids(3))
        with pytest.raises(UnexpectedReply):
            await store.user_texts([3])
        await store.close()


async def test_a_writer_of_a_mapped_store_needs_no_more_than_is_documented(tmp_path: Path) -> None:
    [listed] = re.findall(r"A user that may only serve needs: (.*?; with the)", PAGE, re.S)
    commands = [name.lower() for name in re.findall(r"`([A-Z ]+)`", listed)]
    with standalone(tmp_path / "redis") as server:
        plain = server.client()
        allowed = [f"+{command.replace(' ', '|')}" for command in commands]
        plain.execute_command("ACL", "SETUSER", "writer", "on", ">PASSWORD", "~qin:*", *allowed)
        url = f"redis://writer:PASSWORD@127.0.0.1:{server.port}"
        store = await connect(url, SHOP, create=True, ids="mapped")
        await store.name_items({3: "three"})
        await store.put_items(ids(3), random_rows(SHOP, 1))
        await store.append_all([Append(7, [3], "k", user_text="ada")])
        await store.put_histories({8: ids(3), 9: ids()}, {8: "bob"})
        assert await store.user_texts([7, 8]) == ["ada", "bob"]
        assert await store.item_texts(ids(3)) == ["three"]
        assert await store.delete_history(8)
        assert await store.delete_items(ids(3)) == 1
        assert plain.acl_log() == []
        await store.close()

"""What is in Redis: the documented keys, bounded, in few round trips; damage and replication."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from redis.crc import key_slot

from feature_store.contract import CORRUPT, FOUND, MISSING, Append
from feature_store.errors import StoreCorrupt, StoreMismatch, StoreUnavailable
from tests.feature_store.redis_servers import (
    ClusterGroup,
    SentinelGroup,
    Server,
    replicates,
    until,
)
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect


def prefix_of(url: str) -> str:
    return url.rpartition("prefix=")[2]


def calls(server: Server) -> dict[str, int]:
    """Commands served since CONFIG RESETSTAT, by name; scripts count as themselves alone."""
    stats = server.client().info("commandstats")
    inner = {"lpush", "ltrim", "expire", "exists", "set", "sadd", "del", "srem", "config|resetstat"}
    inner |= {"ttl", "time", "zadd", "zremrangebyscore", "zrem", "zcard"}
    named = {name.removeprefix("cmdstat_"): value["calls"] for name, value in stats.items()}
    watch = inner | {"ping", "info", "client|setname", "auth", "select", "replconf"}
    return {name: count for name, count in named.items() if name not in watch}


async def test_the_keys_are_those_of_the_documentation(redis: Server, redis_url: str) -> None:
    store, plain, prefix = await connect(redis_url, SHOP, create=True), redis.client(), ""
    prefix = prefix_of(redis_url)
    await store.append(7, [3, 81], key="abc")
    await store.put_items(ids(81), random_rows(SHOP, 1))
    await store.put_note("load", b"half")
    kinds = {k.decode().removeprefix(prefix): plain.type(k) for k in plain.scan_iter(f"{prefix}:*")}
    assert kinds == {
        ":h:{7}": b"list",
        ":k:{7}:abc": b"string",
        ":ks:{7}": b"zset",
        ":i:{17}:81": b"string",
        ":ids:{17}": b"set",
        ":changes": b"stream",
        ":meta": b"hash",
        ":note:load": b"string",
    }
    assert plain.lrange(f"{prefix}:h:{{7}}", 0, -1) == [b"81", b"3"]
    assert plain.smembers(f"{prefix}:ids:{{17}}") == {b"81"}
    assert plain.hget(f"{prefix}:meta", "partitions") == b"64"
    [[_, fields]] = plain.xrevrange(f"{prefix}:changes", count=1)
    assert fields == {b"ids": b"81"}
    await store.close()


async def test_histories_and_keys_expire_and_appending_refreshes(
    redis: Server, redis_url: str
) -> None:
    store = await connect(redis_url, SHOP, create=True, history_ttl_s=1_000, idempotency_ttl_s=500)
    plain, prefix = redis.client(), prefix_of(redis_url)
    await store.append(7, [1], key="k")
    await store.put_histories({8: ids(1)})
    assert 990 < plain.ttl(f"{prefix}:h:{{7}}") <= 1_000
    assert 990 < plain.ttl(f"{prefix}:h:{{8}}") <= 1_000
    assert 490 < plain.ttl(f"{prefix}:k:{{7}}:k") <= 500
    plain.expire(f"{prefix}:h:{{7}}", 10)
    await store.append(7, [2])
    assert plain.ttl(f"{prefix}:h:{{7}}") > 990
    await store.close()


async def test_nothing_grows_without_bound(redis: Server, redis_url: str) -> None:
    store = await connect(redis_url, SHOP, create=True, changes_kept=50)
    plain, prefix = redis.client(), prefix_of(redis_url)
    for click in range(600):
        await store.append(7, [click])
        await store.put_items(ids(1), random_rows(SHOP, 1))
    assert plain.llen(f"{prefix}:h:{{7}}") == SHOP.history_length
    assert plain.xlen(f"{prefix}:changes") < 50 + 100  # trimmed a node of the stream at a time
    assert len(list(plain.scan_iter(f"{prefix}:*"))) == 5
    await store.close()


async def test_partitions_are_decided_once(redis_url: str) -> None:
    store = await connect(redis_url, SHOP, create=True, partitions=8)
    await store.put_items(np.arange(100), random_rows(SHOP, 100))
    await store.close()
    for options in ({}, {"partitions": 4}):
        again = await connect(redis_url, SHOP, create=True, **options)
        assert (await again.items(np.arange(100))).status.tolist() == [FOUND] * 100
        assert (await again.describe())["partitions"] == 8
        await again.close()


async def test_each_request_is_one_round_trip(redis: Server, redis_url: str) -> None:
    store, plain = await connect(redis_url, SHOP, create=True), redis.client()
    await store.put_items(np.arange(512), random_rows(SHOP, 512))
    steps: list[tuple[Any, dict[str, int]]] = [
        (lambda: store.history(7), {"lrange": 1}),
        (lambda: store.append(7, [1, 2, 3]), {"eval": 1}),
        (lambda: store.append(7, [1], key="k"), {"eval": 1}),
        (lambda: store.items(np.arange(512)), {"mget": 1}),
        (lambda: store.changes("0-0"), {"xrange": 1, "xrevrange": 1, "hmget": 1}),
    ]
    for step, expected in steps:
        plain.config_resetstat()
        await step()
        assert calls(redis) == expected
    await store.close()


async def test_a_cluster_is_asked_for_items_once_per_partition(
    cluster: ClusterGroup, redis_cluster_url: str
) -> None:
    store = await connect(redis_cluster_url, SHOP, create=True)
    rows = random_rows(SHOP, 512)
    await store.put_items(np.arange(512) * 7, rows)
    for server in cluster.servers:
        server.client().config_resetstat()
    batch = await store.items(np.arange(512) * 7)
    assert batch.rows.tobytes() == rows.tobytes()
    asked = sum(calls(server).get("mget", 0) for server in cluster.servers)
    assert 0 < asked <= 64
    await store.close()


async def test_partitions_spread_over_a_clusters_masters(cluster: ClusterGroup) -> None:
    masters = [cluster.master_of(key_slot(b"qin:i:{%d}:0" % n)).port for n in range(64)]
    shares = [masters.count(port) for port in set(masters)]
    assert len(shares) == 3
    assert min(shares) >= 10


async def test_damaged_bytes_cost_their_own_item(redis: Server, redis_url: str) -> None:
    store, plain = await connect(redis_url, SHOP, create=True), redis.client()
    prefix = prefix_of(redis_url)
    rows = random_rows(SHOP, 4)
    await store.put_items(ids(1, 2, 3, 4), rows)
    record = plain.get(f"{prefix}:i:{{1}}:1")
    plain.set(f"{prefix}:i:{{1}}:1", record[:2] + b"\x03" + record[3:])  # of a newer format
    plain.set(f"{prefix}:i:{{2}}:2", b"noise")
    plain.set(f"{prefix}:i:{{3}}:3", plain.get(f"{prefix}:i:{{4}}:4"))  # another item's
    batch = await store.items(ids(1, 2, 3, 4, 5))
    assert batch.status.tolist() == [CORRUPT, CORRUPT, CORRUPT, FOUND, MISSING]
    assert batch.rows[3:4].tobytes() == rows[3:4].tobytes()
    assert not any(batch.rows[:3].tobytes())
    assert await store.fault(1) == "format 3 is newer than this program's 2"
    assert await store.fault(3) == "holds item 4"
    with pytest.raises(StoreCorrupt, match="replace the whole item"):
        await store.patch_item(2, lambda row: None)
    scanned = [status async for b in store.scan_items() for status in b.status.tolist()]
    assert sorted(scanned) == [FOUND, CORRUPT, CORRUPT, CORRUPT]
    await store.close()


@pytest.mark.parametrize("noise", ["x", "-4", str(2**64)])
async def test_a_history_with_what_is_no_id_says_so(
    redis: Server, redis_url: str, noise: str
) -> None:
    store = await connect(redis_url, SHOP, create=True)
    await store.append(7, [1])
    redis.client().lpush(f"{prefix_of(redis_url)}:h:{{7}}", noise)
    with pytest.raises(StoreCorrupt, match="history of user 7"):
        await store.history(7)
    await store.close()


@pytest.mark.parametrize(
    ("field", "value", "error", "reason"),
    [
        ("format", "17", StoreMismatch, "store format 17, newer"),
        ("format", "two", StoreCorrupt, "format record is damaged"),
        ("schema", "name: 3", StoreCorrupt, "schema record is damaged"),
        ("partitions", "many", StoreCorrupt, "partition count is damaged"),
    ],
)
async def test_a_store_this_program_cannot_read_says_why(
    redis: Server, redis_url: str, field: str, value: str, error: type[Exception], reason: str
) -> None:
    await (await connect(redis_url, SHOP, create=True)).close()
    redis.client().hset(f"{prefix_of(redis_url)}:meta", field, value)
    with pytest.raises(error, match=reason):
        await connect(redis_url, SHOP)


async def test_an_append_can_wait_for_replicas(
    sentinels: SentinelGroup, redis_sentinel_url: str
) -> None:
    servers = sentinels.master, sentinels.replica  # a busy machine may have changed their roles
    until(lambda: any(map(replicates, servers)), "replication")
    safe = await connect(redis_sentinel_url, SHOP, create=True, wait_replicas=1)
    assert await safe.append(7, [1])
    assert await safe.append_all([Append(7, [2], "k"), Append(7, [2], "k")]) == [True, False]
    await safe.close()
    greedy = await connect(redis_sentinel_url, SHOP, wait_replicas=2, budget_ms=200)
    with pytest.raises(StoreUnavailable, match="on only 1 of 2 replicas"):
        await greedy.append(7, [3])
    found = await greedy.history(7)
    assert found is not None
    assert found.tolist() == [3, 2, 1]
    await greedy.close()

"""Masters that die and slots that move, under Sentinel and in a Cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from redis import RedisError
from redis.crc import key_slot

from feature_store import FeatureStore
from feature_store.contract import FOUND, Ids
from feature_store.errors import StoreError, StoreUnavailable
from tests.feature_store.redis_moves import migrating, move, replica_of, role
from tests.feature_store.redis_servers import (
    PATIENT_MS,
    QUICK_MS,
    ClusterGroup,
    SentinelGroup,
    cluster_whole,
    sentinel_group,
    until,
)
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect

WITHIN_S = 20.0  # how soon it really is, `python -m tests.service.measure_failover` prints
BUDGET_MS = 1_000.0


async def promoted(is_master: Callable[[], bool]) -> None:
    """Until a replica says that it is master now."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(RedisError):
                if await asyncio.to_thread(is_master):
                    return
            await asyncio.sleep(0.02)


async def fresh_again(store: FeatureStore, user: int) -> None:
    """Until a click is taken and read back again."""
    click = 0
    async with asyncio.timeout(WITHIN_S):
        while True:
            click += 1
            with contextlib.suppress(StoreError):
                await store.append(user, [click])
                found = await store.history(user)
                assert found is not None
                assert found[0] == click
                return
            await asyncio.sleep(0.02)


async def history(store: FeatureStore, user: int) -> Ids:
    """However long the other parts of a cluster take to be whole again."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(StoreUnavailable):
                found = await store.history(user)
                assert found is not None
                return found
            await asyncio.sleep(0.02)


@pytest.fixture
def own_sentinels(tmp_path: Path) -> Iterator[SentinelGroup]:
    """A group that a test may leave in ruins."""
    with sentinel_group(tmp_path) as group:
        yield group


async def test_sentinel_a_killed_master_is_followed_to_its_replica(
    own_sentinels: SentinelGroup,
) -> None:
    master, replica = own_sentinels.master, own_sentinels.replica
    store = await connect(own_sentinels.url, SHOP, create=True, budget_ms=BUDGET_MS)
    safe = await connect(own_sentinels.url, SHOP, wait_replicas=1)
    await safe.append(7, [1, 2, 3])  # on the replica before it was acknowledged
    rows = random_rows(SHOP, 10)
    await store.put_items(np.arange(10), rows)
    await safe.append(8, [1])
    await safe.close()
    master.kill()

    watching = asyncio.create_task(promoted(lambda: role(replica) == "master"))
    while not watching.done():
        async with asyncio.timeout(WITHIN_S):
            with contextlib.suppress(StoreUnavailable):
                await store.history(7)
        await asyncio.sleep(0.02)
    await watching
    await fresh_again(store, 9)
    assert (await history(store, 7)).tolist() == [3, 2, 1]
    assert (await store.items(np.arange(10))).rows.tobytes() == rows.tobytes()
    await store.close()


async def test_sentinel_no_sentinel_and_no_service_are_said(sentinels: SentinelGroup) -> None:
    hosts = sentinels.url.partition("://")[2].rpartition("/")[0]
    with pytest.raises(StoreUnavailable, match="unknown service 'other'"):
        await connect(f"redis+sentinel://{hosts}/other", SHOP)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
        await connect("redis+sentinel://127.0.0.1:1/main", SHOP)


async def test_cluster_a_slot_on_the_move_is_served_all_along(
    cluster: ClusterGroup, redis_cluster_url: str
) -> None:
    """ASK and TRYAGAIN while it moves, MOVED once it has: no read or write is lost or refused."""
    prefix = redis_cluster_url.rpartition("prefix=")[2]
    store = await connect(redis_cluster_url, SHOP, create=True)
    partition = 17
    item_ids = np.arange(40) * 64 + partition
    rows = random_rows(SHOP, 40)
    await store.put_items(item_ids, rows)
    await store.append(partition, [1])  # user 17 shares the hash tag, so the slot
    slot = key_slot(f"{prefix}:i:{{{partition}}}:0".encode())
    source, target, finish = migrating(cluster, slot)

    for step in range(0, 40, 10):
        for item in item_ids[step : step + 5]:
            move(source, target, f"{prefix}:i:{{{partition}}}:{item}".encode())
        batch = await store.items(item_ids)
        assert (batch.status == FOUND).all()
        assert batch.rows.tobytes() == rows.tobytes()
        rows[step + 3 : step + 8] = random_rows(SHOP, 5, seed=step)
        await store.put_items(item_ids[step + 3 : step + 8], rows[step + 3 : step + 8])
        assert (await store.items(item_ids)).rows.tobytes() == rows.tobytes()
        assert await store.append(partition, [step])
        found = await store.history(partition)
        assert found is not None
        assert found[0] == step
    assert await store.delete_items(item_ids[38:]) == 2

    finish()
    assert (await store.items(item_ids[:38])).rows.tobytes() == rows[:38].tobytes()
    assert await store.append(partition, [99])
    found = await store.history(partition)
    assert found is not None
    assert found.tolist() == [99, 30, 20, 10, 0, 1]
    assert await store.count_items() == 38
    await store.close()


@pytest.fixture
def noticing(cluster: ClusterGroup) -> Iterator[ClusterGroup]:
    """The shared cluster, which soon notices that a node is down."""
    cluster.notice_within(QUICK_MS)
    yield cluster
    cluster.notice_within(PATIENT_MS)


async def test_cluster_a_killed_master_costs_its_own_slots_until_its_replica_serves(
    noticing: ClusterGroup, redis_cluster_url: str
) -> None:
    cluster = noticing
    prefix = redis_cluster_url.rpartition("prefix=")[2]
    store = await connect(redis_cluster_url, SHOP, create=True, budget_ms=BUDGET_MS)
    safe = await connect(redis_cluster_url, SHOP, wait_replicas=1)
    for user in range(50):
        await safe.append(user, [user, 1])
    await safe.close()
    victim = cluster.master_of(key_slot(f"{prefix}:h:{{7}}".encode()))
    served_elsewhere = [
        user
        for user in range(50)
        if cluster.master_of(key_slot(f"{prefix}:h:{{{user}}}".encode())).port != victim.port
    ]
    replica = replica_of(cluster, victim)
    victim.kill()

    async def others_are_served() -> None:
        async with asyncio.timeout(WITHIN_S):
            with contextlib.suppress(StoreUnavailable):
                await store.history(7)
        for user in served_elsewhere[:5]:  # until the cluster itself notices and stops, in quorum
            with contextlib.suppress(StoreUnavailable):
                found = await store.history(user)
                assert found is not None
                assert found.tolist() == [1, user]

    watching = asyncio.create_task(promoted(lambda: role(replica) == "master"))
    while not watching.done():
        await others_are_served()
        await asyncio.sleep(0.02)
    await watching
    await fresh_again(store, 7)
    for user in range(50):
        found = await history(store, user)
        assert found.tolist()[-2:] == [1, user]
    await store.close()

    victim.start()
    for server in cluster.servers:
        until(lambda s=server: cluster_whole(s), f"the cluster, seen from {server.port}")  # type: ignore[misc]


async def test_cluster_nobody_answering_is_said() -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
        await connect("redis+cluster://127.0.0.1:1,127.0.0.1:2", SHOP)


async def test_cluster_items_survive_a_refresh_of_the_map(
    cluster: ClusterGroup, redis_cluster_url: str
) -> None:
    """A seed that is down is no obstacle: any node knows the map."""
    hosts = redis_cluster_url.partition("://")[2]
    store = await connect(f"redis+cluster://127.0.0.1:1,{hosts}", SHOP, create=True)
    await store.put_items(ids(1, 2, 3), random_rows(SHOP, 3))
    assert await store.count_items() == 3
    await store.close()

"""A network or a server that fails: bounded answers, a breaker, recovery; nothing pretended."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pytest

from feature_store import FeatureStore, connect
from feature_store.contract import FOUND, Append
from feature_store.errors import StoreError, StoreRefused, StoreUnavailable
from feature_store.options import StoreOptions
from feature_store.redis.store import RedisStore
from tests.feature_store.fault_proxy import Fault, FaultProxy, proxied
from tests.feature_store.redis_servers import PASSWORD, Server, standalone
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import PATIENCE_MS

BUDGET_MS = 150.0  # less than the slow fault's delay
WITHIN_S = 20.0  # on a busy test machine; how soon it really is, `measure_faults` prints
PROBES_PER_S = 1

T = TypeVar("T")


class Opener(Protocol):
    async def __call__(self, url: str, budget_ms: float = BUDGET_MS) -> RedisStore: ...


@pytest.fixture
async def opened() -> AsyncIterator[Opener]:
    """Opens stores, made first where there is none, and closes them after the test."""
    stores: list[FeatureStore] = []

    async def one(url: str, budget_ms: float = BUDGET_MS) -> RedisStore:
        patient = StoreOptions(budget_ms=PATIENCE_MS)
        await (await connect(url, SHOP, create=True, options=patient)).close()
        store = await connect(url, SHOP, options=StoreOptions(budget_ms=budget_ms))
        stores.append(store)
        assert isinstance(store, RedisStore)
        return store

    yield one
    for store in stores:
        await store.close()


@pytest.fixture
async def proxy(redis: Server) -> AsyncIterator[FaultProxy]:
    async with proxied(redis.port) as made:
        yield made


@pytest.fixture
async def behind(proxy: FaultProxy, redis_url: str, opened: Opener) -> RedisStore:
    """A store behind the proxy."""
    prefix = redis_url.partition("?")[2]
    return await opened(f"redis://127.0.0.1:{proxy.port}?{prefix}")


async def reads(store: FeatureStore, user_id: int = 7) -> list[int] | None:
    found = await store.history(user_id)
    return None if found is None else found.tolist()


async def reads_again(store: FeatureStore, expected: list[int]) -> None:
    """Until reads are answered rightly; they are tried as requests would come."""
    assert await eventually(lambda: reads(store)) == expected


async def eventually(call: Callable[[], Awaitable[T]]) -> T:
    """The first answer that is no StoreError."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(StoreError):
                return await call()
            await asyncio.sleep(0.01)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
async def test_a_fault_is_bounded_breaks_the_circuit_and_heals(
    proxy: FaultProxy, behind: RedisStore, fault: Fault
) -> None:
    await eventually(lambda: behind.append(7, [1, 2], key="a"))
    await reads_again(behind, [2, 1])

    await proxy.become(fault)
    async with asyncio.timeout(WITHIN_S):
        while not behind.open_breakers:
            with contextlib.suppress(StoreUnavailable):
                assert await reads(behind) == [2, 1]  # an answer that was already under way
            await asyncio.sleep(0.005)

    # Open: requests fail without asking, and the server is asked at most once a second on each
    # lane: a greeting, which takes two chunks, and a PING.
    requests, connections = proxy.requests, proxy.connections
    watched, elapsed = time.monotonic(), 0.0
    while elapsed < 1.2:
        with pytest.raises(StoreUnavailable):
            await reads(behind)
        with pytest.raises(StoreUnavailable):
            await behind.append(7, [3])
        await asyncio.sleep(0.01)
        elapsed = time.monotonic() - watched
    probes = 1 + PROBES_PER_S * elapsed
    assert proxy.connections - connections <= 2 * probes
    assert proxy.requests - requests <= 2 * 2 * probes

    await proxy.become(Fault.NONE)
    await reads_again(behind, [2, 1])
    await eventually(lambda: behind.append(7, [4], key="b"))
    await reads_again(behind, [4, 2, 1])
    await until(lambda: not behind.open_breakers)


async def test_a_rare_request_finds_the_breaker_open(proxy: FaultProxy, behind: RedisStore) -> None:
    """One failure is enough for the watch to find out by itself."""
    await proxy.become(Fault.BLACK_HOLE)
    with pytest.raises(StoreUnavailable, match="no answer in time"):
        await reads(behind)
    await until(lambda: behind.open_breakers)
    await proxy.become(Fault.NONE)
    await until(lambda: not behind.open_breakers)  # by itself: no request had to try


async def test_a_short_pause_costs_its_own_requests_only(
    redis: Server, redis_url: str, opened: Opener
) -> None:
    store = await opened(redis_url)
    await eventually(lambda: store.append(7, [1], key="a"))
    redis.pause()
    try:
        waiting = await asyncio.gather(*(reads(store) for _ in range(50)), return_exceptions=True)
        assert all(isinstance(answer, StoreUnavailable) for answer in waiting)
    finally:
        redis.resume()
    await reads_again(store, [1])
    await until(lambda: not store.open_breakers)


async def test_giving_up_closes_no_connection(
    proxy: FaultProxy, redis_url: str, opened: Opener
) -> None:
    prefix = redis_url.partition("?")[2]
    store = await opened(f"redis://127.0.0.1:{proxy.port}?{prefix}", PATIENCE_MS)
    await store.append(7, [1])
    connections = proxy.connections
    for _ in range(200):
        task = asyncio.create_task(reads(store))
        await asyncio.sleep(random.uniform(0, 0.0005))
        task.cancel()
    assert await reads(store) == [1]
    assert proxy.connections == connections


async def test_cancelled_requests_never_mix_answers(redis_url: str, opened: Opener) -> None:
    """20,000 requests cancelled at random moments; each that ends has its own user's data."""
    store = await opened(redis_url, PATIENCE_MS)
    users = 500
    await store.put_histories({user: ids(user, user + 10_000) for user in range(users)})
    rows = random_rows(SHOP, users)
    await store.put_items(np.arange(users), rows)
    choose = random.Random(0)
    finished = 0

    async def one(user: int) -> None:
        nonlocal finished
        if user % 2:
            assert await reads(store, user) == [user, user + 10_000]
        else:
            asked = np.arange(user, user + 3) % users
            batch = await store.items(asked)
            assert (batch.status == FOUND).all()
            assert batch.rows.tobytes() == rows[asked].tobytes()
        finished += 1

    for _ in range(200):
        tasks = [asyncio.create_task(one(choose.randrange(users))) for _ in range(100)]
        await asyncio.sleep(choose.uniform(0, 0.004))
        for task in tasks:
            if choose.random() < 0.6:
                task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)
    assert 4_000 < finished < 20_000


async def test_a_keyed_append_is_applied_once_though_its_answer_is_lost(
    proxy: FaultProxy, behind: RedisStore
) -> None:
    await proxy.become(Fault.RESET)
    with pytest.raises(StoreUnavailable):
        await behind.append(7, [1], key="k")  # sent twice, answered never
    with pytest.raises(StoreUnavailable):
        await behind.append(8, [1])  # sent once: it may not be repeated
    await proxy.become(Fault.NONE)
    await reads_again(behind, [1])
    assert not await eventually(lambda: behind.append(7, [1], key="k"))
    await reads_again(behind, [1])
    assert await eventually(lambda: reads(behind, 8)) in ([1], None)


async def test_reads_are_tried_again_when_only_the_connection_was_lost(
    redis: Server, redis_url: str, opened: Opener
) -> None:
    store = await opened(redis_url, PATIENCE_MS)
    await store.append(7, [1])
    for _ in range(20):
        redis.client().client_kill_filter(_type="normal", skipme=True)
        assert await reads(store) == [1]


# Servers that answer, and decline.


async def test_a_wrong_password_is_refused_at_once(tls: tuple[Server, str]) -> None:
    server, query = tls
    for wrong in ("nope", ""):
        with pytest.raises(StoreRefused, match="password") as caught:
            await connect(f"rediss://:{wrong}@127.0.0.1:{server.port}?{query}", SHOP)
        assert PASSWORD not in str(caught.value)


async def test_an_unknown_authority_is_refused(tls: tuple[Server, str]) -> None:
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
        await connect(f"rediss://:x@127.0.0.1:{tls[0].port}", SHOP)


async def test_nobody_listening_is_said_and_not_waited_for() -> None:
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
            await connect("redis://127.0.0.1:1", SHOP)


async def test_a_password_changed_under_us(tmp_path: Path, opened: Opener) -> None:
    with standalone(tmp_path / "server") as server:
        store = await opened(f"redis://127.0.0.1:{server.port}", PATIENCE_MS)
        await store.append(7, [1])
        server.client().config_set("requirepass", "new")
        server.password = "new"
        server.client().client_kill_filter(_type="normal", skipme=True)
        assert "correct the password" in await refusal(store)
        server.client().config_set("requirepass", "")
        server.password = None
        await reads_again(store, [1])


async def refusal(store: FeatureStore) -> str:
    """What the server says to a read, once it is reached."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                await reads(store)
            except StoreRefused as refused:
                return str(refused)
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.01)


async def test_a_server_that_is_loading_is_waited_for(tmp_path: Path, opened: Opener) -> None:
    with standalone(tmp_path / "server") as server:
        url = f"redis://127.0.0.1:{server.port}"
        store = await opened(url, PATIENCE_MS)
        await store.append(7, [1])
        server.client().execute_command("DEBUG", "POPULATE", 5_000, "other")
        server.client().save()
        server.kill()
        server.options = [
            "--key-load-delay",
            "100",
            "--loading-process-events-interval-bytes",
            "1024",
        ]
        server.start_without_waiting()
        reasons = set()

        async def read() -> list[int] | None:
            try:
                return await reads(store)
            except StoreUnavailable as error:
                reasons.add(str(error))
                raise

        assert await eventually(read) == [1]
        assert any("still loading" in reason for reason in reasons), reasons


async def test_a_replica_refuses_writes_and_serves_reads(
    redis: Server, redis_url: str, opened: Opener
) -> None:
    store = await opened(redis_url, PATIENCE_MS)
    await store.append(7, [1])
    redis.client().execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(StoreRefused, match="it is a replica: give the master's address"):
            await store.append(7, [2])
        with pytest.raises(StoreRefused, match="replica"):
            await store.put_items(ids(1), random_rows(SHOP, 1))
        assert await reads(store) == [1]
        assert not store.open_breakers
    finally:
        redis.client().execute_command("REPLICAOF", "NO", "ONE")
    assert await store.append(7, [2])


async def test_a_full_server_refuses_writes_whole_and_serves_reads(
    redis: Server, redis_url: str, opened: Opener
) -> None:
    store = await opened(redis_url, PATIENCE_MS)
    await store.append(7, [1])
    await store.put_items(ids(1), random_rows(SHOP, 1, seed=1))
    redis.client().config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreRefused, match="raise maxmemory"):
            await store.append(7, [2], key="k")
        with pytest.raises(StoreRefused, match="raise maxmemory"):
            await store.put_items(ids(1, 65), random_rows(SHOP, 2, seed=2))
        assert await reads(store) == [1]
        assert (await store.items(ids(1))).rows.tobytes() == random_rows(SHOP, 1, seed=1).tobytes()
    finally:
        redis.client().config_set("maxmemory", 0)
    assert await store.append(7, [2], key="k")  # the refused one did not spend its key
    assert await store.count_items() == 1


async def test_a_key_of_another_type_costs_only_itself(
    redis: Server, redis_url: str, opened: Opener
) -> None:
    store = await opened(redis_url, PATIENCE_MS)
    prefix = redis_url.partition("prefix=")[2]
    plain = redis.client()
    plain.set(f"{prefix}:h:{{7}}", "not a list")
    plain.rpush(f"{prefix}:i:{{1}}:1", "not a string")
    await store.put_items(ids(2), random_rows(SHOP, 1))
    with pytest.raises(StoreRefused, match="another program"):
        await store.history(7)
    results = await store.append_all([Append(6, [1]), Append(7, [1], "k"), Append(8, [1])])
    assert [type(result) for result in results] == [bool, StoreRefused, bool]
    assert (await store.items(ids(1, 2))).status[1] == FOUND
    assert not store.open_breakers
    plain.delete(f"{prefix}:h:{{7}}")
    assert await store.append(7, [1], "k")

"""Users' records on every kind of store: seen at once by every process, one round trip, forgotten;
what a damaged one costs."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.testing import assert_allclose

from feature_store.codec import UserCodec
from feature_store.feature_values import set_values, user_row
from feature_store.lmdb.environment import USERS, acquire, release
from feature_store.schema import FeatureSchema
from service.items.store_client import STALE
from service.state import ServiceState
from tests.feature_store.fault_proxy import Fault, proxied
from tests.feature_store.redis_servers import Server
from tests.feature_store.stores import connect
from tests.service.api.test_users import VALUES
from tests.service.in_process import client_of, metric, opened
from tests.service.items.test_backends import commands_of, servers_of
from tests.service.parity import TOLERANCE
from tests.service.user_world import LEVELLED, USER_FEATURES, UserWorld, make_user_world, on_store

NEW, KNOWN = 10**12, 11
BOTH = pytest.mark.parametrize("store_url", ["lmdb", "redis"], indirect=True)


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> UserWorld:
    return make_user_world(tmp_path_factory.mktemp("users"))


@pytest.fixture
def users(small_world: UserWorld, store_url: str) -> UserWorld:
    return on_store(small_world, store_url)


@pytest.fixture
async def state(users: UserWorld) -> AsyncIterator[ServiceState]:
    async with opened(users.world) as state:
        yield state


@pytest.fixture
async def client(state: ServiceState) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(state) as client:
        yield client


async def scored(users: UserWorld, client: httpx.AsyncClient, user: int, **more: Any) -> Any:
    body = {"user_id": user, "candidates": users.world.ids[:9].tolist(), **more}
    answer = await client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def is_served(users: UserWorld, client: httpx.AsyncClient, user: int) -> None:
    found = await scored(users, client, user)
    exact = users.exact(user, users.world.ids[:9])
    assert_allclose(found["scores"], exact, atol=TOLERANCE)
    assert found["degraded"] == []
    assert ("taste" in found["defaulted"]) is (user not in users.records)


async def test_each_write_is_in_the_next_score_of_every_process(
    users: UserWorld, state: ServiceState, client: httpx.AsyncClient
) -> None:
    async with opened(users.world) as other, client_of(other) as theirs:
        both = (client, theirs)
        for turn, user in enumerate((NEW, KNOWN, 2**63 - 1)):
            path, [mine, yours] = f"/v1/users/{user}", [both[turn % 2], both[1 - turn % 2]]
            assert (await mine.put(path, json=VALUES)).status_code == 204
            users.records[user] = user_row(LEVELLED, VALUES)
            await is_served(users, yours, user)
            changed = {"country": turn, "taste": [0.0, 1.0, -2.0, turn]}
            assert (await yours.patch(path, json=changed)).status_code == 204
            set_values(LEVELLED.user, users.records[user], changed)
            await is_served(users, mine, user)
            assert (await mine.delete(path)).status_code == 204
            del users.records[user]
            await is_served(users, yours, user)
            assert (await yours.delete(path)).status_code == 404
            assert (await mine.patch(path, json=changed)).status_code == 404


async def test_patches_of_several_processes_are_all_kept(
    users: UserWorld, client: httpx.AsyncClient
) -> None:
    path, given = f"/v1/users/{KNOWN}", {"country": 2, "followed": [7], "taste": [1, 2, 3, 4]}
    async with opened(users.world) as other, client_of(other) as theirs:
        asked = [
            one.patch(path, json={name: value})
            for name, value in given.items()
            for one in (client, theirs)
        ]
        answers = await asyncio.gather(*asked)
    assert [answer.status_code for answer in answers] == [204] * 6
    set_values(LEVELLED.user, users.records[KNOWN], given)
    await is_served(users, client, KNOWN)


async def test_history_and_record_cost_one_round_trip(
    users: UserWorld, store_url: str, request: pytest.FixtureRequest
) -> None:
    servers = servers_of(request, store_url)
    async with opened(users.world, fleet="") as state, client_of(state) as client:
        await state.refresher.close()  # only requests ask
        await is_served(users, client, KNOWN)
        name = "qin_store_duration_seconds_count"
        before, commands = metric(state, name, operation="user"), commands_of(servers)
        for _ in range(20):
            await is_served(users, client, KNOWN)
        assert metric(state, name, operation="user") == before + 20
        expected = {"lrange": 20, "get": 20} if servers else {}
        assert commands_of(servers) - commands == Counter(expected)


async def test_a_forgotten_user_is_a_new_one_to_the_next_request(
    users: UserWorld, client: httpx.AsyncClient, store_url: str
) -> None:
    event = {"user_id": KNOWN, "item_id": int(users.world.ids[3]), "key": "k"}
    assert (await client.post("/v1/events", json=event)).json()["applied"] == 1
    operator = await connect(store_url)
    assert await operator.forget_user(KNOWN)
    found = await scored(users, client, KNOWN)
    unknown = await scored(users, client, NEW)
    assert found["scores"] == unknown["scores"]
    assert found["cold_user"]
    assert set(USER_FEATURES) <= set(found["defaulted"])
    assert (await client.post("/v1/events", json=event)).json()["applied"] == 1
    await operator.close()


@BOTH
async def test_a_damaged_history_costs_the_history_alone(
    users: UserWorld, state: ServiceState, client: httpx.AsyncClient, redis: Server
) -> None:
    damage(state, redis, "h", "histories")
    found = await scored(users, client, KNOWN)
    assert found["degraded"] == ["history"]
    assert "taste" not in found["defaulted"]
    exact = users.exact(KNOWN, users.world.ids[:9], history=users.world.ids[:0])
    assert_allclose(found["scores"], exact, atol=TOLERANCE)
    given = users.world.ids[20:25]
    found = await scored(users, client, KNOWN, history=given[::-1].tolist())
    assert found["degraded"] == []
    exact = users.exact(KNOWN, users.world.ids[:9], history=given)
    assert_allclose(found["scores"], exact, atol=TOLERANCE)
    await is_served(users, client, KNOWN + 1)
    assert state.reader.reachable
    errors = [
        metric(state, "qin_store_errors_total", operation="user", error=error)
        for error in ("StoreCorrupt", "StoreRefused")
    ]
    assert sum(errors) == 2


@BOTH
async def test_a_damaged_record_costs_the_record_alone_and_is_counted(
    users: UserWorld, state: ServiceState, client: httpx.AsyncClient, redis: Server
) -> None:
    damage(state, redis, "u", USERS)
    found = await scored(users, client, KNOWN)
    assert found["degraded"] == ["user"]
    assert set(USER_FEATURES) <= set(found["defaulted"])
    without = UserWorld(users.world, {})
    assert_allclose(found["scores"], without.exact(KNOWN, users.world.ids[:9]), atol=TOLERANCE)
    assert metric(state, "qin_users_unreadable_total", why="damaged") == 1
    assert metric(state, "qin_users_unreadable_total", why="stale") == 0
    assert (await client.put(f"/v1/users/{KNOWN}", json=VALUES)).status_code == 204
    users.records[KNOWN] = user_row(LEVELLED, VALUES)
    await is_served(users, client, KNOWN)


@BOTH
async def test_a_record_of_features_that_no_load_added_is_stale_until_it_is_replaced(
    users: UserWorld, state: ServiceState, client: httpx.AsyncClient, redis: Server
) -> None:
    row = user_row(ADDED, VALUES | {"age": [0.0] * 100})
    damage(state, redis, "u", USERS, UserCodec(ADDED).encode(np.array([KNOWN]), row)[0])
    found = await scored(users, client, KNOWN)
    assert found["degraded"] == ["user"]
    assert metric(state, "qin_users_unreadable_total", why="stale") == 1
    answer = await client.patch(f"/v1/users/{KNOWN}", json={"country": 1})
    assert (answer.status_code, answer.json()["detail"]) == (500, STALE)
    assert (await client.put(f"/v1/users/{KNOWN}", json=VALUES)).status_code == 204
    users.records[KNOWN] = user_row(LEVELLED, VALUES)
    await is_served(users, client, KNOWN)


def damage(
    state: ServiceState, redis: Server, kind: str, database: str, record: bytes | None = None
) -> None:
    """Replace what the store has of KNOWN; without ``record`` in Redis by a key of another type."""
    if (folder := state.settings.store.removeprefix("lmdb://")) != state.settings.store:
        environment = acquire(Path(folder), create=False)
        db, kept = environment.db[database], record or b"nonsense"
        environment.write(lambda txn: txn.put(struct.pack(">Q", KNOWN), kept, db=db))
        release(environment)
        return
    key = f"{state.settings.store.partition('prefix=')[2]}:{kind}:{{{KNOWN}}}"
    redis.client().delete(key)
    if record is None:
        redis.client().hset(key, "of", "another program")
    else:
        redis.client().set(key, record)


AGE = {"name": "age", "kind": "dense", "size": 100, "width": 2}
ADDED = FeatureSchema.model_validate(
    LEVELLED.model_dump() | {"user": [*(f.model_dump() for f in LEVELLED.user), AGE]}
)


@BOTH
async def test_features_that_a_load_adds_are_written_within_a_second(
    users: UserWorld, client: httpx.AsyncClient, store_url: str
) -> None:
    """By both processes; the model goes on with those that it has."""
    given = VALUES | {"age": [float(at) + 0.125 for at in range(100)]}
    async with opened(users.world) as other, client_of(other) as theirs:
        for one in (client, theirs):  # each has just read the schema
            assert (await one.patch(f"/v1/users/{KNOWN}", json={"country": 1})).status_code == 204
        loader = await connect(store_url, ADDED, create=True)
        await loader.put_users(np.array([NEW, NEW + 1]), np.tile(user_row(ADDED, given), 2))
        users.records[KNOWN]["country"] = 1
        for one, user in ((client, NEW), (theirs, NEW + 1)):
            await until_204(one, "PATCH", f"/v1/users/{user}", {"age": [0.5] * 100, "country": 2})
            users.records[user] = user_row(LEVELLED, VALUES | {"country": 2})
            await until_204(one, "PUT", f"/v1/users/{user + 10}", given)
            users.records[user + 10] = user_row(LEVELLED, VALUES)
            missing = await one.put(f"/v1/users/{user}", json=VALUES)
            assert (missing.status_code, missing.json()["field"]) == (422, "age")
        batch = await loader.users(np.array([NEW, NEW + 1, NEW + 10, NEW + 11, KNOWN]))
        assert batch.rows["age"][:, 3].tolist() == [0.5, 0.5, 3.125, 3.125, 0.0]
        for user in (NEW, NEW + 1, NEW + 10, NEW + 11, KNOWN):
            for one in (client, theirs):
                await is_served(users, one, user)
        await loader.close()


async def until_204(
    client: httpx.AsyncClient, method: str, path: str, values: dict[str, Any]
) -> None:
    async with asyncio.timeout(20):
        while (answer := await client.request(method, path, json=values)).status_code != 204:
            assert answer.json()["type"].endswith(("invalid-field", "unreadable-user")), answer.text
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.BLACK_HOLE, Fault.RESET])
@pytest.mark.parametrize("store_url", ["redis"], indirect=True)
async def test_without_its_redis_it_answers_without_users_until_it_is_back(
    users: UserWorld, redis: Server, store_url: str, fault: Fault
) -> None:
    empty, candidates = users.world.ids[:0], users.world.ids[:9]
    without = UserWorld(users.world, {}).exact(KNOWN, candidates, {"hour": 3.5}, history=empty)
    inline = UserWorld(users.world, {}).exact(KNOWN, candidates, history=candidates[:2])
    async with proxied(redis.port) as proxy:
        url = store_url.replace(f":{redis.port}", f":{proxy.port}")
        async with (
            opened(replace(users.world, store=url), store_timeout_ms=100) as state,
            client_of(state) as client,
        ):
            await until_degraded(users, client, [])
            await proxy.become(fault)
            await until_degraded(users, client, ["history", "user"])
            assert (await client.get("/readyz")).json()["degraded"] == ["history", "user"]
            found = await scored(users, client, KNOWN, features={"hour": 3.5})
            assert_allclose(found["scores"], without, atol=TOLERANCE)
            assert found["defaulted"] == [*USER_FEATURES, "device"]
            history = candidates[:2][::-1].tolist()
            found = await scored(users, client, KNOWN, history=history)
            assert found["degraded"] == ["user"]
            assert_allclose(found["scores"], inline, atol=TOLERANCE)
            for method, values in (("PUT", VALUES), ("PATCH", {"country": 1}), ("DELETE", None)):
                answer = await client.request(method, f"/v1/users/{KNOWN}", json=values)
                assert answer.status_code == 503, answer.text
                assert answer.headers["Retry-After"] == "1"
            await proxy.become(Fault.NONE)
            await until_degraded(users, client, [])
            assert (await client.get("/readyz")).json()["degraded"] == []
            await is_served(users, client, KNOWN)


async def until_degraded(users: UserWorld, client: httpx.AsyncClient, expected: list[str]) -> None:
    async with asyncio.timeout(20):
        while True:
            if (await scored(users, client, KNOWN))["degraded"] == expected:
                return
            await asyncio.sleep(0.01)

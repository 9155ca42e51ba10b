"""The service in front of a real Redis that fails: honest answers, honest writes, recovery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.state import ServiceState
from tests.feature_store import redis_servers, server_faults
from tests.feature_store.fault_proxy import Fault, proxied
from tests.feature_store.redis_servers import Server
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.parity import TOLERANCE
from tests.service.world import World, make_world, on_another_store

USER = 3
Scores = NDArray[np.float32]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_servers.standalone(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def redis_world(redis: Server, tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(tmp_path_factory.mktemp("world"), items=60, users=5)
    return on_another_store(made, f"redis://127.0.0.1:{redis.port}")


@pytest.fixture
async def state(redis_world: World) -> AsyncIterator[ServiceState]:
    async with opened(redis_world) as state:
        yield state


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
async def test_without_its_redis_it_answers_without_histories_until_it_is_back(
    redis: Server, redis_world: World, fault: Fault
) -> None:
    candidates = redis_world.ids[:9]
    whole = redis_world.answer(redis_world.users[USER], candidates)
    without = redis_world.answer(np.empty(0, np.int64), candidates)
    async with proxied(redis.port) as proxy:
        behind = replace(redis_world, store=f"redis://127.0.0.1:{proxy.port}")
        async with opened(behind, store_timeout_ms=100) as state:
            await answered_whole(state, candidates.tolist())
            await proxy.become(fault)
            await answered_without(state, candidates.tolist(), without)
            await proxy.become(Fault.NONE)
            answer = await answered_whole(state, candidates.tolist())
            assert answer["scores"] == pytest.approx(whole, abs=TOLERANCE)


@pytest.mark.parametrize("name", ["another_password", "loading"])
async def test_a_redis_that_lets_nobody_in_is_done_without_until_it_does(
    tmp_path: Path, name: str
) -> None:
    made = await asyncio.to_thread(make_world, tmp_path, items=60, users=5)
    candidates = made.ids[:9]
    without = made.answer(np.empty(0, np.int64), candidates)
    fault = {
        "another_password": server_faults.another_password,
        "loading": partial(server_faults.loading, seconds=8),
    }[name]
    with redis_servers.standalone(tmp_path / "redis") as server:
        url = f"redis://127.0.0.1:{server.port}"
        backed = await asyncio.to_thread(on_another_store, made, url)
        async with opened(backed, store_timeout_ms=500) as state:
            async with server_faults.brought_about(fault, server):
                await answered_without(state, candidates.tolist(), without)
            answer = await answered_whole(state, candidates.tolist())
            whole = made.answer(made.users[USER], candidates)
            assert answer["scores"] == pytest.approx(whole, abs=TOLERANCE)


async def answered_without(state: ServiceState, candidates: list[int], scores: Scores) -> None:
    """Honestly: reads say what they lack, writes are refused."""
    async with asyncio.timeout(20):
        while state.reader.reachable:  # an answer may still have been under way
            await ask(state, user_id=USER, candidates=candidates)
            await asyncio.sleep(0.01)
    for _ in range(5):
        answer = (await ask(state, user_id=USER, candidates=candidates)).json()
        assert answer["degraded"] == ["history"]
        assert answer["scores"] == pytest.approx(scores, abs=TOLERANCE)
        async with client_of(state) as client:
            taken = await client.post("/v1/events", json={"user_id": 900, "item_id": 1})
            assert taken.status_code == 503


async def answered_whole(state: ServiceState, candidates: list[int]) -> dict[str, list[float]]:
    async with asyncio.timeout(20):
        while True:
            answer = (await ask(state, user_id=USER, candidates=candidates)).json()
            if not answer["degraded"]:
                whole: dict[str, list[float]] = answer
                return whole
            await asyncio.sleep(0.01)


async def test_a_key_of_another_type_costs_that_user_alone_the_history(
    redis: Server, redis_world: World, state: ServiceState
) -> None:
    redis.client().set("qin:h:{77}", "not a list")
    candidates = redis_world.ids[:5].tolist()
    theirs = (await ask(state, user_id=77, candidates=candidates)).json()
    assert theirs["degraded"] == ["history"]
    others = (await ask(state, user_id=USER, candidates=candidates)).json()
    assert others["degraded"] == []
    assert state.reader.reachable
    kind = {"operation": "history", "error": "StoreRefused"}
    assert metric(state, "qin_store_errors_total", **kind) == 1
    async with client_of(state) as client:
        event = {"events": [{"user_id": 77, "item_id": 1}, {"user_id": 78, "item_id": 1}]}
        taken = await client.post("/v1/events", json=event)
        assert taken.status_code == 207
        assert [r["index"] for r in taken.json()["rejected"]] == [0]


async def test_damaged_records_are_named_and_the_rest_is_scored(
    redis: Server, redis_world: World, state: ServiceState
) -> None:
    damaged, newer, fine = redis_world.ids[10:13].tolist()
    link = redis.client()
    record = link.get(f"qin:i:{{{newer % 64}}}:{newer}")
    assert isinstance(record, bytes)
    link.set(f"qin:i:{{{damaged % 64}}}:{damaged}", b"nonsense")
    link.set(f"qin:i:{{{newer % 64}}}:{newer}", bytes([200]) + record[1:])
    await state.refresher.wrote(np.array([damaged, newer]))
    answer = (await ask(state, user_id=USER, candidates=[damaged, newer, fine])).json()
    assert answer["unreadable_items"] == [damaged, newer]
    assert answer["scores"][:2] == [None, None]
    assert answer["scores"][2] is not None
    assert metric(state, "qin_items_total", kind="unreadable") == 2


@pytest.mark.parametrize("how", ["READONLY", "OOM"])
async def test_a_server_that_only_refuses_writes_still_serves_whole_answers(
    redis: Server, redis_world: World, state: ServiceState, how: str
) -> None:
    fault = {"OOM": server_faults.out_of_memory, "READONLY": server_faults.read_only}[how]
    item = int(redis_world.ids[0])
    async with server_faults.brought_about(fault, redis):
        async with client_of(state) as client:
            before = await history(state)
            for answer in (
                await client.post("/v1/events", json={"user_id": USER, "item_id": item}),
                await client.patch(f"/v1/items/{item}", json={"likes_level": 3}),
                await client.put(f"/v1/items/{item}", json=VALUES),
            ):
                assert answer.status_code == 503, answer.text
                assert answer.headers["Retry-After"] == "1"
            assert await history(state) == before
        scored = (await ask(state, user_id=USER, candidates=[item])).json()
        assert scored["degraded"] == []


VALUES = {
    "item_id": 1,
    "item_tags": [],
    "content": [0.0] * 6,
    "likes_level": 1,
    "views_level": 1,
}


async def history(state: ServiceState) -> list[int]:
    found = await state.store.history(USER)
    assert found is not None
    return found.tolist()

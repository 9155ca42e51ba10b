"""The service on every kind of store: what is appended is seen, and what a request costs."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import numpy as np
import orjson
import pytest

from service.state import ServiceState
from tests.feature_store.redis_servers import Server
from tests.service.fault_load import Asker
from tests.service.in_process import PATIENCE_MS, client_of, metric, opened
from tests.service.parity import TOLERANCE
from tests.service.process import serving
from tests.service.world import World, make_world, on_another_store

PAIRS = int(os.environ.get("PAIRS", "400"))
USERS = 8  # at a time
OF_DATA = {
    *("lrange", "mget", "get", "hmget", "hget", "sscan", "scard", "xrange", "xrevrange"),
    *("eval", "set", "hset", "lpush", "rpush", "sadd", "del", "expire", "xadd"),
}


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), items=60, users=5)


@pytest.fixture
def backed_world(small_world: World, store_url: str) -> World:
    return on_another_store(small_world, store_url)


@pytest.fixture
async def state(backed_world: World) -> AsyncIterator[ServiceState]:
    async with opened(backed_world) as state:
        yield state


async def test_the_very_next_score_sees_an_event(backed_world: World) -> None:
    """An item that the store does not know shows up in ``unknown_history``."""
    longest = backed_world.schema.history_length
    candidate = int(backed_world.ids[0])

    async def one_user(asker: Asker, user: int) -> None:
        score = orjson.dumps({"user_id": user, "candidates": [candidate]})
        for number in range(PAIRS // USERS):
            clicked = 10**9 * user + number
            event = orjson.dumps({"user_id": user, "item_id": clicked})
            status, taken = await asker.ask(event, b"/v1/events")
            assert status == 200, taken
            status, scored = await asker.ask(score)
            assert status == 200, scored
            seen = [clicked - back for back in range(min(number + 1, longest))]
            assert scored["unknown_history"] == seen

    patient = {"QIN_STORE_TIMEOUT_MS": str(PATIENCE_MS), "QIN_DEADLINE_MS": "10000"}
    with serving(backed_world.models, backed_world.store, **patient) as service:
        askers = [Asker(service.port) for _ in range(USERS)]
        async with asyncio.TaskGroup() as users:
            for user, asker in enumerate(askers, 100):
                users.create_task(one_user(asker, user))
        for asker in askers:
            asker.close()
        with service.client() as client:
            assert f'qin_events_total{{result="applied"}} {PAIRS}.0' in client.get("/metrics").text


async def test_scores_from_an_appended_history_are_the_networks_own(
    backed_world: World, state: ServiceState
) -> None:
    history, candidates = backed_world.ids[5:9], backed_world.ids[:7]
    async with client_of(state) as client:
        event = {"user_id": 77, "item_ids": history[::-1].tolist(), "key": "a"}
        for applied in (1, 0):  # the same key twice counts once
            answer = (await client.post("/v1/events", json=event)).json()
            assert (answer["applied"], answer["repeated"]) == (applied, [0] * (1 - applied))
        body = {"user_id": 77, "candidates": candidates.tolist()}
        answer = (await client.post("/v1/score", json=body)).json()
    expected = backed_world.answer(history, candidates)
    assert answer["scores"] == pytest.approx(expected, abs=TOLERANCE)


async def test_a_steady_request_is_one_round_trip(
    backed_world: World, store_url: str, request: pytest.FixtureRequest
) -> None:
    """Counted here and by the servers. Also with candidates that the store does not know, which it
    is asked about once."""
    candidates = [*backed_world.ids[:20].tolist(), 10**12, 10**12 + 1]
    body = {"user_id": 3, "candidates": candidates}
    servers = servers_of(request, store_url)
    async with opened(backed_world, fleet="") as state, client_of(state) as client:
        await state.refresher.close()  # only requests ask
        first = await client.post("/v1/score", json=body)
        before, commands = _asked(state), commands_of(servers)
        for _ in range(50):
            assert (await client.post("/v1/score", json=body)).json()["scores"] == (
                first.json()["scores"]
            )
        assert _asked(state) == {"history": before["history"] + 50, "items": before["items"]}
        assert commands_of(servers) - commands == Counter({"lrange": 50} if servers else {})


def _asked(state: ServiceState) -> dict[str, float]:
    name = "qin_store_duration_seconds_count"
    return {op: metric(state, name, operation=op) for op in ("history", "items")}


def servers_of(request: pytest.FixtureRequest, url: str) -> list[Server]:
    """Those that may be asked for a history; they count commands themselves. None for LMDB."""
    match url.partition("://")[0]:
        case "redis":
            return [request.getfixturevalue("redis")]
        case "rediss":
            return [request.getfixturevalue("tls")[0]]
        case "redis+sentinel":
            return [request.getfixturevalue("sentinels").master]
        case "redis+cluster":
            return list(request.getfixturevalue("cluster").servers)
    return []


def commands_of(servers: list[Server]) -> Counter[str]:
    """What they were ever asked of their data."""
    counted = Counter[str]()
    for server in servers:
        for name, stats in server.client().info("commandstats").items():
            command = name.removeprefix("cmdstat_")
            if command in OF_DATA:
                counted[command] += stats["calls"]
    return counted


async def test_a_change_of_an_item_reaches_every_process(
    backed_world: World, state: ServiceState
) -> None:
    """The one that made it at once, others by the change log."""
    item = int(backed_world.ids[0])
    body = {"user_id": 3, "candidates": [item], "history": []}
    async with (
        opened(backed_world) as other,
        client_of(state) as mine,
        client_of(other) as theirs,
    ):
        before = (await theirs.post("/v1/score", json=body)).json()["scores"]
        values = (await mine.get(f"/v1/items/{item}")).json()
        changed = {"content": [1.0 - x for x in values["content"]], "likes_level": 9}
        assert (await mine.patch(f"/v1/items/{item}", json=changed)).status_code == 204

        rows = backed_world.rows.copy()
        rows["content"][0], rows["likes_level"][0] = changed["content"], 9
        expected = _network(backed_world, rows)
        assert expected != pytest.approx(before[0], abs=1e-4)
        mine_after = (await mine.post("/v1/score", json=body)).json()["scores"]
        assert mine_after == [pytest.approx(expected, abs=TOLERANCE)]
        await _until(theirs, body, [pytest.approx(expected, abs=TOLERANCE)])

        assert (await mine.delete(f"/v1/items/{item}")).status_code == 204
        assert (await mine.post("/v1/score", json=body)).json()["unknown_items"] == [item]
        await _until(theirs, body, [None])
        values["likes_level"] = 2
        assert (await theirs.put(f"/v1/items/{item}", json=values)).status_code == 204
        rows = backed_world.rows.copy()
        rows["likes_level"][0] = 2
        await _until(mine, body, [pytest.approx(_network(backed_world, rows), abs=TOLERANCE)])


def _network(world: World, rows: np.ndarray[tuple[int], np.dtype[np.void]]) -> float:
    from dataclasses import replace

    empty = np.empty(0, np.int64)
    return float(replace(world, rows=rows).answer(empty, world.ids[:1])[0])


async def _until(client: httpx.AsyncClient, body: dict[str, object], scores: list[object]) -> None:
    """How soon it is, ``python -m tests.service.measure_freshness`` prints."""
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        answer = (await client.post("/v1/score", json=body)).json()
        if answer["scores"] == scores:
            return
        assert asyncio.get_running_loop().time() < deadline, answer
        await asyncio.sleep(0.02)

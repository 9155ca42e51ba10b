"""The service on every kind of store, where ids are texts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from service.api.id_kind import COLLISION
from service.state import ServiceState
from tests.service.api.test_items import VALUES
from tests.service.api.test_mapped_writes import colliding, history
from tests.service.in_process import client_of, metric, opened
from tests.service.mapped_world import MappedWorld, mapped_in, text_of
from tests.service.world import World, make_world

USER = 4


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), items=60, users=5)


@pytest.fixture
def backed(small_world: World, store_url: str) -> MappedWorld:
    return mapped_in(small_world, store_url)


@pytest.fixture
async def state(backed: MappedWorld) -> AsyncIterator[ServiceState]:
    async with opened(backed.numeric, store=backed.store) as state:
        yield state


@pytest.fixture
async def client(state: ServiceState) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(state) as client:
        yield client


async def test_items_clicks_and_scores_go_by_texts(
    backed: MappedWorld, state: ServiceState, client: httpx.AsyncClient
) -> None:
    event = {"user_id": text_of(USER), "item_ids": ["né/w", "gone"], "key": "k"}
    for applied in (1, 0):
        assert (await client.post("/v1/events", json=event)).json()["applied"] == applied
    assert (await client.put("/v1/items/n%C3%A9%2Fw", json=VALUES)).status_code == 204
    body = {"user_id": text_of(USER), "candidates": ["né/w", *backed.items[:3]], "explain": 9}
    answer = (await client.post("/v1/score", json=body)).json()
    assert answer["unknown_items"] == []
    assert answer["unknown_history"] == ["gone"]
    named = {item for explained in answer["explanations"] for item in explained["item_ids"]}
    assert named
    assert named <= {"né/w", *backed.history(USER)}
    assert metric(state, "qin_store_duration_seconds_count", operation="item_texts") <= 1


async def test_collisions_are_refused_one_by_one(
    state: ServiceState, client: httpx.AsyncClient
) -> None:
    colliding(state, "first", "second")
    events = [{"user_id": u, "item_id": "a"} for u in ("first", "second")]
    events += [{"user_id": "u", "item_id": i} for i in ("first", "b")]
    answer = await client.post("/v1/events", json={"events": events})
    assert [(r["field"], r["detail"]) for r in answer.json()["rejected"]] == [
        ("events.1.user_id", COLLISION)
    ]
    again = [{"user_id": "u", "item_id": i} for i in ("second", "c")]
    answer = await client.post("/v1/events", json={"events": again})
    assert [(r["field"], r["detail"]) for r in answer.json()["rejected"]] == [
        ("events.0.item_id", COLLISION)
    ]
    assert await history(state, "u") == ["c", "b", "first"]
    assert await history(state, "first") == ["a"]
    assert (await client.put("/v1/items/second", json=VALUES)).status_code == 422

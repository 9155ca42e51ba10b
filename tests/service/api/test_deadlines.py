"""Past its deadline nothing more is done for a request: no store, no graph, no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from feature_store.contract import Ids
from service.application import House
from service.engine.engine import in_time
from service.errors import DeadlinePassed
from tests.service.houses import client_of, metric, opened
from tests.service.world import World


@pytest.fixture
async def house(world: World) -> AsyncIterator[House]:
    async with opened(world) as house:
        yield house


async def answer(house: House, world: World, milliseconds: float) -> httpx.Response:
    async with client_of(house) as client:
        return await client.post(
            "/v1/score",
            json={"user_id": 1, "candidates": world.ids[:5].tolist()},
            headers={"X-Deadline-Ms": str(milliseconds)},
        )


async def test_what_is_late_already_does_not_ask_the_store(house: House, world: World) -> None:
    assert (await answer(house, world, 0.0001)).status_code == 504
    assert metric(house, "qin_store_duration_seconds_count", operation="history") == 0
    assert metric(house, "qin_engine_chunks_total") == 0


async def test_what_the_store_made_late_does_not_reach_the_graphs(
    house: House, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = house.store.history

    async def slow(user_id: int) -> Ids | None:
        await asyncio.sleep(0.2)
        return await history(user_id)

    monkeypatch.setattr(house.store, "history", slow)
    assert (await answer(house, world, 50)).status_code == 504
    assert metric(house, "qin_engine_chunks_total") == 0
    assert metric(house, "qin_engine_expired_run_total") == 0
    assert metric(house, "qin_engine_expired_total") == 1
    assert house.admission.forecast() == 0


def test_in_time_is_before_the_deadline_alone() -> None:
    in_time(float("inf"))
    with pytest.raises(DeadlinePassed):
        in_time(0.0)

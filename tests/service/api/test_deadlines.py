"""Past its deadline nothing more is done for a request: no store, no graph, no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from feature_store.contract import Ids
from service.engine.engine import in_time
from service.errors import DeadlinePassed
from service.state import ServiceState
from tests.service.in_process import client_of, metric, opened
from tests.service.world import World


@pytest.fixture
async def state(world: World) -> AsyncIterator[ServiceState]:
    async with opened(world) as state:
        yield state


async def answer(state: ServiceState, world: World, milliseconds: float) -> httpx.Response:
    async with client_of(state) as client:
        return await client.post(
            "/v1/score",
            json={"user_id": 1, "candidates": world.ids[:5].tolist()},
            headers={"X-Deadline-Ms": str(milliseconds)},
        )


async def test_what_is_late_already_does_not_ask_the_store(
    state: ServiceState, world: World
) -> None:
    assert (await answer(state, world, 0.0001)).status_code == 504
    assert metric(state, "qin_store_duration_seconds_count", operation="history") == 0
    assert metric(state, "qin_engine_chunks_total") == 0


async def test_what_the_store_made_late_does_not_reach_the_graphs(
    state: ServiceState, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = state.store.history

    async def slow(user_id: int) -> Ids | None:
        await asyncio.sleep(0.2)
        return await history(user_id)

    monkeypatch.setattr(state.store, "history", slow)
    assert (await answer(state, world, 50)).status_code == 504
    assert metric(state, "qin_engine_chunks_total") == 0
    assert metric(state, "qin_engine_expired_run_total") == 0
    assert metric(state, "qin_engine_expired_total") == 1
    assert state.admission.forecast() == 0


def test_in_time_is_before_the_deadline_alone() -> None:
    in_time(float("inf"))
    with pytest.raises(DeadlinePassed):
        in_time(0.0)

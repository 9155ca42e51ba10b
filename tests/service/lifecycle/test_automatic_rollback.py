"""A new version that fails or is slow is taken back by itself, without anybody's call."""

from __future__ import annotations

import asyncio
from itertools import count
from time import sleep
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from service.lifecycle import rollback_monitor as guard
from service.lifecycle.rollback_monitor import FEWEST_ANSWERS
from service.models.loaded_model import LoadedModel
from service.state import ServiceState
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.lifecycle.conftest import two_versions
from tests.service.world import World


@pytest.fixture
def world(tmp_path) -> World:  # type: ignore[no-untyped-def]
    return two_versions(tmp_path)[0]


async def taken_back(state: ServiceState, world: World) -> None:
    body = {"user_id": 3, "candidates": world.ids[:5].tolist()}
    with capture_logs():
        async with client_of(state) as client:
            for _ in range(5_000):
                await client.post("/v1/score", json=body)
                active = state.registry.active
                assert active is not None
                if active.name == "small-1":
                    return
    raise AssertionError("still active")


async def test_a_version_whose_answers_fail_is_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, model_policy="manual", fleet="") as state:
        await state.manager.activate("small-1")
        entry = await state.manager.activate("small-2")
        assert entry.version is not None

        def fail(*given: object) -> None:
            raise RuntimeError("no more memory")

        monkeypatch.setattr(entry.version.model, "rank", fail)
        await taken_back(state, world)
        assert (await ask(state, user_id=3, candidates=[1])).json()["model_version"] == "small-1"
        assert metric(state, "qin_model_swaps_total", kind="automatic_rollback") == 1
        monkeypatch.undo()
        for _ in range(100):
            if entry.state == "failed":
                break
            await asyncio.sleep(0.1)
        assert entry.state == "failed"
        assert entry.reason is not None
        assert "answers failed (limit 1.00%)" in entry.reason


async def test_a_version_that_is_slow_is_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, model_policy="manual", fleet="") as state:
        old = await state.manager.activate("small-1")
        assert old.version is not None
        usual_answers(old.version, world)
        entry = await state.manager.activate("small-2")
        assert entry.version is not None
        honest = entry.version.model.rank

        def slow(*given: object) -> object:
            sleep(0.012)
            return honest(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(entry.version.model, "rank", slow)
        await taken_back(state, world)
        assert metric(state, "qin_model_swaps_total", kind="automatic_rollback") == 1


def usual_answers(version: LoadedModel, world: World) -> None:
    """As many as show a p99 of 2 ms, to the request of ``taken_back``."""
    for _ in range(500):
        version.stats.took(5, len(world.users[3]), 0.002)


async def test_a_version_whose_tail_is_slow_is_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, model_policy="manual", fleet="") as state:
        old = await state.manager.activate("small-1")
        assert old.version is not None
        usual_answers(old.version, world)
        entry = await state.manager.activate("small-2")
        assert entry.version is not None
        honest, calls = entry.version.model.rank, count()

        def sometimes_slow(*given: object) -> object:
            sleep(0.08 * (next(calls) % 8 == 0))
            return honest(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(entry.version.model, "rank", sometimes_slow)
        await taken_back(state, world)


async def test_what_slows_every_version_takes_none_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full machine, more requests at a time: the numbers are worse, the version is not."""
    async with opened(world, model_policy="manual", fleet="") as state:
        old = await state.manager.activate("small-1")
        assert old.version is not None
        usual_answers(old.version, world)
        compared = asyncio.Event()
        honest = guard.compare

        def told(*given: Any) -> Any:
            state.engine._loop.call_soon_threadsafe(compared.set)
            return honest(*given)

        monkeypatch.setattr(guard, "compare", told)
        entry = await state.manager.activate("small-2")
        assert entry.version is not None
        with capture_logs() as logs:
            for _ in range(600):
                entry.version.stats.answered()
                entry.version.stats.took(5, len(world.users[3]), 0.9)
            entry.version.stats.expired = 300
            await asyncio.wait_for(compared.wait(), 60)
            if (comparing := state.manager.monitor._comparing) is not None:
                await comparing
        assert state.registry.active is entry.version
        assert [line for line in logs if "not rolled back" in line["event"]]


async def test_batch_requests_and_long_lists_after_a_switch_take_no_version_back(
    world: World,
) -> None:
    """Fifty times the work a request, of a class that waits and of one that does not."""
    patient = {"deadline_ms": 60_000, "max_deadline_ms": 60_000}
    async with opened(world, model_policy="manual", fleet="", **patient) as state:
        old = await state.manager.activate("small-1")
        assert old.version is not None
        short = {"user_id": 3, "candidates": world.ids[:5].tolist()}
        long = {"user_id": 3, "candidates": np.resize(world.ids, 5000).tolist()}
        async with client_of(state) as client:

            async def answered(body: dict[str, Any], priority: str = "online") -> None:
                """A slow machine refuses some at first, which are no version's answers."""
                headers = {"X-Priority": priority}
                async with asyncio.timeout(60):
                    while True:
                        answer = await client.post("/v1/score", json=body, headers=headers)
                        if answer.status_code != 429:
                            break
                        await asyncio.sleep(0.01)
                assert answer.status_code == 200, answer.text

            for _ in range(FEWEST_ANSWERS + 1):
                await answered(short)
            entry = await state.manager.activate("small-2")
            assert entry.version is not None
            for _ in range(13):
                await asyncio.gather(
                    *(answered(short) for _ in range(36)), answered(long, "batch"), answered(long)
                )
        kinds, _ = entry.version.stats.latest()
        assert entry.version.stats.answers == 13 * 38
        assert len(kinds) == 13 * 37
        await asyncio.sleep(2 * guard.LOOK_EVERY_S)
        assert state.registry.active is entry.version


async def test_a_good_version_stays(world: World) -> None:
    async with opened(world, model_policy="manual", fleet="", rollback_window_s=1) as state:
        await state.manager.activate("small-1")
        await state.manager.activate("small-2")
        for _ in range(20):
            await ask(state, user_id=3, candidates=world.ids[:5].tolist())
        await asyncio.sleep(1.2)
        assert state.registry.active is not None
        assert state.registry.active.name == "small-2"

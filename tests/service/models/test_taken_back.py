"""A new version that fails or is slow is taken back by itself, without anybody's call."""

from __future__ import annotations

import asyncio
from time import sleep

import pytest
from structlog.testing import capture_logs

from service.house import House
from tests.service.houses import ask, client_of, metric, opened
from tests.service.models.conftest import two_versions
from tests.service.world import World


@pytest.fixture
def world(tmp_path) -> World:  # type: ignore[no-untyped-def]
    return two_versions(tmp_path)[0]


async def taken_back(house: House, world: World) -> None:
    body = {"user_id": 3, "candidates": world.ids[:5].tolist()}
    with capture_logs():
        async with client_of(house) as client:
            for _ in range(5_000):
                await client.post("/v1/score", json=body)
                active = house.versions.active
                assert active is not None
                if active.name == "small-1":
                    return
    raise AssertionError("still active")


async def test_a_version_whose_answers_fail_is_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, model_policy="manual", fleet="") as house:
        await house.swap.activate("small-1")
        slot = await house.swap.activate("small-2")
        assert slot.version is not None

        def fail(*given: object) -> None:
            raise RuntimeError("no more memory")

        monkeypatch.setattr(slot.version.model, "rank", fail)
        await taken_back(house, world)
        assert (await ask(house, user_id=3, candidates=[1])).json()["model_version"] == "small-1"
        assert metric(house, "qin_model_swaps_total", kind="automatic_rollback") == 1
        monkeypatch.undo()
        for _ in range(100):
            if slot.state == "failed":
                break
            await asyncio.sleep(0.1)
        assert slot.state == "failed"
        assert slot.reason is not None
        assert "answers failed (limit 1.00%)" in slot.reason


async def test_a_version_that_is_slow_is_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, model_policy="manual", fleet="") as house:
        old = await house.swap.activate("small-1")
        assert old.version is not None
        for _ in range(500):
            old.version.tally.answered(0.002)
        slot = await house.swap.activate("small-2")
        assert slot.version is not None
        honest = slot.version.model.rank

        def slow(*given: object) -> object:
            sleep(0.012)
            return honest(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(slot.version.model, "rank", slow)
        await taken_back(house, world)
        assert metric(house, "qin_model_swaps_total", kind="automatic_rollback") == 1


async def test_a_good_version_stays(world: World) -> None:
    async with opened(world, model_policy="manual", fleet="", rollback_window_s=1) as house:
        await house.swap.activate("small-1")
        await house.swap.activate("small-2")
        for _ in range(20):
            await ask(house, user_id=3, candidates=world.ids[:5].tolist())
        await asyncio.sleep(1.2)
        assert house.versions.active is not None
        assert house.versions.active.name == "small-2"

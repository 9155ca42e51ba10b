"""What a process reads of its fleet may be older than what it was told itself meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from feature_store.contract import FeatureStore
from feature_store.errors import StoreUnavailable
from service.artifacts.persisted_state import Copy
from service.lifecycle import fleet as fleet_module
from service.lifecycle.fleet import AGAIN_S
from service.observability.background import failures
from tests.service.in_process import opened
from tests.service.lifecycle import hostile
from tests.service.lifecycle.conftest import two_versions
from tests.service.world import World

FAR = 30.0  # seconds


class Slow:
    """A store whose answer to the first question about the fleet's version is on its way."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self.read, self.arrive, self.again = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get_note(self, note: str) -> bytes | None:
        content = await self._store.get_note(note)
        if note.endswith("/wanted"):
            self.asked += 1
            if self.asked == 1:
                self.read.set()
                await self.arrive.wait()
            elif self.asked == 3:  # the second is the command's
                self.again.set()
        return content


async def test_a_verb_is_not_undone_by_what_was_read_before_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, fleet="order") as state, asyncio.timeout(FAR):
        obeyed: list[Any] = []

        async def reconcile(wanted: Any) -> None:
            obeyed.append(wanted)

        await state.fleet.publish()
        slow = Slow(state.store)
        monkeypatch.setattr(state.manager, "reconcile", reconcile)
        monkeypatch.setattr(state.fleet._notes, "store", slow)
        await slow.read.wait()
        await state.fleet.publish()
        slow.arrive.set()
        await slow.again.wait()
        assert obeyed == []


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(FAR):
        for _ in itertools.count():
            if true():
                return
            await asyncio.sleep(0.02)


@pytest.fixture
def two(tmp_path: Path) -> World:
    return two_versions(tmp_path)[0]


async def test_a_process_whose_bundle_still_arrives_follows_its_fleet_when_it_is_whole(
    two: World, tmp_path: Path
) -> None:
    """Each host has a folder of its own, and they are not written at the same moment."""
    world = two
    elsewhere = Path(shutil.copytree(world.models, tmp_path / "elsewhere"))
    weights = (elsewhere / "small-2" / "ranker.weights").read_bytes()
    os.truncate(elsewhere / "small-2" / "ranker.weights", 100)
    settings = {"fleet": "slow", "model_policy": "manual"}
    async with (
        opened(world, private=tmp_path / "one", **settings) as first,
        opened(world, private=tmp_path / "two", bundle=elsewhere, **settings) as other,
    ):
        assert other.ready().name == "small-1"
        await first.manager.activate("small-2")
        await first.fleet.publish()
        await until(lambda: "ranker.weights" in (other.fleet._me.fault or ""))
        assert "it is waited for" in (other.fleet._me.fault or "")
        assert other.ready().name == "small-1"
        (elsewhere / "small-2" / "ranker.weights").write_bytes(weights)
        await until(lambda: other.ready().name == "small-2")
        await until(lambda: other.fleet._me.fault is None)


async def test_a_models_folder_that_cannot_be_read_is_told_once_and_waited_for(
    two: World, tmp_path: Path
) -> None:
    world, aside = two, tmp_path / "aside"
    elsewhere = Path(shutil.copytree(world.models, tmp_path / "elsewhere"))
    settings = {"fleet": "closed", "model_policy": "manual"}
    async with (
        opened(world, private=tmp_path / "one", **settings) as first,
        opened(world, private=tmp_path / "two", bundle=elsewhere, **settings) as other,
    ):
        await first.manager.activate("small-1")
        await first.fleet.publish()
        await until(lambda: other.fleet._me.done == first.fleet._me.done)  # all of it, not half
        assert other.ready().name == "small-1"
        await other.manager.unload("small-2")
        os.rename(elsewhere, aside)
        os.symlink(elsewhere, elsewhere)  # a loop, which no user can read
        before = failures()["fleet"]
        with capture_logs() as logs:
            await first.manager.activate("small-2")
            await first.fleet.publish()
            await until(lambda: f"{elsewhere}: cannot be read" in (other.fleet._me.fault or ""))
            looked_at = time.monotonic()
            await until(lambda: other.fleet._failed.looked_at > looked_at + AGAIN_S)  # type: ignore[union-attr]
            (line,) = [line for line in logs if f"{elsewhere}: cannot" in str(line)]
            assert not [line for line in logs if line.get("exc_info")]
        assert f"let uid {os.geteuid()} read it" in line["reason"]
        assert failures()["fleet"] == before + 1
        assert other.ready().name == "small-1"
        os.unlink(elsewhere)
        os.rename(aside, elsewhere)
        await until(lambda: other.ready().name == "small-2")
        await until(lambda: other.fleet._me.fault is None)


async def test_a_store_that_pauses_while_a_process_waits_for_its_turn_is_no_failed_load(
    two: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"fleet": "pause", "model_policy": "manual"}
    async with (
        opened(two, private=tmp_path / "one", **settings) as first,
        opened(two, private=tmp_path / "two", **settings) as other,
    ):
        await first.manager.activate("small-1")
        await first.fleet.publish()
        await until(lambda: other.fleet._me.done == first.fleet._me.done)
        await other.manager.unload("small-2")
        real, asked = other.fleet._turn, []

        async def paused(wanted: Any) -> None:
            asked.append(wanted)
            if len(asked) == 1:
                raise StoreUnavailable("no answer in time")
            await real(wanted)

        monkeypatch.setattr(other.fleet, "_turn", paused)
        before = failures()["fleet"]
        with capture_logs() as logs:
            await first.manager.activate("small-2")
            await first.fleet.publish()
            await until(lambda: other.ready().name == "small-2")
        assert len(asked) == 2
        assert failures()["fleet"] == before
        assert "fleet: the store does not answer" in {line["event"] for line in logs}


@pytest.mark.parametrize("waits", ["turn", "load"])
async def test_a_switch_does_not_wait_for_a_load_before_it(
    two: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: str
) -> None:
    """Of a version that is wanted no more: it is freed when it comes."""
    hostile.copied(two.models / "small-2", "third")
    settings = {"fleet": "hurry", "model_policy": "manual"}
    async with (
        opened(two, private=tmp_path / "one", **settings) as first,
        opened(two, private=tmp_path / "two", **settings) as other,
    ):
        for version in ("small-2", "small-1"):
            await first.manager.activate(version)
        await first.fleet.publish()
        await until(lambda: other.fleet._me.done == first.fleet._me.done)
        if waits == "turn":
            turn, begun = other.fleet._turn, asyncio.Event()

            async def never(wanted: Any) -> None:
                begun.set()
                await asyncio.Event().wait()

            monkeypatch.setattr(other.fleet, "_turn", never)
        async with other.manager._loader._one_at_a_time:
            await first.manager.load("third")
            await first.fleet.publish()
            if waits == "turn":
                await begun.wait()
                monkeypatch.setattr(other.fleet, "_turn", turn)
            else:
                await until(lambda: other.manager._loader.is_loading("third"))
            await first.manager.rollback()
            await first.manager.unload("third")
            await first.fleet.publish()
            await until(lambda: other.ready().name == "small-2")
            await until(lambda: other.fleet._me.active == "small-2")  # in the list
        await until(lambda: other.fleet._me.done == first.fleet._me.done)
        await until(lambda: other.registry.loaded() == first.registry.loaded())
        assert other.fleet._me.fault is None


async def test_a_process_that_loads_goes_on_to_report(
    two: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else other hosts count it as gone after 35 s, and take its place."""
    monkeypatch.setattr(fleet_module, "REPORT_EVERY_S", 0.0)
    settings = {"fleet": "long", "model_policy": "manual"}
    async with (
        opened(two, private=tmp_path / "one", **settings) as first,
        opened(two, private=tmp_path / "two", **settings) as other,
    ):
        await first.manager.activate("small-1")
        await first.fleet.publish()
        await until(lambda: other.fleet._me.done == first.fleet._me.done)
        await other.manager.unload("small-2")
        async with other.manager._loader._one_at_a_time:
            await first.manager.activate("small-2")
            await first.fleet.publish()
            await until(lambda: other.manager._loader.is_loading("small-2"))
            began = other.fleet._me.at
            await until(lambda: other.fleet._me.at > began)
        await until(lambda: other.ready().name == "small-2")


async def test_workers_roll_back_together_to_a_version_whose_folder_is_gone(
    two: World, tmp_path: Path
) -> None:
    """They share the copies of their private folder."""
    settings = {"fleet": "copies", "model_policy": "manual", "private": tmp_path / "private"}
    async with opened(two, **settings) as first, opened(two, **settings) as other:
        await first.manager.activate("small-2")
        await first.manager.activate("small-1")
        await first.manager.unload("small-2")
        await first.fleet.publish()
        await until(lambda: other.fleet._me.done == first.fleet._me.done)
        await until(lambda: other.registry.loaded() == ["small-1"])
        shutil.rmtree(two.models / "small-2")
        assert (await first.manager.rollback()).name == "small-2"
        await first.fleet.publish()
        await until(lambda: other.fleet._me.done == first.fleet._me.done)
        assert other.fleet._me.fault is None
        assert other.ready().name == "small-2"


async def test_what_a_restart_serves_is_saved_in_order_also_where_a_switch_is_cancelled(
    two: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, as by a command and by the next look at the fleet's state."""
    settings = {"fleet": "", "model_policy": "manual", "private": tmp_path / "private"}
    async with opened(two, **settings) as state, asyncio.timeout(FAR):
        await state.manager.load("small-1")
        saved: list[str] = []
        begun, free = threading.Event(), threading.Event()

        def save(lost: str, *, active: Copy, previous: Copy | None) -> None:
            if not begun.is_set():
                begun.set()
                free.wait(FAR)
            saved.append(active.version)

        monkeypatch.setattr(state.copies.state, "try_update", save)
        switch = asyncio.create_task(state.manager.activate("small-1"))
        await asyncio.to_thread(begun.wait)
        for _ in range(2):
            switch.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([switch])
        again = asyncio.create_task(state.manager.activate("small-2"))
        await asyncio.wait([again], timeout=0.3)
        free.set()
        await again
        assert saved == ["small-1", "small-2"]

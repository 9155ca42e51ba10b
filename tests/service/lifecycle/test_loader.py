"""What a load goes through in the service itself, and what it does when there is no room."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import table_file
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.vectors import Candidates
from service.artifacts.local_copies import LocalCopies
from service.engine.niceness import SHORT_TURN_S
from service.errors import Conflict, ModelRefused
from service.lifecycle import load_steps, memory_budget
from service.lifecycle.catalog import ModelEntry
from service.models.loaded_model import LoadedModel
from service.server.listener import poll_until
from service.settings import Settings
from service.state import ServiceState
from tests.service.in_process import ask, opened
from tests.service.lifecycle import hostile
from tests.service.lifecycle.conftest import two_versions
from tests.service.user_world import make_user_world
from tests.service.world import World

ALONE: dict[str, Any] = {"model_policy": "manual", "fleet": ""}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> World:
    """``small-1``, ``small-2`` and, the oldest, ``third``."""
    world, _ = two_versions(tmp_path_factory.mktemp("loads"))
    third = hostile.copied(world.models / "small-1", "third")
    hostile.change_manifest(third, created="2020-01-01T00:00:00Z")
    return world


@pytest.fixture
def world(published: World) -> World:
    """What was proved stays so, but nothing was active before."""
    copies = LocalCopies(Settings().private, published.models)
    (copies.path / "state.json").unlink(missing_ok=True)
    return published


@pytest.fixture
def with_users(tmp_path: Path) -> World:
    """``small-1`` and the same as ``small-2``, with a table of users in a file of its own."""
    world = make_user_world(tmp_path).world
    hostile.copied(world.models / "small-1", "small-2")
    return world


@pytest.fixture
def with_failing(tmp_path: Path) -> World:
    """``small-1``, ``small-2`` and, the newest, one that fails at a whole chunk."""
    world, _ = two_versions(tmp_path)
    hostile.fail_at(128)(hostile.copied(world.models / "small-2", "z-128"))
    return world


async def serves(state: ServiceState, version: str) -> bool:
    answer = await ask(state, user_id=3, candidates=[1])
    return bool(answer.json()["model_version"] == version)


async def test_a_version_passes_every_state_in_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, **ALONE) as state:
        seen: list[str] = []
        enter = ModelEntry.enter

        def noted(entry: ModelEntry, state: Any, *more: Any, **named: Any) -> None:
            if entry.name == "small-1" and seen[-1:] != [state.value]:
                seen.append(state.value)
            enter(entry, state, *more, **named)

        monkeypatch.setattr(ModelEntry, "enter", noted)
        await state.manager.activate("small-1")
        await state.manager.activate("small-2")
        await state.manager.unload("small-1")
        loaded = ["loading", "warming", "verifying", "ready", "active"]
        assert seen == [*loaded, "ready", "draining", "unloaded"]


async def test_during_a_load_and_not_after_it_threads_give_up_the_gil_early(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, **ALONE) as state:
        before, seen = sys.getswitchinterval(), list[float]()
        warm = load_steps.LoadSteps._warm

        def noted(steps: load_steps.LoadSteps, version: LoadedModel) -> None:
            seen.append(sys.getswitchinterval())
            warm(steps, version)

        monkeypatch.setattr(load_steps.LoadSteps, "_warm", noted)
        await state.manager.activate("small-1")
        assert seen == [pytest.approx(SHORT_TURN_S)]
        assert sys.getswitchinterval() == before


async def test_golden_answers_that_differ_in_the_service_alone_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child process found nothing: another processor, or memory that lies."""
    async with opened(world, **ALONE) as state:

        def differ(*given: object) -> None:
            raise BundleError("golden answers: differ by 0.3")

        monkeypatch.setattr(load_steps, "check_golden", differ)
        with pytest.raises(ModelRefused, match=r"differ by 0\.3"):
            await state.manager.activate("small-1")
        assert state.manager.catalog.entry("small-1").state == "failed"
        assert await serves(state, "small-2")


async def test_the_version_before_makes_room_and_is_loaded_again_for_a_rollback(
    world: World,
) -> None:
    async with opened(world, **ALONE, max_loaded_versions=2) as state:
        await state.manager.activate("small-1")
        assert state.registry.loaded() == ["small-1", "small-2"]
        await state.manager.load("third")
        assert state.registry.loaded() == ["small-1", "third"]
        with pytest.raises(ModelRefused, match="unload one"):
            await state.manager.rollback()
        assert await serves(state, "small-1")
        await state.manager.unload("third")
        assert (await state.manager.rollback()).name == "small-2"
        assert await serves(state, "small-2")


async def test_versions_that_play_a_part_make_no_room(world: World) -> None:
    async with opened(world, **ALONE, max_loaded_versions=2) as state:
        await state.manager.canary("small-1", 0.5)
        with pytest.raises(ModelRefused, match=r"at most 2 may be \(QIN_MAX_LOADED_VERSIONS\)"):
            await state.manager.load("third")
        assert state.registry.loaded() == ["small-1", "small-2"]


async def test_without_memory_for_it_nothing_is_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, **ALONE) as state:
        monkeypatch.setattr(memory_budget, "available_bytes", lambda: 1000)
        with pytest.raises(ModelRefused, match="MiB are needed and 0 MiB are free: unload a"):
            await state.manager.load("small-1")
        assert await serves(state, "small-2")


async def test_a_table_that_workers_map_together_is_counted_once_for_all(
    with_users: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = with_users
    manifest = world.bundle.manifest
    assert manifest.mapped == {"user_id"}
    table = manifest.files[table_file("user_id")].size
    others = sum(record.size for record in manifest.files.values()) - table
    free = int(1.1 * (others + 0.8 * table))  # enough for a quarter of it and a table of items
    monkeypatch.setattr(memory_budget, "available_bytes", lambda: free)
    for workers, fits in ((1, False), (4, True)):
        async with opened(world, model_policy="manual", workers=workers) as state:
            if fits:
                await state.manager.load("small-1")
            else:
                with pytest.raises(ModelRefused, match="MiB are needed"):
                    await state.manager.load("small-1")


async def test_without_keeping_the_version_before_it_is_freed(world: World) -> None:
    async with opened(world, **ALONE, keep_previous=False) as state:
        await state.manager.activate("small-1")
        async with asyncio.timeout(20):
            await poll_until(lambda: state.registry.loaded() == ["small-1"])
        assert (await state.manager.rollback()).name == "small-2"


async def test_a_load_asked_for_twice_is_one_load(world: World) -> None:
    async with opened(world, **ALONE) as state:
        first, second = await asyncio.gather(
            state.manager.load("small-1"), state.manager.load("small-1"), return_exceptions=True
        )
        assert first is second
        assert not isinstance(first, Conflict)
        loads = state.metrics.registry.get_sample_value(
            "qin_model_loads_total", {"outcome": "ready"}
        )
        assert loads == 2  # with the one that it began with


async def test_graphs_that_fail_at_a_length_without_a_golden_answer_are_refused(
    with_failing: World, tmp_path: Path
) -> None:
    """At the start, where the next version is served, and later, after requests of the length."""
    world = with_failing
    reason = 'its graphs fail on the shapes of requests: .*Reshape.*"; copy the bundle again'
    async with opened(world, **ALONE, private=tmp_path / "private") as state:
        assert await serves(state, "small-2")
        assert re.search(reason, state.startup.passed_over["z-128"])
        assert state.manager.catalog.entry("z-128").state == "failed"
        state.manager.shapes.note(5000, 3)
        with pytest.raises(ModelRefused, match=reason):
            await state.manager.activate("z-128")
        assert await serves(state, "small-2")


async def test_graphs_that_fail_on_the_stores_items_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, **ALONE) as state:

        def fail(*given: object) -> None:
            raise RuntimeError("Gather node")

        monkeypatch.setattr(load_steps, "fill", fail)
        with pytest.raises(ModelRefused, match="its graphs fail on the store's items: Runtime"):
            await state.manager.activate("small-1")
        assert await serves(state, "small-2")


async def test_a_version_that_waits_to_be_loaded_stays_known_without_its_folder(
    with_failing: World, tmp_path: Path
) -> None:
    """A rollback takes the copy; the list is read meanwhile."""
    world = with_failing
    shutil.rmtree(world.models / "z-128")
    private = tmp_path / "private"
    async with opened(world, **ALONE, private=private, keep_previous=False) as state:
        await state.manager.activate("small-1")
        await state.manager.unload("small-2")
        shutil.rmtree(world.models / "small-2")
        async with state.manager._loader._one_at_a_time:
            rollback = asyncio.create_task(state.manager.rollback())
            await asyncio.sleep(0)
            listed = await state.manager.catalog.listing()
            assert [(m["version"], m["state"]) for m in listed] == [
                ("small-2", "loading"),
                ("small-1", "active"),
            ]
        await rollback
        assert await serves(state, "small-2")
        assert state.manager.catalog.active().name == "small-2"


async def test_a_stop_does_not_wait_for_the_rest_of_a_warm_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a slow version is killed in the end, and counts as one that has killed a process."""
    async with opened(world, **ALONE) as state:
        ranked: list[int] = []

        def rank(model: FoldedModel, items: Candidates, *more: object) -> None:
            ranked.append(len(items.vector))
            state.manager._loader._stop.set()

        monkeypatch.setattr(FoldedModel, "rank", rank)
        with pytest.raises(load_steps.Stopped):
            await state.manager.load("small-1")
        assert len(ranked) == 1
        assert state.copies.state.read().loading is None


async def test_a_load_that_waits_for_its_turn_at_a_stop_does_not_begin(world: World) -> None:
    """It was logged as one that failed unexpectedly, with a traceback."""
    async with opened(world, **ALONE) as state:
        loader = state.manager._loader
        async with loader._one_at_a_time:
            waiting = asyncio.create_task(state.manager.load("small-1"))
            await asyncio.sleep(0)
            loader._stop.set()
            loader._thread.shutdown()
        with pytest.raises(load_steps.Stopped):
            await waiting

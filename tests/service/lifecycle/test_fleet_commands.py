"""A command to a process that has not reached its fleet's state yet leaves the rest of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from feature_store.errors import StoreUnavailable
from service.api.admin import create_admin
from service.lifecycle.fleet_notes import DesiredState
from service.state import ServiceState
from tests.service.in_process import opened
from tests.service.lifecycle import hostile
from tests.service.lifecycle.conftest import two_versions
from tests.service.lifecycle.test_fleet_order import FAR, until
from tests.service.world import World

CANARY = {"version": "small-2", "share": 0.3}
ALL = ["small-1", "small-2", "third"]


@pytest.fixture
def three(tmp_path: Path) -> World:
    world = two_versions(tmp_path)[0]
    hostile.copied(world.models / "small-2", "third")
    return world


async def tell(state: ServiceState, path: str, status: int = 200, **body: Any) -> None:
    transport = httpx.ASGITransport(create_admin(state))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.post(f"/admin/models/{path}", json=body or None)
        assert answer.status_code == status, answer.text


async def desired(state: ServiceState) -> DesiredState:
    found = await state.fleet._notes.get(state.fleet._wanted, DesiredState)
    assert found is not None
    return found


@asynccontextmanager
async def beginning(world: World, folder: Path) -> AsyncIterator[tuple[ServiceState, ServiceState]]:
    """A process with a canary and a third version, and one that has just started beside it."""
    settings = {"fleet": "begins", "model_policy": "manual"}
    async with (
        asyncio.timeout(2 * FAR),
        opened(world, private=folder / "one", **settings) as first,
    ):
        for version in ALL:
            await first.manager.load(version)
        await first.manager.activate("small-1")
        await tell(first, "small-2/canary", share=0.3)
        async with opened(world, private=folder / "two", **settings) as other:
            yield first, other


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("command", "body", "canary", "loaded"),
    [
        ("small-1/activate", {}, CANARY, ALL),
        ("small-1/load", {}, CANARY, ALL),
        ("small-2/canary", {"share": 0}, None, ALL),
        ("small-2/shadow", {"share": 0}, CANARY, ALL),
        ("third/unload", {}, CANARY, ALL[:2]),
    ],
)
async def test_what_a_command_does_not_name_stays(
    three: World, tmp_path: Path, command: str, body: Any, canary: Any, loaded: Any, begun: bool
) -> None:
    async with beginning(three, tmp_path) as (first, other):
        async with other.manager._loader._one_at_a_time:
            if begun:
                await until(lambda: other.manager._loader.is_loading("small-2"))
            await tell(other, command, **body)
            wanted = await desired(other)
            assert (wanted.active.version, wanted.loaded) == ("small-1", loaded)
            assert (wanted.canary and wanted.canary.model_dump()) == canary
        for state in (first, other):
            await until(lambda state=state: state.fleet._me.done == wanted.id)  # type: ignore[misc]
            assert state.fleet._me.fault is None
            assert state.manager.catalog.roles()["canary"] == canary
            assert state.registry.loaded() == loaded


async def test_a_second_version_given_a_share_is_no_switch(three: World, tmp_path: Path) -> None:
    """The process that was told does not serve the fleet's version yet."""
    async with beginning(three, tmp_path) as (first, other):
        async with other.manager._loader._one_at_a_time:
            await first.manager.activate("third")
            await first.fleet.publish()
            await until(lambda: other.manager._loader.is_loading("third"))
            await tell(other, "small-2/canary", share=0)
            wanted = await desired(other)
            assert (wanted.active.version, wanted.canary) == ("third", None)
            assert wanted.previous is not None
            assert wanted.previous.version == "small-1"
        await until(lambda: other.fleet._me.done == first.fleet._me.done == wanted.id)
        assert other.ready().name == first.ready().name == "third"


async def test_what_is_active_elsewhere_already_is_no_canary(
    three: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be a state that no process can reach."""
    async with beginning(three, tmp_path) as (first, other):
        await until(lambda: other.fleet._me.done == first.fleet._me.done)

        async def nothing() -> None:
            """Before the next look."""

        with monkeypatch.context() as patched:
            patched.setattr(other.fleet, "_pursue", nothing)
            await first.manager.activate("third")
            await first.fleet.publish()
            await tell(other, "third/canary", share=0.2)
            wanted = await desired(other)
            assert (wanted.active.version, wanted.canary) == ("third", None)
        await until(lambda: other.fleet._me.done == first.fleet._me.done == wanted.id)
        assert first.fleet._me.fault is other.fleet._me.fault is None


async def test_a_state_under_way_does_not_change_what_is_being_published(
    three: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while the store takes its time, nor by what was read before."""
    async with beginning(three, tmp_path) as (first, other):
        await until(lambda: other.fleet._me.done == first.fleet._me.done)
        put, reached = other.store.put_note, asyncio.Event()

        async def late(note: str, content: bytes | None) -> None:
            if note.endswith("/wanted"):
                await first.manager.activate("third")
                await first.fleet.publish()
                await asyncio.sleep(1.2)  # two looks
                reached.set()
            await put(note, content)

        monkeypatch.setattr(other.fleet._store, "put_note", late)
        await tell(other, "small-2/activate")
        assert reached.is_set()
        assert other.ready().name == "small-2"
        assert (await desired(other)).active.version == "small-2"
        await until(lambda: first.ready().name == "small-2")


async def test_a_command_that_could_not_be_published_is_undone_by_the_fleets_state(
    three: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with beginning(three, tmp_path) as (first, other):
        async with other.manager._loader._one_at_a_time:
            await until(lambda: other.manager._loader.is_loading("small-2"))

            async def away(note: str, content: bytes | None) -> None:
                raise StoreUnavailable("no answer in time")

            with monkeypatch.context() as patched:
                patched.setattr(other.fleet._store, "put_note", away)
                await tell(other, "small-1/activate", status=503)
        await until(lambda: other.fleet._me.done == first.fleet._me.done)
        assert other.manager.catalog.roles()["canary"] == CANARY


async def test_a_process_that_cannot_follow_does_not_take_its_fleet_back(
    three: World, tmp_path: Path
) -> None:
    """Told to end a canary, it makes neither its active version nor its lack of others theirs."""
    elsewhere = Path(shutil.copytree(three.models, tmp_path / "elsewhere"))
    hostile.flip_a_bit(elsewhere / "third")
    settings = {"fleet": "poor", "model_policy": "manual"}
    async with (
        asyncio.timeout(2 * FAR),
        opened(three, private=tmp_path / "one", **settings) as first,
        opened(three, private=tmp_path / "two", bundle=elsewhere, **settings) as other,
    ):
        await tell(other, "small-2/load")
        await tell(first, "third/activate")
        await tell(first, "small-1/load")
        await until(lambda: other.fleet._me.fault is not None)
        await until(lambda: other.fleet._me.done == first.fleet._me.done)
        await tell(other, "small-1/canary", share=0)
        wanted = await desired(other)
        assert wanted.active.version == "third"
        assert wanted.loaded == ["small-1", "small-2", "third"]
        await until(lambda: other.fleet._me.done == first.fleet._me.done == wanted.id)
        assert (first.ready().name, other.ready().name) == ("third", "small-2")


async def test_a_version_that_was_rolled_back_automatically_is_wanted_no_more(
    three: World, tmp_path: Path
) -> None:
    async with beginning(three, tmp_path) as (first, other):
        await until(lambda: other.fleet._me.done == first.fleet._me.done)
        await tell(first, "third/activate")
        await until(lambda: other.ready().name == "third")
        async with other.manager._loader._one_at_a_time:
            hostile.copied(three.models / "small-2", "fourth")
            await first.manager.load("fourth")
            await first.fleet.publish("load", "fourth")
            await until(lambda: other.manager._loader.is_loading("fourth"))
            await other.manager._roll_back(other.ready(), "slower")
            wanted = await desired(other)
            assert wanted.active.version == "small-1"
            assert wanted.loaded == ["fourth", "small-1", "small-2"]
        await until(lambda: other.fleet._me.done == first.fleet._me.done == wanted.id)
        assert first.registry.loaded() == other.registry.loaded() == wanted.loaded

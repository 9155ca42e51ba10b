"""One small world and one service process for the room's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from feature_store import connect
from feature_store.contract import FOUND
from tests.service.mapped_world import MappedWorld, make_mapped
from tests.service.process import PATIENCE_MS, Service, serving
from tests.service.world import World, make_world
from tests.text import small
from text.export.build import build


@pytest.fixture(scope="session", autouse=True)
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Services in this process copy bundles here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QIN_PRIVATE", str(tmp_path_factory.mktemp("private")))
        yield


SHARED = pytest.StashKey[World]()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> World:
    """Shared by all modules of this process: its items are only read (``only_read``)."""
    made = make_world(tmp_path_factory.mktemp("world"))
    pytestconfig.stash[SHARED] = made
    return made


@pytest.fixture(scope="module", autouse=True)
def only_read(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail the module that leaves the shared world's items changed, not a later one."""
    yield
    world = pytestconfig.stash.get(SHARED, None)
    if world is not None:
        changed = asyncio.run(changes_of(world))
        if changed:
            del pytestconfig.stash[SHARED]  # one module is named, not all that come after it
        assert not changed, f"the shared world was written to: {changed}"


async def changes_of(world: World) -> list[str]:
    store = await connect(world.store, world.schema)
    try:
        stored = await store.items(world.ids)
        users = await store.histories(list(world.users))
    finally:
        await store.close()
    items = [f"item {i}" for i in world.ids[(stored.status != FOUND) | (stored.rows != world.rows)]]
    histories = zip(world.users.items(), users, strict=True)
    return items + [
        f"user {user}" for (user, was), now in histories if not np.array_equal(was, now)
    ]


@pytest.fixture(scope="session")
def service(world: World) -> Iterator[Service]:
    with serving(world.models, world.store, QIN_DEADLINE_MS=PATIENCE_MS) as running:
        yield running


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


@pytest.fixture(scope="session")
def mapped(world: World, tmp_path_factory: pytest.TempPathFactory) -> MappedWorld:
    """The shared world's items and users, their ids texts. Its items are only read."""
    return make_mapped(world, tmp_path_factory.mktemp("mapped"))


@pytest.fixture(scope="session")
def mapped_service(mapped: MappedWorld) -> Iterator[Service]:
    with serving(mapped.models, mapped.store, QIN_DEADLINE_MS=PATIENCE_MS) as running:
        yield running


@pytest.fixture(scope="session")
def texts(mapped_service: Service) -> Iterator[httpx.Client]:
    """Client of the service whose ids are texts."""
    with mapped_service.client() as client:
        yield client


@pytest.fixture(scope="session")
def encoder_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of random weights that reads texts of up to 2,048 tokens."""
    folder = tmp_path_factory.mktemp("encoders")
    checkpoint = small.checkpoint(folder / "checkpoint")
    return build(checkpoint, folder, version="words-1", longest=small.BLOCKWISE).path

"""One small world and one service process for the room's tests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.service.process import Service, serving
from tests.service.world import World, make_world


@pytest.fixture(scope="session", autouse=True)
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Services in this process copy bundles here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QIN_PRIVATE", str(tmp_path_factory.mktemp("private")))
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def service(world: World) -> Iterator[Service]:
    with serving(world.models, world.store) as running:
        yield running


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client

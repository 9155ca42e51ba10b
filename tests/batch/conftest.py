"""One small world, and the service that its batch scores are held against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.process import PATIENCE_MS, serving
from tests.service.world import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Read alone."""
    return make_world(tmp_path_factory.mktemp("world"), users=1000, seed=11)


@pytest.fixture(scope="session")
def client(world: World) -> Iterator[httpx.Client]:
    """Of a service with two engine threads."""
    settings = {"QIN_DEADLINE_MS": PATIENCE_MS, "QIN_THREADS": "2", "QIN_PRECISION": "fp32"}
    with serving(world.models, world.store, **settings) as service, service.client() as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path

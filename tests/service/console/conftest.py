"""A service with two versions and admin tokens, and a person logged in to its console."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.service.lifecycle.conftest import two_versions
from tests.service.process import PATIENCE_MS, Service, serving
from tests.service.world import World

ANN, BEN = "ann-has-this-long-token", "ben-has-another-token"
TOKENS = f"ann:{ANN} ben:{BEN}"
QUIET = {"QIN_MODEL_POLICY": "manual", "QIN_DEADLINE_MS": PATIENCE_MS}


def with_many_versions(folder: Path) -> World:
    """A world with two versions and 500 more, of the files of the first."""
    world, _ = two_versions(folder)
    source = world.models / "small-1"
    manifest = json.loads((source / "manifest.json").read_text())
    for number in range(500):
        made = world.models / f"many-{number:03}"
        made.mkdir()
        for file in source.iterdir():
            if file.name != "manifest.json":
                (made / file.name).hardlink_to(file)
        (made / "manifest.json").write_text(json.dumps({**manifest, "version": made.name}))
    return world


@dataclass(frozen=True, slots=True)
class Served:
    service: Service
    world: World

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.service.admin_port}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return two_versions(tmp_path_factory.mktemp("console"))[0]


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[Served]:
    with serving(world.models, world.store, QIN_ADMIN_TOKEN=TOKENS, **QUIET) as service:
        yield Served(service, world)


@pytest.fixture(scope="module")
def unguarded(world: World) -> Iterator[Served]:
    """Without tokens."""
    with serving(world.models, world.store, **QUIET) as service:
        yield Served(service, world)


def browser_of(served: Served) -> httpx.Client:
    """Sends what a browser sends from the console's own pages, and keeps cookies."""
    headers = {"Origin": served.origin, "Sec-Fetch-Site": "same-origin"}
    return httpx.Client(base_url=served.origin, headers=headers, timeout=30, trust_env=False)


def log_in(client: httpx.Client, token: str = ANN) -> httpx.Response:
    return client.post("/console/login", data={"token": token, "next": "/console"})


@pytest.fixture
def anonymous(served: Served) -> Iterator[httpx.Client]:
    with browser_of(served) as client:
        yield client


@pytest.fixture
def ann(served: Served) -> Iterator[httpx.Client]:
    with browser_of(served) as client:
        assert log_in(client).status_code == 303
        yield client


def csrf_of(client: httpx.Client, path: str = "/console") -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def noted(log: Path) -> str:
    return log.read_text()

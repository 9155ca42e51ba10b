"""A loaded service in this process, to look into and to break."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp

from service.api.app import create_app
from service.application import build_application
from service.artifacts import sandbox
from service.settings import Settings
from service.state import ServiceState
from tests.service.world import World

PATIENCE_MS = 5_000.0  # a busy test machine is no fault of the store
DEADLINE_MS = 10_000.0  # nor a reason for a 504
PROVED: set[str] = set()  # digests of the bundles that this process has had verified


@asynccontextmanager
async def opened(world: World, **changed: Any) -> AsyncIterator[ServiceState]:
    """Loaded and ready. In the shared private folder the sandbox verifies a bundle once."""
    chosen = {
        "bundle": world.models,
        "store": world.store,
        "threads": 1,
        "store_timeout_ms": PATIENCE_MS,
        "deadline_ms": DEADLINE_MS,
        "target_ms": 600_000,
        **changed,
    }
    async with build_application(Settings(**chosen)) as (state, bundle):
        digest = bundle.path.parent.name  # of a local copy
        if digest in PROVED and "private" not in changed:
            sandbox.note_proved(bundle)
        await state.load(bundle)
        PROVED.add(digest)
        try:
            yield state
        finally:
            _applications.pop(id(state), None)


_applications: dict[int, tuple[ServiceState, ASGIApp]] = {}  # of states that are open


def client_of(state: ServiceState) -> httpx.AsyncClient:
    """A client of the state's application, which is made but once: it takes 70 ms."""
    if id(state) not in _applications:
        _applications[id(state)] = state, create_app(state)
    transport = httpx.ASGITransport(app=_applications[id(state)][1])
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


async def ask(state: ServiceState, **body: Any) -> httpx.Response:
    async with client_of(state) as client:
        return await client.post("/v1/score", json=body)


def metric(state: ServiceState, name: str, /, **labels: str) -> float:
    return state.metrics.registry.get_sample_value(name, labels) or 0.0

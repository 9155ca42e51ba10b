"""A loaded service in this process, to look into and to break."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from service.api.app import create_app
from service.application import House, open_house
from service.settings import Settings
from tests.service.world import World

PATIENCE_MS = 5_000.0  # a busy test machine is no fault of the store


@asynccontextmanager
async def opened(world: World, **changed: Any) -> AsyncIterator[House]:
    """Loaded and ready."""
    chosen = {
        "bundle": world.models,
        "store": world.store,
        "threads": 1,
        "store_timeout_ms": PATIENCE_MS,
        "target_ms": 600_000,
        **changed,
    }
    async with open_house(Settings(**chosen)) as (house, bundle):
        await house.load(bundle)
        yield house


def client_of(house: House) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=create_app(house))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


async def ask(house: House, **body: Any) -> httpx.Response:
    async with client_of(house) as client:
        return await client.post("/v1/score", json=body)


def metric(house: House, name: str, **labels: str) -> float:
    return house.metrics.registry.get_sample_value(name, labels) or 0.0

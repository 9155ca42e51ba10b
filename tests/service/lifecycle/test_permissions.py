"""The Redis permissions that docs/feature-store.md gives a user that may only serve."""

from __future__ import annotations

import asyncio
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.feature_store.redis_servers import standalone
from tests.service.in_process import client_of, opened
from tests.service.world import World, make_world, on_another_store

PAGE = Path(__file__).parents[3] / "docs/feature-store.md"


def documented() -> list[str]:
    """The words of ``ACL SETUSER``."""
    found = re.search(r"redis-cli (ACL SETUSER (?:.*\\\n)*.*)", PAGE.read_text())
    assert found is not None
    return shlex.split(found[1].replace("\\\n", " "))


@pytest.mark.parametrize("fleet", ["shop", "alone"])
def test_a_service_needs_no_more_than_is_documented(tmp_path: Path, fleet: str) -> None:
    made = make_world(tmp_path, items=20, users=3)
    with standalone(tmp_path / "redis") as server:
        loaded = on_another_store(made, f"redis://127.0.0.1:{server.port}")
        redis = server.client()
        redis.execute_command(*documented())
        store = f"redis://scorer:PASSWORD@127.0.0.1:{server.port}"
        asyncio.run(served(replace(loaded, store=store), fleet))
        assert redis.acl_log() == []
        assert redis.exists("qin:note:fleet/shop/wanted") == (fleet == "shop")


async def served(world: World, fleet: str) -> None:
    """Answer a score and tell the fleet."""
    async with opened(world, fleet=fleet) as state, client_of(state) as client:
        body = {"user_id": 1, "candidates": world.ids[:3].tolist()}
        assert (await client.post("/v1/score", json=body)).json()["degraded"] == []
        await state.fleet.publish()

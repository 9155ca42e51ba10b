"""Another process, stopped, holds LMDB's write lock: writes are 503 in time and never made, and
everything else goes on. A service in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import httpx
import pytest

from tests.feature_store.lmdb.test_writer import lock_held
from tests.service.process import Service, serving
from tests.service.world import World, make_world

BOUND_S = 20.0  # without a budget it would be for ever


@pytest.fixture
def world_here(tmp_path: Path) -> World:
    return make_world(tmp_path, items=60, users=5)


@pytest.fixture
def service(world_here: World) -> Iterator[Service]:
    with serving(world_here.models, world_here.store, QIN_STORE_WRITE_TIMEOUT_MS="200") as service:
        yield service


def test_writes_are_refused_in_time_and_not_made_later(world_here: World, service: Service) -> None:
    item = int(world_here.ids[0])
    path = Path(world_here.store.removeprefix("lmdb://"))
    with service.client() as client:
        before = client.get(f"/v1/items/{item}").json()
        event = {"user_id": 10**9, "item_id": item, "key": "k"}

        def post(_: int) -> httpx.Response:
            return client.post("/v1/events", json=event)

        with lock_held(path), ThreadPoolExecutor(16) as callers:
            began = monotonic()
            answers = list(callers.map(post, range(32)))
            answers.append(client.patch(f"/v1/items/{item}", json={"likes_level": 1}))
            answers.append(client.put(f"/v1/items/{item}", json=before))
            answers.append(client.delete(f"/v1/items/{item}"))
            assert {answer.status_code for answer in answers} == {503}
            assert client.get("/livez").status_code == 200
            assert client.get("/readyz").status_code == 200
            scored = client.post("/v1/score", json={"user_id": 1, "candidates": [item]})
            assert scored.status_code == 200
            assert monotonic() - began < BOUND_S
        assert client.get(f"/v1/items/{item}").json() == before
        deadline = monotonic() + BOUND_S
        while (answer := client.post("/v1/events", json=event)).status_code == 503:
            assert monotonic() < deadline
        assert answer.json()["applied"] == 1  # no earlier one was: its key was not spent
        with lock_held(path):
            assert client.post("/v1/events", json=event | {"key": "another"}).status_code == 503
            assert service.stop() == 0  # it does not wait for the lock either

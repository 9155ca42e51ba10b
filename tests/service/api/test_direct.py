"""Item writes are answered without the framework's layers, and as by these."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from feature_store.contract import Ids
from service.api.direct import DirectItemWrites
from service.items import invalidation
from service.items.table import ItemTable
from service.state import ServiceState
from tests.service.content_encoder import FEATURE, content_encoder
from tests.service.in_process import client_of, metric, opened
from tests.service.world import World, make_world
from text.runtime.steps import EncodingSteps

REST: dict[str, Any] = {"item_id": 7, "item_tags": [3], "likes_level": 2, "views_level": 1}
TEXT = {"text": {"de": "das Haus"}}
SLOW_S = 0.5


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return content_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Its own, to be written to."""
    return make_world(tmp_path, items=40, users=3)


@pytest.fixture
async def state(world: World, encoder: Path) -> AsyncIterator[ServiceState]:
    async with opened(world, encoder=encoder) as state:
        yield state


async def answers(state: ServiceState) -> list[tuple[int, Any, str | None]]:
    """Status, body and media type of writes of every outcome."""
    whole = {**REST, FEATURE: [0.5] * 6}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", "/v1/items/1000", {"json": whole}),
        ("PATCH", "/v1/items/1000", {"json": {"likes_level": 3}}),
        ("PUT", "/v1/items/1001", {"json": REST | TEXT}),
        ("PATCH", "/v1/items/999999", {"json": TEXT}),
        ("PUT", "/v1/items/1000", {"json": {**REST, "colour": 1}}),
        ("PUT", "/v1/items/x", {"json": whole}),
        ("PUT", "/v1/items/1/2", {"json": whole}),
        ("PUT", "/v1/items/", {"json": whole}),
        ("PUT", "/v1/items/1000", {"content": b"{", "headers": {"Content-Type": "text/plain"}}),
        ("POST", "/v1/items/1000", {"json": whole}),
    ]
    found = []
    async with client_of(state) as client:
        for method, path, more in asked:
            answer = await client.request(method, path, **more)
            body = answer.json() if answer.content else None
            if isinstance(body, dict):
                body.pop("request_id", None)
            found.append((answer.status_code, body, answer.headers.get("content-type")))
    return found


async def test_writes_are_answered_as_by_the_framework(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = await answers(state)
    statuses = [status for status, _, _ in direct]
    assert statuses == [204, 204, 200, 404, 422, 422, 404, 404, 415, 405]
    monkeypatch.setattr(DirectItemWrites, "_route", lambda *_: None)
    assert await answers(state) == direct
    for route, status in (("/v1/items/{item_id}", "204"), ("/v1/items/{item_id}", "415")):
        count = metric(state, "qin_requests_total", route=route, status=status)
        assert count == 2 * statuses.count(int(status))


async def test_an_unexpected_error_is_a_500_without_its_text(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def put_item(*_: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(state.reader, "put_item", put_item)
    async with client_of(state) as client:
        answer = await client.put("/v1/items/1000", json={**REST, FEATURE: [0.5] * 6})
    assert answer.status_code == 500
    assert "secret" not in answer.text


async def test_a_write_is_charged_what_the_event_loop_took_and_not_what_its_encoder_took(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = EncodingSteps.read

    def slow(steps: EncodingSteps, part: int) -> None:
        sleep(SLOW_S)
        read(steps, part)

    monkeypatch.setattr(EncodingSteps, "read", slow)
    async with client_of(state) as client:
        answer = await client.put("/v1/items/1000", json=REST | TEXT)
    assert answer.status_code == 200
    assert 0 < metric(state, "qin_budget_seconds_total", kind="items") < 0.5 * SLOW_S


async def test_a_short_text_takes_the_encoder_in_one_step(state: ServiceState) -> None:
    assert state.encoding is not None
    before = state.encoding.engine.chunks
    async with client_of(state) as client:
        for item, text in enumerate(("das Haus", "the house")):
            values = REST | {"text": {"de": text}}
            assert (await client.put(f"/v1/items/{1000 + item}", json=values)).status_code == 200
    assert state.encoding.engine.chunks - before == 2


async def test_a_write_that_finds_the_table_free_takes_no_other_thread_to_remove_its_row(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed, remove = list[int](), invalidation.try_remove

    def note(table: ItemTable, ids: Ids) -> bool:
        removed.extend(ids.tolist())
        return remove(table, ids)

    monkeypatch.setattr(invalidation, "try_remove", note)
    async with client_of(state) as client:
        answer = await client.put("/v1/items/1000", json={**REST, FEATURE: [0.5] * 6})
    assert answer.status_code == 204
    assert removed[:1] == [1000]

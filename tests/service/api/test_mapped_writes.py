"""Clicks and items where the store's ids are texts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from feature_store.errors import StoreError, StoreUnavailable
from service.api.id_kind import COLLISION
from service.api.ids import NO_TEXT
from service.api.item_schema import events as events_schema
from service.state import ServiceState
from tests.service.api.test_items import VALUES
from tests.service.in_process import client_of, metric, opened
from tests.service.mapped_world import MappedWorld, make_mapped, text_of
from tests.service.world import make_world

STRANGE = [
    "a/b",
    "/",
    "//x/",
    "..",
    "%2F",
    "é🎬",
    "a b+c?d#e",
    "\n",
    "x\n",
    "\x00",
    "0",
    "🎬" * 128,
]


@pytest.fixture
def own(tmp_path: Path) -> MappedWorld:
    return make_mapped(make_world(tmp_path, items=40, users=6), tmp_path)


@pytest.fixture
async def state(own: MappedWorld) -> AsyncIterator[ServiceState]:
    async with opened(own.numeric, store=own.store) as state:
        yield state


@pytest.fixture
async def client(state: ServiceState) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(state) as client:
        yield client


def colliding(state: ServiceState, *texts: str) -> None:
    """Give these texts one number."""
    text_ids = state.store.text_ids
    assert text_ids is not None
    number = text_ids.number

    def numbered(text: str) -> int:
        return number(texts[0] if text in texts else text)

    text_ids.number = numbered  # type: ignore[assignment]


async def history(state: ServiceState, user: str) -> list[str | None]:
    assert state.store.text_ids is not None
    stored = await state.store.history(state.store.text_ids.number(user))
    return [] if stored is None else await state.store.item_texts(stored)


async def test_clicks_are_stored_with_their_texts_and_scored(
    own: MappedWorld, state: ServiceState, client: httpx.AsyncClient
) -> None:
    items = own.items[:3]
    events = [
        {"user_id": "new user", "item_id": items[0]},
        {"user_id": "new user", "item_ids": [items[1], "not yet known"], "key": "k"},
        {"user_id": text_of(1), "item_id": items[2]},
        {"user_id": "new user", "item_id": items[0], "key": "k"},
    ]
    answer = await client.post("/v1/events", json={"events": events})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["applied"], answer.json()["repeated"]) == (3, [3])
    assert await history(state, "new user") == ["not yet known", items[1], items[0]]
    assert await history(state, text_of(1)) == [items[2], *own.history(1)]
    assert state.store.text_ids is not None
    number = state.store.text_ids.number("new user")
    assert await state.store.user_texts([number]) == ["new user"]
    found = (
        await client.post("/v1/score", json={"user_id": "new user", "candidates": items})
    ).json()
    assert found["cold_user"] is False
    assert found["unknown_history"] == ["not yet known"]


async def test_a_text_is_named_once_by_a_process(
    own: MappedWorld, state: ServiceState, client: httpx.AsyncClient
) -> None:
    event = {"user_id": "u", "item_ids": ["x", "y"]}
    for _ in range(3):
        assert (await client.post("/v1/events", json=event)).status_code == 200
    assert metric(state, "qin_store_duration_seconds_count", operation="name_items") == 1
    assert metric(state, "qin_store_duration_seconds_count", operation="append") == 3


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({"user_id": 7, "item_id": "a"}, "user_id"),
        ({"user_id": "u", "item_id": 7}, "item_id"),
        ({"user_id": "u", "item_ids": ["a", 7]}, "item_ids.1"),
        ({"user_id": "", "item_id": "a"}, "user_id"),
        ({"user_id": "u", "item_id": "a" * 129}, "item_id"),
    ],
)
async def test_an_event_with_what_is_no_text_is_refused_alone(
    state: ServiceState, client: httpx.AsyncClient, event: dict[str, Any], field: str
) -> None:
    alone = await client.post("/v1/events", json=event)
    assert (alone.status_code, alone.json()["field"]) == (422, field)
    assert NO_TEXT in alone.json()["detail"]
    right = {"user_id": "u", "item_id": "a"}
    batch = await client.post("/v1/events", json={"events": [right, event]})
    assert batch.status_code == 207
    assert batch.json()["rejected"][0]["field"] == f"events.1.{field}"
    assert await history(state, "u") == ["a"]


async def test_an_item_whose_number_is_anothers_is_refused_alone(
    state: ServiceState, client: httpx.AsyncClient
) -> None:
    colliding(state, "first", "second", "third")
    first = {"user_id": "u", "item_id": "first"}
    assert (await client.post("/v1/events", json=first)).json()["applied"] == 1
    events = [
        {"user_id": "u", "item_ids": ["new", "second"]},
        {"user_id": "u", "item_id": "another"},
        {"user_id": "u", "item_id": "third"},
    ]
    for _ in range(2):
        answer = await client.post("/v1/events", json={"events": events})
        assert answer.status_code == 207, answer.text
        rejected = answer.json()["rejected"]
        assert [(r["index"], r["field"], r["problem"], r["detail"]) for r in rejected] == [
            (0, "events.0.item_ids", "invalid-field", COLLISION),
            (2, "events.2.item_id", "invalid-field", COLLISION),
        ]
    assert await history(state, "u") == ["another", "another", "first"]
    alone = await client.post("/v1/events", json=events[2])
    assert (alone.status_code, alone.json()["field"]) == (422, "item_id")
    put = await client.put("/v1/items/second", json=VALUES)
    assert (put.status_code, put.json()["field"]) == (422, "item_id")
    assert (await client.get("/v1/items/first")).status_code == 404


async def test_two_texts_of_one_number_in_one_batch_are_not_both_taken(
    state: ServiceState, client: httpx.AsyncClient
) -> None:
    colliding(state, "first", "second")
    events = [{"user_id": "u", "item_id": item} for item in ("first", "second", "first")]
    answer = (await client.post("/v1/events", json={"events": events})).json()
    assert (answer["applied"], [r["index"] for r in answer["rejected"]]) == (2, [1])


async def test_a_user_whose_number_is_anothers_is_refused_alone_and_not_logged(
    state: ServiceState, client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    colliding(state, "user of old", "user of new")
    events = [{"user_id": user, "item_id": "a"} for user in ("user of old", "user of new")]
    answer = await client.post("/v1/events", json={"events": events})
    assert answer.status_code == 207, answer.text
    assert answer.json()["rejected"] == [
        {
            "index": 1,
            "problem": "invalid-field",
            "field": "events.1.user_id",
            "detail": COLLISION,
        }
    ]
    assert await history(state, "user of old") == ["a"]
    logged = "".join(capfd.readouterr())
    assert "store failed" in logged
    assert "user of" not in logged


async def test_a_failure_to_name_acknowledges_nothing(
    state: ServiceState, client: httpx.AsyncClient
) -> None:
    appended, names = [], state.store.name_items
    append_all = state.store.append_all

    async def failing(texts: Mapping[int, str]) -> None:
        raise StoreUnavailable("no answer")

    async def noting(appends: Any) -> list[bool | StoreError]:
        appended.extend(appends)
        return await append_all(appends)

    state.store.name_items = failing  # type: ignore[method-assign]
    state.store.append_all = noting  # type: ignore[method-assign]
    event = {"user_id": "u", "item_id": "a"}
    answer = await client.post("/v1/events", json=event)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:qin:problem:store-unavailable")
    assert appended == []
    state.store.name_items = names  # type: ignore[method-assign]
    assert (await client.post("/v1/events", json=event)).status_code == 200
    # 128 events are taken, the naming for the others fails
    state.store.name_items = failing  # type: ignore[method-assign]
    known, new = [event] * 128, [{"user_id": "u", "item_id": "b"}] * 2
    answer = await client.post("/v1/events", json={"events": [*known, *new]})
    assert answer.status_code == 207
    assert answer.json()["applied"] == 128
    assert [r["index"] for r in answer.json()["rejected"]] == [128, 129]
    assert await history(state, "u") == ["a"] * 12


@pytest.mark.parametrize("item", STRANGE)
async def test_items_are_put_read_changed_and_removed_by_their_texts(
    state: ServiceState, client: httpx.AsyncClient, item: str
) -> None:
    url = f"/v1/items/{quote(item, safe='').replace('..', '%2E%2E')}"
    for method, body in (("GET", None), ("PATCH", {"likes_level": 1}), ("DELETE", None)):
        answer = await client.request(method, url, json=body)
        assert answer.status_code == 404, answer.text
        assert answer.json()["detail"].startswith(f"item {item!r}: not in the store")
    assert (await client.put(url, json=VALUES)).status_code == 204
    body = {"user_id": "u", "candidates": [item]}
    assert (await client.post("/v1/score", json=body)).json()["unknown_items"] == []
    assert (await client.patch(url, json={"likes_level": 1})).status_code == 204
    assert (await client.get(url)).json()["likes_level"] == 1
    assert (await client.delete(url)).status_code == 204
    assert (await client.post("/v1/score", json=body)).json()["unknown_items"] == [item]
    assert state.store.text_ids is not None
    number = np.array([state.store.text_ids.number(item)], np.int64)
    assert await state.store.item_texts(number) == [item]  # histories may name it


@pytest.mark.parametrize("path", ["", "%FF", "%ED%A0%80", "a" * 129, quote("é" * 129)])
async def test_a_path_that_is_no_text_is_refused(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/v1/items/{path}")
    assert (answer.status_code, answer.json()["field"]) == (422, "item_id")


async def test_metrics_have_one_route_for_all_items(
    state: ServiceState, client: httpx.AsyncClient
) -> None:
    await client.get("/v1/items/a%2Fb")
    await client.get("/v1/items/c")
    labels = {"route": "/v1/items/{item_id}", "status": "404"}
    assert metric(state, "qin_requests_total", **labels) == 2


async def test_the_document_describes_texts(state: ServiceState, client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    text = {"type": "string", "minLength": 1, "maxLength": 128}
    for operation in paths["/v1/items/{item_id}"].values():
        assert [p["schema"] for p in operation["parameters"] if p["name"] == "item_id"] == [text]
    body = paths["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    expected = events_schema(state.store.schema, state.settings.max_events, text)
    assert body == expected
    one, several, _ = body["oneOf"]
    assert text.items() <= one["properties"]["item_id"].items()
    assert several["properties"]["item_ids"]["items"] == text


async def test_as_many_of_the_longest_texts_as_events_are_taken(
    state: ServiceState, client: httpx.AsyncClient
) -> None:
    longest = ['",:[{\\'[n % 6] * 128 for n in range(12)]
    events = [{"user_id": longest[0], "item_ids": longest}] * state.settings.max_events
    sent = {"events": events[:400]}
    answer = await client.post("/v1/events", json=sent)
    assert answer.status_code == 200, answer.text
    assert answer.json()["applied"] == 400


@pytest.mark.parametrize("item", STRANGE)
def test_the_real_server_passes_on_any_text_of_a_path(texts: httpx.Client, item: str) -> None:
    url = f"/v1/items/{quote(item, safe='').replace('..', '%2E%2E')}"
    answer = texts.get(url)
    assert answer.status_code == 404, answer.text
    assert answer.json()["detail"] == f"item {item!r}: not in the store"

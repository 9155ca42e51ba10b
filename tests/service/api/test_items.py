"""``/v1/items/{item_id}``: features by their names, and every wrong one named."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from feature_store.lmdb.environment import acquire, release
from service.state import ServiceState
from tests.service.in_process import client_of, opened
from tests.service.world import World, make_world

JSON = {"Content-Type": "application/json"}
NEW = 10**12
VALUES: dict[str, Any] = {
    "item_id": 7,
    "item_tags": [3, 4],
    "content": [0.5, -1.25, 0.0, 3.0, 1e-3, 2],
    "likes_level": 2,
    "views_level": 6,
}


@pytest.fixture
def small_world(tmp_path: Path) -> World:
    return make_world(tmp_path, items=40, users=3)


@pytest.fixture
async def state(small_world: World) -> AsyncIterator[ServiceState]:
    async with opened(small_world) as state:
        yield state


@pytest.fixture
async def client(state: ServiceState) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(state) as client:
        yield client


def url(item: Any) -> str:
    return f"/v1/items/{item}"


async def test_what_is_put_is_got_and_scored(client: httpx.AsyncClient) -> None:
    body = {"user_id": 1, "candidates": [NEW], "history": []}
    assert (await client.post("/v1/score", json=body)).json()["unknown_items"] == [NEW]
    assert (await client.put(url(NEW), json=VALUES)).status_code == 204
    got = (await client.get(url(NEW))).json()
    assert got | {"content": None} == VALUES | {"content": None}
    assert got["content"] == pytest.approx(VALUES["content"], rel=1e-3)  # stored as float16
    before = (await client.post("/v1/score", json=body)).json()
    assert before["unknown_items"] == []

    assert (await client.patch(url(NEW), json={"likes_level": 9})).status_code == 204
    assert (await client.get(url(NEW))).json() == got | {"likes_level": 9}
    after = (await client.post("/v1/score", json=body)).json()
    assert after["scores"] != before["scores"]

    assert (await client.put(url(NEW), json=got)).status_code == 204  # what is got can be put
    assert (await client.post("/v1/score", json=body)).json()["scores"] == before["scores"]


async def test_an_identity_beyond_the_models_vocabulary_is_a_cold_item(
    client: httpx.AsyncClient,
) -> None:
    assert (await client.put(url(NEW), json=VALUES | {"item_id": 2**31 - 1})).status_code == 204
    answer = await client.post("/v1/score", json={"user_id": 1, "candidates": [NEW]})
    assert answer.json()["cold_items"] == [NEW]


async def test_a_removed_item_is_unknown(small_world: World, client: httpx.AsyncClient) -> None:
    item = int(small_world.ids[0])
    assert (await client.delete(url(item))).status_code == 204
    for method in (client.get, client.delete):
        answer = await method(url(item))
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:qin:problem:unknown-item"
    assert (await client.patch(url(item), json={"likes_level": 1})).status_code == 404
    answer = await client.post("/v1/score", json={"user_id": 1, "candidates": [item]})
    assert answer.json()["unknown_items"] == [item]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"likes_level": -1}, "likes_level"),
    ({"likes_level": 1.5}, "likes_level"),
    ({"likes_level": "1"}, "likes_level"),
    ({"likes_level": True}, "likes_level"),
    ({"likes_level": None}, "likes_level"),
    ({"item_id": 2**31}, "item_id"),
    ({"item_tags": [1] * 5}, "item_tags"),
    ({"item_tags": 3}, "item_tags"),
    ({"item_tags": [1, "2"]}, "item_tags.1"),
    ({"content": [0.0] * 5}, "content"),
    ({"content": [float("nan")] + [0.0] * 5}, "content.0"),
    ({"content": [0.0] * 5 + [float("inf")]}, "content.5"),
    ({"content": [0.0, 0.0, -1e6] + [0.0] * 3}, "content.2"),  # beyond float16
    ({"colour": 3}, "colour"),
]


@pytest.mark.parametrize(("change", "field"), WRONG)
async def test_a_wrong_value_names_its_feature_and_changes_nothing(
    small_world: World, client: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    item = int(small_world.ids[0])
    before = (await client.get(url(item))).json()
    for method, values in ((client.put, VALUES | change), (client.patch, change)):
        answer = await method(url(item), content=json.dumps(values), headers=JSON)
        assert answer.status_code == 422, answer.text
        assert answer.json()["field"] == field
    assert (await client.get(url(item))).json() == before


@pytest.mark.parametrize("feature", VALUES)
async def test_an_item_put_whole_needs_every_feature(
    client: httpx.AsyncClient, feature: str
) -> None:
    given = {name: value for name, value in VALUES.items() if name != feature}
    answer = await client.put(url(NEW), json=given)
    assert (answer.status_code, answer.json()["field"]) == (422, feature)
    assert (await client.get(url(NEW))).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, "body"),
        (b'{"likes_level": 1', 400, "body"),
        (b"[1]", 422, "body"),
        (b"{}", 422, "body"),
        (b'{"likes_level": 1, "likes_level": 2}', 422, "likes_level"),
        (b'{"content": [1e400, 0, 0, 0, 0, 0]}', 422, "content.0"),
        (b'{"content": [NaN, 0, 0, 0, 0, 0]}', 422, "content.0"),
        (b'{"likes_level": ' + b"9" * 6000 + b"}", 400, "body"),
        (b'{"likes_level": ' + b"9" * 300 + b"}", 422, "likes_level"),
    ],
)
async def test_a_body_that_is_no_item_is_refused(
    small_world: World, client: httpx.AsyncClient, body: bytes, status: int, field: str
) -> None:
    answer = await client.patch(url(small_world.ids[0]), content=body, headers=JSON)
    assert answer.json().get("field") == field, answer.text
    assert answer.status_code == status


@pytest.mark.parametrize("item", ["x", "-1", "1.5", str(2**63), "9" * 40, "١"])
async def test_an_id_that_is_none_is_refused(client: httpx.AsyncClient, item: str) -> None:
    for method in (client.get, client.delete):
        answer = await method(url(item))
        assert (answer.status_code, answer.json()["field"]) == (422, "item_id")


async def test_a_damaged_record_can_be_put_whole_again(
    small_world: World, client: httpx.AsyncClient
) -> None:
    item = int(small_world.ids[0])
    environment = acquire(Path(small_world.store.removeprefix("lmdb://")), create=False)
    environment.write(
        lambda txn: txn.put(struct.pack(">Q", item), b"nonsense", db=environment.db["items"])
    )
    release(environment)
    for answer in (await client.get(url(item)), await client.patch(url(item), json=VALUES)):
        assert answer.status_code == 500
        assert answer.json()["type"] == "urn:qin:problem:unreadable-item"
        assert "PUT it whole" in answer.json()["detail"]
    assert (await client.put(url(item), json=VALUES)).status_code == 204
    assert (await client.get(url(item))).json()["likes_level"] == 2


async def test_every_stored_item_is_told_as_it_is(
    small_world: World, client: httpx.AsyncClient
) -> None:
    for item, row in zip(small_world.ids.tolist(), small_world.rows, strict=True):
        told = (await client.get(url(item))).json()
        assert told["item_id"] == row["item_id"]
        assert told["item_tags"] == row["item_tags"][row["item_tags"] != 0].tolist()
        np.testing.assert_array_equal(np.array(told["content"], np.float16), row["content"])

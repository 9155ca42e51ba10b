"""``/v1/users/{user_id}``: records by features by name, seen by the next score."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from numpy.testing import assert_allclose

from feature_store.contract import UserRows
from feature_store.feature_values import user_row
from feature_store.lmdb.environment import USERS, acquire, release
from service.state import ServiceState
from tests.feature_store.stores import connect
from tests.service.in_process import client_of, opened
from tests.service.mapped_world import MappedWorld, text_of
from tests.service.parity import TOLERANCE
from tests.service.user_world import LEVELLED, UserWorld, make_mapped_users, make_user_world
from tests.service.world import World, make_world

NEW, KNOWN = 10**12, 11
VALUES: dict[str, Any] = {
    "user_id": 69_999,
    "country": 3,
    "followed": [4, 80],
    "taste": [0.5, -1.25, 0.0, 3.0],
}


@pytest.fixture
def users(tmp_path: Path) -> UserWorld:
    return make_user_world(tmp_path)


@pytest.fixture
async def state(users: UserWorld) -> AsyncIterator[ServiceState]:
    async with opened(users.world) as state:
        yield state


@pytest.fixture
async def client(state: ServiceState) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(state) as client:
        yield client


def url(user: Any) -> str:
    return f"/v1/users/{user}"


def row(**changed: Any) -> UserRows:
    return user_row(LEVELLED, VALUES | changed)


async def is_served(users: UserWorld, client: httpx.AsyncClient, user: int) -> None:
    items = users.world.ids[:9]
    body = {"user_id": user, "candidates": items.tolist(), "features": {"hour": 3.5}}
    found = (await client.post("/v1/score", json=body)).json()
    assert_allclose(found["scores"], users.exact(user, items, {"hour": 3.5}), atol=TOLERANCE)
    assert ("taste" in found["defaulted"]) is (user not in users.records)


async def test_each_write_is_in_the_next_score(users: UserWorld, client: httpx.AsyncClient) -> None:
    await is_served(users, client, NEW)
    assert (await client.put(url(NEW), json=VALUES)).status_code == 204
    users.records[NEW] = row()
    await is_served(users, client, NEW)
    assert (await client.patch(url(NEW), json={"country": 1, "followed": []})).status_code == 204
    users.records[NEW] = row(country=1, followed=[])
    await is_served(users, client, NEW)
    for user in (NEW, KNOWN):  # the history stays
        assert (await client.delete(url(user))).status_code == 204
        del users.records[user]
        await is_served(users, client, user)


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_a_user_without_a_record_is_a_404(client: httpx.AsyncClient, method: str) -> None:
    json = {"country": 1} if method == "PATCH" else None
    answer = await client.request(method, url(NEW), json=json)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:qin:problem:unknown-user")


async def test_reading_a_record_is_refused_with_the_command_that_reads_it(
    client: httpx.AsyncClient,
) -> None:
    refused = await client.get(url(KNOWN))
    assert (refused.status_code, refused.headers["Allow"]) == (405, "DELETE, PATCH, PUT")
    assert "python -m feature_store get-user STORE USER" in refused.json()["detail"]
    other = await client.post(url(KNOWN), json={})
    assert other.json()["detail"] == "Method Not Allowed"


@pytest.mark.parametrize(
    ("method", "user", "values", "field"),
    [
        ("PUT", NEW, {k: v for k, v in VALUES.items() if k != "taste"}, "taste"),
        ("PUT", NEW, VALUES | {"age": 3}, "age"),
        ("PUT", NEW, VALUES | {"country": 2.5}, "country"),
        ("PUT", NEW, VALUES | {"country": -1}, "country"),
        ("PUT", NEW, VALUES | {"followed": [1, 2, 3, 4]}, "followed"),
        ("PUT", NEW, VALUES | {"taste": [0.5, "x", 0, 0]}, "taste.1"),
        ("PUT", "me", VALUES, "user_id"),
        ("PUT", 2**63, VALUES, "user_id"),
        ("PATCH", KNOWN, {}, "body"),
        ("PATCH", KNOWN, {"country": 1, "taste": [1]}, "taste"),
        ("PATCH", KNOWN, {"item_id": 1}, "item_id"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_changes(
    users: UserWorld,
    client: httpx.AsyncClient,
    method: str,
    user: Any,
    values: dict[str, Any],
    field: str,
) -> None:
    answer = await client.request(method, url(user), json=values)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    await is_served(users, client, KNOWN)
    await is_served(users, client, NEW)


async def test_writes_want_json(client: httpx.AsyncClient) -> None:
    answer = await client.put(url(NEW), content="{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


async def test_a_damaged_record_is_replaced_whole_alone(
    users: UserWorld, state: ServiceState, client: httpx.AsyncClient
) -> None:
    environment = acquire(Path(users.world.store.removeprefix("lmdb://")), create=False)
    environment.write(
        lambda txn: txn.put(struct.pack(">Q", KNOWN), b"nonsense", db=environment.db[USERS])
    )
    release(environment)
    answer = await client.patch(url(KNOWN), json={"country": 1})
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:qin:problem:unreadable-user")
    assert (await client.put(url(KNOWN), json=VALUES)).status_code == 204
    users.records[KNOWN] = row()
    await is_served(users, client, KNOWN)


@pytest.fixture
def mapped(users: UserWorld, tmp_path: Path) -> MappedWorld:
    return make_mapped_users(users, tmp_path / "texts")


async def test_text_ids_of_users(users: UserWorld, mapped: MappedWorld) -> None:
    text = 'é/%2F "\\ 🎬'
    async with opened(mapped.numeric, store=mapped.store) as state, client_of(state) as client:
        items = users.world.ids[:9]
        assert (await client.put(url(quote(text, safe="")), json=VALUES)).status_code == 204
        users.records[NEW] = row()
        body = {"user_id": text, "candidates": list(map(text_of, items.tolist()))}
        found = (await client.post("/v1/score", json=body)).json()
        assert_allclose(found["scores"], users.exact(NEW, items), atol=TOLERANCE)
        assert state.store.text_ids is not None
        number = state.store.text_ids.number(text)
        assert await state.store.user_texts([number]) == [text]
        answer = await client.put(url("x" * 4_000), json=VALUES)
        assert (answer.status_code, answer.json()["field"]) == (422, "user_id")


async def test_where_item_writes_are_off_user_writes_are(users: UserWorld) -> None:
    async with opened(users.world, writes_on="off") as state, client_of(state) as client:
        for method in ("PUT", "PATCH", "DELETE"):
            answer = await client.request(method, url(KNOWN), json={"country": 1})
            assert answer.status_code == 403
            assert answer.json()["detail"].startswith("user writes are off (QIN_WRITES_ON=off")
        await is_served(users, client, KNOWN)


@pytest.fixture
def plain(tmp_path: Path) -> World:
    return make_world(tmp_path, items=40, users=3)


async def test_without_user_features_there_is_no_such_path(plain: World) -> None:
    async with opened(plain) as state, client_of(state) as client:
        assert (await client.put(url(NEW), json={})).status_code == 404
        document = (await client.get("/openapi.json")).json()
        assert not any(path.startswith("/v1/users") for path in document["paths"])


async def test_users_are_written_within_a_second_after_a_load_added_the_first_features(
    plain: World,
) -> None:
    async with opened(plain) as state, client_of(state) as client:
        for method in ("PUT", "PATCH", "DELETE"):
            json = None if method == "DELETE" else {"country": 1}
            answer = await client.request(method, url(NEW), json=json)
            assert (answer.status_code, answer.json()["type"]) == (404, "urn:qin:problem:not-found")
        loader = await connect(plain.store, LEVELLED, create=True)
        async with asyncio.timeout(20):
            while True:
                if (await client.put(url(NEW), json=VALUES)).status_code == 204:
                    break
                await asyncio.sleep(0.05)
        assert (await loader.user(NEW)).row.tobytes() == row().tobytes()
        assert (await client.patch(url(NEW), json={"country": 2})).status_code == 204
        assert (await loader.user(NEW)).row.tobytes() == row(country=2).tobytes()
        assert (await client.delete(url(NEW))).status_code == 204
        await loader.close()


async def test_the_document_describes_users(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    found = document["paths"]["/v1/users/{user_id}"]
    assert set(found) == {"put", "patch", "delete"}
    schema = found["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["required"]) == set(VALUES)

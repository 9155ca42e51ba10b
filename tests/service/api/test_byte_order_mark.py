"""A UTF-8 byte order mark before a JSON body, as some libraries write, is passed over once."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.service.in_process import client_of, opened
from tests.service.world import World, make_world

MARK = codecs.BOM_UTF8
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def own_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world of its own, because it is written to."""
    folder: Path = tmp_path_factory.mktemp("marked")
    return make_world(folder, items=20, users=3)


@pytest.fixture
async def client(own_world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with opened(own_world, fleet="") as state, client_of(state) as client:
        yield client


def bodies(world: World) -> dict[str, tuple[str, str, dict[str, Any]]]:
    first, *others = world.ids[:4].tolist()
    score = {"user_id": 1, "candidates": others}
    as_text = {"user_id": 1, "candidates": list(map(str, others))}
    inputs = [
        {"name": "user_id", "datatype": "INT64", "shape": [1], "data": [1]},
        {"name": "item_id", "datatype": "INT64", "shape": [3], "data": others},
    ]
    return {
        "score": ("POST", "/v1/score", score),
        "score of ids as text": ("POST", "/v1/score", as_text),
        "infer": ("POST", "/v2/models/qin/infer", {"inputs": inputs}),
        "event": ("POST", "/v1/events", {"user_id": 900, "item_id": first}),
        "item": ("PATCH", f"/v1/items/{first}", {"views_level": 2}),
    }


KINDS = ("score", "score of ids as text", "infer", "event", "item")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_answer_is_that_to_the_body_without_it(
    client: httpx.AsyncClient, own_world: World, kind: str
) -> None:
    method, path, body = bodies(own_world)[kind]
    content = orjson.dumps(body)
    plain = await client.request(method, path, content=content, headers=JSON)
    marked = await client.request(method, path, content=MARK + content, headers=JSON)
    assert plain.is_success, plain.text
    assert marked.status_code == plain.status_code, marked.text
    for part in ("scores", "outputs"):
        if part in plain.text:
            assert marked.json()[part] == plain.json()[part]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_second_mark_is_no_json(
    client: httpx.AsyncClient, own_world: World, kind: str
) -> None:
    method, path, body = bodies(own_world)[kind]
    content = 2 * MARK + orjson.dumps(body)
    answer = await client.request(method, path, content=content, headers=JSON)
    assert answer.status_code == 400


async def test_a_repeated_name_behind_it_is_refused(client: httpx.AsyncClient) -> None:
    content = MARK + b'{"user_id":1,"user_id":2,"candidates":[1]}'
    answer = await client.post("/v1/score", content=content, headers=JSON)
    assert answer.status_code == 422
    assert "user_id" in answer.json()["detail"]

"""The OpenAPI document's examples with request features: of the active version, and right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.state import ServiceState
from tests.service.api.oip.raw import INFER
from tests.service.api.test_generated_client import generated_from
from tests.service.in_process import client_of, opened
from tests.service.process import Service, serving
from tests.service.user_world import UserWorld, add_levels, make_user_world
from tests.service.world import World, make_world

NAME = "with request features"
ROUTES = ("/v1/score", "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")


@pytest.fixture
def plain(tmp_path: Path) -> World:
    return make_world(tmp_path, items=60, users=6)


@pytest.fixture
async def state(plain: World) -> AsyncIterator[ServiceState]:
    async with opened(plain) as state:
        yield state


async def examples(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    document = (await client.get("/openapi.json")).json()
    body = document["paths"][path]["post"]["requestBody"]
    found: dict[str, Any] = body["content"]["application/json"]["examples"]
    return found


async def test_examples_with_features_are_those_of_the_active_version(
    state: ServiceState, plain: World
) -> None:
    async with client_of(state) as client:
        before = [await examples(client, route) for route in ROUTES]
        assert not any(NAME in one for one in before)
        await add_levels(plain)
        await state.manager.activate("levels-1")
        score, infer, of_version = [await examples(client, route) for route in ROUTES]
        assert infer == of_version
        for url, body in (("/v1/score", score), (INFER, infer)):
            answer = await client.post(url, json=body[NAME]["value"])
            assert answer.status_code == 200, answer.text
            assert "country" in answer.text
            assert "device" not in answer.text
            assert "hour" not in answer.text
        await state.manager.rollback()
        assert [await examples(client, route) for route in ROUTES] == before


@pytest.fixture(scope="module")
def users_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    users: UserWorld = make_user_world(tmp_path_factory.mktemp("generated_users"))
    with serving(users.world.models, users.world.store) as service:
        yield service


def test_a_generated_client_sends_features_and_reads_what_was_missing(
    users_service: Service, tmp_path: Path
) -> None:
    with users_service.client() as client:
        generated = generated_from(client, tmp_path, "generated_client_of_users")
        request = generated.V1ScorePostRequest(
            user_id=3, candidates=[1], features={"device": 2, "hour": None}
        )
        answer = client.post("/v1/score", content=request.model_dump_json())
        assert answer.status_code == 200, answer.text
        found = generated.ScoreAnswer.model_validate_json(answer.content)
        assert "hour" in found.defaulted
        assert "device" not in found.defaulted
        assert found.ignored is None
        inputs = [
            {"name": "user_id", "shape": [1], "datatype": "INT64", "data": [3]},
            {"name": "item_id", "shape": [1], "datatype": "INT64", "data": [1]},
            {"name": "hour", "shape": [1], "datatype": "FP32", "data": [8.5]},
        ]
        asked = generated.V2ModelsModelInferPostRequest(inputs=inputs)
        content = asked.model_dump_json(exclude_none=True)
        answer = client.post(INFER, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, answer.text
        parameters = generated.InferAnswer.model_validate_json(answer.content).parameters
        assert "device" in str(parameters)
        assert "hour" not in str(parameters)

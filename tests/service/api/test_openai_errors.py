"""Errors of ``POST /v1/embeddings`` have OpenAI's member ``error`` beside those of RFC 9457."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.embedding_models import EmbeddingsProblem
from service.api.score_models import ProblemDocument
from tests.service.in_process import client_of, opened
from tests.service.process import Service, serving
from tests.service.world import World

PATH = "/v1/embeddings"
KEY = "a-key-of-the-shop"
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def keyed(world: World, encoder_bundle: Path) -> Iterator[Service]:
    variables = {"QIN_ENCODER": str(encoder_bundle), "QIN_API_KEYS": f"shop:{KEY}"}
    with serving(world.models, world.store, **variables) as running:
        yield running


@pytest.fixture
def client(keyed: Service) -> Iterator[httpx.Client]:
    with keyed.client() as client:
        yield client


def check(answer: httpx.Response, status: int, kind: str, param: str | None, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    expected = {"message": problem["detail"], "type": kind, "param": param, "code": code}
    assert problem["error"] == expected
    assert problem["type"] == f"urn:qin:problem:{code}"
    EmbeddingsProblem.model_validate_json(answer.content)


INVALID = "invalid_request_error"
REFUSED: dict[str, tuple[dict[str, Any], int, str | None, str]] = {
    "no key": ({"json": {"input": "a"}}, 401, None, "unauthorised"),
    "no JSON": ({"content": b"{", "headers": BEARER}, 400, "body", "malformed"),
    "a header": (
        {"json": {"input": "a"}, "headers": {**BEARER, "X-Deadline-Ms": "x"}},
        *(400, "X-Deadline-Ms", "invalid-header"),
    ),
    "a model": (
        {"json": {"input": "a", "model": "ada"}, "headers": BEARER},
        *(404, None, "unknown-model"),
    ),
    "too large": ({"content": b" " * 3_000_000, "headers": BEARER}, 413, None, "too-large"),
    "an encoding": (
        {"content": b"{}", "headers": {**BEARER, "Content-Encoding": "br"}},
        *(415, None, "unsupported-encoding"),
    ),
    "a text": (
        {"json": {"input": ["a", ""]}, "headers": BEARER},
        *(422, "input.1", "invalid-field"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_4xx_has_an_error_in_openais_form(client: httpx.Client, case: str) -> None:
    request, status, param, code = REFUSED[case]
    check(client.post(PATH, **request), status, INVALID, param, code)


def test_another_method_has_one_too(client: httpx.Client) -> None:
    check(client.get(PATH, headers=BEARER), 405, INVALID, None, "method-not-allowed")


def test_other_routes_have_none(client: httpx.Client) -> None:
    answer = client.post("/v1/score", json={}, headers=BEARER)
    assert answer.status_code == 422
    ProblemDocument.model_validate_json(answer.content)


async def test_under_load_and_before_the_encoder_is_loaded(
    world: World, encoder_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, encoder=encoder_bundle) as state, client_of(state) as client:
        assert state.encoding is not None
        with monkeypatch.context() as changed:
            changed.setattr(state.encoding, "_encoders", list)
            answer = await client.post(PATH, json={"input": "a"})
        check(answer, 503, "server_error", None, "not-ready")
        monkeypatch.setattr(state.budget, "has_room", lambda *_: False)
        answer = await client.post(PATH, json={"input": "a"})
        check(answer, 429, "rate_limit_error", None, "over-capacity")
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert "retry-after" in answer.headers
        other = await client.get("/v1/items/1")
        assert (other.status_code, "error" in other.json()) == (429, False)


def test_the_document_describes_the_member(client: httpx.Client) -> None:
    document = client.get("/openapi.json", headers=BEARER).json()
    responses = document["paths"][PATH]["post"]["responses"]
    for status in ("400", "401", "403", "404", "413", "415", "422", "429", "503", "504"):
        schema = responses[status]["content"]["application/problem+json"]["schema"]
        error = schema["properties"]["error"]
        assert set(error["properties"]) == {"message", "type", "param", "code"}
        assert "error" in schema["required"]
    score = document["paths"]["/v1/score"]["post"]["responses"]["422"]
    assert "error" not in score["content"]["application/problem+json"]["schema"]["properties"]


def test_without_an_encoder_the_404_says_so(service: Service) -> None:
    with service.client() as client:
        answer = client.post(PATH, json={"input": "a"})
    check(answer, 404, INVALID, None, "not-found")
    assert "only a service with an encoder (QIN_ENCODER)" in answer.json()["detail"]


def test_openais_client_shows_the_detail(keyed: Service) -> None:
    openai: Any = pytest.importorskip("openai", reason="of the extra dev")
    options = {"base_url": f"{keyed.url}/v1", "max_retries": 0}
    with openai.OpenAI(**options, api_key=KEY) as client:
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.embeddings.create(model="qin-text", input=["a", ""])
        assert str(refused.value).startswith("Error code: 422 - input.1: no tokens")
        error = refused.value
        assert (error.type, error.param, error.code) == (INVALID, "input.1", "invalid-field")
        with pytest.raises(openai.NotFoundError, match="404 - model: the encoder is qin-text"):
            client.embeddings.create(model="ada", input="a")

    async def ask() -> None:
        async with openai.AsyncOpenAI(**options, api_key="another-key-of-16") as client:
            await client.embeddings.create(model="qin-text", input="a")

    with pytest.raises(openai.AuthenticationError, match=r"401 - send Authorization: Bearer KEY"):
        asyncio.run(ask())

"""OpenAI's own client against a real process: synchronous and asynchronous, float and base64."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.service.process import Service, serving
from tests.service.world import World
from text.runtime.encoder import TextEncoder

KEY = "a-key-of-the-shop"
TEXTS = ["the tree", "das Haus"]


@pytest.fixture(scope="module")
def openai() -> Any:
    return pytest.importorskip("openai", reason="of the extra dev")


@pytest.fixture(scope="module")
def keyed(openai: Any, world: World, encoder_bundle: Path) -> Iterator[Service]:
    variables = {"QIN_ENCODER": str(encoder_bundle), "QIN_API_KEYS": f"shop:{KEY}"}
    with serving(world.models, world.store, **variables) as running:
        yield running


def options(service: Service) -> dict[str, Any]:
    return {"base_url": f"{service.url}/v1", "api_key": KEY, "max_retries": 0}


def check(answer: Any, encoder_bundle: Path) -> None:
    expected = TextEncoder.open(encoder_bundle).encode(TEXTS)
    found = np.array([entry.embedding for entry in answer.data])
    assert np.abs(found - expected.vectors).max() <= 2e-6
    assert answer.usage.prompt_tokens == expected.tokens.sum()
    assert answer.model == "qin-text"


# Without a format the client asks for base64, and decodes it.
@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}])
def test_the_synchronous_client(
    openai: Any, keyed: Service, encoder_bundle: Path, form: dict[str, Any]
) -> None:
    with openai.OpenAI(**options(keyed)) as client:
        answer = client.embeddings.create(model="qin-text", input=TEXTS, **form)
        check(answer, encoder_bundle)


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}])
def test_the_asynchronous_client(
    openai: Any, keyed: Service, encoder_bundle: Path, form: dict[str, Any]
) -> None:
    async def ask() -> Any:
        async with openai.AsyncOpenAI(**options(keyed)) as client:
            return await client.embeddings.create(model="qin-text", input=TEXTS, **form)

    check(asyncio.run(ask()), encoder_bundle)


def test_base64_as_asked_for_is_given_as_it_is(openai: Any, keyed: Service) -> None:
    with openai.OpenAI(**options(keyed)) as client:
        answer = client.embeddings.create(model="qin-text", input=TEXTS, encoding_format="base64")
    assert all(isinstance(entry.embedding, str) for entry in answer.data)


def test_a_fault_is_the_clients_own_error(openai: Any, keyed: Service) -> None:
    with openai.OpenAI(**options(keyed)) as client:
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.embeddings.create(model="qin-text", input=["a", ""])
        assert refused.value.param == "input.1"
        assert "no tokens" in str(refused.value)
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="text-embedding-3-small", input="a")
    wrong = options(keyed) | {"api_key": "another-key-of-16"}
    with openai.OpenAI(**wrong) as client, pytest.raises(openai.AuthenticationError):
        client.embeddings.create(model="qin-text", input="a")

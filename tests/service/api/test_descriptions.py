"""What the OpenAPI documents say is for readers of the API, and never a handler's own docstring."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.api.gate import behind_the_gate
from service.api.oip.message import Part
from tests.service.process import Service

SCORING = ("/v1/score", "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")


@pytest.mark.parametrize("port", ["service", "admin"])
def test_descriptions_are_written_for_readers_of_the_api(service: Service, port: str) -> None:
    at = service.port if port == "service" else service.admin_port
    document = httpx.get(f"http://127.0.0.1:{at}/openapi.json", trust_env=False).json()
    found = list(descriptions(document))
    assert len(found) > 5
    for internal in (behind_the_gate, Part):
        assert inspect.getdoc(internal) not in found
    assert not [text for text in found if "``" in text or "service." in text]


def test_the_scoring_routes_are_described(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert all(paths[path]["post"]["description"] for path in SCORING)


def descriptions(value: Any) -> Iterator[str]:
    """Every ``description`` at any depth."""
    if isinstance(value, dict):
        for name, member in value.items():
            if name == "description" and isinstance(member, str):
                yield member
            yield from descriptions(member)
    elif isinstance(value, list):
        for member in value:
            yield from descriptions(member)

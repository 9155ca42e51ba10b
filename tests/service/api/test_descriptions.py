"""What the OpenAPI documents say is for readers of the API, and never a handler's own docstring."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import service as service_package
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


@pytest.mark.parametrize("port", ["service", "admin"])
def test_every_operation_has_a_summary_and_a_description_that_is_no_docstring(
    service: Service, port: str
) -> None:
    at = service.port if port == "service" else service.admin_port
    paths = httpx.get(f"http://127.0.0.1:{at}/openapi.json", trust_env=False).json()["paths"]
    operations = [operation for methods in paths.values() for operation in methods.values()]
    internal = docstrings()
    assert len(internal) > 500
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert operation["description"] not in internal
        assert operation["summary"] not in internal
    if port == "service":
        assert {*SCORING} <= set(paths)


def docstrings() -> set[str]:
    """Of every function and class of the service."""
    return {
        docstring
        for path in Path(service_package.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if (docstring := ast.get_docstring(node))
    }


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

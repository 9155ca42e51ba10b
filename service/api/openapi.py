"""Parts of the OpenAPI document that several routes share."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from feature_store.contract import MAX_ID
from service.api.problems import MEDIA_TYPE
from service.api.score_models import ProblemDocument


def problem(document: type[ProblemDocument] = ProblemDocument) -> dict[str, Any]:
    return {
        "description": "A problem document (RFC 9457)",
        "content": {MEDIA_TYPE: {"schema": document.model_json_schema()}},
    }


def exact_bounds(app: FastAPI) -> None:
    """Write the bounds of integers as integers: the framework makes floats of them, and 2⁶³−1,
    the largest id, becomes 2⁶³."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _exact(generate())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _exact(node: Any) -> None:
    if isinstance(node, list):
        for child in node:
            _exact(child)
    if not isinstance(node, dict):
        return
    if node.get("type") == "integer":
        for bound in ("minimum", "maximum"):
            if isinstance(node.get(bound), float):
                node[bound] = min(int(node[bound]), MAX_ID)
    for child in node.values():
        _exact(child)

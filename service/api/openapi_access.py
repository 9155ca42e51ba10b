"""Adds access to the OpenAPI document: 401, 403 and the API key."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from service.access.middleware import KEYLESS
from service.api.embedding_models import EmbeddingsProblem
from service.api.openapi import problem
from service.api.problems import EMBEDDINGS, is_oip
from service.api.score_models import ProblemDocument
from service.context import PROBES
from service.settings import Settings, api_keys

SCHEME = "API key"


def document_access(app: FastAPI, settings: Settings, oip_error: dict[str, Any]) -> None:
    """Add 401, 403 and the key to the operations that need them."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(generate(), oip_error, keys=bool(api_keys(settings.api_keys)))
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any], oip_error: dict[str, Any], *, keys: bool) -> None:
    if keys:
        bearer = {"type": "http", "scheme": "bearer", "description": "One of QIN_API_KEYS."}
        document.setdefault("components", {})["securitySchemes"] = {SCHEME: bearer}
    for path, operations in document["paths"].items():
        form = EmbeddingsProblem if path == EMBEDDINGS else ProblemDocument
        refusal = oip_error if is_oip(path) else problem(form)
        for operation in operations.values():
            responses = operation["responses"]
            if path not in PROBES:
                responses.setdefault("403", refusal)
            if keys and path not in KEYLESS:
                responses.setdefault("401", refusal)
                operation["security"] = [{SCHEME: []}]

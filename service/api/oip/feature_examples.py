"""Adds examples with the active version's request features to the OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from feature_store.schema import Numeric
from service.api.gate import INFER, INFER_VERSION, SCORE
from service.api.id_kind import IdKind
from service.api.oip.id_tensors import IdTensors
from service.api.oip.inputs import DATATYPE, NUMBER
from service.api.oip.openapi import examples_of
from service.state import ServiceState

NAME = "with request features"
Examples = dict[str, Any]


def exemplify_features(app: FastAPI, state: ServiceState, ids: IdKind, tensors: IdTensors) -> None:
    """Give scoring operations one more example while the active version has request features."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        active = state.registry.active
        features = {} if active is None else _features(active.schema.request)
        _set(document, SCORE, _with(ids.request_examples, features, {"features": features}))
        inputs = [_tensor(*one) for one in features.items()]
        plain = examples_of(tensors)
        given = next(iter(plain.values()))["value"]["inputs"]
        for path in (INFER, INFER_VERSION):
            _set(document, path, _with(plain, features, {"inputs": [*given, *inputs]}))
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _features(wanted: Any) -> dict[str, int | float]:
    return {one.name: 0.5 if isinstance(one, Numeric) else 1 for one in wanted}


def _with(examples: Examples, features: Examples, more: Examples) -> Examples:
    """Add the first one with ``more`` members, if there are features."""
    if not features:
        return examples
    first = next(iter(examples.values()))["value"]
    return {**examples, NAME: {"value": {**first, **more}}}


def _tensor(name: str, value: float) -> dict[str, Any]:
    datatype = NUMBER if isinstance(value, float) else DATATYPE
    return {"name": name, "shape": [1], "datatype": datatype, "data": [value]}


def _set(document: dict[str, Any], path: str, examples: Examples) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    content["application/json"]["examples"] = examples

"""The protocol's parts of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.oip.id_tensors import IdTensors
from service.api.oip.message import BINARY, JSON, LENGTH_HEADER, TEXTS
from service.api.score_models import REQUEST_HEADERS
from service.state import ServiceState

EXAMPLE = {
    "inputs": [
        {"name": "user_id", "shape": [1], "datatype": "INT64", "data": [7]},
        {"name": "item_id", "shape": [3], "datatype": "INT64", "data": [17, 4, 99]},
    ]
}

TEXT_EXAMPLE = {
    "inputs": [
        {"name": "user_id", "shape": [1], "datatype": TEXTS, "data": ["u-7"]},
        {"name": "item_id", "shape": [2], "datatype": TEXTS, "data": ["sku:17", "sku:4"]},
    ]
}


class ErrorAnswer(BaseModel):
    """Error response of the protocol's routes."""

    model_config = ConfigDict(extra="forbid")
    error: str


class OutputTensor(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: Annotated[
        list[float] | list[bool] | None, Field(description="Or binary_data_size, in parameters.")
    ] = None


class InferAnswer(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    model_name: str
    model_version: str
    id: str | None = None
    parameters: Annotated[
        dict[str, bool | int | str] | None, Field(description="What was not ordinary.")
    ] = None
    outputs: list[OutputTensor]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses of a route."""
    return {status: {"model": ErrorAnswer, "description": "The error"} for status in statuses}


def error_document() -> dict[str, Any]:
    """``errors`` for operations that are documented already."""
    return {
        "description": "The error",
        "content": {JSON: {"schema": ErrorAnswer.model_json_schema()}},
    }


def parameters_of(path: str, state: ServiceState) -> list[dict[str, Any]]:
    """The parts of a path that are in braces."""
    schemas = {
        "model": {"type": "string", "enum": [state.settings.model_name]},
        "version": {"type": "string", "maxLength": 64},
    }
    return [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in schemas.items()
        if f"{{{name}}}" in path
    ]


def infer_documented(parameters: list[dict[str, Any]], tensors: IdTensors) -> dict[str, Any]:
    """Arguments of ``app.post`` for the inference routes."""
    blobs = {"schema": {"type": "string", "format": "binary"}}
    schema = tensors.documented.model_json_schema()
    inlined = _inlined(schema, schema.pop("$defs"))
    json = {"schema": inlined, "examples": examples_of(tensors)}
    length = {"name": LENGTH_HEADER, "in": "header", "schema": {"type": "string"}}
    length["description"] = "Bytes of JSON before the tensors' own."
    return {
        "response_model": InferAnswer,
        "responses": {
            200: {"content": {BINARY: blobs}},
            **errors(400, 404, 413, 415, 429, 500, 503, 504),
        },
        "openapi_extra": {
            "parameters": [*parameters, *REQUEST_HEADERS, length],
            "requestBody": {"required": True, "content": {JSON: json, BINARY: blobs}},
        },
    }


def examples_of(tensors: IdTensors) -> dict[str, Any]:
    example = TEXT_EXAMPLE if tensors.datatype == TEXTS else EXAMPLE
    return {"stored history": {"value": example}}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """References are resolved: the document has no place of ours to refer to."""
    match node:
        case {"$ref": str() as reference}:
            return _inlined(definitions[reference.rpartition("/")[2]], definitions)
        case dict():
            return {name: _inlined(child, definitions) for name, child in node.items()}
        case list():
            return [_inlined(child, definitions) for child in node]
    return node

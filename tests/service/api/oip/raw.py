"""Requests made by hand, so that they can be wrong."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import orjson

INFER = "/v2/models/qin/infer"
LENGTH = "Inference-Header-Content-Length"


def ids(*values: int) -> bytes:
    return np.array(values, "<i8").tobytes()


def blob(name: str, count: int, size: Any = None, **changed: Any) -> dict[str, Any]:
    """A tensor whose values are behind the JSON."""
    parameters = {"binary_data_size": 8 * count if size is None else size}
    made = {"name": name, "shape": [count], "datatype": "INT64", "parameters": parameters}
    return made | changed


def listed(name: str, values: Any, **changed: Any) -> dict[str, Any]:
    """A tensor whose values are in the JSON."""
    made = {"name": name, "shape": [len(values)], "datatype": "INT64", "data": values}
    return made | changed


def body(*inputs: dict[str, Any], **members: Any) -> bytes:
    return orjson.dumps({"inputs": inputs, **members})


def post(
    client: httpx.Client,
    header: bytes,
    blobs: bytes = b"",
    length: str | None = None,
    **headers: str,
) -> httpx.Response:
    """``header``: the JSON; ``length``: its own, when it is to be another than it is."""
    if blobs or length is not None:
        headers[LENGTH] = str(len(header)) if length is None else length
    return client.post(INFER, content=header + blobs, headers=headers)


def refused(answer: httpx.Response, status: int = 400) -> str:
    """What the one member of the refusal says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    content = answer.json()
    assert list(content) == ["error"]
    return str(content["error"])

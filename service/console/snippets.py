"""Writes a request of the page Try it for other programs: curl, Python, tritonclient."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import orjson

from service.access.hosts import authority
from service.settings import Settings, api_keys, reached_at

PYTHON = """\
from service.client import Client

with Client({url!r}{key}) as client:
    answer = client.score({arguments})
    print(answer.scores.tolist())
"""
TRITON = """\
import numpy as np
import tritonclient.http as http

user = np.array([{user}], {kind})
candidates = np.array({candidates}, {kind})
inputs = [
    http.InferInput("user_id", [1], "{datatype}"),
    http.InferInput("item_id", [len(candidates)], "{datatype}"),
]
inputs[0].set_data_from_numpy(user)
inputs[1].set_data_from_numpy(candidates)
client = http.InferenceServerClient({host!r})
answer = client.infer({model!r}, inputs{version})
print(answer.as_numpy("score").tolist())
"""


def snippets(settings: Settings, request: Mapping[str, Any], *, mapped: bool) -> dict[str, str]:
    """Write the request by program. Ids that are numbers are written as numbers."""
    body = dict(request) if mapped else numbered(request)
    host = f"{authority(reached_at(settings.host))}:{settings.port}"
    url, has_keys = f"http://{host}", bool(api_keys(settings.api_keys))
    named = orjson.dumps(body).decode()
    key = ' -H "Authorization: Bearer $QIN_API_KEY"' if has_keys else ""
    curl = (
        f"curl -s {url}/v1/score -H 'Content-Type: application/json'{key} \\\n  "
        f"-d {shlex.quote(named)}"
    )
    arguments = [repr(body["user_id"]), repr(body["candidates"])]
    arguments += [f"{k}={v!r}" for k, v in body.items() if k not in ("user_id", "candidates")]
    python_key = ', api_key=os.environ["QIN_API_KEY"]' if has_keys else ""
    python = PYTHON.format(url=url, key=python_key, arguments=", ".join(arguments))
    version = request.get("model_version")
    triton = TRITON.format(
        user=repr(body["user_id"]),
        candidates=repr(body["candidates"]),
        kind="object" if mapped else "np.int64",
        datatype="BYTES" if mapped else "INT64",
        host=host,
        model=settings.model_name,
        version=f", model_version={version!r}" if version else "",
    )
    return {
        "curl": curl,
        "Python": ("import os\n\n" if has_keys else "") + python,
        "tritonclient": triton,
    }


def numbered(request: Mapping[str, Any]) -> dict[str, Any]:
    """``request`` with whole numbers in place of ids in decimal."""
    lists = {n: [int(i) for i in request[n]] for n in ("candidates", "history") if n in request}
    return {**request, "user_id": int(request["user_id"]), **lists}

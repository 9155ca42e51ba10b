"""Writes a request of the page Try it for other programs: curl, Python, tritonclient.

Each gets the scores that the page shows, to the bit.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import orjson

from feature_store.schema import FeatureSchema, Numeric
from service.access.hosts import authority
from service.settings import Settings, api_keys, reached_at

KEY = "QIN_API_KEY"
PYTHON = """\
{imports}from service.client import Client

with Client({url!r}{key}) as client:
    answer = client.score({arguments})
    print(answer.scores.tolist())
"""
TRITON = """\
{imports}import numpy as np
import tritonclient.http as http
from tritonclient.utils import np_to_triton_dtype

values = {{
{values}
}}
inputs = []
for name, array in values.items():
    inputs.append(http.InferInput(name, [len(array)], np_to_triton_dtype(array.dtype)))
    inputs[-1].set_data_from_numpy(array)
client = http.InferenceServerClient({host!r})
answer = client.infer({model!r}, inputs{options})
print(answer.as_numpy("score").tolist())
"""


def snippets(
    settings: Settings, request: Mapping[str, Any], schema: FeatureSchema, *, mapped: bool
) -> dict[str, str]:
    """Write the request by program. Ids that are numbers are written as numbers.

    ``schema``: of the version that answers; it has the kinds of the request features.
    """
    asked = dict(request) if mapped else numbered(request)
    body = {**asked, "features": typed(asked["features"], schema)} if "features" in asked else asked
    host = f"{authority(reached_at(settings.host))}:{settings.port}"
    has_keys = bool(api_keys(settings.api_keys))
    imports = "import os\n\n" if has_keys else ""
    arguments = [repr(body["user_id"]), repr(body["candidates"])]
    arguments += [f"{k}={v!r}" for k, v in body.items() if k not in ("user_id", "candidates")]
    python = PYTHON.format(
        imports=imports,
        url=f"http://{host}",
        key=f', api_key=os.environ["{KEY}"]' if has_keys else "",
        arguments=", ".join(arguments),
    )
    version = body.get("model_version")
    bearer = f'headers={{"Authorization": f"Bearer {{os.environ[{KEY!r}]}}"}}'
    options = [f"model_version={version!r}"] if version else []
    triton = TRITON.format(
        imports=imports,
        values="\n".join(f"    {name!r}: {array}," for name, array in arrays(body, mapped=mapped)),
        host=host,
        model=settings.model_name,
        options="".join(f", {one}" for one in [*options, *([bearer] if has_keys else [])]),
    )
    curl = _curl(f"http://{host}", asked, has_keys)
    return {"curl": curl, "Python": python, "tritonclient": triton}


def _curl(url: str, body: Mapping[str, Any], has_keys: bool) -> str:
    key = f' -H "Authorization: Bearer ${KEY}"' if has_keys else ""
    return (
        f"curl -s {url}/v1/score -H 'Content-Type: application/json'{key} \\\n  "
        f"-d {shlex.quote(orjson.dumps(body).decode())}"
    )


def numbered(request: Mapping[str, Any]) -> dict[str, Any]:
    """``request`` with whole numbers in place of ids in decimal."""
    lists = {n: [int(i) for i in request[n]] for n in ("candidates", "history") if n in request}
    return {**request, "user_id": int(request["user_id"]), **lists}


def typed(features: Mapping[str, Any], schema: FeatureSchema) -> dict[str, Any]:
    """Those of the version's request features that are given, numbers as floats: tensors tell them
    from indices."""
    given = {one.name: features[one.name] for one in schema.request if one.name in features}
    numbers = {one.name for one in schema.request if isinstance(one, Numeric)}
    return {
        name: float(value) if name in numbers else value
        for name, value in given.items()
        if value is not None
    }


def arrays(body: Mapping[str, Any], *, mapped: bool) -> list[tuple[str, str]]:
    """The tensors of a request by name, as numpy arrays in Python."""
    kind = "object" if mapped else "np.int64"
    ids = {"user_id": [body["user_id"]], "item_id": body["candidates"]}
    if "history" in body:
        ids["history"] = body["history"]
    found = [(name, f"np.array({values!r}, {kind})") for name, values in ids.items()]
    for name, value in body.get("features", {}).items():
        of_value = "np.float32" if isinstance(value, float) else "np.int64"
        found.append((name, f"np.array([{value!r}], {of_value})"))
    return found

"""Finds the kind of a service's ids, and refuses recorded requests of the other kind.

The Open Inference Protocol's model metadata says it: ids are INT64 tensors, or BYTES where the
service's store is mapped. A service without these routes is taken for either kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from loadtest.target import Target

if TYPE_CHECKING:
    from feature_store.options import IdKind

TIMEOUT = 2.0  # seconds
USUAL_MODEL = "qin"
KINDS: dict[str, IdKind] = {"INT64": "numeric", "BYTES": "mapped"}
Headers = Mapping[str, str]


def id_kind(target: Target, api_key: str = "") -> IdKind | None:
    """Ask the service for the datatype of ``user_id``; None if it does not say."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        try:
            metadata = _get(target, f"/v2/models/{USUAL_MODEL}", headers)
        except LookupError:
            metadata = _get(target, f"/v2/models/{_model(target, headers)}", headers)
        types = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
        return KINDS.get(types["user_id"])
    except (OSError, LookupError, TypeError, ValueError):
        return None


def _model(target: Target, headers: Headers) -> str:
    """Return the name of the service's only model, from its OpenAPI document."""
    document = _get(target, "/openapi.json", headers)
    parameters = document["paths"]["/v2/models/{model}/infer"]["post"]["parameters"]
    names: dict[str, list[str]] = {one["name"]: one["schema"].get("enum") for one in parameters}
    return names["model"][0]


def _get(target: Target, path: str, headers: Headers) -> Any:
    """Return a JSON document. LookupError for another status than 200."""
    status, body = target.call("GET", path, headers, TIMEOUT)
    if status != 200:
        raise LookupError(path)
    return orjson.loads(body)

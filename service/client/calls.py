"""Encodes the client's calls as bytes, and decodes replies as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf, isnan
from struct import pack
from typing import Any, Literal, NamedTuple, TypedDict
from urllib.parse import quote

import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray

from service.client.retry import Call, ClientError, Reply, beginning

LENGTH_HEADER = "Inference-Header-Content-Length"
BINARY, JSON = "application/octet-stream", "application/json"
SIZE = "binary_data_size"
OUTPUTS = ("score", "known")
INT64_MAX = 2**63 - 1
DTYPES = {"FP32": np.dtype("<f4"), "BOOL": np.dtype(np.bool_)}
Ids = ArrayLike | Sequence[str]  # integers; strings where the service's ids are texts


# User feature -> a value as an item's: an integer, a list of them, or numbers.
UserFeatures = Mapping[str, Any]
# Request feature -> an index (int), or a number (float); None or NaN: missing.
Features = Mapping[str, int | float | np.integer[Any] | np.floating[Any] | None]


class Options(TypedDict, total=False):
    """Optional parts of a score call."""

    history: Ids  # item ids, oldest first, instead of the stored history
    context: Mapping[str, ArrayLike]  # feature -> one value per item
    features: Features  # of the request
    model_version: str  # by this version (or `active`, `previous`) only
    priority: Literal["online", "batch"]
    request_id: str  # appears in the service's log


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """An answer, parallel to the given items."""

    scores: NDArray[np.float32]  # (C,) probabilities; 0 where not known
    known: NDArray[np.bool_]  # (C,) whether the store has a readable record
    model_version: str
    request_id: str
    notes: Mapping[str, Any]  # cold user, unknown items, …: see docs/http-api.md


class InlineItem(TypedDict, total=False):
    """An item that is in no store."""

    name: str  # no other candidate's
    text: Mapping[str, str]  # language -> text
    vectors: Mapping[str, ArrayLike]  # others that the encoder's map takes
    features: Mapping[str, Any]  # by name, as an item's


class Tensor(NamedTuple):
    """An input of shape [size]."""

    datatype: str
    size: int
    content: bytes

    @classmethod
    def numbers(cls, name: str, values: ArrayLike) -> Tensor:
        array = _int64(name, values)
        return cls("INT64", len(array), array.tobytes())

    @classmethod
    def feature(cls, name: str, value: Any) -> Tensor | None:
        """Of a request feature: an index or a number. None if it is missing."""
        if value is None or (isinstance(value, float | np.floating) and isnan(value)):
            return None
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            return cls("INT64", 1, int(value).to_bytes(8, "little", signed=True))
        if not isinstance(value, float | np.floating):
            raise TypeError(f"features: {name}: must be an int (an index), a float or None")
        return cls("FP32", 1, pack("<f", value))

    @classmethod
    def ids(cls, user_id: int | str, name: str, values: Any) -> Tensor:
        """Of the kind that the user's id is: numbers, or texts, each after its length."""
        ids = _ids(user_id, name, values)
        if not isinstance(ids, list):
            return cls("INT64", len(ids), ids.tobytes())
        encoded = [text.encode() for text in ids]
        content = b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
        return cls("BYTES", len(encoded), content)


def score_call(
    model: str,
    user_id: int | str,
    item_ids: Ids,
    *,
    history: Ids | None = None,
    context: Mapping[str, ArrayLike] | None = None,
    features: Features | None = None,
    model_version: str | None = None,
    priority: str | None = None,
    request_id: str | None = None,
) -> Call:
    """ValueError or TypeError for invalid arguments."""
    tensors = {
        "user_id": Tensor.ids(user_id, "user_id", [user_id]),
        "item_id": Tensor.ids(user_id, "item_ids", item_ids),
    }
    if history is not None:
        tensors["history"] = Tensor.ids(user_id, "history", history)
    if taken := {"user_id", "item_id", "history"} & set(context or {}):
        raise ValueError(f"context: {', '.join(sorted(taken))} cannot be context features")
    tensors |= {name: Tensor.numbers(name, values) for name, values in (context or {}).items()}
    if taken := (features or {}).keys() & tensors:
        raise ValueError(f"features: {', '.join(sorted(taken))} cannot be request features")
    for name, value in (features or {}).items():
        try:
            tensor = Tensor.feature(name, value)
        except OverflowError:
            raise ValueError(f"features: {name}: beyond the range of its type") from None
        if tensor is not None:
            tensors[name] = tensor
    header = {
        "inputs": [
            {
                "name": name,
                "shape": [tensor.size],
                "datatype": tensor.datatype,
                "parameters": {SIZE: len(tensor.content)},
            }
            for name, tensor in tensors.items()
        ],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in OUTPUTS],
    }
    content = orjson.dumps(header)
    body = b"".join([content, *(tensor.content for tensor in tensors.values())])
    headers = {LENGTH_HEADER: str(len(content)), **_headers(BINARY, priority, request_id)}
    version = "" if model_version is None else f"/versions/{quote(model_version, safe='')}"
    path = f"/v2/models/{quote(model, safe='')}{version}/infer"
    return Call("POST", path, body, headers, safe=True)


def score_inline_call(
    user_id: int | str,
    candidates: Sequence[int | str | InlineItem],
    *,
    history: Ids | None = None,
    context: Mapping[str, ArrayLike] | None = None,
    features: Features | None = None,
    model_version: str | None = None,
    priority: str | None = None,
    request_id: str | None = None,
) -> Call:
    """As ``score_call``, of candidates some of which are inline, as JSON."""
    content: dict[str, Any] = {"user_id": user_id, "candidates": list(candidates)}
    if history is not None:
        content["history"] = _ids(user_id, "history", history)
    if context:
        content["context"] = {name: _int64(name, values) for name, values in context.items()}
    if features:
        for name, value in features.items():  # JSON has no infinity: it would be null, so missing
            if isinstance(value, float | np.floating) and isinf(value):
                raise ValueError(f"features: {name}: beyond the range of its type")
        content["features"] = dict(features)
    if model_version is not None:
        content["model_version"] = model_version
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Call("POST", "/v1/score", body, _headers(JSON, priority, request_id), safe=True)


def _headers(kind: str, priority: str | None, request_id: str | None) -> dict[str, str]:
    headers = {"Content-Type": kind}
    for option, name, value in (
        ("priority", "X-Priority", priority),
        ("request_id", "X-Request-Id", request_id),
    ):
        if value is not None:
            if not isinstance(value, str):
                raise TypeError(f"{option}: must be a string")
            if not (value.isascii() and value.isprintable()):
                raise ValueError(f"{option}: must be printable ASCII, got {value[:50]!r}")
            headers[name] = value
    return headers


def read_inline_scores(reply: Reply) -> Scores:
    """Read an answer of ``score_inline_call``: names are in ``notes["item_ids"]``."""
    try:
        message = orjson.loads(reply.body)
        scores = message.pop("scores")
        known = np.array([score is not None for score in scores], np.bool_)
        numbers = np.array([score or 0.0 for score in scores], np.float32)
        version, request_id = message.pop("model_version"), message.pop("request_id")
        return Scores(numbers, known, version, request_id, message)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ClientError(f"invalid answer: {error!r}") from error


def read_scores(reply: Reply) -> Scores:
    try:
        length = int(reply.headers[LENGTH_HEADER.lower()])
        message = orjson.loads(reply.body[:length])
        arrays, at = {}, length
        for output in message["outputs"]:
            dtype, (count,) = DTYPES[output["datatype"]], output["shape"]
            arrays[output["name"]] = np.frombuffer(reply.body, dtype, count, at)
            at += count * dtype.itemsize
        return Scores(
            arrays["score"],
            arrays["known"],
            message["model_version"],
            reply.headers.get("x-request-id", ""),
            message.get("parameters", {}),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ClientError(f"invalid answer: {error!r}") from error


def click_call(user_id: int | str, item_ids: Ids, *, key: str | None = None) -> Call:
    """Build the call that sends clicks, oldest first. With a ``key`` the service applies them once
    and it may be retried; without one it is not retried once it may have arrived."""
    content: dict[str, Any] = {"user_id": user_id, "item_ids": _ids(user_id, "item_ids", item_ids)}
    if key is not None:
        content["key"] = key
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Call("POST", "/v1/events", body, {"Content-Type": JSON}, safe=key is not None)


def read_click(reply: Reply) -> bool:
    """False: accepted before under the same key."""
    try:
        return bool(orjson.loads(reply.body)["applied"])
    except (KeyError, ValueError, TypeError) as error:
        raise ClientError(f"invalid answer: {error!r}") from error


def read_written(reply: Reply) -> None:
    """Read the answer to a write of a user's record, which is empty."""
    if reply.status != 204:
        raise ClientError(f"invalid answer: {reply.status} in place of 204: {beginning(reply)}")


def put_user_call(user_id: int | str, features: UserFeatures) -> Call:
    return _user_call("PUT", user_id, features)


def patch_user_call(user_id: int | str, features: UserFeatures) -> Call:
    return _user_call("PATCH", user_id, features)


def delete_user_call(user_id: int | str) -> Call:
    return Call("DELETE", _user_path(user_id), b"", {}, safe=False)


def _user_call(method: str, user_id: int | str, features: UserFeatures) -> Call:
    body = orjson.dumps(features, option=orjson.OPT_SERIALIZE_NUMPY)
    return Call(method, _user_path(user_id), body, {"Content-Type": JSON}, safe=True)


def _user_path(user_id: int | str) -> str:
    _ids(user_id, "user_id", [user_id])
    return f"/v1/users/{quote(str(user_id), safe='')}"


def ready_call() -> Call:
    return Call("GET", "/readyz", b"", {}, safe=True)


def read_ready(reply: Reply) -> bool:
    """Read the answer of the service: a page of whatever else listens there is none."""
    try:
        return bool(orjson.loads(reply.body)["status"] == "ready")
    except (KeyError, ValueError, TypeError) as error:
        raise ClientError(f"invalid answer: {error!r}") from error


def _ids(user_id: int | str, name: str, values: Any) -> NDArray[np.int64] | list[str]:
    """Numbers, or texts if the user's id is one. TypeError names both arguments."""
    if isinstance(user_id, str):
        texts = None if isinstance(values, str) else list(values)
        if texts is None or not all(isinstance(text, str) for text in texts):
            raise TypeError(
                f"{name}: must be a list of strings, as user_id is one; "
                "where ids are numbers, give both as integers"
            )
        return [str(text) for text in texts]  # of numpy's own type, too
    if not isinstance(user_id, int | np.integer) or isinstance(user_id, bool):
        raise TypeError("user_id: must be an integer or a string")
    try:
        return _int64(name, values)
    except TypeError as error:
        raise TypeError(
            f"{error}, as user_id is one; where ids are texts, give both as strings"
        ) from None


def _int64(name: str, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind == "O" and any(isinstance(v, int) and v > INT64_MAX for v in array.flat):
        raise ValueError(f"{name}: must be at most 2**63 - 1")
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"{name}: must be a list of integers")
    if array.dtype.kind == "u" and array.size and array.max() > INT64_MAX:
        raise ValueError(f"{name}: must be at most 2**63 - 1")
    return np.ascontiguousarray(array, dtype="<i8")

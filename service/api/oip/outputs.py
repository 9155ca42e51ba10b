"""From a ``ScoreResult`` to the requested outputs, as JSON or blobs.

``score`` (FP32) has no null: an item without a readable record is 0 there and false in ``known``.
The parameters count such items, cold items and what else the answer had to do without.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from feature_store.contract import CORRUPT, FOUND, MISSING
from service.api.oip.checks import SIZE
from service.api.oip.message import BINARY as BINARY_TYPE
from service.api.oip.message import JSON, LENGTH_HEADER, InferRequest, RequestedOutput
from service.api.responses import RawHeaders
from service.errors import InvalidField
from service.scoring.result import ScoreResult

SCORE, KNOWN = "score", "known"
LITTLE_ENDIAN = np.dtype("<f4")
DATATYPES = {SCORE: "FP32", KNOWN: "BOOL"}
BYTES = {"FP32": 4, "BOOL": 1}
BINARY, BINARY_ALL = "binary_data", "binary_data_output"
JSON_HEADERS = ((b"content-type", JSON.encode()),)
BINARY_HEADER, LENGTH = (b"content-type", BINARY_TYPE.encode()), LENGTH_HEADER.lower().encode()
UNSUPPORTED = ("classification", "shared_memory_region")


class OutputSpec(NamedTuple):
    """A requested output, and whether its values are binary."""

    name: str
    binary: bool


def wanted_outputs(message: InferRequest) -> list[OutputSpec]:
    """Requested outputs in their order; all when none is named."""
    everywhere = _flag(message.given(), BINARY_ALL, False)
    if not message.outputs:
        return [OutputSpec(name, everywhere) for name in DATATYPES]
    found: dict[str, OutputSpec] = {}
    for output in message.outputs:
        if output.name not in DATATYPES:
            known = ", ".join(DATATYPES)
            raise InvalidField.of("outputs", output.name, detail=f"no such output; there: {known}")
        if output.name in found:
            raise InvalidField.of("outputs", output.name, detail="asked for more than once")
        found[output.name] = _wanted(output, everywhere)
    return list(found.values())


def _wanted(output: RequestedOutput, everywhere: bool) -> OutputSpec:
    parameters = output.parameters or {}
    for name in UNSUPPORTED:
        if name in parameters:
            raise InvalidField.of("outputs", output.name, name, detail="there is none here")
    return OutputSpec(output.name, _flag(parameters, BINARY, everywhere, "outputs", output.name))


def _flag(parameters: dict[str, Any], name: str, default: bool, *place: str) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidField.of(*place, "parameters", name, detail="true or false")
    return value


def response(
    answer: ScoreResult,
    wanted: tuple[OutputSpec, ...],
    members: dict[str, Any],
    ignored: Sequence[str],
) -> tuple[bytes, RawHeaders]:
    """Body and headers. ``members`` are those of the whole answer: model, version, id."""
    count = len(answer.scores)
    blobs = [_blob(answer, output.name) for output in wanted if output.binary]
    if notes := _notes(answer, ignored):
        members["parameters"] = notes
    if len(blobs) == len(wanted):
        members["outputs"] = _all_blobs(wanted, count)
    else:
        tensors = members["outputs"] = [_tensor(output, count) for output in wanted]
        for output, tensor in zip(wanted, tensors, strict=True):
            if not output.binary:
                tensor["data"] = _values(answer, output.name)
    json = orjson.dumps(members, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return json, JSON_HEADERS
    return b"".join([json, *blobs]), (BINARY_HEADER, (LENGTH, b"%d" % len(json)))


@lru_cache(maxsize=256)
def _all_blobs(wanted: tuple[OutputSpec, ...], count: int) -> orjson.Fragment:
    """The JSON of outputs whose values are all in blobs; it repeats, so it is cached."""
    return orjson.Fragment(orjson.dumps([_tensor(output, count) for output in wanted]))


def _tensor(output: OutputSpec, count: int) -> dict[str, Any]:
    datatype = DATATYPES[output.name]
    tensor: dict[str, Any] = {"name": output.name, "datatype": datatype, "shape": [count]}
    if output.binary:
        tensor["parameters"] = {SIZE: count * BYTES[datatype]}
    return tensor


def _blob(answer: ScoreResult, name: str) -> bytes:
    if answer.complete:
        return b"\1" * len(answer.scores) if name == KNOWN else _little(answer.scores).tobytes()
    return _values(answer, name).tobytes()


def _values(answer: ScoreResult, name: str) -> NDArray[Any]:
    """(C,) little-endian."""
    scores = answer.scores
    if name == KNOWN or not answer.complete:
        known: NDArray[np.bool_] = answer.status == FOUND
        if name == KNOWN:
            return known
        scores = np.where(known, scores, np.float32(0))
    return _little(scores)


def _little(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return scores if scores.dtype == LITTLE_ENDIAN else scores.astype(LITTLE_ENDIAN)


def _notes(answer: ScoreResult, ignored: Sequence[str]) -> dict[str, bool | int | str]:
    """Count what ``/v1/score`` lists: parameters of the protocol cannot be lists."""
    notes: dict[str, bool | int | str] = {
        "cold_user": answer.cold_user,
        "cold_items": answer.cold_count,
        "without_content": answer.lacking_count,
        "ignored": ", ".join((*ignored, *answer.ignored)),
    }
    if not answer.complete or answer.history_lost:
        notes |= {
            "unknown_items": answer.count(MISSING),
            "unreadable_items": answer.count(CORRUPT),
            "history_dropped": answer.history_dropped,
            "degraded": ", ".join(answer.degraded),
        }
    if answer.defaulted:
        notes["defaulted"] = ", ".join(answer.defaulted)
    return {name: note for name, note in notes.items() if note}

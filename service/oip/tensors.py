"""From a request's input tensors to a question.

Ids in a blob are read in place (``np.frombuffer``) and never become Python integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feature_store.contract import MAX_ID, Ids
from feature_store.schema import MAX_HISTORY
from service.errors import InvalidField
from service.oip.binary import Blobs
from service.oip.message import InferRequest, InputTensor
from service.question import Question

USER, ITEMS, HISTORY = "user_id", "item_id", "history"
DATATYPE, LITTLE_ENDIAN, BYTES = "INT64", np.dtype("<i8"), 8
SIZE = "binary_data_size"
UNSUPPORTED = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
LARGEST_INDEX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Declared:
    """An input of shape [count]: its values, or how many bytes of the blobs they are."""

    name: str
    count: int
    size: int
    values: Ids | None

    def read(self, body: bytes, blobs: Blobs) -> Ids:
        """(count,)"""
        if self.values is not None:
            return self.values
        start = blobs.take(self.name, self.size)
        return np.frombuffer(body, LITTLE_ENDIAN, self.count, start).copy()  # aligned


def declared(message: InferRequest) -> tuple[Declared, ...]:
    """In the order of the blobs. InvalidField names the tensor."""
    found: dict[str, Declared] = {}
    for tensor in message.inputs:
        if tensor.name in found:
            raise InvalidField.of("inputs", tensor.name, detail="given more than once")
        found[tensor.name] = _declared(tensor)
    return tuple(found.values())


def question_of(
    inputs: Sequence[Declared], body: bytes, start: int, most_candidates: int
) -> Question:
    """``body[start:]`` holds the blobs. InvalidField names the tensor."""
    blobs = Blobs(body, start)
    tensors = {one.name: one.read(body, blobs) for one in inputs}
    blobs.end()

    user, items, history = (tensors.pop(name, None) for name in (USER, ITEMS, HISTORY))
    user, items = _required(USER, user), _required(ITEMS, items)
    _sized(USER, user, 1, 1)
    _sized(ITEMS, items, 1, most_candidates)
    if history is not None:
        _sized(HISTORY, history, 0, MAX_HISTORY)
        _within(HISTORY, history)
    return Question(
        user_id=_user(user),
        candidates=_within(ITEMS, items),
        history=None if history is None else history[::-1],  # newest first
        context={
            name: _within(name, values, LARGEST_INDEX).astype(np.int32)
            for name, values in tensors.items()
        },
    )


def _declared(tensor: InputTensor) -> Declared:
    name, parameters = tensor.name, tensor.parameters or {}
    if tensor.datatype != DATATYPE:
        raise InvalidField.of("inputs", name, "datatype", detail=f"{DATATYPE}, as all inputs are")
    if len(tensor.shape) != 1:
        raise InvalidField.of("inputs", name, "shape", detail="one dimension, as all inputs have")
    for parameter in UNSUPPORTED:
        if parameter in parameters:
            raise InvalidField.of("inputs", name, parameter, detail="there is no shared memory")
    count, size = tensor.shape[0], parameters.get(SIZE)
    if size is None:
        return Declared(name, count, 0, _from_json(tensor, count))
    if tensor.data is not None:
        raise InvalidField.of("inputs", name, detail=f"data and {SIZE}: one of them")
    if type(size) is not int or size != count * BYTES:
        wanted = f"{count * BYTES} bytes, for shape [{count}] of {DATATYPE}"
        raise InvalidField.of("inputs", name, SIZE, detail=wanted)
    return Declared(name, count, size, None)


def _from_json(tensor: InputTensor, count: int) -> Ids:
    if tensor.data is None:
        raise InvalidField.of("inputs", tensor.name, detail=f"data or {SIZE}: one of them")
    if len(tensor.data) != count:
        detail = f"{len(tensor.data)} values for shape [{count}]"
        raise InvalidField.of("inputs", tensor.name, "data", detail=detail)
    return np.array(tensor.data, np.int64)


def _required(name: str, values: Ids | None) -> Ids:
    if values is None:
        raise InvalidField.of("inputs", name, detail="Field required")
    return values


def _sized(name: str, values: Ids, least: int, most: int) -> None:
    if not least <= len(values) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise InvalidField.of("inputs", name, "shape", detail=f"{wanted} of them")


def _user(values: Ids) -> int:
    user_id = int(values[0])
    if user_id < 0:
        _within(USER, values)  # says so
    return user_id


def _within(name: str, values: Ids, most: int | None = None) -> Ids:
    """Not negative, and at most ``most``: one look at the array, unless there is a fault."""
    # Without its sign a negative number is a huge one.
    limit, words = MAX_ID if most is None else most, values.view(np.uint64)
    if len(values) and np.maximum.reduce(words) > limit:
        beyond = words > limit
        wanted = "Input should be 0 or more" + ("" if most is None else f", at most {most}")
        raise InvalidField.of("inputs", name, int(np.argmax(beyond)), detail=wanted)
    return values

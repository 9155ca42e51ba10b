"""From a request's input tensors to a ``ScoreQuery``.

Names, types and shapes are in the JSON and checked with it, once for all requests that have the
same. The ids are in the blobs, read together and in place (``np.frombuffer``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

import numpy as np

from feature_store.contract import MAX_ID, Ids
from feature_store.schema import MAX_HISTORY
from model_export.bundle.vectors import Indices
from service.api.oip.message import InferRequest, InputTensor
from service.errors import InvalidField
from service.scoring.query import ScoreQuery

USER, ITEMS, HISTORY = "user_id", "item_id", "history"
DATATYPE, LITTLE_ENDIAN, BYTES = "INT64", np.dtype("<i8"), 8
SIZE = "binary_data_size"
UNSUPPORTED = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
LARGEST_INDEX = 2**31 - 1


Spec = TypeVar("Spec")


class Sized(Protocol):
    """An input of shape [count]."""

    @property
    def name(self) -> str: ...

    @property
    def count(self) -> int: ...


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input of shape [count]: its values, or where its blob is."""

    name: str
    count: int
    values: Ids | None
    at: int = 0  # numbers in the blobs before it

    def read(self, numbers: Ids) -> Ids:
        """(count,)"""
        return self.values if self.values is not None else numbers[self.at : self.at + self.count]

    def after(self) -> int:
        """Numbers in the blobs up to its end."""
        return self.at if self.values is not None else self.at + self.count


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs of a request, in the order of their blobs."""

    user: InputSpec
    items: InputSpec
    history: InputSpec | None
    context: tuple[InputSpec, ...]
    all: tuple[InputSpec, ...]

    @classmethod
    def of(cls, message: InferRequest, most_candidates: int) -> Inputs:
        """InvalidField names the tensor."""
        found: dict[str, InputSpec] = {}
        numbers = 0
        for tensor in message.inputs:
            if tensor.name in found:
                raise InvalidField.of("inputs", tensor.name, detail="given more than once")
            one = found[tensor.name] = _declared(tensor, numbers)
            numbers = one.after()
        everything = tuple(found.values())
        user, items = (required(name, found.pop(name, None)) for name in (USER, ITEMS))
        history = found.pop(HISTORY, None)
        sized(user, 1, 1)
        sized(items, 1, most_candidates)
        if history is not None:
            sized(history, 0, MAX_HISTORY)
        return cls(user, items, history, tuple(found.values()), everything)

    @property
    def in_blobs(self) -> bool:
        """Whether all values are in blobs."""
        return all(one.values is None for one in self.all)

    def numbers(self, body: bytes, start: int) -> Ids:
        """Read the blobs, which must be exactly ``body[start:]``."""
        count = self.all[-1].after()
        if len(body) - start != count * BYTES:
            self._refuse(len(body) - start)
        return np.frombuffer(body[start:], LITTLE_ENDIAN, count)  # cut off, so that it is aligned

    async def query(self, body: bytes, start: int) -> ScoreQuery:
        """``body[start:]`` holds the blobs. InvalidField names the tensor."""
        return query_of(self, body, start)

    def _refuse(self, size: int) -> NoReturn:
        for one in self.all:
            if one.after() * BYTES > size:
                detail = (
                    f"{SIZE} is {one.count * BYTES}, but {size - one.at * BYTES} bytes are left"
                )
                raise InvalidField.of("inputs", one.name, detail=detail)
        left = size - self.all[-1].after() * BYTES
        raise InvalidField.of("body", detail=f"{left} bytes behind the last tensor")


def query_of(inputs: Inputs, body: bytes, start: int) -> ScoreQuery:
    """``body[start:]`` holds the blobs. InvalidField names the tensor."""
    numbers, history = inputs.numbers(body, start), None
    if inputs.history is not None:
        history = within(HISTORY, inputs.history.read(numbers))[::-1]  # newest first
    return ScoreQuery(
        user_id=_user(inputs.user.read(numbers)),
        candidates=within(ITEMS, inputs.items.read(numbers)),
        history=history,
        context=_context(inputs.context, numbers) if inputs.context else {},
    )


def _context(columns: Sequence[InputSpec], numbers: Ids) -> dict[str, Indices]:
    return {
        one.name: within(one.name, one.read(numbers), LARGEST_INDEX).astype(np.int32)
        for one in columns
    }


def _declared(tensor: InputTensor, at: int) -> InputSpec:
    name, parameters = tensor.name, tensor.parameters or {}
    if tensor.datatype != DATATYPE:
        raise InvalidField.of("inputs", name, "datatype", detail=f"{DATATYPE}, as all inputs are")
    count, size = check_shape(tensor), parameters.get(SIZE)
    if size is None:
        return InputSpec(name, count, _from_json(tensor, count), at)
    if tensor.data is not None:
        raise InvalidField.of("inputs", name, detail=f"data and {SIZE}: one of them")
    if type(size) is not int or size != count * BYTES:
        wanted = f"{count * BYTES} bytes, for shape [{count}] of {DATATYPE}"
        raise InvalidField.of("inputs", name, SIZE, detail=wanted)
    return InputSpec(name, count, None, at)


def check_shape(tensor: InputTensor) -> int:
    """Return how many values there are. InvalidField."""
    if len(tensor.shape) != 1:
        detail = "one dimension, as all inputs have"
        raise InvalidField.of("inputs", tensor.name, "shape", detail=detail)
    for parameter in UNSUPPORTED:
        if parameter in (tensor.parameters or {}):
            detail = "there is no shared memory"
            raise InvalidField.of("inputs", tensor.name, parameter, detail=detail)
    return tensor.shape[0]


def _from_json(tensor: InputTensor, count: int) -> Ids:
    if tensor.data is None:
        raise InvalidField.of("inputs", tensor.name, detail=f"data or {SIZE}: one of them")
    if len(tensor.data) != count:
        detail = f"{len(tensor.data)} values for shape [{count}]"
        raise InvalidField.of("inputs", tensor.name, "data", detail=detail)
    return np.array(tensor.data, np.int64)


def required(name: str, declared: Spec | None) -> Spec:
    if declared is None:
        raise InvalidField.of("inputs", name, detail="Field required")
    return declared


def sized(declared: Sized, least: int, most: int) -> None:
    if not least <= declared.count <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise InvalidField.of("inputs", declared.name, "shape", detail=f"{wanted} of them")


def _user(values: Ids) -> int:
    user_id: int = values.item(0)
    if user_id < 0:
        within(USER, values)  # says so
    return user_id


def within(name: str, values: Ids, most: int | None = None) -> Ids:
    """Check that values are within 0 and ``most``, in one pass unless there is a fault."""
    # Without its sign a negative number is a huge one. (Of the ways to the largest, this is the
    # one that has least to set up.)
    limit, words = MAX_ID if most is None else most, values.view(np.uint64)
    if len(values) and words.item(words.argmax()) > limit:
        beyond = words > limit
        wanted = "Input should be 0 or more" + ("" if most is None else f", at most {most}")
        raise InvalidField.of("inputs", name, int(np.argmax(beyond)), detail=wanted)
    return values

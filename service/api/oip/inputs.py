"""From a request's input tensors to a ``ScoreQuery``.

Names, types and shapes are in the JSON and checked with it, once for all requests that have the
same. The numbers are in the blobs: those of INT64 are read together and in place
(``np.frombuffer``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import unpack_from
from typing import NoReturn

import numpy as np

from feature_store.contract import Ids
from feature_store.schema import MAX_HISTORY
from model_export.bundle.vectors import Indices
from service.api.oip.checks import (
    INTEGERS,
    NUMBERS,
    SIZE,
    check_shape,
    from_json,
    required,
    sized,
    within,
)
from service.api.oip.message import InferRequest, InputTensor
from service.errors import InvalidField
from service.scoring.query import ScoreQuery, Tensor

USER, ITEMS, HISTORY = "user_id", "item_id", "history"
IDS = frozenset({USER, ITEMS, HISTORY})
DATATYPE, LITTLE_ENDIAN, BYTES = "INT64", np.dtype("<i8"), 8
NUMBER, NUMBER_BYTES = "FP32", 4  # of a numeric request feature
LARGEST_INDEX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input of shape [count]: its values, or where its blob is."""

    name: str
    count: int
    values: Ids | None
    number: float | None = None  # the value of an FP32 input, unless it is in a blob
    start: int = 0  # bytes of the blobs before it
    at: int = 0  # INT64 numbers in these
    width: int = BYTES  # of a value; NUMBER_BYTES: FP32

    def read(self, numbers: Ids) -> Ids:
        """(count,)"""
        return self.values if self.values is not None else numbers[self.at : self.at + self.count]

    @property
    def in_blob(self) -> bool:
        return self.values is None and self.number is None

    @property
    def size(self) -> int:
        """Bytes of its blob."""
        return self.count * self.width if self.in_blob else 0


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs of a request, in the order of their blobs."""

    user: InputSpec
    items: InputSpec
    history: InputSpec | None
    context: tuple[InputSpec, ...]
    single: tuple[InputSpec, ...]  # one value: of context or request, as the version has it
    all: tuple[InputSpec, ...]
    size: int  # bytes of all blobs
    count: int  # INT64 numbers in them
    cuts: tuple[int, ...]  # where an FP32 number is between these

    @classmethod
    def of(cls, message: InferRequest, most_candidates: int) -> Inputs:
        """InvalidField names the tensor."""
        found: dict[str, InputSpec] = {}
        size, count, cuts = 0, 0, list[int]()
        for tensor in message.inputs:
            if tensor.name in found:
                raise InvalidField.of("inputs", tensor.name, detail="given more than once")
            one = found[tensor.name] = _declared(tensor, size, count)
            if one.in_blob:
                size += one.size
                if one.width == BYTES:
                    count += one.count
                else:
                    cuts.append(one.start)
        everything = tuple(found.values())
        user, items = (required(name, found.pop(name, None)) for name in (USER, ITEMS))
        history = found.pop(HISTORY, None)
        sized(USER, user.count, 1, 1)
        sized(ITEMS, items.count, 1, most_candidates)
        if history is not None:
            sized(HISTORY, history.count, 0, MAX_HISTORY)
        context = tuple(one for one in found.values() if one.count != 1)
        single = tuple(one for one in found.values() if one.count == 1)
        return cls(user, items, history, context, single, everything, size, count, tuple(cuts))

    @property
    def in_blobs(self) -> bool:
        """Whether all values are in blobs."""
        return all(one.in_blob for one in self.all)

    def numbers(self, body: bytes, start: int) -> Ids:
        """Read the INT64 blobs; all blobs must be exactly ``body[start:]``."""
        if len(body) - start != self.size:
            self._refuse(len(body) - start)
        blobs = body[start:]  # cut off, so that it is aligned
        if self.cuts:
            for at in reversed(self.cuts):
                blobs = blobs[:at] + blobs[at + NUMBER_BYTES :]
        return np.frombuffer(blobs, LITTLE_ENDIAN, self.count)

    async def query(self, body: bytes, start: int) -> ScoreQuery:
        """``body[start:]`` holds the blobs. InvalidField names the tensor."""
        return query_of(self, body, start)

    def _refuse(self, size: int) -> NoReturn:
        for one in self.all:
            if one.start + one.size > size:
                detail = f"{SIZE} is {one.size}, but {size - one.start} bytes are left"
                raise InvalidField.of("inputs", one.name, detail=detail)
        left = size - self.size
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
        tensors=_single(inputs.single, numbers, body, start) if inputs.single else None,
    )


def _context(columns: Sequence[InputSpec], numbers: Ids) -> dict[str, Indices]:
    return {
        one.name: within(one.name, one.read(numbers), LARGEST_INDEX).astype(np.int32)
        for one in columns
    }


def _single(
    features: Sequence[InputSpec], numbers: Ids, body: bytes, start: int
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for one in features:
        if one.width == BYTES:
            found |= _context([one], numbers)
        elif one.number is not None:
            found[one.name] = one.number
        else:
            (found[one.name],) = unpack_from("<f", body, start + one.start)
    return found


def _declared(tensor: InputTensor, start: int, at: int) -> InputSpec:
    name, parameters, width = tensor.name, tensor.parameters or {}, BYTES
    if tensor.datatype == NUMBER and name not in IDS:
        width = NUMBER_BYTES
    elif tensor.datatype != DATATYPE:
        also = ", as ids are" if name in IDS else f", or {NUMBER} of a numeric request feature"
        raise InvalidField.of("inputs", name, "datatype", detail=f"{DATATYPE}{also}")
    count, size = check_shape(tensor), parameters.get(SIZE)
    if width == NUMBER_BYTES:
        sized(name, count, 1, 1)
    if size is not None and tensor.data is not None:
        raise InvalidField.of("inputs", name, detail=f"data and {SIZE}: one of them")
    if size is not None and (type(size) is not int or size != count * width):
        wanted = f"{count * width} bytes, for shape [{count}] of {tensor.datatype}"
        raise InvalidField.of("inputs", name, SIZE, detail=wanted)
    values, number = None, None
    if width == NUMBER_BYTES:
        if size is None:
            (number,) = from_json(tensor, 1, NUMBERS)
    elif size is None:
        values = np.array(from_json(tensor, count, INTEGERS), np.int64)
    return InputSpec(name, count, values, number, start, at, width)


def _user(values: Ids) -> int:
    user_id: int = values.item(0)
    if user_id < 0:
        within(USER, values)  # says so
    return user_id

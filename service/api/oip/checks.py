"""Checks of one input tensor: its shape, its JSON, the range of its values."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import ConfigDict, FailFast, TypeAdapter, ValidationError

from feature_store.contract import MAX_ID, Ids
from service.api.oip.message import InputTensor, Int64
from service.errors import InvalidField

SIZE = "binary_data_size"
UNSUPPORTED = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
STRICT = ConfigDict(strict=True)
INTEGERS = TypeAdapter(Annotated[list[Int64], FailFast()], config=STRICT)
NUMBERS = TypeAdapter(Annotated[list[float], FailFast()], config=STRICT)

Spec = TypeVar("Spec")


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


def from_json(tensor: InputTensor, count: int, kind: TypeAdapter[Any]) -> list[Any]:
    """Return the values, which are ``kind``. InvalidField."""
    data: list[Any] | None = tensor.data
    if data is None:
        raise InvalidField.of("inputs", tensor.name, detail=f"data or {SIZE}: one of them")
    if len(data) != count:
        detail = f"{len(data)} values for shape [{count}]"
        raise InvalidField.of("inputs", tensor.name, "data", detail=detail)
    if tensor.is_checked:
        return data
    try:
        checked: list[Any] = kind.validate_python(data)
        return checked
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ("inputs", tensor.name, "data", *first["loc"])
        raise InvalidField.of(*place, detail=first["msg"]) from None


def required(name: str, declared: Spec | None) -> Spec:
    if declared is None:
        raise InvalidField.of("inputs", name, detail="Field required")
    return declared


def sized(name: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise InvalidField.of("inputs", name, "shape", detail=f"{wanted} of them")


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

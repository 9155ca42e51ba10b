"""From a request's input tensors to a ``ScoreQuery`` where the store's ids are texts.

Ids are BYTES: JSON strings, or a blob in which each text follows its length (4 bytes,
little-endian). Context features are INT64, as in ``inputs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, FailFast, TypeAdapter, ValidationError

from feature_store.contract import Ids
from feature_store.schema import MAX_HISTORY
from feature_store.text_ids import LONGEST
from model_export.bundle.vectors import Indices
from service.api.id_kind import MappedIds
from service.api.ids import NO_TEXT, MappedId
from service.api.oip.inputs import BYTES as INT64_BYTES
from service.api.oip.inputs import (
    DATATYPE,
    HISTORY,
    ITEMS,
    LARGEST_INDEX,
    LITTLE_ENDIAN,
    SIZE,
    USER,
    check_shape,
    required,
    sized,
    within,
)
from service.api.oip.message import TEXTS, InferRequest, InputTensor, Int64
from service.errors import InvalidField
from service.scoring.query import ScoreQuery

LENGTH_BYTES = 4
IDS = frozenset({USER, ITEMS, HISTORY})
TEXTS_IN_JSON = TypeAdapter(Annotated[list[MappedId], FailFast()])
NUMBERS_IN_JSON = TypeAdapter(Annotated[list[Int64], FailFast()], config=ConfigDict(strict=True))


@dataclass(frozen=True, slots=True)
class TextSpec:
    """An input of shape [count]: its values, or where its blob is."""

    name: str
    count: int
    values: list[Any] | None
    at: int = 0  # bytes of the blobs before it
    size: int = 0  # bytes of its blob

    def texts(self, blobs: bytes) -> list[str]:
        return self._unpacked(blobs) if self.values is None else self.values

    def numbers(self, blobs: bytes) -> Ids:
        if self.values is not None:
            return np.array(self.values, np.int64)
        return np.frombuffer(blobs[self.at : self.at + self.size], LITTLE_ENDIAN)

    def _unpacked(self, blobs: bytes) -> list[str]:
        blob, at, found = blobs[self.at : self.at + self.size], 0, list[str]()
        try:
            for _ in range(self.count):
                start = at + LENGTH_BYTES
                at = start + int.from_bytes(blob[at:start], "little")
                found.append(blob[start:at].decode())
        except UnicodeDecodeError:
            raise self._fault(len(found), "not UTF-8") from None
        if at != self.size:
            detail = f"the texts and their lengths are {at} bytes of the {self.size} of {SIZE}"
            raise InvalidField.of("inputs", self.name, detail=detail)
        lengths = list(map(len, found))
        if lengths and not (min(lengths) and max(lengths) <= LONGEST):
            place = next(n for n, length in enumerate(lengths) if not 1 <= length <= LONGEST)
            raise self._fault(place, NO_TEXT)
        return found

    def _fault(self, place: int, detail: str) -> InvalidField:
        return InvalidField.of("inputs", self.name, place, detail=detail)


@dataclass(frozen=True, slots=True)
class TextInputs:
    """All inputs of a request."""

    ids: MappedIds
    user: TextSpec
    items: TextSpec
    history: TextSpec | None
    context: tuple[TextSpec, ...]
    in_blobs: bool  # all values are
    size: int  # bytes of all blobs

    @classmethod
    def of(cls, ids: MappedIds, message: InferRequest, most_candidates: int) -> TextInputs:
        """InvalidField names the tensor."""
        found: dict[str, TextSpec] = {}
        size = 0
        for tensor in message.inputs:
            if tensor.name in found:
                raise InvalidField.of("inputs", tensor.name, detail="given more than once")
            found[tensor.name] = one = _declared(tensor, size)
            size += one.size
        in_blobs = all(one.values is None for one in found.values())
        user, items = (required(name, found.pop(name, None)) for name in (USER, ITEMS))
        history = found.pop(HISTORY, None)
        sized(user, 1, 1)
        sized(items, 1, most_candidates)
        if history is not None:
            sized(history, 0, MAX_HISTORY)
        return cls(ids, user, items, history, tuple(found.values()), in_blobs, size)

    async def query(self, body: bytes, start: int) -> ScoreQuery:
        """``body[start:]`` holds the blobs. InvalidField names the tensor."""
        blobs = body[start:]
        if len(blobs) != self.size:
            detail = f"{len(blobs)} bytes behind the JSON, but {SIZE} of all tensors is {self.size}"
            raise InvalidField.of("body", detail=detail)
        (user,) = self.user.texts(blobs)
        history = None
        if self.history is not None:
            history = (await self.ids.numbers(self.history.texts(blobs)))[::-1]  # newest first
        return ScoreQuery(
            user_id=self.ids.number(user),
            candidates=await self.ids.numbers(self.items.texts(blobs)),
            history=history,
            context={one.name: _indices(one, blobs) for one in self.context},
            user_text=user,
        )


def _indices(one: TextSpec, blobs: bytes) -> Indices:
    return within(one.name, one.numbers(blobs), LARGEST_INDEX).astype(np.int32)


def _declared(tensor: InputTensor, at: int) -> TextSpec:
    name, wanted = tensor.name, TEXTS if tensor.name in IDS else DATATYPE
    if tensor.datatype != wanted:
        why = ": the ids of this store are texts" if wanted == TEXTS else ""
        raise InvalidField.of("inputs", name, "datatype", detail=f"{wanted}{why}")
    count, size = check_shape(tensor), (tensor.parameters or {}).get(SIZE)
    if size is None:
        return TextSpec(name, count, _from_json(tensor, count, wanted), at)
    if tensor.data is not None:
        raise InvalidField.of("inputs", name, detail=f"data and {SIZE}: one of them")
    least, most = count * INT64_BYTES, count * INT64_BYTES
    if wanted == TEXTS:
        least, most = count * (LENGTH_BYTES + 1), count * (LENGTH_BYTES + 4 * LONGEST)
    if type(size) is not int or not least <= size <= most:
        number = f"{least} bytes" if least == most else f"{least} to {most} bytes"
        detail = f"{number}, for shape [{count}] of {wanted}"
        raise InvalidField.of("inputs", name, SIZE, detail=detail)
    return TextSpec(name, count, None, at, size)


def _from_json(tensor: InputTensor, count: int, datatype: str) -> list[Any]:
    data: list[Any] | None = tensor.data
    if data is None:
        raise InvalidField.of("inputs", tensor.name, detail=f"data or {SIZE}: one of them")
    if len(data) != count:
        detail = f"{len(data)} values for shape [{count}]"
        raise InvalidField.of("inputs", tensor.name, "data", detail=detail)
    adapter: TypeAdapter[Any] = TEXTS_IN_JSON if datatype == TEXTS else NUMBERS_IN_JSON
    try:
        adapter.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ("inputs", tensor.name, "data", *first["loc"])
        raise InvalidField.of(*place, detail=first["msg"]) from None
    return data

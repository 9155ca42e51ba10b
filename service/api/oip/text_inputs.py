"""From a request's input tensors to a ``ScoreQuery`` where the store's ids are texts.

Ids are BYTES: JSON strings, or a blob in which each text follows its length (4 bytes,
little-endian). Context and request features are INT64 or FP32, as in ``inputs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import unpack_from
from typing import Annotated, Any

import numpy as np
from pydantic import FailFast, TypeAdapter

from feature_store.schema import MAX_HISTORY
from feature_store.text_ids import LONGEST
from model_export.bundle.vectors import Indices
from service.api.id_kind import MappedIds
from service.api.ids import NO_TEXT, MappedId
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
from service.api.oip.inputs import (
    BYTES,
    DATATYPE,
    HISTORY,
    IDS,
    ITEMS,
    LARGEST_INDEX,
    LITTLE_ENDIAN,
    NUMBER,
    NUMBER_BYTES,
    USER,
)
from service.api.oip.message import TEXTS, InferRequest, InputTensor
from service.errors import InvalidField
from service.scoring.query import ScoreQuery, Tensor

LENGTH_BYTES = 4
KINDS: dict[str, TypeAdapter[Any]] = {
    TEXTS: TypeAdapter(Annotated[list[MappedId], FailFast()]),
    DATATYPE: INTEGERS,
    NUMBER: NUMBERS,
}


@dataclass(frozen=True, slots=True)
class TextSpec:
    """An input of shape [count]: its values, or where its blob is."""

    name: str
    count: int
    values: list[Any] | None
    at: int = 0  # bytes of the blobs before it
    size: int = 0  # bytes of its blob
    datatype: str = TEXTS

    def texts(self, blobs: bytes) -> list[str]:
        return self._unpacked(blobs) if self.values is None else self.values

    def indices(self, blobs: bytes) -> Indices:
        if self.values is not None:
            numbers = np.array(self.values, np.int64)
        else:
            numbers = np.frombuffer(blobs[self.at : self.at + self.size], LITTLE_ENDIAN)
        return within(self.name, numbers, LARGEST_INDEX).astype(np.int32)

    def feature(self, blobs: bytes) -> Tensor:
        """Read a single value."""
        if self.datatype != NUMBER:
            return self.indices(blobs)
        number: float
        (number,) = unpack_from("<f", blobs, self.at) if self.values is None else self.values
        return number

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
    features: tuple[TextSpec, ...]  # context and request features
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
        sized(USER, user.count, 1, 1)
        sized(ITEMS, items.count, 1, most_candidates)
        if history is not None:
            sized(HISTORY, history.count, 0, MAX_HISTORY)
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
            context={one.name: one.indices(blobs) for one in self.features if one.count != 1},
            tensors={one.name: one.feature(blobs) for one in self.features if one.count == 1},
            user_text=user,
        )


def _declared(tensor: InputTensor, at: int) -> TextSpec:
    name, datatype, parameters = tensor.name, tensor.datatype, tensor.parameters or {}
    if name in IDS and datatype != TEXTS:
        detail = f"{TEXTS}: the ids of this store are texts"
        raise InvalidField.of("inputs", name, "datatype", detail=detail)
    if name not in IDS and datatype not in (DATATYPE, NUMBER):
        detail = f"{DATATYPE}, or {NUMBER} of a numeric request feature"
        raise InvalidField.of("inputs", name, "datatype", detail=detail)
    count, size = check_shape(tensor), parameters.get(SIZE)
    if datatype == NUMBER:
        sized(name, count, 1, 1)
    if size is None:
        values = from_json(tensor, count, KINDS[datatype])
        return TextSpec(name, count, values, at, datatype=datatype)
    if tensor.data is not None:
        raise InvalidField.of("inputs", name, detail=f"data and {SIZE}: one of them")
    least = most = count * (NUMBER_BYTES if datatype == NUMBER else BYTES)
    if datatype == TEXTS:
        least, most = count * (LENGTH_BYTES + 1), count * (LENGTH_BYTES + 4 * LONGEST)
    if type(size) is not int or not least <= size <= most:
        number = f"{least} bytes" if least == most else f"{least} to {most} bytes"
        detail = f"{number}, for shape [{count}] of {datatype}"
        raise InvalidField.of("inputs", name, SIZE, detail=detail)
    return TextSpec(name, count, None, at, size, datatype)

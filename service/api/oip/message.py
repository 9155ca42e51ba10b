"""Parses the JSON of an inference request, whose tensors may follow as binary data.

What depends on the model is checked later.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, WithJsonSchema

from feature_store.schema import MAX_HISTORY
from service.api.body import Contents, TextContents, refuse_repeated, strings_in, validate
from service.api.ids import INT64, MAPPED
from service.api.score_models import MOST_CONTEXT_FEATURES, MOST_REQUEST_FEATURES
from service.errors import InvalidHeader

LENGTH_HEADER = "Inference-Header-Content-Length"
BINARY, JSON = "application/octet-stream", "application/json"
# And user_id, item_id, history.
MOST_INPUTS = MOST_CONTEXT_FEATURES + MOST_REQUEST_FEATURES + 3
# Twice the quotation marks of a request that has all inputs, with room for foreign parameters.
MOST_QUOTES = 4096

Name = Annotated[str, Field(min_length=1, max_length=128)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, json_schema_extra=INT64)]
TEXTS = "BYTES"  # datatype
NULL = {"type": "null"}
Parameters = Annotated[
    dict[str, Any] | None,
    Field(description="Those that are not understood are named in the answer's `ignored`."),
]


def _any_of(*items: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of lists of one of these, or null."""
    return {"anyOf": [*({"type": "array", "items": one} for one in items), NULL]}


class Part(BaseModel):
    """Keeps members that the protocol does not have (say the model's name), so that the answer can
    list them as ignored."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    @property
    def unknown(self) -> dict[str, Any]:
        return self.model_extra or {}


Size = Annotated[int, Field(ge=0, le=2**63 - 1, json_schema_extra=INT64)]


class InputTensor(Part):
    is_checked: ClassVar[bool] = True  # its data

    name: Name
    shape: Annotated[
        list[Size],
        Field(min_length=1, max_length=8, json_schema_extra={"maxItems": 1}),  # see ``tensors``
    ]
    datatype: Annotated[
        str,
        Field(max_length=16, json_schema_extra={"enum": ["INT64"]}, description="Of every input."),
    ]
    parameters: Parameters = None
    data: Annotated[
        list[Int64] | None, FailFast(), Field(description="Unless there is a binary_data_size.")
    ] = None


class MixedInputTensor(InputTensor):
    """Of a request with FP32 tensors: the type of data is checked by its datatype, later."""

    is_checked: ClassVar[bool] = False

    datatype: Annotated[
        str,
        Field(
            max_length=16,
            json_schema_extra={"enum": ["INT64", "FP32"]},
            description="FP32 of numeric request features, INT64 of every other input.",
        ),
    ]
    data: Annotated[
        list[Any] | None,
        WithJsonSchema(_any_of({"type": "integer", **INT64}, {"type": "number"})),
        Field(description="Unless there is a binary_data_size."),
    ] = None


class TextInputTensor(MixedInputTensor):
    """Of a mapped store: ids are BYTES."""

    datatype: Annotated[
        str,
        Field(
            max_length=16,
            json_schema_extra={"enum": ["BYTES", "INT64", "FP32"]},
            description="BYTES of ids, FP32 of numeric request features, INT64 of other features.",
        ),
    ]
    data: Annotated[
        list[Any] | None,
        WithJsonSchema(_any_of({"type": "integer", **INT64}, {"type": "number"}, MAPPED)),
        Field(description="Unless there is a binary_data_size."),
    ] = None


class RequestedOutput(Part):
    name: Name
    parameters: Parameters = None


class InferRequest(Part):
    id: Annotated[str | None, Field(max_length=1024, description="Echoed.")] = None
    parameters: Parameters = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=MOST_INPUTS)]
    outputs: Annotated[
        list[RequestedOutput] | None,
        Field(max_length=16, description="All of them, if none is named."),
    ] = None

    def given(self) -> dict[str, Any]:
        """The parameters of the whole request."""
        return self.parameters or {}


class MixedInferRequest(InferRequest):
    """With FP32 tensors."""

    inputs: Annotated[  # type: ignore[assignment]
        list[MixedInputTensor], Field(min_length=1, max_length=MOST_INPUTS)
    ]


class TextInferRequest(InferRequest):
    """Of a mapped store."""

    inputs: Annotated[  # type: ignore[assignment]
        list[TextInputTensor], Field(min_length=1, max_length=MOST_INPUTS)
    ]


def contents_of_infer(candidates: int, features: int, kind: type[Contents] = Contents) -> Contents:
    """Bounds for so many candidates and context features."""
    values, ids = candidates * (1 + features) + MAX_HISTORY, 1 + candidates + MAX_HISTORY
    return kind.of(values, MOST_QUOTES, ids=ids if kind is TextContents else 0)


def read_message(header: bytes, model: type[InferRequest] = InferRequest) -> InferRequest:
    """Parse and check a request. Malformed or InvalidField name the place."""
    message = validate(model, header)
    refuse_repeated(header, _strings(message))
    return message


def _strings(message: InferRequest) -> int:
    """Names of members, and values that are strings."""
    count = len(message.model_fields_set) + (message.id is not None)
    count += strings_in(message.given()) + sum(map(strings_in, message.unknown.values()))
    for part in (*message.inputs, *(message.outputs or ())):
        count += len(part.model_fields_set) + 1  # its own name
        count += strings_in(part.parameters or {}) + sum(map(strings_in, part.unknown.values()))
    count += sum(len(t.data or ()) for t in message.inputs if t.datatype == TEXTS)
    return count + len(message.inputs)  # data types


def json_length(length: str | None, size: int) -> int:
    """Number of bytes of JSON in a body of ``size``; all of them without the header."""
    if length is None:
        return size
    if not (length.isascii() and length.isdecimal() and len(length) < 20):
        raise InvalidHeader.of(LENGTH_HEADER, detail="one number of bytes")
    if int(length) > size:
        raise InvalidHeader.of(LENGTH_HEADER, detail=f"{length} bytes of a body that has {size}")
    return int(length)

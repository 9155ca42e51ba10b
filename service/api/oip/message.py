"""The JSON of an inference request, checked as it is read; what depends on the model is not."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field

from feature_store.schema import MAX_HISTORY
from service.api.body import Contents, refuse_repeated, strings_in, validate
from service.api.score_schema import MOST_CONTEXT_FEATURES

MOST_INPUTS = MOST_CONTEXT_FEATURES + 3  # and user_id, item_id, history
# Twice the quotation marks of a request that has all inputs, with room for foreign parameters.
MOST_QUOTES = 4096

Name = Annotated[str, Field(min_length=1, max_length=128)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Parameters = Annotated[
    dict[str, Any] | None,
    Field(description="Those that are not understood are named in the answer's `ignored`."),
]


class Part(BaseModel):
    """Clients put more into a request than the protocol has (say the model's name): kept, so that
    the answer can say that it was not looked at."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    @property
    def unknown(self) -> dict[str, Any]:
        return self.model_extra or {}


Size = Annotated[int, Field(ge=0, le=2**63 - 1)]


class InputTensor(Part):
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


def contents_of_infer(candidates: int, features: int) -> Contents:
    """With so many candidates at most, and context features in the schema."""
    return Contents.of(candidates * (1 + features) + MAX_HISTORY, MOST_QUOTES)


def read_message(header: bytes) -> InferRequest:
    """Malformed or InvalidField name the place."""
    message = validate(InferRequest, header)
    refuse_repeated(header, _strings(message))
    return message


def _strings(message: InferRequest) -> int:
    """Names of members, and values that are strings."""
    count = len(message.model_fields_set) + (message.id is not None)
    count += strings_in(message.given()) + sum(map(strings_in, message.unknown.values()))
    for part in (*message.inputs, *(message.outputs or ())):
        count += len(part.model_fields_set) + 1  # its own name
        count += strings_in(part.parameters or {}) + sum(map(strings_in, part.unknown.values()))
    return count + len(message.inputs)  # data types

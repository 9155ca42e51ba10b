"""Schemas of ``POST /v1/embeddings``: OpenAI's form, and what is ours beside it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from service.api.score_models import ProblemDocument

MOST_TEXTS = 2048  # as OpenAI's
MOST_IDS = 65_536  # token ids of a request
MOST_SPANS = 2048
MOST_CHARACTER = 2**31 - 1
TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
SPAN = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": MOST_CHARACTER},
    "minItems": 2,
    "maxItems": 2,
}
SPANS = {"type": "array", "items": SPAN, "minItems": 1, "maxItems": MOST_SPANS}


def _some(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": MOST_TEXTS}


# Any: of a union pydantic would report faults of every member; ``embedding_input`` checks them.
Input = Annotated[Any, WithJsonSchema({"anyOf": [TEXT, _some(TEXT), IDS, _some(IDS)]})]
Spans = Annotated[Any, WithJsonSchema({"anyOf": [SPANS, _some(SPANS), {"type": "null"}]})]


class EmbeddingsRequest(BaseModel):
    """Texts to encode."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    input: Annotated[
        Input,
        Field(
            description="A text, a list of texts, the token ids of a text, or a list of such ids; "
            "the special tokens around a text may be left out of its ids.",
        ),
    ]
    model: Annotated[
        str | None, Field(description="Name or version of the encoder: another one is a 404.")
    ] = None
    encoding_format: Annotated[
        Literal["float", "base64"],
        Field(description="base64: of float32 numbers, little-endian."),
    ] = "float"
    dimensions: Annotated[
        int | None,
        Field(
            ge=1,
            le=65_536,
            description="Numbers of a vector: as many as the encoder is trained for.",
        ),
    ] = None
    user: Annotated[str | None, Field(description="Ignored.")] = None
    truncate: Annotated[
        bool, Field(description="Read the beginning of texts that are too long: `truncated`.")
    ] = False
    late_chunking: Annotated[
        Spans,
        Field(
            description="Spans `[start, end)` of characters (Unicode code points) of a text, or a "
            "list of such lists for a list of texts: a vector of each, from one pass over the text."
        ),
    ] = None


class EmbeddedSpan(BaseModel):
    """The vector of a span."""

    span: list[int]
    embedding: list[float] | str
    tokens: int
    overlapping: Annotated[bool, Field(description="Another span has a character of it.")]


class Embedding(BaseModel):
    """The vector of a text."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    truncated: Annotated[bool, Field(description="Only where it is true.")] = False
    chunks: Annotated[
        list[EmbeddedSpan] | None, Field(description="Only with `late_chunking`.")
    ] = None


class Usage(BaseModel):
    """Tokens that were read, special ones included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: Annotated[str, Field(description="The encoder's name.")]
    usage: Usage


class OpenAIError(BaseModel):
    """What OpenAI's clients show."""

    model_config = ConfigDict(extra="forbid")

    message: Annotated[str, Field(description="`detail`.")]
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: Annotated[str | None, Field(description="`field`.")]
    code: Annotated[str, Field(description="The last part of `type`.", examples=["invalid-field"])]


# In place, not by reference: the schema is a part of each response.
Inlined = Annotated[OpenAIError, WithJsonSchema(OpenAIError.model_json_schema())]


class EmbeddingsProblem(ProblemDocument):
    """RFC 9457, as `application/problem+json`, and an error in OpenAI's form."""

    error: Annotated[Inlined, Field(description="In OpenAI's form.")]


REQUEST_EXAMPLES = {
    "texts": {"value": {"input": ["a text", "ein Text"], "model": "qin-text"}},
    "late chunking": {"value": {"input": "A house. A tree.", "late_chunking": [[0, 8], [9, 16]]}},
}

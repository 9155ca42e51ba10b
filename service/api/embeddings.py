"""``POST /v1/embeddings``: unit vectors of texts, in OpenAI's form."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from numpy.typing import NDArray

from service.api.body import deadline_seconds, read_body
from service.api.embedding_input import EmbeddingInput, read_input
from service.api.embedding_models import (
    REQUEST_EXAMPLES,
    EmbeddingsAnswer,
    EmbeddingsProblem,
    EmbeddingsRequest,
)
from service.api.openapi import problem
from service.api.problems import EMBEDDINGS
from service.api.score_models import REQUEST_HEADERS, deadline_header
from service.context import RequestContext, context_of, priority_of
from service.encoding.encoding import TextEncoding
from service.encoding.token_admission import TokenPermit
from service.errors import InvalidField, ModelFault, UnknownModel
from service.server.disconnect import CancelOnDisconnect
from service.settings import Settings
from text.runtime.chunks import Chunks, SpanError
from text.runtime.encoder import NOT_FINITE, Encoded, TextEncoder
from text.runtime.errors import TextError

JSON = "application/json"
STATUSES = (400, 404, 413, 415, 422, 429, 500, 503, 504)  # of errors
SLICE = 8192  # numbers written at a time, in less than a millisecond
Vector = NDArray[np.float32]


def add_embeddings(app: FastAPI, encoding: TextEncoding, settings: Settings) -> None:
    most_ms = max(settings.max_deadline_ms, settings.encoder_deadline_ms)

    @app.post(
        EMBEDDINGS,
        summary="Encode texts",
        response_model=EmbeddingsAnswer,
        responses={status: problem(EmbeddingsProblem) for status in STATUSES},
        openapi_extra={
            "parameters": [*REQUEST_HEADERS, deadline_header(most_ms)],
            "requestBody": {
                "required": True,
                "content": {
                    JSON: {
                        "schema": EmbeddingsRequest.model_json_schema(),
                        "examples": REQUEST_EXAMPLES,
                    }
                },
            },
        },
    )
    async def embed(request: Request) -> Response:
        ctx, encoder = context_of(request.scope), encoding.encoder  # kept until the answer
        seconds = deadline_seconds(ctx, settings.encoder_deadline_ms, most_ms)
        deadline = ctx.timer.started + seconds
        ctx.priority = priority_of(ctx.headers.get(b"x-priority"))
        encoding.admission.check(ctx.priority, deadline)
        body = await read_body(ctx, request, settings.max_embeddings_body_bytes, deadline)
        if ctx.charge is not None:
            await ctx.charge.enter(len(body), deadline)
        asked = read_input(body, encoder.tokenizer.vocabulary)
        if asked.request.model is not None:
            named = encoding.named(asked.request.model)
            if named is not None and named is not encoder:
                encoder = named
                asked = read_input(body, encoder.tokenizer.vocabulary)  # its token ids are others
        del body
        _check(asked, encoder, settings.encoder_name)
        ctx.model_version = encoder.bundle.version
        chunking = asked.spans is not None
        permit = encoding.enter(
            asked.texts, ctx.priority, deadline, encoder=encoder, chunking=chunking
        )
        with permit, CancelOnDisconnect(ctx.connection, permit.defer):
            writer = await _encoded(encoding, asked, permit, deadline)
        return Response(await writer.write(ctx, deadline, settings.encoder_name), media_type=JSON)


def _check(asked: EmbeddingInput, encoder: TextEncoder, name: str) -> None:
    """Check what depends on the encoder. UnknownModel or InvalidField."""
    request, version = asked.request, encoder.bundle.version
    if request.model not in (None, name, version):
        raise UnknownModel(f"model: the encoder is {name}, version {version}")
    trained = encoder.manifest.dimensions
    if request.dimensions not in (None, *trained):
        known = " or ".join(map(str, trained))
        detail = f"{request.dimensions}: this encoder is trained for {known}"
        raise InvalidField.of("dimensions", detail=detail)
    if asked.spans is not None and encoder.graphs.long is None:
        raise InvalidField.of("late_chunking", detail="this encoder has no graph for it")


async def _encoded(
    encoding: TextEncoding, asked: EmbeddingInput, permit: TokenPermit, deadline: float
) -> _Answer:
    request = asked.request
    try:
        if asked.spans is None:
            found = await encoding.encode(asked.texts, request.truncate, permit, deadline)
            return _Answer.of(asked, found)
        texts: Any = asked.texts
        chunks = await encoding.chunks(texts, asked.spans, request.truncate, permit, deadline)
        return _Answer.of_chunks(asked, chunks)
    except TextError as error:
        if error.fault == NOT_FINITE:
            raise ModelFault(f"{_named(asked.field(error.index))}: {error.fault}") from error
        raise InvalidField.of(*asked.field(error.index), detail=error.fault) from None
    except SpanError as error:
        where = asked.span_field(error.text, error.index)
        raise InvalidField.of(*where, detail=error.fault) from None


def _named(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))


def beginning(vector: Vector, width: int | None) -> Vector:
    """Return the first numbers of a vector, of length 1 again; None: all of it."""
    if width is None or width == len(vector):
        return vector
    chosen = vector[:width].astype(np.float64)
    length = float(np.linalg.norm(chosen))
    return (chosen / length if length else chosen).astype(np.float32)


class _Answer:
    """Vectors on their way to JSON."""

    def __init__(
        self,
        asked: EmbeddingInput,
        vectors: Sequence[Vector] | Vector,  # (N, D)
        tokens: int,
        truncated: Sequence[bool],
        chunks: Sequence[Chunks] | None = None,
    ) -> None:
        self._asked, self._vectors, self._chunks = asked, vectors, chunks
        self._tokens, self._truncated = tokens, truncated
        self._is_base64 = asked.request.encoding_format == "base64"

    @classmethod
    def of(cls, asked: EmbeddingInput, found: Encoded) -> _Answer:
        return cls(asked, found.vectors, int(found.tokens.sum()), found.truncated.tolist())

    @classmethod
    def of_chunks(cls, asked: EmbeddingInput, found: Sequence[Chunks]) -> _Answer:
        tokens = sum(each.read for each in found)
        truncated = [each.truncated for each in found]
        return cls(asked, [each.vector for each in found], tokens, truncated, found)

    async def write(self, ctx: RequestContext, deadline: float, model: str) -> bytes:
        """Write the answer, slice by slice in the loop's turns. DeadlinePassed."""
        parts = [b'{"object":"list","data":[']
        written = 0
        for index, vector in enumerate(self._vectors):
            if written > SLICE and ctx.charge is not None:
                await ctx.charge.turn(deadline)
                written = 0
            parts += (b"," if index else b"", *self._entry(index, vector))
            spans = 0 if self._chunks is None else len(self._chunks[index].vectors)
            written += len(vector) * (1 + spans)
        usage = {"prompt_tokens": self._tokens, "total_tokens": self._tokens}
        rest = orjson.dumps({"model": model, "usage": usage})
        return b"".join([*parts, b"],", rest[1:]])

    def _entry(self, index: int, vector: Vector) -> list[bytes]:
        parts = [b'{"object":"embedding","index":%d,"embedding":' % index, self._number(vector)]
        if self._truncated[index]:
            parts.append(b',"truncated":true')
        if self._chunks is not None and self._asked.spans is not None:
            parts.append(b',"chunks":[')
            chunks, spans = self._chunks[index], self._asked.spans[index]
            for k, span in enumerate(spans):
                said = b'"tokens":%d,"overlapping":%s' % (
                    chunks.tokens[k],
                    b"true" if chunks.overlapping[k] else b"false",
                )
                parts.append(b'%s{"span":[%d,%d],"embedding":' % (b"," if k else b"", *span))
                parts += (self._number(chunks.vectors[k]), b",", said, b"}")
            parts.append(b"]")
        return [*parts, b"}"]

    def _number(self, vector: Vector) -> bytes:
        vector = beginning(vector, self._asked.request.dimensions)
        if self._is_base64:
            return b'"' + base64.b64encode(vector.astype("<f4").tobytes()) + b'"'
        return orjson.dumps(np.ascontiguousarray(vector), option=orjson.OPT_SERIALIZE_NUMPY)

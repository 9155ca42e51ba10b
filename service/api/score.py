"""``POST /v1/score``: from JSON to a query, and from its result to JSON."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp

from feature_store.schema import MAX_HISTORY
from service.api.body import Contents, deadline_seconds, parse, read_body
from service.api.gate import LARGE, SCORE, Handler, behind_the_gate
from service.api.id_kind import IdKind
from service.api.inference import EXPLAIN, infer
from service.api.inline_models import with_inline
from service.api.inline_request import InlineReader
from service.api.item_text import ItemTexts
from service.api.openapi import problem
from service.api.responses import RawResponse
from service.api.score_models import ANSWER_HEADERS, REQUEST_HEADERS, deadline_header
from service.context import RequestContext
from service.errors import InvalidField
from service.state import ServiceState

# A valid body has two a name (nine of ours, 64 context and 64 request features), two for
# ``model_version`` and 64 more if that is all escapes.
MOST_QUOTES = 352
JSON = ((b"content-type", b"application/json"),)


def score_handler(state: ServiceState, ids: IdKind) -> Handler:
    settings, model, with_text = state.settings, ids.request, ids.request_with_text
    features = len(state.store.schema.stored_item)
    contents = contents_of_score(settings.max_candidates, features, ids.contents)
    schema = state.store.schema
    texts = ItemTexts(state.encoding, schema, settings)
    reader = InlineReader(settings.max_candidates, schema.stored_item, ids, texts)

    async def score(ctx: RequestContext, request: Request) -> ASGIApp:
        seconds = deadline_seconds(ctx, settings.deadline_ms, settings.max_deadline_ms)
        deadline = ctx.timer.started + seconds
        body = await read_body(ctx, request, settings.max_body_bytes, deadline)
        if len(body) > LARGE:
            await state.budget.one_at_a_time()
        ctx.timer.lap("receive")
        inline = None
        try:
            asked = parse(model, body, contents, with_text)
        except InvalidField:
            inline = reader.read(body)
            if inline is None:
                raise
            asked = inline.request
        query = await (ids.query(asked) if inline is None else inline.query(ids))
        version, result = await infer(state, ctx, query, asked.model_version, deadline, inline)
        write = partial(result.json, version, ctx.request_id, asked.top_k, query.texts)
        if asked.explain is None:
            content = write()
        else:
            await state.budget.turn(deadline)
            with state.budget.measured(EXPLAIN):
                content = write()
        ctx.timer.lap("encode")
        return RawResponse(content, JSON)

    return score


def contents_of_score(
    candidates: int, features: int, contents: type[Contents] = Contents
) -> Contents:
    """Bounds for so many candidates and context features."""
    ids = 1 + candidates + MAX_HISTORY
    return contents.of(candidates * (1 + features) + MAX_HISTORY, MOST_QUOTES, ids=ids)


def document_score(app: FastAPI, state: ServiceState, ids: IdKind) -> None:
    settings, model = state.settings, ids.request_with_text or ids.request
    schema, has_texts = state.store.schema, state.encoding is not None
    app.post(
        SCORE,
        name="score",
        summary="Score a candidate list for a user",
        response_model=ids.answer,
        responses={
            200: {
                "headers": ANSWER_HEADERS,
                "content": {"application/json": {"example": ids.answer_example}},
            },
            **{status: problem() for status in (400, 404, 413, 415, 422, 429, 500, 503, 504)},
        },
        openapi_extra={
            "parameters": [*REQUEST_HEADERS, deadline_header(settings.max_deadline_ms)],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": with_inline(
                            model.model_json_schema(), schema, has_texts=has_texts
                        ),
                        "examples": ids.request_examples,
                    }
                },
            },
        },
    )(behind_the_gate)

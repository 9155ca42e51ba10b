"""``POST /v1/score``: from JSON to a query, and from its result to JSON."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp

from service.api.body import deadline_seconds, read_body
from service.api.gate import LARGE, SCORE, Handler, behind_the_gate
from service.api.id_kind import IdKind
from service.api.inference import EXPLAIN, infer
from service.api.inline_models import with_inline
from service.api.inline_request import InlineRequest
from service.api.item_text import ItemTexts
from service.api.openapi import problem
from service.api.responses import RawResponse
from service.api.score_models import ANSWER_HEADERS, REQUEST_HEADERS, deadline_header
from service.api.score_reader import ScoreReader
from service.context import RequestContext
from service.state import ServiceState

JSON = ((b"content-type", b"application/json"),)


def score_handler(state: ServiceState, ids: IdKind) -> Handler:
    settings, schema = state.settings, state.store.schema
    texts = ItemTexts(state.encoding, schema, settings)
    reader = ScoreReader(settings.max_candidates, schema.stored_item, ids, texts)

    async def score(ctx: RequestContext, request: Request) -> ASGIApp:
        seconds = deadline_seconds(ctx, settings.deadline_ms, settings.max_deadline_ms)
        deadline = ctx.timer.started + seconds
        body = await read_body(ctx, request, settings.max_body_bytes, deadline)
        if len(body) > LARGE:
            await state.budget.one_at_a_time()
        ctx.timer.lap("receive")
        found = reader.read(body)
        if isinstance(found, InlineRequest):
            asked, inline, query = found.request, found, await found.query(ids)
        else:
            asked, inline, query = found, None, await ids.query(found)
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

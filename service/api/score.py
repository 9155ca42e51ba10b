"""``POST /v1/score``: from JSON to a query, and from its result to JSON."""

from __future__ import annotations

from functools import partial

import numpy as np
from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp

from feature_store.schema import MAX_HISTORY
from service.api.body import Contents, deadline_seconds, parse, read_body
from service.api.gate import LARGE, SCORE, Handler, behind_the_gate
from service.api.inference import EXPLAIN, infer
from service.api.openapi import problem
from service.api.responses import RawResponse
from service.api.score_models import (
    ANSWER_EXAMPLE,
    ANSWER_HEADERS,
    REQUEST_EXAMPLES,
    REQUEST_HEADERS,
    ScoreAnswer,
    ScoreRequest,
    deadline_header,
    score_request,
    score_request_with_text,
)
from service.context import RequestContext
from service.scoring.query import ScoreQuery
from service.state import ServiceState

# A valid body has two a name (seven of ours, 64 context features), two for ``model_version`` and as
# many again if that is all escapes.
MOST_QUOTES = 256
JSON = ((b"content-type", b"application/json"),)


def score_handler(state: ServiceState) -> Handler:
    settings = state.settings
    model = score_request(settings.max_candidates)
    with_text = score_request_with_text(settings.max_candidates)
    contents = contents_of_score(settings.max_candidates, len(state.store.schema.context))

    async def score(ctx: RequestContext, request: Request) -> ASGIApp:
        seconds = deadline_seconds(ctx, settings.deadline_ms, settings.max_deadline_ms)
        deadline = ctx.timer.started + seconds
        body = await read_body(ctx, request, settings.max_body_bytes, deadline)
        if len(body) > LARGE:
            await state.budget.one_at_a_time()
        ctx.timer.lap("receive")
        asked = parse(model, body, contents, with_text)
        query = query_of(asked)
        version, result = await infer(state, ctx, query, asked.model_version, deadline)
        write = partial(result.json, version, ctx.request_id, asked.top_k, asked.ids_as_strings)
        if asked.explain is None:
            content = write()
        else:
            await state.budget.turn(deadline)
            with state.budget.measured(EXPLAIN):
                content = write()
        ctx.timer.lap("encode")
        return RawResponse(content, JSON)

    return score


def query_of(asked: ScoreRequest) -> ScoreQuery:
    return ScoreQuery(
        user_id=asked.user_id,
        candidates=np.array(asked.candidates, np.int64),
        history=None if asked.history is None else np.array(asked.history[::-1], np.int64),
        context={name: np.array(v, np.int32) for name, v in asked.context.items()},
        top_k=asked.top_k,
        explain=asked.explain,
        ids_as_strings=asked.ids_as_strings,
    )


def contents_of_score(candidates: int, features: int) -> Contents:
    """Bounds for so many candidates and context features."""
    ids = 1 + candidates + MAX_HISTORY
    return Contents.of(candidates * (1 + features) + MAX_HISTORY, MOST_QUOTES, ids=ids)


def document_score(app: FastAPI, state: ServiceState) -> None:
    settings = state.settings
    model = score_request_with_text(settings.max_candidates)
    app.post(
        SCORE,
        name="score",
        summary="Score a candidate list for a user",
        response_model=ScoreAnswer,
        responses={
            200: {
                "headers": ANSWER_HEADERS,
                "content": {"application/json": {"example": ANSWER_EXAMPLE}},
            },
            **{status: problem() for status in (400, 404, 413, 415, 422, 429, 500, 503, 504)},
        },
        openapi_extra={
            "parameters": [*REQUEST_HEADERS, deadline_header(settings.max_deadline_ms)],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": model.model_json_schema(),
                        "examples": REQUEST_EXAMPLES,
                    }
                },
            },
        },
    )(behind_the_gate)

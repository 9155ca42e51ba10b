"""``POST /v1/score``: JSON to a question, and an answer to JSON."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp

from feature_store.schema import MAX_HISTORY
from service.api.body import Contents, deadline_seconds, parse, read_body
from service.api.gate import LARGE, Handler, behind_the_gate
from service.api.inference import EXPLAIN, ask
from service.api.middleware import SCORE, context_of
from service.api.openapi import problem
from service.api.responses import RawResponse
from service.api.score_schema import (
    ANSWER_EXAMPLE,
    ANSWER_HEADERS,
    REQUEST_EXAMPLES,
    REQUEST_HEADERS,
    ScoreAnswer,
    deadline_header,
    score_request,
)
from service.application import ServiceState
from service.scoring.query import ScoreQuery

# A valid body has two a name (seven of ours, 64 context features), two for ``model_version`` and as
# many again if that is all escapes.
MOST_QUOTES = 256
JSON = ((b"content-type", b"application/json"),)


def score_handler(state: ServiceState) -> Handler:
    settings = state.settings
    model = score_request(settings.max_candidates)
    contents = contents_of_score(settings.max_candidates, len(state.store.schema.context))

    async def score(request: Request) -> ASGIApp:
        ctx = context_of(request)
        seconds = deadline_seconds(request, settings.deadline_ms, settings.max_deadline_ms)
        deadline = ctx.timer.started + seconds
        body = await read_body(request, settings.max_body_bytes, deadline)
        if len(body) > LARGE:
            await state.budget.one_at_a_time()
        ctx.timer.lap("receive")
        asked = parse(model, body, contents)
        query = ScoreQuery.of(asked)
        version, answer = await ask(state, request, query, asked.model_version, deadline)
        if asked.explain is None:
            content = answer.json(version, ctx.request_id, asked.top_k)
        else:
            await state.budget.turn(deadline)
            with state.budget.measured(EXPLAIN):
                content = answer.json(version, ctx.request_id, asked.top_k)
        ctx.timer.lap("encode")
        return RawResponse(content, JSON)

    return score


def contents_of_score(candidates: int, features: int) -> Contents:
    """With so many candidates at most, and context features in the schema."""
    return Contents.of(candidates * (1 + features) + MAX_HISTORY, MOST_QUOTES)


def document_score(app: FastAPI, state: ServiceState) -> None:
    settings = state.settings
    model = score_request(settings.max_candidates)
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

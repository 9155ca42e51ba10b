"""The HTTP application over a house that is already built."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from service.api import (
    ANSWER_EXAMPLE,
    ANSWER_HEADERS,
    REQUEST_EXAMPLES,
    REQUEST_HEADERS,
    ScoreAnswer,
    deadline_header,
    score_request,
)
from service.ask import ask
from service.docs_page import add_docs
from service.errors import ServiceError
from service.exchange import SCORE, Exchanges, exchange_of
from service.gate import Gate
from service.house import House
from service.metrics_route import add_metrics
from service.oip.routes import add_oip
from service.openapi import problem
from service.problems import answer_problem, answer_refusal
from service.question import Question
from service.request import deadline_seconds, parse, read_body
from service.writes import add_writes


def create_app(house: House) -> ASGIApp:
    """Routes inside, the gate before them, ``Exchanges`` around it all."""
    app = FastAPI(
        title="QIN Serving",
        description="A user and a candidate list in, click probabilities out.",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for kind in (ServiceError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer_problem)
    _add_score(app, house)
    add_oip(app, house)
    add_writes(app, house)
    _add_operations(app, house)
    add_docs(app)
    if house.settings.metrics_on == "service":
        add_metrics(app, house)
    return Exchanges(Gate(app, house.admission), house.settings, house.metrics, house.traces)


def create_refusing(house: House) -> ASGIApp:
    """For requests that their connection refuses: see ``answer_refusal``."""
    return Exchanges(answer_refusal, house.settings, house.metrics, house.traces)


def _add_score(app: FastAPI, house: House) -> None:
    settings = house.settings
    model = score_request(settings.max_candidates)

    @app.post(
        SCORE,
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
    )
    async def score(request: Request) -> Response:
        exchange = exchange_of(request)
        seconds = deadline_seconds(request, settings.deadline_ms, settings.max_deadline_ms)
        deadline = exchange.timings.started + seconds
        body = await read_body(request, settings.max_body_bytes, deadline)
        exchange.timings.lap("receive")
        asked = parse(model, body)
        question = Question.of(asked)
        version, answer = await ask(house, request, question, asked.model_version, deadline)
        content = answer.json(version, exchange.request_id, asked.top_k)
        exchange.timings.lap("encode")
        house.swap.answered(question, answer)
        return Response(content, media_type="application/json")


def _add_operations(app: FastAPI, house: House) -> None:
    @app.head("/livez", include_in_schema=False)
    @app.get("/livez", summary="The process answers")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.head("/readyz", include_in_schema=False)
    @app.get(
        "/readyz",
        summary="Loaded, verified against the bundle's own golden answers, filled and warmed",
        responses={503: problem()},
    )
    async def ready() -> dict[str, Any]:
        active, reachable = house.ready(), house.reader.reachable
        return {
            "status": "ready",
            "store": "reachable" if reachable else "unreachable",
            "degraded": [] if reachable else ["history"],
            "model_version": active.name,
            "items": active.table.count,
            "item_capacity": active.table.capacity,
            "precision": active.model.precision,
            "provider": active.model.placement.provider,
            "provider_fallback": active.model.placement.fallback,
        }

"""The HTTP application over a service that is already built."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.document import document_access
from service.access.middleware import guarded
from service.admission.loop_budget import FAULTS
from service.api.budget import LoopBudgetMiddleware
from service.api.docs_page import add_docs
from service.api.gate import INFER, INFER_VERSION, SCORE, AdmissionGate
from service.api.middleware import RequestContextMiddleware
from service.api.oip.infer import document_infer, infer_handler
from service.api.oip.routes import add_oip
from service.api.openapi import problem
from service.api.operations import add_metrics
from service.api.problems import REFUSAL, answer_problem, answer_refusal
from service.api.score import document_score, score_handler
from service.api.writes import add_item_reads, add_writes
from service.context import context_of
from service.errors import ServiceError, TooLarge
from service.state import ServiceState


def create_app(state: ServiceState) -> ASGIApp:
    """Routes inside, the gate before them, access before it, the request's context around it all.

    Scoring is behind the gate itself: the framework documents it and answers its other methods.
    """
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
    document_score(app, state)
    document_infer(app, state)
    add_oip(app, state)
    add_item_reads(app, state)
    add_writes(app, state)
    _add_operations(app, state)
    add_docs(app)
    if state.settings.metrics_on == "service":
        add_metrics(app, state)
    infer = infer_handler(state)
    scoring = {SCORE: score_handler(state), INFER: infer, INFER_VERSION: infer}
    document_access(app, state.settings)
    budgeted = LoopBudgetMiddleware(app, state.budget)
    gate = AdmissionGate(budgeted, state.admission, scoring, state.budget)
    inside = guarded(gate, state.settings, state.metrics, state.budget)
    return RequestContextMiddleware(inside, state.settings, state.metrics, state.traces)


def create_refusing(state: ServiceState, *, public: bool = False) -> ASGIApp:
    """For requests that their connection refuses: see ``answer_refusal``."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if isinstance(scope[REFUSAL], TooLarge):  # or who sends it again at once costs as much
            await state.budget.refused(FAULTS, unread=context_of(scope).announced)
        await answer_refusal(scope, receive, send)

    app: ASGIApp = refuse
    if public:
        app = guarded(app, state.settings, state.metrics, state.budget)
    return RequestContextMiddleware(app, state.settings, state.metrics, state.traces)


def _add_operations(app: FastAPI, state: ServiceState) -> None:
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
        active, reachable = state.ready(), state.reader.reachable
        return {
            "status": "ready",
            "store": "reachable" if reachable else "unreachable",
            "degraded": [] if reachable else ["history"],
            "model_version": active.name,
            "passed_over": sorted(state.startup.passed_over),
            "items": active.table.count,
            "item_capacity": active.table.capacity,
            "precision": active.model.precision,
            "provider": active.model.placement.provider,
            "provider_fallback": active.model.placement.fallback,
        }

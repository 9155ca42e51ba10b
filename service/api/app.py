"""The HTTP application over a service that is already built."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.middleware import guarded
from service.admission.loop_budget import FAULTS
from service.api.budget import LoopBudgetMiddleware
from service.api.descriptions import describe
from service.api.direct import DirectItemWrites
from service.api.gate import INFER, INFER_VERSION, SCORE, AdmissionGate
from service.api.id_kind import id_kind
from service.api.middleware import RequestContextMiddleware
from service.api.oip.feature_examples import exemplify_features
from service.api.oip.id_tensors import id_tensors
from service.api.oip.infer import document_infer, infer_handler
from service.api.oip.openapi import error_document
from service.api.oip.routes import add_oip
from service.api.openapi import exact_bounds
from service.api.openapi_access import document_access
from service.api.operations import add_docs, add_head, add_metrics, add_probes
from service.api.problems import answer_problem, answer_refusal, problem_of
from service.api.score import document_score, score_handler
from service.api.writes import add_item_reads, add_writes
from service.context import PROBES, UNMATCHED, context_of, fresh_id
from service.errors import ServiceError, TooLarge
from service.server.context import Application
from service.state import ServiceState

REFUSAL = "refusal"  # in a scope: the error that is the whole answer


def create_app(state: ServiceState) -> ASGIApp:
    """Routes inside, the gate before them, access before it, the request's context around it all.

    Scoring is behind the gate itself: the framework documents it and answers its other methods.
    """
    app = FastAPI(
        title="QIN Serving",
        description="Predicts click probabilities for a user and a list of candidates.",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for kind in (ServiceError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer_problem)
    ids = id_kind(state)
    tensors = id_tensors(ids)
    document_score(app, state, ids)
    document_infer(app, state, tensors)
    add_oip(app, state, tensors.datatype)
    add_item_reads(app, state)
    add_writes(app, state)
    if state.encoding is not None:
        from service.api.embeddings import add_embeddings  # takes an extra

        add_embeddings(app, state.encoding, state.settings)
    add_probes(app, state)
    add_docs(app)
    if state.settings.metrics_on == "service":
        add_metrics(app, state)
    describe(app)
    add_head(app)
    infer = infer_handler(state, tensors)
    scoring = {SCORE: score_handler(state, ids), INFER: infer, INFER_VERSION: infer}
    exact_bounds(app)
    document_access(app, state.settings, error_document())
    exemplify_features(app, state, ids, tensors)
    budgeted = LoopBudgetMiddleware(DirectItemWrites(app), state.budget)
    gate = AdmissionGate(budgeted, state.admission, scoring, state.budget)
    inside = _guarded(gate, state)
    return RequestContextMiddleware(inside, state.settings, state.metrics, state.traces)


def public_application(state: ServiceState) -> Application:
    """The application of the public port, as the HTTP server is given it."""
    refuse = refusals(state, public=True)
    return Application("service", create_app(state), refuse, error_response(state), PROBES)


def _guarded(app: ASGIApp, state: ServiceState) -> ASGIApp:
    """Put ``app`` behind the access middleware."""

    def refuse(error: ServiceError) -> ASGIApp:
        async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
            await state.budget.turned_away(context_of(scope).announced)
            await answer_refusal(error, scope, receive, send)

        return refusing

    return guarded(app, state.settings, state.metrics, refuse)


def refusals(state: ServiceState, *, public: bool = False) -> Callable[[ServiceError], ASGIApp]:
    """Make applications for requests that the server refuses for what their headers say."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        error = scope[REFUSAL]
        if isinstance(error, TooLarge):  # an immediate retry would cost as much
            await state.budget.refused(FAULTS, unread=context_of(scope).announced)
        await answer_refusal(error, scope, receive, send)

    inside = _guarded(refuse, state) if public else refuse
    app = RequestContextMiddleware(inside, state.settings, state.metrics, state.traces)

    def application(error: ServiceError) -> ASGIApp:
        async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
            scope[REFUSAL] = error
            await app(scope, receive, send)

        return refusing

    return application


def error_response(state: ServiceState) -> Callable[[ServiceError], Response]:
    """Count and make the response to input that is not a request."""

    def respond(error: ServiceError) -> Response:
        response = problem_of(error).response(fresh_id())
        state.metrics.requests.labels(UNMATCHED, response.status_code).inc()
        state.metrics.problems.labels(error.slug).inc()
        return response

    return respond

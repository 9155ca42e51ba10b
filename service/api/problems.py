"""Turns exceptions into answers: RFC 9457 problem documents, or Open Inference Protocol errors.

Documents of the route of embeddings have a member ``error`` in OpenAI's form, too.

``problem_of`` turns any exception into a problem; ``answer_problem`` is the one exception handler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from service.context import context_of
from service.errors import (
    FRAMEWORK,
    HTTP_ERROR,
    MOST_FAULTS,
    Fault,
    InvalidField,
    ServiceError,
    tree,
)
from service.observability.logs import logger

MEDIA_TYPE = "application/problem+json"
OIP_ROOT = "/v2"
EMBEDDINGS = "/v1/embeddings"
NO_PAGE = "the console is at the admin port (QIN_ADMIN_PORT), unless QIN_CONSOLE is off"
NOT_FOUND = {  # details for paths that a person may try
    "/": "no page; /docs describes the API",
    "/console": NO_PAGE,
    "/console/": NO_PAGE,
}
USERS = "/v1/users/"
NO_READING = "records are not read over HTTP; use python -m feature_store get-user STORE USER"
NO_ENCODER = "only a service with an encoder (QIN_ENCODER) has this path, at its public port"
SLUGS = tuple(dict.fromkeys([*(e.slug for e in tree()), *FRAMEWORK.values(), HTTP_ERROR]))


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document. ``members`` are its extension members."""

    status: int
    slug: str
    title: str
    detail: str
    members: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, request_id: str) -> Response:
        content = {
            "type": f"urn:qin:problem:{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
            **self.members,
        }
        body = orjson.dumps(content)
        return Response(body, self.status, dict(self.headers), media_type=MEDIA_TYPE)

    def with_openai_error(self) -> Problem:
        """Add ``error``: what OpenAI's clients show."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {
            "message": self.detail,
            "type": "rate_limit_error" if self.status == 429 else kind,
            "param": self.members.get("field"),
            "code": self.slug,
        }
        return replace(self, members={**self.members, "error": error})

    def oip_response(self) -> Response:
        """``{"error": "…"}``. What is wrong with a request is 400 in this protocol."""
        status = 400 if self.status == 422 else self.status
        content = orjson.dumps({"error": self.detail})
        return Response(content, status, dict(self.headers), media_type="application/json")


def is_oip(path: str) -> bool:
    return path == OIP_ROOT or path.startswith(f"{OIP_ROOT}/")


def problem_of(error: Exception) -> Problem:
    """Ours say what they say; the framework's are translated; any other reveals nothing."""
    if isinstance(error.__cause__, ServiceError):  # while the framework was reading the body
        error = error.__cause__
    if isinstance(error, RequestValidationError):
        error = _invalid(error)
    if isinstance(error, ServiceError):
        members = dict(error.members)
        if error.faults:
            members["field"] = error.faults[0].field
            members["errors"] = [{"field": f.field, "detail": f.detail} for f in error.faults]
        return Problem(error.status, error.slug, error.title, error.detail, members, error.headers)
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        slug = FRAMEWORK.get(error.status_code, HTTP_ERROR)
        return Problem(error.status_code, slug, phrase, phrase, headers=error.headers or {})
    return Problem(
        500, ServiceError.slug, ServiceError.title, "an unexpected error; it has been logged"
    )


def _invalid(error: RequestValidationError) -> InvalidField:
    """The framework's own checks, of routes that leave theirs to it."""
    faults = [Fault.at(e["loc"][1:], e["msg"]) for e in error.errors()[:MOST_FAULTS]]
    return InvalidField(f"{faults[0].field}: {faults[0].detail}", faults=faults)


async def answer_problem(request: Request, error: Exception) -> Response:
    """The handler of every exception; the unexpected ones are logged here."""
    ctx, problem = context_of(request.scope), problem_of(error)
    if problem.slug == ServiceError.slug:
        logger.error("unexpected error", request_id=ctx.request_id, exc_info=error)
    ctx.problem = problem.slug
    if ctx.charge is not None:
        await ctx.charge.turned_away(ctx.announced)
    headers = dict(problem.headers)
    if problem.status == 405:
        headers["Allow"] = ", ".join(_allowed(request))
        if request.method in ("GET", "HEAD") and request.scope["path"].startswith(USERS):
            problem = replace(problem, detail=NO_READING)
    problem = replace(problem, headers=headers)
    path = request.scope["path"]
    if problem.slug == FRAMEWORK[404] and path in NOT_FOUND:
        problem = replace(problem, detail=NOT_FOUND[path])
    if is_oip(path):
        return problem.oip_response()
    if path == EMBEDDINGS:
        if problem.slug == FRAMEWORK[404]:
            problem = replace(problem, detail=NO_ENCODER)
        problem = problem.with_openai_error()
    return problem.response(ctx.request_id)


def _allowed(request: Request) -> list[str]:
    """The methods of the path: the framework names those of its first route alone."""
    routes = [r for r in request.app.routes if r.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in route.methods or ()})


async def answer_refusal(error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that is refused for what its headers say."""
    response = await answer_problem(Request(scope), error)
    await response(scope, receive, send)

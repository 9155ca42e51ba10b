"""Admission gate: refuses scoring requests when there is no room, before their bodies are read.

Under overload most requests end here, so it is an ASGI layer outside of routing, and the refusal is
rendered beforehand but for the request id. Admitted requests go to their handlers directly, because
the framework's routing costs more than half of all other Python work of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission.admission import Admission
from service.admission.loop_budget import FAULTS, LoopBudget
from service.api.problems import answer_problem, problem_of
from service.context import Priority, RequestContext, context_of, priority_of
from service.errors import ServiceError

Handler = Callable[[RequestContext, Request], Awaitable[ASGIApp]]
SCORE = "/v1/score"
INFER = "/v2/models/{model}/infer"
INFER_VERSION = "/v2/models/{model}/versions/{version}/infer"
INFER_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
SCORING = frozenset({SCORE, INFER, INFER_VERSION})  # routes whose stages are kept
LONGEST_KEPT = 256  # path
MARK = "the request's id"
BODY_FAULTS = frozenset({400, 413, 415, 422})
LONG = "long"  # kind of the loop's budget
LARGE = 32_768  # bytes, beyond most valid requests: not read while many were refused


class AdmissionGate:
    """ASGI middleware, inside of ``RequestContextMiddleware``."""

    def __init__(
        self,
        app: ASGIApp,
        admission: Admission,
        handlers: Mapping[str, Handler],
        budget: LoopBudget,
    ) -> None:
        """``handlers`` answer a POST, by scoring route; ``app`` answers everything else. Refused
        bodies are charged to ``budget``."""
        self._app, self._admission, self._handlers = app, admission, handlers
        self._budget = budget
        self._overload = {
            priority: OverloadResponse(admission.over_capacity(priority)) for priority in Priority
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        posted = scope["type"] == "http" and scope["method"] == "POST"
        if not posted or not (found := scoring_route(scope["path"])):
            await self._app(scope, receive, send)
            return
        ctx = context_of(scope)
        ctx.route, scope["path_params"] = found
        request = Request(scope, receive)
        response: ASGIApp
        try:
            ctx.priority = priority_of(ctx.headers.get(b"x-priority"))
            if ctx.connection is not None and ctx.connection.has_half_closed:
                ctx.priority = Priority.BATCH
            large = ctx.announced > LARGE
            if not self._admission.has_room(ctx.priority):
                self._admission.count_refused(ctx.priority)
                if large:  # it will be read and discarded
                    await self._budget.refused(LONG, unread=ctx.announced)
                if ctx.route == SCORE:
                    await self._overload[ctx.priority].answer(ctx, send)
                    return
                raise self._admission.over_capacity(ctx.priority)
            if large and not self._budget.takes_faults:
                await self._budget.refused(FAULTS, unread=ctx.announced)
                raise self._admission.over_capacity(ctx.priority)
            response = await self._handlers[ctx.route](ctx, request)
        except Exception as error:
            ctx.after_answer = None  # there is no answer
            if isinstance(error, ServiceError) and error.status in BODY_FAULTS:
                await self._budget.fault(max(ctx.announced, ctx.inflated))
            response = await answer_problem(request, error)
        await response(scope, receive, send)


async def behind_the_gate(request: Request) -> Response:
    """Placeholder that documents a scoring route. Reached only by paths that differ slightly
    (``/v1/score%0A``)."""
    raise HTTPException(404)


def scoring_route(path: str) -> tuple[str, Mapping[str, str]] | None:
    """The scoring route of a path, and its path parameters."""
    return _kept_route(path) if len(path) <= LONGEST_KEPT else _route(path)


def _route(path: str) -> tuple[str, Mapping[str, str]] | None:
    if path == SCORE:
        return SCORE, {}
    if not (found := INFER_PATH.fullmatch(path)):
        return None
    model, version = found.groups()
    if version is None:
        return INFER, {"model": model}
    return INFER_VERSION, {"model": model, "version": version}


_kept_route = lru_cache(maxsize=256)(_route)  # clients ask for the same few again and again


class OverloadResponse:
    """A 429 as a problem document, rendered beforehand but for the request id."""

    def __init__(self, error: ServiceError, *, openai: bool = False) -> None:
        """``openai``: with the member ``error`` of its form."""
        problem = problem_of(error)
        if openai:
            problem = problem.with_openai_error()
        response = problem.response(MARK)
        self._slug, self._status = problem.slug, problem.status
        self._before, self._after = bytes(response.body).split(orjson.dumps(MARK))
        self._headers = [h for h in response.raw_headers if h[0] != b"content-length"]

    async def answer(self, ctx: RequestContext, send: Send) -> None:
        ctx.problem = self._slug
        body = self._before + orjson.dumps(ctx.request_id) + self._after
        length = (b"content-length", str(len(body)).encode())
        headers = [*self._headers, length]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

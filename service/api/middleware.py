"""ASGI middleware around every request: makes its context and, once it is answered, observes it.

``RequestContextMiddleware`` is the outermost layer and the only place that looks back at a request:
metrics, statistics of the version, log and spans, failures included; and, through
``RequestContext.after_answer``, what ``service.api.inference`` does after an answer.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.gate import SCORING
from service.context import CONNECTION, CONTEXT, UNMATCHED, RequestContext, fresh_id
from service.observability.fast_metrics import LabelCache
from service.observability.logs import Users, logger
from service.observability.metrics import Metrics
from service.settings import Settings

if TYPE_CHECKING:
    from service.observability.tracing import Traces  # takes an extra

TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}")
GONE = 499  # nginx's number for a client that went away before its answer


class RequestContextMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics, traces: Traces | None = None
    ) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._traces = traces
        self._users, self._series = Users(settings), LabelCache()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ctx = scope[CONTEXT] = _opened(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _finish_headers(ctx, message)
            await send(message)

        answered = False
        try:
            await self._app(scope, receive, send_with_headers)
            answered = True
        except Exception:
            # Answered by ``problems.answer_problem`` already, or half an answer is out: then only
            # the connection can still say so.
            if ctx.problem is None:
                raise
        finally:
            # An idle connection keeps the context of its last request: drop large objects, and the
            # connection, which refers to the scope.
            after, ctx.after_answer, ctx.connection = ctx.after_answer, None, None
            self._observe(ctx, scope)
            if answered and after is not None:
                after()

    def _observe(self, ctx: RequestContext, scope: Scope) -> None:
        timer, metrics, series = ctx.timer, self._metrics, self._series
        if not ctx.status:
            ctx.status = GONE  # cancelled before there was an answer
        if timer.ended == timer.started:
            timer.end()
        matched: str = getattr(scope.get("route"), "path_format", UNMATCHED)
        route = ctx.route or matched
        outcome = "ok" if ctx.status < 400 else "refused" if ctx.status < 500 else "failed"
        series[metrics.requests, route, ctx.status].inc()
        series[metrics.request_seconds, route, outcome].observe(timer.total)
        if ctx.problem is not None:
            series[metrics.problems, ctx.problem].inc()
        if ctx.role is not None:
            series[metrics.version_seconds, ctx.role, outcome].observe(timer.total)
        if ctx.stats is not None:
            ctx.stats.ended(ctx.status, timer)
        if route in SCORING:
            for stage, seconds in timer.seconds.items():
                series[metrics.stage_seconds, stage, outcome].observe(seconds)
            self._log("score", ctx, scope)
        elif ctx.status >= 500:
            self._log(f"{scope['method']} {route}", ctx, scope)
        if self._traces is not None:
            self._traces.record(ctx, scope, route)

    def _log(self, event: str, ctx: RequestContext, scope: Scope) -> None:
        settings, milliseconds = self._settings, 1e3 * ctx.timer.total
        failed, slow = ctx.status >= 500, milliseconds > settings.log_slow_ms
        if not failed and not slow and random.random() >= settings.log_sample:
            return
        stages = {s: round(1e3 * t, 3) for s, t in ctx.timer.seconds.items()}
        (logger.warning if failed or slow else logger.info)(
            event,
            request_id=ctx.request_id,
            trace_id=_trace_id(ctx),
            status=ctx.status,
            problem=ctx.problem,
            caller=ctx.caller,
            user=self._users.shown(ctx.user_id),
            candidates=ctx.candidates,
            model_version=ctx.model_version,
            ms=round(milliseconds, 3),
            stages_ms=stages,
        )


def _trace_id(ctx: RequestContext) -> str | None:
    """By which the caller's other services know this request."""
    found = TRACEPARENT.fullmatch(ctx.headers.get(b"traceparent", b""))
    return found[1].decode() if found else None


def _opened(scope: Scope) -> RequestContext:
    raw: list[tuple[bytes, bytes]] = scope["headers"]  # lower case, as ASGI has them
    headers = dict(raw)
    if len(headers) < len(raw):
        headers = _joined(raw)
    given = headers.get(b"x-request-id", b"")
    sane = SANE_ID.fullmatch(given) is not None
    return RequestContext(
        given.decode() if sane else fresh_id(), headers, connection=scope.get(CONNECTION)
    )


def _joined(raw: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """As a list, which several fields of one name are (RFC 9110, 5.3)."""
    found: dict[bytes, bytes] = {}
    for name, value in raw:
        found[name] = b", ".join([found[name], value]) if name in found else value
    return found


def _finish_headers(ctx: RequestContext, message: Message) -> None:
    ctx.status = message["status"]
    ctx.timer.end()
    own = [(b"x-request-id", ctx.request_id.encode()), *ctx.added]
    if ctx.model_version is not None:
        own.append((b"x-model-version", ctx.model_version.encode()))
    if ctx.headers.get(b"x-server-timing") == b"1":
        own.append((b"server-timing", ctx.timer.server_timing().encode()))
    message["headers"] = [*message["headers"], *own]

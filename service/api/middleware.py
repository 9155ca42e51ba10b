"""Around every request: an id, a clock, an answer whatever happens, and one look back at it.

``RequestContextMiddleware`` is the outermost ASGI layer and the only place that observes requests,
failures included.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observability.fast_metrics import LabelCache
from service.observability.logs import Users, logger
from service.observability.metrics import Metrics
from service.observability.version_stats import VersionStats
from service.priority import Priority
from service.settings import Settings
from service.timings import StageTimer

if TYPE_CHECKING:
    from service.admission.charge import Charge
    from service.observability.tracing import Traces  # takes an extra

TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}")
UNMATCHED = "unmatched"  # the route of every path that has none
SCORE = "/v1/score"
INFER = "/v2/models/{model}/infer"
INFER_VERSION = "/v2/models/{model}/versions/{version}/infer"
INFER_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
LONGEST_KEPT = 256  # path
UNKNOWN_BYTES = 262_144
# They decide whether this process lives, so no limit keeps them from an answer.
PROBES = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
SCORING = frozenset({SCORE, INFER, INFER_VERSION})  # routes whose stages are kept
GONE = 499  # nginx's number for a client that went away before its answer


@dataclass(slots=True)
class RequestContext:
    """What is known of one request, gathered as it goes."""

    request_id: str
    headers: Mapping[bytes, bytes]  # names in lower case; values of one given twice are joined
    timer: StageTimer = field(default_factory=StageTimer)
    status: int = 0  # of the answer; 0 until there is one
    problem: str | None = None
    route: str | None = None  # of scoring, or where it was answered before any route was
    priority: Priority = Priority.ONLINE
    caller: str | None = None  # the name of its API key
    added: tuple[tuple[bytes, bytes], ...] = ()  # headers of its answer, a refusal's too
    model_version: str | None = None
    role: str | None = None  # in which that version answers: see ``registry.ROLES``
    stats: VersionStats | None = None  # of that version
    user_id: int | None = None
    candidates: int = 0
    afterwards: Callable[[], None] | None = None  # when the answer has been sent
    charge: Charge | None = None  # of the loop's budget, for what is no scoring
    inflated: int = 0  # bytes of a body that came compressed

    def header(self, name: bytes) -> str | None:
        """``name`` in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


def context_of(request: Request) -> RequestContext:
    return cast(RequestContext, request.scope["context"])


def announced(ctx: RequestContext) -> int:
    """Bytes of the body; of one in chunks it is not known, and taken for large."""
    length = ctx.headers.get(b"content-length")
    if length is None:
        return UNKNOWN_BYTES if b"transfer-encoding" in ctx.headers else 0
    return int(length) if len(length) < 12 and length.isdigit() else UNKNOWN_BYTES


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
        ctx = scope["context"] = _opened(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _finish_headers(ctx, message)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            # Answered by ``problems.answer_problem`` already, or half an answer is out: then only
            # the connection can still say so.
            if ctx.problem is None:
                raise
        finally:
            self._observe(ctx, scope)

    def _observe(self, ctx: RequestContext, scope: Scope) -> None:
        timer, metrics, series = ctx.timer, self._metrics, self._series
        if not ctx.status:
            ctx.status = GONE  # cancelled before there was an answer
        if timer.ended == timer.started:
            timer.end()
        matched: str = getattr(scope.get("route"), "path", UNMATCHED)
        route = ctx.route or matched
        outcome = _outcome(ctx.status)
        series(metrics.requests, route, ctx.status).inc()
        series(metrics.request_seconds, route, outcome).observe(timer.total)
        if ctx.problem is not None:
            series(metrics.problems, ctx.problem).inc()
        if ctx.role is not None:
            series(metrics.version_seconds, ctx.role, outcome).observe(timer.total)
        if ctx.stats is not None:
            ctx.stats.ended(ctx.status, timer)
        if route in SCORING:
            for stage, seconds in timer.seconds.items():
                series(metrics.stage_seconds, stage, outcome).observe(seconds)
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


def scoring_route(path: str) -> tuple[str, Mapping[str, str]] | None:
    """Which scoring route a path is, and what its braces stand for."""
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


def _outcome(status: int) -> str:
    return "ok" if status < 400 else "refused" if status < 500 else "failed"


def _opened(scope: Scope) -> RequestContext:
    raw: list[tuple[bytes, bytes]] = scope["headers"]  # lower case, as ASGI has them
    headers = dict(raw)
    if len(headers) < len(raw):
        headers = _joined(raw)
    given = headers.get(b"x-request-id", b"")
    sane = SANE_ID.fullmatch(given) is not None
    return RequestContext(given.decode() if sane else fresh_id(), headers)


def fresh_id() -> str:
    """32 hexadecimal digits that are no one else's. They are no secret, so the system is not asked
    for each."""
    return f"{random.getrandbits(128):032x}"


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

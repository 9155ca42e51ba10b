"""The layer before every handler of the public port: is this caller let in?

Nothing of the body has been read, and no 100-continue has been sent. An ordinary caller of a
loopback port costs two look-ups in a dictionary and one in a set.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.bearer import BearerTokens
from service.access.hosts import HOST, TARGET_HOST, OwnNames, named_hosts
from service.access.origins import (
    ORIGIN,
    Origins,
    answer_preflight,
    is_preflight,
    is_same_origin,
)
from service.admission.loop_budget import LoopBudget
from service.api.problems import REFUSAL, answer_refusal
from service.context import PROBES, RequestContext, context_of
from service.errors import Forbidden, ServiceError, Unauthorised
from service.observability.metrics import Metrics
from service.settings import Settings, api_keys, host_names, is_loopback, origins

KEYLESS = PROBES | {"/docs"}  # the page is the same for everyone; the document it shows is not
AUTHORIZATION = b"authorization"


class AccessMiddleware:
    """ASGI middleware, inside of ``RequestContextMiddleware``."""

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics, budget: LoopBudget
    ) -> None:
        """``budget``: what refusals are charged to."""
        self._app, self._budget = app, budget
        allowed = host_names(settings.allowed_hosts)
        self._names = OwnNames(settings.host, allowed)
        self._known = self._names.known
        self._origins = Origins(origins(settings.cors_origins))
        self._keys = BearerTokens(api_keys(settings.api_keys))
        self._counts = {n: metrics.api_key_requests.labels(n) for n in self._keys.names}
        self._looks_at_host = is_loopback(settings.host) or bool(allowed)
        self._looks_at_origin = self._looks_at_host or bool(self._origins)
        self._looks_at_all = bool(self._keys) or bool(self._origins)

    @property
    def idle(self) -> bool:
        """There is nothing that it would refuse or add."""
        return not (self._looks_at_host or self._looks_at_origin or self._looks_at_all)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            headers = context_of(scope).headers
            if (
                headers.get(HOST) not in self._known
                or self._looks_at_all
                or ORIGIN in headers
                or TARGET_HOST in scope
            ):
                app = self._chosen(scope)
        await app(scope, receive, send)

    def _chosen(self, scope: Scope) -> ASGIApp:
        """Who answers: the application, or what refuses in its place."""
        ctx = context_of(scope)
        granted = self._origins.granted(ctx.headers)
        ctx.added = granted or self._origins.vary()
        probe = scope["path"] in PROBES
        try:
            if self._looks_at_host and not probe:
                self._check_host(scope, ctx)
            if granted and is_preflight(scope, ctx.headers):
                return answer_preflight
            if ORIGIN in ctx.headers and not (granted or probe):
                self._check_origin(ctx)
            if self._keys and scope["path"] not in KEYLESS:
                self._check_key(ctx)
        except ServiceError as error:
            scope[REFUSAL] = error
            return self._refuse
        return self._app

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._budget.turned_away(context_of(scope).announced)
        await answer_refusal(scope, receive, send)

    def _check_host(self, scope: Scope, ctx: RequestContext) -> None:
        """Without one (HTTP/1.0) the caller is no browser; HTTP/1.1 requires it."""
        named = named_hosts(ctx.headers.get(HOST), scope)
        if not all(self._names.has(name) for name in named):
            raise Forbidden(
                "the Host header is not a name of this service (QIN_ALLOWED_HOSTS lists others)"
            )

    def _check_origin(self, ctx: RequestContext) -> None:
        if self._looks_at_origin and not is_same_origin(ctx.headers):
            raise Forbidden(
                "not for pages of other sites (QIN_CORS_ORIGINS lists those that may call)"
            )

    def _check_key(self, ctx: RequestContext) -> None:
        ctx.caller = self._keys.name_of(ctx.headers.get(AUTHORIZATION, b""))
        if ctx.caller is None:
            raise Unauthorised(
                "send Authorization: Bearer KEY (QIN_API_KEYS)",
                headers={"WWW-Authenticate": "Bearer"},
            )
        self._counts[ctx.caller].inc()


def guarded(app: ASGIApp, settings: Settings, metrics: Metrics, budget: LoopBudget) -> ASGIApp:
    """``app`` behind what the settings ask for."""
    access = AccessMiddleware(app, settings, metrics, budget)
    return app if access.idle else access

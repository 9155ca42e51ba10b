"""Access middleware of the public port: host names, origins of browsers, API keys.

It refuses before the body is read and before 100-continue is sent.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.bearer import BearerTokens
from service.access.hosts import HOST, OwnNames, named_hosts
from service.access.origins import ORIGIN, Origins, answer_preflight, is_preflight, is_same_origin
from service.context import PROBES, TARGET_HOST, RequestContext, context_of
from service.errors import Forbidden, ServiceError, Unauthorised
from service.observability.metrics import Metrics
from service.settings import Settings, api_keys, host_names, is_loopback, origins

KEYLESS = PROBES | {"/docs"}  # the page itself is public; the document that it loads is not
AUTHORIZATION = b"authorization"
Refuse = Callable[[ServiceError], ASGIApp]  # the application that answers a refused request


class AccessMiddleware:
    """ASGI middleware, inside of ``RequestContextMiddleware``."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, refuse: Refuse) -> None:
        self._app, self._refuse = app, refuse
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
        """Nothing to refuse or to add."""
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
        """The application that answers: the inner one, or one that refuses."""
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
            return self._refuse(error)
        return self._app

    def _check_host(self, scope: Scope, ctx: RequestContext) -> None:
        """Without a Host header (HTTP/1.0) the caller is not a browser; HTTP/1.1 requires one."""
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


def guarded(app: ASGIApp, settings: Settings, metrics: Metrics, refuse: Refuse) -> ASGIApp:
    """``app`` behind the access middleware, if the settings need it."""
    access = AccessMiddleware(app, settings, metrics, refuse)
    return app if access.idle else access

"""Cross-origin requests (CORS): which origins are allowed, and the headers they get."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from service.context import context_of

Headers = tuple[tuple[bytes, bytes], ...]
ORIGIN, ASKS_METHOD = b"origin", b"access-control-request-method"
ASKS_HEADERS = b"access-control-request-headers"
FIELD_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, -]{0,1024}-?")
EXPOSED = (
    b"X-Request-Id, X-Model-Version, Server-Timing, Retry-After, Inference-Header-Content-Length"
)
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
KEPT_S = b"600"  # for which a browser may cache a preflight
PREFLIGHT = "preflight"  # the route of these requests in metrics


class Origins:
    """The origins in ``QIN_CORS_ORIGINS``."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = {origin.encode() for origin in allowed}

    def __bool__(self) -> bool:
        return bool(self._allowed)

    def vary(self) -> Headers:
        """The Vary header: answers differ by Origin."""
        return ((b"vary", b"Origin"),) if self._allowed else ()

    def granted(self, headers: Mapping[bytes, bytes]) -> Headers:
        """CORS headers of the answer; empty for an origin that is not allowed."""
        origin = headers.get(ORIGIN)
        if origin not in self._allowed:
            return ()
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", EXPOSED),
            *self.vary(),
        )


def is_same_origin(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the page is the service's own. The scheme is known only to a proxy in front."""
    scheme, _, authority = headers[ORIGIN].lower().partition(b"://")
    return scheme in (b"http", b"https") and authority == headers.get(b"host", b"").lower()


def is_preflight(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    return scope["method"] == "OPTIONS" and ASKS_METHOD in headers


async def answer_preflight(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI application: grant what the preflight of an allowed origin asks for."""
    ctx = context_of(scope)
    ctx.route = PREFLIGHT
    asked = ctx.headers.get(ASKS_HEADERS, b"")
    headers = [
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", asked if FIELD_NAMES.fullmatch(asked) else b""),
        (b"access-control-max-age", KEPT_S),
        (b"vary", b"Access-Control-Request-Headers"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})

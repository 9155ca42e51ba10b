"""Who may use the admin API: whoever holds a token, or, without one, this machine alone."""

from __future__ import annotations

import hmac

from starlette.requests import Request

from service.errors import Forbidden, Unauthorised
from service.settings import Settings, admin_tokens

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Access:
    """The tokens, and the rule for browsers: another site's page may not reach us through one."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = [
            (name, token.encode()) for name, token in admin_tokens(settings.admin_token).items()
        ]

    def check(self, request: Request) -> str:
        """The name to be written into the log. Unauthorised or Forbidden."""
        if "origin" in request.headers:
            raise Forbidden("not for pages of other sites: call it without an Origin header")
        if not self._tokens:
            if request.url.hostname is None or _host(request) not in LOOPBACK_NAMES:
                raise Forbidden("without a token only as 127.0.0.1, ::1 or localhost")
            return "local"
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        named = None
        for name, token in self._tokens:  # every one, so that the time taken tells nothing
            if hmac.compare_digest(given.strip().encode(), token):
                named = name
        if named is None or scheme.lower() != "bearer":
            raise Unauthorised(
                "send Authorization: Bearer TOKEN (QIN_ADMIN_TOKEN)",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return named


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    return host if host.endswith("]") else host.rpartition(":")[0] or host

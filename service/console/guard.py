"""Checks who may see the console and command through it: Host, Origin, session, CSRF token.

Requests of the console's own pages are a case of their own beside the admin API, which refuses
every request with an Origin and knows no cookies.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.requests import Request
from starlette.types import Scope

from service.access.hosts import HOST, OwnNames, is_local_name, named_hosts
from service.access.origins import ORIGIN, is_same_origin
from service.console.sessions import COOKIE, Session, Sessions
from service.context import context_of
from service.errors import Forbidden, Unauthorised
from service.settings import Settings, admin_tokens, host_names, is_loopback

OWN_SITE = frozenset({b"same-origin", b"none"})  # of Sec-Fetch-Site
LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page."""

    name: str
    csrf: str
    until: float | None = None  # of the session; None: without one
    reads_only: bool = False


class Guard:
    """Lets visitors in; the answer to others is an error of the service's tree."""

    def __init__(self, settings: Settings) -> None:
        tokens = admin_tokens(settings.admin_token)
        key = settings.console_key
        secret = key.get_secret_value().encode() if key else secrets.token_bytes(32)
        self.open = not tokens  # without tokens: read-only, on loopback alone
        self.sessions = Sessions(secret, tokens, settings.console_session_s)
        allowed = host_names(settings.allowed_hosts)
        self._names = OwnNames(settings.admin_host, allowed)
        self._looks_at_host = is_loopback(settings.admin_host) or bool(allowed)
        self._nonce = secrets.token_urlsafe(16)

    def check_site(self, request: Request, *, page: bool = False) -> None:
        """Forbidden for a foreign name (DNS rebinding) and for pages of other origins.

        A ``page`` may be opened by a link elsewhere.
        """
        headers = context_of(request.scope).headers
        named = named_hosts(headers.get(HOST), request.scope)
        if self.open and not all(is_local_name(host.decode("latin-1")) for host in named):
            raise Forbidden("without QIN_ADMIN_TOKEN the host must be 127.0.0.1, ::1 or localhost")
        if self._looks_at_host and not all(self._names.has(host) for host in named):
            raise Forbidden(
                "the Host header is not a name of this service (QIN_ALLOWED_HOSTS lists others)"
            )
        if ORIGIN in headers and not is_same_origin(headers):
            raise Forbidden("not for pages of other sites")
        site = headers.get(b"sec-fetch-site")
        linked = page and headers.get(b"sec-fetch-mode") == b"navigate"
        if site is not None and site not in OWN_SITE and not linked:
            raise Forbidden("not for pages of other sites")

    def visitor(self, request: Request) -> Visitor:
        """Return who asks. Unauthorised without a session."""
        if self.open:
            return Visitor(LOCAL, self.sessions.csrf(self._nonce), reads_only=True)
        session = self._session(request)
        if session is None:
            raise Unauthorised("log in at /console/login")
        return Visitor(session.name, session.csrf, session.until)

    def check_csrf(self, visitor: Visitor, csrf: str) -> None:
        """Forbidden without the page's token."""
        if not hmac.compare_digest(visitor.csrf.encode(), csrf.encode()):
            raise Forbidden("the page is outdated or not the console's own; load it again")

    def check_command(self, visitor: Visitor, csrf: str) -> None:
        """Forbidden for a command without the page's token, and where the console reads only."""
        self.check_csrf(visitor, csrf)
        if visitor.reads_only:
            raise Forbidden("read-only without QIN_ADMIN_TOKEN")

    def _session(self, request: Request) -> Session | None:
        header = request.headers.get("cookie", "")
        try:
            found = SimpleCookie(header).get(cookie_name(request.scope))
        except CookieError:
            return None
        return self.sessions.read(found.value, address_of(request)) if found else None


def cookie_name(scope: Scope) -> str:
    """One for each port: browsers do not tell the services of a host apart."""
    server = scope.get("server")
    return f"{COOKIE}_{server[1]}" if server else COOKIE


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""

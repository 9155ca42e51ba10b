"""Checks who may see the console and command through it: Host, Origin, session, CSRF token.

Requests of the console's own pages are a case of their own beside the admin API, which refuses
every request with an Origin and knows no cookies.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from dataclasses import dataclass
from time import time

from starlette.requests import Request
from starlette.types import Scope

from service.access.hosts import HOST, OwnNames, is_local_name, named_hosts
from service.access.origins import ORIGIN, is_same_origin
from service.console.ended_sessions import EndedSessions
from service.console.sessions import COOKIE, Session, Sessions
from service.context import context_of
from service.errors import Forbidden, NotConfirmed, Unauthorised
from service.observability.background import failed
from service.settings import Settings, admin_tokens, host_names, is_loopback

OWN_SITE = frozenset({b"same-origin", b"none"})  # of Sec-Fetch-Site
LOCAL = "local"
MOST_COOKIES, LONGEST_COOKIE = 8, 1024  # that are looked at


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page."""

    name: str
    csrf: str
    session: Session | None = None
    reads_only: bool = False


class Guard:
    """Lets visitors in; the answer to others is an error of the service's tree."""

    def __init__(self, settings: Settings) -> None:
        tokens = admin_tokens(settings.admin_token)
        key = settings.console_key
        secret = key.get_secret_value().encode() if key else secrets.token_bytes(32)
        self.open = not tokens  # without tokens: read-only, on loopback alone
        self._sessions = Sessions(secret, tokens, settings.console_session_s)
        self._ended = EndedSessions(settings.private / "sessions")
        allowed = host_names(settings.allowed_hosts)
        self._names = OwnNames(settings.admin_host, allowed)
        self._looks_at_host = is_loopback(settings.admin_host) or bool(allowed)

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
            return Visitor(LOCAL, self._sessions.csrf(LOCAL), reads_only=True)
        session = self._session(request)
        if session is None:
            raise Unauthorised("log in at /console/login")
        return Visitor(session.name, session.csrf, session)

    def log_in(self, request: Request, token: str) -> tuple[str, Session]:
        """Begin a session; return its cookie, too. Unauthorised for an unknown token."""
        begun = self._sessions.begin(token, address_of(request), cookie_name(request.scope))
        if begun is None:
            raise Unauthorised("no such token")
        return begun

    async def log_out(self, visitor: Visitor) -> None:
        """End the session for all workers. NotConfirmed if that cannot be written down."""
        if visitor.session is None:
            return
        try:
            await asyncio.to_thread(self._ended.add, visitor.session)
        except OSError as error:
            failed("console", "cannot write down a log-out")
            raise NotConfirmed(
                f"the session goes on: the log-out cannot be kept in QIN_PRIVATE ({error.strerror})"
            ) from error

    def is_over(self, visitor: Visitor) -> bool:
        """Whether a session that was read earlier has ended since."""
        session = visitor.session
        return session is not None and (session.until <= time() or self._ended.has(session))

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
        """Of the first cookie that has one: pages at other ports of this host may set others."""
        name, address = cookie_name(request.scope), address_of(request)
        for value in cookies(request, name)[:MOST_COOKIES]:
            session = self._sessions.read(value, address, name)
            if session is not None and not self._ended.has(session):
                return session
        return None


def cookies(request: Request, name: str) -> list[str]:
    """Return all values of a cookie. Others may be malformed: those of a host go to all ports."""
    given = ";".join(request.headers.getlist("cookie")).split(";")
    pairs = [pair.strip().partition("=") for pair in given]
    return [value for key, _, value in pairs if key == name and len(value) <= LONGEST_COOKIE]


def cookie_name(scope: Scope) -> str:
    """One for each port: browsers do not tell the services of a host apart."""
    server = scope.get("server")
    return f"{COOKIE}_{server[1]}" if server else COOKIE


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""

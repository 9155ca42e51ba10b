"""Access to the admin API, by token or without tokens from this machine only; its audit log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from starlette.requests import Request

from service.access.bearer import BearerTokens
from service.access.hosts import is_local_name, named_hosts
from service.errors import Forbidden, ServiceError, Unauthorised
from service.observability.audit_trail import AuditTrail
from service.observability.logs import logger
from service.settings import Settings, admin_tokens

ANONYMOUS = "anonymous"  # logged name of a caller without a valid token


class Access:
    """Checks tokens, and refuses requests from pages of other sites."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = BearerTokens(admin_tokens(settings.admin_token))

    def check(self, request: Request) -> str:
        """Return the caller's name for the audit log. Unauthorised or Forbidden."""
        headers = request.headers
        if "origin" in headers:
            raise Forbidden("requests with an Origin header are not allowed")
        if not self._tokens:
            header = headers.get("host", "").encode("latin-1")
            hosts = named_hosts(header, request.scope)
            if not all(is_local_name(host.decode("latin-1")) for host in hosts):
                raise Forbidden(
                    "without QIN_ADMIN_TOKEN the host must be 127.0.0.1, ::1 or localhost"
                )
            return "local"
        named = self._tokens.name_of(headers.get("authorization", "").encode("latin-1"))
        if named is None:
            raise Unauthorised(
                "send Authorization: Bearer TOKEN (QIN_ADMIN_TOKEN)",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return named


@contextmanager
def audited(
    request: Request, action: str, trail: AuditTrail | None = None, **fields: object
) -> Iterator[dict[str, object]]:
    """Log a line ``admin`` for the block: caller, outcome and what it puts into the dict.

    With ``trail``, the console shows it, too, unless the caller stays unknown: anyone who reaches
    the port could push the actions of others out of the list.
    """
    detail: str | None = None
    began = perf_counter()
    entry: dict[str, object] = {"outcome": "failed", **fields}
    try:
        yield entry
        entry["outcome"] = "done"
    except ServiceError as error:
        entry["outcome"], detail = error.slug, error.detail
        raise
    finally:
        address = request.client and request.client.host
        ms = round(1e3 * (perf_counter() - began), 1)
        logger.info("admin", address=address, action=action, ms=ms, **{"who": ANONYMOUS, **entry})
        if trail is not None and "who" in entry:
            trail.add(address=address, action=action, ms=ms, detail=detail, **entry)

"""Checks that a request's host names this service, against DNS rebinding: a page whose name
resolves to this service's address still sends its own name."""

from __future__ import annotations

from starlette.types import Scope

from service.context import TARGET_HOST
from service.settings import canonical_address, host_of, is_loopback

MOST_KNOWN = 64  # spellings cached; callers could send any number
HOST = b"host"


def named_hosts(header: bytes | None, scope: Scope) -> list[bytes]:
    """List the hosts that a request names: in its Host header and in an absolute target."""
    return [host for host in (header, scope.get(TARGET_HOST)) if host is not None]


def is_local_name(header: str) -> bool:
    """Tell whether it is localhost or a loopback address, with any port (tunnels)."""
    name = host_of(header)
    if name is None:
        return False
    return name == "localhost" or (canonical_address(name) is not None and is_loopback(name))


class OwnNames:
    """The names of this service: loopback, localhost, the bound address, and allowed hosts."""

    def __init__(self, bound: str, allowed: frozenset[str]) -> None:
        """``allowed``: names as ``host_of`` returns them; * allows any."""
        self._any, self._names = "*" in allowed, {*allowed, host_of(authority(bound))}
        self.known: set[bytes] = set()  # Host headers seen that are own names

    def has(self, header: bytes) -> bool:
        if header in self.known:
            return True
        name = header.decode("latin-1")
        own = self._any or is_local_name(name) or (host_of(name) or "") in self._names
        if own and len(self.known) < MOST_KNOWN:
            self.known.add(header)
        return own


def authority(host: str) -> str:
    """Write ``host`` as the authority of a URL."""
    return f"[{host}]" if ":" in host else host

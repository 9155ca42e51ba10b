"""Whether a Host header names this service: a page of another site cannot make a browser send a
name of ours to an address of its own (DNS rebinding), so what it sends is its own name."""

from __future__ import annotations

from starlette.types import Scope

from service.settings import canonical_address, host_of, is_loopback

MOST_KNOWN = 64  # spellings kept; there are a handful, and a caller could make more
HOST = b"host"
TARGET_HOST = "target_host"  # in a scope: authority of a target in absolute form


def named_hosts(header: bytes | None, scope: Scope) -> list[bytes]:
    """The hosts that a request names: by its Host header, and in a target of absolute form."""
    return [host for host in (header, scope.get(TARGET_HOST)) if host is not None]


def is_local_name(header: str) -> bool:
    """localhost, or a loopback address; the port may be that of a tunnel."""
    name = host_of(header)
    if name is None:
        return False
    return name == "localhost" or (canonical_address(name) is not None and is_loopback(name))


class OwnNames:
    """Loopback addresses, localhost, the address that is listened on, and those allowed."""

    def __init__(self, bound: str, allowed: frozenset[str]) -> None:
        """``allowed``: as ``host_of`` has names; with * any name is the service's own."""
        self._any, self._names = "*" in allowed, {*allowed, host_of(authority(bound))}
        self.known: set[bytes] = set()  # Host headers seen that are the service's own

    def has(self, header: bytes) -> bool:
        if header in self.known:
            return True
        name = header.decode("latin-1")
        own = self._any or is_local_name(name) or (host_of(name) or "") in self._names
        if own and len(self.known) < MOST_KNOWN:
            self.known.add(header)
        return own


def authority(host: str) -> str:
    """As a URL has it."""
    return f"[{host}]" if ":" in host else host

"""Shares one TLS context among a store's connections.

redis-py makes one for each connection, on the event loop, and reading the system's certificates
takes 20 ms: while a server is away, at every attempt to reach it.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

from redis.asyncio.connection import RedisSSLContext, SSLConnection

Stamp = list[tuple[str, int, int, int]]


class TlsContext:
    """The context of connections with the same options; a new one when a file has changed."""

    def __init__(self) -> None:
        self._shared: RedisSSLContext | None = None
        self._stamp: Stamp = []

    def give(self, connection: SSLConnection) -> None:
        """Let an unopened connection use the shared context, which the first to open makes."""
        own = connection.ssl_context
        stamp = _stamp(own)
        if self._shared is None or stamp != self._stamp:
            self._shared, self._stamp = own, stamp
        connection.ssl_context = self._shared


def _stamp(options: RedisSSLContext) -> Stamp:
    """Name the certificate files that exist, and what changes when one is replaced."""
    system = ssl.get_default_verify_paths()
    given = (options.ca_certs, options.certfile, options.keyfile, options.ca_path)
    paths = [Path(path) for path in (*given, system.cafile, system.capath) if path]
    if options.ca_path:
        with suppress(OSError):
            paths += sorted(Path(options.ca_path).iterdir())
    found = []
    for path in paths:
        with suppress(OSError):  # the handshake reports it
            stat = path.stat()
            found.append((str(path), stat.st_ino, stat.st_ctime_ns, stat.st_size))
    return found

"""Parses and checks the address to load: loopback unless ``--allow-remote`` is given; asks it.

A name is resolved once, so that the address checked is the address connected to.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


class TargetError(ValueError):
    """An address that is malformed, or not on loopback and not allowed."""


@dataclass(frozen=True, slots=True)
class Target:
    """``http://HOST:PORT[/PREFIX]``"""

    host: str
    port: int
    prefix: str
    url: str
    address: str  # of ``host``

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, url: str, *, allow_remote: bool = False) -> Target:
        """Parse a URL. TargetError unless it is plain HTTP on loopback, or remote and allowed."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 80
        except ValueError as error:
            raise TargetError(f"url: {url!r}: {error}") from None
        if parts.scheme != "http" or not host:
            raise TargetError(
                f"url: {url!r} should look like http://127.0.0.1:8000 (TLS is not supported)"
            )
        if parts.query or parts.fragment or parts.username:
            raise TargetError(f"url: {url!r}: only host, port and a path prefix are allowed")
        try:
            address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
        except (OSError, UnicodeError) as error:
            raise TargetError(f"url: {host!r} does not resolve: {error}") from None
        if not allow_remote and not ipaddress.ip_address(address.split("%")[0]).is_loopback:
            raise TargetError(
                f"url: {host} is another machine; add --allow-remote if you may load it"
            )
        return cls(host, port, parts.path.rstrip("/"), url, address)

    def call(
        self, method: str, path: str, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        """Send one request without a body; return status and body. OSError without an answer."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=timeout)
        try:
            sent = {"Host": self.authority, **headers}
            connection.request(method, self.prefix + path, headers=sent)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"no HTTP answer: {error!r}") from error
        finally:
            connection.close()

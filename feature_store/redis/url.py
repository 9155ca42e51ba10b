"""Parses Redis store URLs.

    redis://[user:password@]host[:6379][/db]             one server
    rediss://…                                           the same over TLS
    redis+sentinel://[…@]host[:26379],host,…/service[/db]
    redis+cluster://[…@]host[:6379],host,…               rediss+… for TLS with both
    unix://[…@]/path/of/socket                           one server on this machine

``valkey`` and ``valkeys`` are other names for ``redis`` and ``rediss``.

Options after ``?``: ``prefix`` (of every key), ``db``, ``sentinel_password`` and
``sentinel_username``, and redis-py's TLS options (``ssl_ca_certs``, ``ssl_check_hostname``, …).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from redis.asyncio.connection import (
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from feature_store.errors import StoreMismatch
from feature_store.redis.tls import TlsContext

Address = tuple[str, int]
PROTOCOLS = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "unix": "unix",
}
OPTIONS = frozenset({"prefix", "db", "sentinel_username", "sentinel_password"})
PORTS = 65_536
CLOSING_PATIENCE_S = 1.0  # for a socket that does not close; no request waits for it


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Addresses and connection settings of the servers. ``repr`` shows no password."""

    kind: str  # "" | "sentinel" | "cluster"
    addresses: tuple[Address, ...]
    service: str  # the master's name among the sentinels
    prefix: str | None
    _settings: dict[str, Any] = field(repr=False)
    _sentinel_settings: dict[str, Any] = field(repr=False)
    _tls: TlsContext = field(default_factory=TlsContext, repr=False, compare=False)

    def connection(self, address: Address) -> Callable[[], Connection]:
        """Return a factory of unopened connections to the server at ``address``."""
        return _factory(address, self._settings, self._tls)

    def sentinel_connection(self, address: Address) -> Callable[[], Connection]:
        return _factory(address, self._sentinel_settings, self._tls)


def parse(url: str) -> RedisUrl:
    """Parse a URL. StoreMismatch names the fault without repeating a password."""
    parts = _split(url)
    protocol, _, kind = parts.scheme.partition("+")
    protocol = PROTOCOLS[protocol]
    credentials, at, hosts = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query))
    prefix, database = query.pop("prefix", None), query.pop("db", None)
    sentinel = {
        "username": query.pop("sentinel_username", None),
        "password": query.pop("sentinel_password", None),
    }
    path: list[str] = []
    if protocol == "unix":
        addresses = [_socket(hosts, unquote(parts.path))]
    else:
        default = 26_379 if kind == "sentinel" else 6379
        addresses = [_address(host, default) for host in hosts.split(",")]
        path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
    if unknown := [name for name in _names(parts.query) if not _is_known(name)]:
        raise _wrong(hosts, f"unknown option {unknown[0]!r}")
    if kind == "sentinel" and not path:
        raise _wrong(hosts, "name the sentinels' service: redis+sentinel://HOST,HOST/SERVICE")
    service = path.pop(0) if kind == "sentinel" else ""
    path = path or [database or "0"]
    if len(path) > 1 or not path[0].isdecimal() or (kind == "cluster" and int(path[0])):
        raise _wrong(hosts, f"{'/'.join(path)!r} is no database number")
    if database not in (None, path[0]):
        raise _wrong(hosts, f"it names two databases, {path[0]} and {database}")
    if not kind and len(addresses) > 1:
        raise _wrong(hosts, "several hosts need redis+sentinel:// or redis+cluster://")
    try:
        settings: dict[str, Any] = dict(
            parse_url(f"{protocol}://{credentials}{at}x?{urlencode(query | {'db': path[0]})}")
        )
    except ValueError as error:
        raise _wrong(hosts, str(error)) from None
    settings.pop("host", None)
    tls = {name: value for name, value in settings.items() if name.startswith(("ssl_", "conn"))}
    return RedisUrl(kind, tuple(addresses), service, prefix, settings, tls | sentinel)


def _split(url: str) -> SplitResult:
    """Split a URL. StoreMismatch if a character in the credentials ends them too early."""
    fault = StoreMismatch(
        "store URL: percent-encode the password and the user name (%23 for #, %2F for /, %3F for "
        "?, %40 for @, %5B for [)"
    )
    try:
        parts = urlsplit(url)
    except ValueError:  # its text repeats them
        raise fault from None
    if "#" in url or (parts.netloc and "@" in parts.path):
        raise fault
    ended = "@" in parts.query and "@" not in parts.netloc
    if ended and not all(map(_is_known, _names(parts.query))):
        raise fault
    return parts


def _names(query: str) -> list[str]:
    return [unquote(option.partition("=")[0]) for option in query.split("&") if option]


def _is_known(option: str) -> bool:
    return option in OPTIONS or option.startswith("ssl_")


def _socket(host: str, path: str) -> Address:
    """The address of a Unix domain socket; its port is 0."""
    if host or not path.startswith("/"):
        raise StoreMismatch("store URL: a socket is written unix:///PATH or unix://:PASSWORD@/PATH")
    return path, 0


def _address(text: str, default_port: int) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, ""
    if port and not (port.isdecimal() and int(port) < PORTS):  # it may be a password: not repeated
        fault = "out of range 0-65535" if port.isdecimal() else "could not be cast to an integer"
        raise _wrong(host, f"Port {fault}")
    name = urlsplit(f"//{host}").hostname
    if not name:
        raise _wrong(host, "a host is missing")
    return name, int(port or 0) or default_port


def _factory(
    address: Address, settings: dict[str, Any], tls: TlsContext
) -> Callable[[], Connection]:
    settings = dict(settings)
    kind = settings.pop("connection_class", Connection)
    host, port = address
    to: dict[str, Any] = {"host": host, "port": port, "socket_keepalive": True}
    if kind is UnixDomainSocketConnection:
        to = {"path": host}

    def make() -> Connection:
        made: Connection = kind(
            protocol=2,
            socket_timeout=None,  # the caller bounds reads and writes
            socket_connect_timeout=CLOSING_PATIENCE_S,
            retry=Retry(NoBackoff(), 0),
            client_name="qin-feature-store",
            driver_info=None,
            **to,
            **settings,
        )
        if isinstance(made, SSLConnection):
            tls.give(made)
        return made

    return make


def _wrong(hosts: str, why: str) -> StoreMismatch:
    return StoreMismatch(f"store URL of {quote(hosts, safe=',:[]')}: {why}")

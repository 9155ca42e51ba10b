"""Parses Redis store URLs.

    redis://[user:password@]host[:6379][/db]             one server
    rediss://…                                           the same over TLS
    redis+sentinel://[…@]host[:26379],host,…/service[/db]
    redis+cluster://[…@]host[:6379],host,…               rediss+… for TLS with both

Options after ``?``: ``prefix`` (of every key), ``sentinel_password`` and
``sentinel_username``, and redis-py's TLS options (``ssl_ca_certs``, ``ssl_check_hostname``, …).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from feature_store.errors import StoreMismatch

Address = tuple[str, int]
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

    def connection(self, address: Address) -> Callable[[], Connection]:
        """Return a factory of unopened connections to the server at ``address``."""
        return _factory(address, self._settings)

    def sentinel_connection(self, address: Address) -> Callable[[], Connection]:
        return _factory(address, self._sentinel_settings)


def parse(url: str) -> RedisUrl:
    """Parse a URL. StoreMismatch names the fault without repeating a password."""
    parts = urlsplit(url)
    protocol, _, kind = parts.scheme.partition("+")
    credentials, at, hosts = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query))
    prefix = query.pop("prefix", None)
    sentinel = {
        "username": query.pop("sentinel_username", None),
        "password": query.pop("sentinel_password", None),
    }
    if unknown := [name for name in query if not name.startswith("ssl_")]:
        raise _wrong(hosts, f"unknown option {unknown[0]!r}")
    path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
    if kind == "sentinel" and not path:
        raise _wrong(hosts, "name the sentinels' service: redis+sentinel://HOST,HOST/SERVICE")
    service = path.pop(0) if kind == "sentinel" else ""
    database = path[0] if path else "0"
    if len(path) > 1 or not database.isdigit() or (kind == "cluster" and int(database)):
        raise _wrong(hosts, f"{'/'.join(path)!r} is no database number")
    default = 26_379 if kind == "sentinel" else 6379
    addresses = tuple(_address(host, default) for host in hosts.split(","))
    if not kind and len(addresses) > 1:
        raise _wrong(hosts, "several hosts need redis+sentinel:// or redis+cluster://")
    try:
        settings: dict[str, Any] = dict(
            parse_url(f"{protocol}://{credentials}{at}x/{database}?{urlencode(query)}")
        )
    except ValueError as error:
        raise _wrong(hosts, str(error)) from None
    del settings["host"]
    tls = {name: value for name, value in settings.items() if name.startswith(("ssl_", "conn"))}
    return RedisUrl(kind, addresses, service, prefix, settings, tls | sentinel)


def _address(text: str, default_port: int) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _wrong(text, str(error)) from None
    if not host:
        raise _wrong(text, "a host is missing")
    return host, port or default_port


def _factory(address: Address, settings: dict[str, Any]) -> Callable[[], Connection]:
    settings = dict(settings)
    kind = settings.pop("connection_class", Connection)
    host, port = address

    def make() -> Connection:
        made: Connection = kind(
            host=host,
            port=port,
            protocol=2,
            socket_timeout=None,  # the caller bounds reads and writes
            socket_connect_timeout=CLOSING_PATIENCE_S,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            client_name="qin-feature-store",
            driver_info=None,
            **settings,
        )
        return made

    return make


def _wrong(hosts: str, why: str) -> StoreMismatch:
    return StoreMismatch(f"store URL of {quote(hosts, safe=',:[]')}: {why}")

"""Redis store URLs: what they say, and that no error repeats a password."""

from __future__ import annotations

import pytest
from redis.asyncio.connection import SSLConnection

from feature_store import connect
from feature_store.errors import StoreMismatch
from feature_store.redis.url import parse


def test_one_server() -> None:
    url = parse("redis://:p%40ss@cache.example:6380/2?prefix=shop")
    assert (url.kind, url.addresses, url.prefix) == ("", (("cache.example", 6380),), "shop")
    connection = url.connection(url.addresses[0])()
    assert (connection.host, connection.port, connection.db) == ("cache.example", 6380, 2)
    assert connection.password == "p@ss"


def test_defaults() -> None:
    url = parse("redis://cache")
    assert url.addresses == (("cache", 6379),)
    connection = url.connection(url.addresses[0])()
    assert (connection.db, connection.password, connection.username) == (0, None, None)
    assert parse("redis://[::1]:7000").addresses == (("::1", 7000),)


def test_tls() -> None:
    url = parse("rediss+cluster://user:pw@a:1,b:2?ssl_check_hostname=false")
    connection = url.connection(url.addresses[1])()
    assert isinstance(connection, SSLConnection)
    assert (connection.host, connection.port, connection.username) == ("b", 2, "user")
    assert connection.check_hostname is False


def test_sentinels_have_their_own_password() -> None:
    url = parse("redis+sentinel://:data@s1,s2:5/main/4?sentinel_password=guard")
    assert (url.kind, url.service) == ("sentinel", "main")
    assert url.addresses == (("s1", 26_379), ("s2", 5))
    assert url.sentinel_connection(("s1", 1))().password == "guard"
    master = url.connection(("m", 1))()
    assert (master.password, master.db) == ("data", 4)
    assert url.sentinel_connection(("s1", 1))().db == 0


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:hush@", "a host is missing"),
        ("redis://:hush@a,b", "several hosts need"),
        ("redis://:hush@a:port", "Port could not be cast"),
        ("redis://:hush@a:99999", "Port out of range"),
        ("redis://:hush@a/zero", "is no database number"),
        ("redis://:hush@a/1/2", "is no database number"),
        ("redis+cluster://:hush@a/1", "is no database number"),
        ("redis+sentinel://:hush@a", "name the sentinels' service"),
        ("redis://:hush@a?socket_timeout=9", "unknown option 'socket_timeout'"),
        ("rediss://:hush@a?ssl_min_version=x", "Invalid value"),
        ("http://:hush@a", "is not a store URL"),
    ],
)
async def test_a_wrong_url_says_why_and_keeps_the_password(url: str, reason: str) -> None:
    with pytest.raises(StoreMismatch, match=reason) as caught:
        await connect(url)
    assert "hush" not in str(caught.value)


def test_a_url_shown_hides_the_password() -> None:
    assert "hush" not in repr(parse("redis://:hush@a"))

"""Redis store URLs: what they say, and that no error repeats a password."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio.connection import SSLConnection

from feature_store import connect
from feature_store.errors import StoreError, StoreMismatch
from feature_store.redis.url import parse
from tests.feature_store.redis_servers import standalone
from tests.feature_store.samples import SHOP


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


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hu#sh@a",
        "redis://:hu/sh@a:6379/0",
        "redis://user:hu/sh@a",
        "redis://user:1/sh@a",
        "redis://:hu?sh@a",
        "redis://user:1?hu=sh@a",
        "redis://user:1?sh@a",
        "redis://:hu[sh@a",
        "redis://:hu@m/sh@a",
        "redis+sentinel://:hu/sh@a,b/main",
        "unix://:hu/sh@/run/redis.sock",
        "valkeys://:hu#sh@a",
    ],
)
async def test_a_password_that_ends_too_early_is_to_be_encoded_and_not_shown(url: str) -> None:
    with pytest.raises(StoreMismatch, match=r"percent-encode the password") as caught:
        await connect(url)
    assert "sh" not in str(caught.value).replace("password", "")
    assert "hu" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "user:hush@a:6379",
        "redis:/:hush@a",
        "http://a?sentinel_password=hush",
        "redis://user:hush",
        "redis://:hush",
        "unix://:hush/run/redis.sock",
        "redis://:\N{DOUBLE EXCLAMATION MARK}hush\N{FULLWIDTH NUMBER SIGN}@a",
    ],
)
async def test_no_part_of_a_url_that_is_none_is_shown_if_it_may_be_a_password(url: str) -> None:
    with pytest.raises(StoreMismatch) as caught:
        await connect(url)
    assert "hush" not in str(caught.value)


def test_an_encoded_password_is_read() -> None:
    for url in ("redis://:s%23c%2Fr%3Ft%40@a", "unix://:s%23c%2Fr%3Ft%40@/run/redis.sock"):
        parsed = parse(url)
        assert parsed.connection(parsed.addresses[0])().password == "s#c/r?t@"


def test_a_database_may_be_an_option() -> None:
    for url in ("redis://a?db=3", "redis://a/3?db=3", "redis+sentinel://a/main?db=3"):
        parsed = parse(url)
        assert parsed.connection(("a", 1))().db == 3
    assert parse("redis+cluster://a?db=0").kind == "cluster"
    for url, reason in (
        ("redis://a/1?db=2", "two databases"),
        ("redis://a?db=x", "is no database number"),
        ("redis+cluster://a?db=1", "is no database number"),
    ):
        with pytest.raises(StoreMismatch, match=reason):
            parse(url)


def test_valkey_is_another_name_for_redis() -> None:
    assert parse("valkey://:p@a:1/2?prefix=x") == parse("redis://:p@a:1/2?prefix=x")
    assert parse("valkeys+cluster://a,b") == parse("rediss+cluster://a,b")


async def test_a_server_is_reached_by_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    url = f"unix://{path}?db=1&prefix=shop"
    with standalone(tmp_path / "server", options=["--unixsocket", str(path)]) as server:
        store = await connect(url, SHOP, create=True)
        await store.append(1, [7])
        await store.close()
        reopened = await connect(url)
        history = await reopened.history(1)
        assert history is not None
        assert history.tolist() == [7]
        await reopened.close()
        assert server.client(db=1).keys("*shop*")
    with pytest.raises(StoreError, match=f"redis {path}: "):
        await connect(url)

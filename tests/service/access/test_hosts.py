"""Which Host headers name the service, and which settings of names are refused."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from service.access.hosts import MOST_KNOWN, OwnNames
from service.server.listener import listen
from service.settings import Settings, host_names, is_loopback, origins


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8000",
        "127.0.0.1:9",  # the port of a tunnel
        "127.8.9.10:8000",
        "localhost:8000",
        "LocalHost:8000",
        "localhost.:8000",
        "[::1]:8000",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]:8000",
    ],
)
def test_loopback_addresses_and_localhost_are_own_names(host: str) -> None:
    assert OwnNames("127.0.0.1", frozenset()).has(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":8000",
        ".",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example:8000",
        "evil.localhost",
        "127.0.0.1:8000, evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1@evil.example",
        "127.0.0.1:8000:8000",
        "127.0.0.1:port",
        "127.0.0.1/x",
        "127.1",
        "2130706433",
        "0.0.0.0:8000",
        "10.0.0.7:8000",
        "::1",
        "[::1",
        "[::2]:8000",
        "[::ffff:10.0.0.7]",
        "l\xf6calhost",
        "localhost\xa0",
    ],
)
def test_any_other_name_is_foreign(host: str) -> None:
    names = OwnNames("127.0.0.1", frozenset())
    assert not names.has(host.encode("latin-1"))
    assert not names.known


def test_the_address_that_is_listened_on_and_those_allowed_are_own_names() -> None:
    names = OwnNames("fd00::7", host_names("Scores.Example [fd00:0::8]"))
    for host in (b"[fd00::7]:8000", b"scores.example:443", b"SCORES.example.", b"[fd00::8]"):
        assert names.has(host)
    assert not names.has(b"other.example")
    assert OwnNames("127.0.0.1", host_names("*")).has(b"any.example")


def test_what_is_remembered_of_spellings_is_bounded() -> None:
    names = OwnNames("127.0.0.1", frozenset())
    for port in range(2 * MOST_KNOWN):
        assert names.has(b"localhost:%d" % port)
    assert len(names.known) == MOST_KNOWN


@pytest.mark.parametrize("entry", ["http://x", "x:80", "[::1]:80", "fd00::7", "*.x", "x/y", "a@b"])
def test_a_name_that_could_never_match_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"QIN_ALLOWED_HOSTS: '.*' must be like"):
        host_names(f"good.example {entry}")


def test_origins_are_written_as_browsers_write_them() -> None:
    given = "HTTPS://Shop.example:443/ http://127.0.0.1:3000 http://[::1]:80"
    assert origins(given) == {"https://shop.example", "http://127.0.0.1:3000", "http://[::1]"}


@pytest.mark.parametrize(
    "entry", ["*", "null", "shop.example", "https://", "https://a/b", "ftp://a", "https://a@b"]
)
def test_an_origin_that_could_never_match_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"QIN_CORS_ORIGINS: '.*' must be like"):
        origins(entry)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("127.1", True),  # an address to the system
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.7", False),
        ("", False),  # every address
        ("no-such-name.invalid", False),
    ],
)
def test_a_loopback_bind_is_told_from_others(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_name_that_was_loopback_when_that_was_decided_is_not_listened_on_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = iter(["127.0.0.1"])
    resolve = socket.getaddrinfo

    def moving(host: Any, *arguments: Any, **options: Any) -> Any:
        name = next(found, "0.0.0.0") if host == "moving.test" else host
        return resolve(name, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", moving)
    assert Settings(host="moving.test").writes_at == "service"
    with pytest.raises(
        OSError, match=r"moving\.test:0: resolved to a loopback address and then to"
    ):
        listen("moving.test", 0, "QIN_PORT")

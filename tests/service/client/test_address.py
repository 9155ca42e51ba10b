"""A client's URL may hold a password: it is sent, and in no message."""

from __future__ import annotations

import base64

import pytest

from service.client import Unreachable
from service.client.address import Address
from tests.ports import free_port
from tests.service.client.test_client import PATIENT_MS, READY, Kind, kind, result_of
from tests.service.scripted import scripted

__all__ = ["kind"]  # a fixture


async def test_no_error_shows_the_credentials_of_the_url(kind: Kind) -> None:
    port = free_port()
    client = kind(f"http://anna:s3cret%40x@127.0.0.1:{port}/", deadline_ms=PATIENT_MS, retries=0)
    with pytest.raises(Unreachable) as error:
        await result_of(client.score(7, [1]))
    await result_of(client.close())
    assert f"127.0.0.1:{port}" in str(error.value)
    assert "anna" not in repr(error.value)
    assert "s3cret" not in repr(error.value)
    assert client.url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://anna:s3cret@host",
        "http://anna:s3cret@",
        "http://anna:s3cret@host?x",
        "http://anna:s3cret/@host",
        "http://anna:12/s3cret@host",
        "http://anna:s3cret@[::1",
        "http://anna@host:s3cret",
        "anna:s3cret@host:80",
    ],
)
def test_no_refusal_of_a_url_shows_its_credentials(kind: Kind, url: str) -> None:
    for arguments in ({"url": url}, {"url": "http://127.0.0.1:1", "events_url": url}):
        with pytest.raises(ValueError, match=r"must be http://HOST\[:PORT\]") as error:
            kind(**arguments)
        assert "s3cret" not in str(error.value)
        assert error.value.__cause__ is None
        assert error.value.__suppress_context__


@pytest.mark.parametrize(
    ("given", "sent"),
    [("anna", b"anna:"), ("an%3Ana:s3", b"an:na:s3"), (":s3", b":s3"), ("anna:s:3", b"anna:s:3")],
)
def test_a_user_name_ends_at_the_first_colon_of_the_url(given: str, sent: bytes) -> None:
    address = Address.parse("url", f"http://{given}@host")
    assert address.headers == {"Authorization": f"Basic {base64.b64encode(sent).decode()}"}


@pytest.mark.parametrize("key", [None, "a-key"])
async def test_credentials_are_sent_unless_there_is_a_key(kind: Kind, key: str | None) -> None:
    with scripted([READY]) as server:
        url = server.url.replace("http://", "http://anna:s3%20cret@")
        client = kind(url, deadline_ms=PATIENT_MS, api_key=key)
        await result_of(client.click(7, [1]))
        await result_of(client.close())
    (request,) = server.requests
    basic = b"Basic " + base64.b64encode(b"anna:s3 cret")
    expected = basic if key is None else b"Bearer a-key"
    assert b"\r\nAuthorization: " + expected + b"\r\n" in request


@pytest.mark.parametrize("host", ["a..b", ".", "a" * 64 + ".example"])
def test_a_host_that_no_name_server_knows_is_refused_before_the_first_call(host: str) -> None:
    with pytest.raises(ValueError, match=r"url: must be http://HOST\[:PORT\]"):
        Address.parse("url", f"http://{host}:8000")


async def test_a_prefix_of_any_letters_is_asked_for(kind: Kind) -> None:
    with scripted([READY]) as server:
        client = kind(f"{server.url}/mödel a%20b", deadline_ms=PATIENT_MS)
        assert await result_of(client.click(7, [1])) is True
        await result_of(client.close())
    (head,) = server.requests
    assert head.startswith(b"POST /m%C3%B6del%20a%20b/v1/events HTTP/1.1\r\n")

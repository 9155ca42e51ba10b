"""What the client makes of replies that are no answers, and of options out of bounds."""

from __future__ import annotations

from http.client import HTTPConnection
from math import inf
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from service.client import AsyncClient, Client, ClientError, Late, Refused, Unreachable
from tests.service.client.test_client import PATIENT_MS, READY, Kind, kind, result_of
from tests.service.scripted import BREAK, Deed, dripping, reply, scripted

__all__ = ["kind"]  # a fixture

CALLS: dict[str, tuple[Any, ...]] = {
    "score": (7, [1]),
    "score_inline": (7, [1]),
    "click": (7, [1]),
    "put_user": (7, {"country": 1}),
    "patch_user": (7, {"country": 1}),
    "delete_user": (7,),
}
WRITTEN = reply(204, b"")


async def called(
    kind: Kind, deeds: list[Deed], *methods: str, **options: Any
) -> tuple[Any, list[bytes]]:
    """The last call's value or error, and the request lines that were sent."""
    outcome: Any = None
    with scripted(deeds) as server:
        client = kind(server.url, **{"deadline_ms": PATIENT_MS, **options})
        for method in methods:
            try:
                outcome = await result_of(getattr(client, method)(*CALLS.get(method, ())))
            except ClientError as error:
                outcome = error
        await result_of(client.close())
    return outcome, [head.partition(b"\r\n")[0] for head in server.requests]


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("status", [301, 302, 304, 308])
async def test_a_redirection_is_refused_with_its_target(
    kind: Kind, method: str, status: int
) -> None:
    elsewhere = reply(status, b"", Location="https://elsewhere/")
    outcome, sent = await called(kind, [elsewhere, WRITTEN], method)
    assert isinstance(outcome, Refused)
    assert outcome.status == status
    assert "redirected to 'https://elsewhere/'" in outcome.detail
    assert len(sent) == 1


async def test_a_redirection_is_not_ready(kind: Kind) -> None:
    outcome, _ = await called(kind, [reply(302, b"", Location="/sign-in")], "ready")
    assert outcome is False


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("body", [b"<html>Please sign in</html>", b"[]", b"{}", b""])
async def test_a_page_of_a_proxy_is_no_answer(kind: Kind, method: str, body: bytes) -> None:
    outcome, _ = await called(kind, [reply(200, body)], method)
    assert isinstance(outcome, ClientError)
    assert "invalid answer" in str(outcome)


@pytest.mark.parametrize("body", [b"<html>It works!</html>", b"[]", b"{}", b"", b'{"status":"ok"}'])
async def test_a_page_of_another_service_is_not_ready(kind: Kind, body: bytes) -> None:
    outcome, _ = await called(kind, [reply(200, body)], "ready")
    assert outcome is False


async def test_the_answer_after_an_interim_response_is_read(kind: Kind) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    answer = reply(200, b'{"applied": 1}')
    outcome, sent = await called(kind, [early + answer], "click")
    assert outcome is True
    assert len(sent) == 1


@pytest.mark.parametrize(
    "garbled",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        BREAK,
    ],
)
async def test_no_error_shows_the_key(kind: Kind, garbled: bytes) -> None:
    outcome, _ = await called(kind, [garbled], "score", api_key="s3cret", retries=0)
    assert isinstance(outcome, Unreachable)
    assert "s3cret" not in repr(outcome)
    assert "\n" not in str(outcome)


async def test_a_closed_asyncio_client_says_so() -> None:
    client = AsyncClient("http://127.0.0.1:1")
    await client.close()
    with pytest.raises(ClientError, match=r"127\.0\.0\.1:1: the client is closed"):
        await client.score(7, [1])
    assert await client.ready() is False


async def test_a_removal_whose_connection_ends_is_sent_once(kind: Kind) -> None:
    deeds = [WRITTEN, BREAK, reply(404)]
    outcome, sent = await called(kind, deeds, "put_user", "delete_user")
    assert isinstance(outcome, Unreachable)
    assert [line.split()[0] for line in sent] == [b"PUT", b"DELETE"]


async def test_a_put_is_sent_as_often_as_the_retries_say(kind: Kind) -> None:
    outcome, sent = await called(kind, [BREAK] * 9, "put_user", retries=1)
    assert isinstance(outcome, Unreachable)
    assert len(sent) == 2


@pytest.mark.parametrize("model", ["my model", "mödel", "a/b"])
async def test_a_model_of_any_name_is_asked_for(kind: Kind, model: str) -> None:
    _, sent = await called(kind, [reply(404)], "score", model=model)
    escaped = {"my model": b"my%20model", "mödel": b"m%C3%B6del", "a/b": b"a%2Fb"}[model]
    assert sent == [b"POST /v2/models/" + escaped + b"/infer HTTP/1.1"]


@pytest.mark.parametrize("deadline_ms", [0, -1, inf, 1e13, float("nan")])
async def test_a_deadline_out_of_bounds_is_not_even_sent(kind: Kind, deadline_ms: float) -> None:
    with scripted([]) as server:
        client = kind(server.url)
        with pytest.raises(ValueError, match="deadline_ms: must be above 0 and at most"):
            await result_of(client.score(7, [1], deadline_ms=deadline_ms))
        await result_of(client.close())
    assert not server.connections


@pytest.mark.parametrize("retries", [-1, 1.5])
def test_retries_out_of_bounds_are_refused(retries: Any) -> None:
    with pytest.raises(ValueError, match="retries: must be an integer of at least 0"):
        Client("http://127.0.0.1:1", retries=retries)


def test_ids_beyond_63_bits_are_not_sent_as_negative_ones() -> None:
    with Client("http://127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="item_ids: must be at most 2"):
            client.score(7, np.array([2**63 + 5], np.uint64))
        with pytest.raises(ValueError, match="item_ids: must be at most 2"):
            client.score(7, [UUID(int=2**127).int])
        with pytest.raises(TypeError, match="item_ids: must be a list of integers"):
            client.score(7, np.array([1, 2], object))
        with pytest.raises(Unreachable):  # sent
            client.score(7, np.array([], object))
        with pytest.raises(ValueError, match="user_id: must be at most 2"):
            client.score(2**63, [1])


@pytest.mark.parametrize("request_id", ["é", "日本", "a\nb", "a\x00"])
async def test_what_is_no_header_is_named_and_not_sent(kind: Kind, request_id: str) -> None:
    client = kind("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="request_id: must be printable ASCII"):
        await result_of(client.score(7, [1], request_id=request_id))
    with pytest.raises(TypeError, match="request_id: must be a string"):
        await result_of(client.score(7, [1], request_id=7))  # type: ignore[arg-type]
    await result_of(client.close())


@pytest.mark.parametrize("status", [301, 404, 502])
async def test_a_page_of_a_proxy_is_told_in_one_line(kind: Kind, status: int) -> None:
    outcome, _ = await called(kind, [reply(status, b"<html>\r\n<h1>502</h1>\n")], "score")
    assert isinstance(outcome, Refused)
    assert "\n" not in str(outcome)


def test_a_connection_that_switched_protocols_is_not_used_again() -> None:
    switched = b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    answer = reply(200, b'{"applied": 1}')
    with scripted([switched, answer, answer]) as server, Client(server.url) as client:
        with pytest.raises(Refused, match="101"):
            client.click(7, [1])
        assert client.click(7, [1])
    assert server.connections == 2


def test_requests_can_be_traced_by_http_clients_debuglevel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(HTTPConnection, "debuglevel", 1)
    with scripted([READY]) as server, Client(server.url) as client:
        client.ready()
    assert "GET /readyz" in capsys.readouterr().out


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (HEAD, b"X-Filler: x\r\n"),
        (HEAD + b"X-Endless: ", b"x"),
        (HEAD + b"Content-Length: 1000000000000\r\n\r\n", b"x"),
        (HEAD + b"Connection: close\r\n\r\n", bytes(1 << 20)),
    ],
)
async def test_a_reply_without_an_end_ends_at_the_deadline(
    kind: Kind, begin: bytes, more: bytes
) -> None:
    with dripping(begin, more) as url:
        client = kind(url, deadline_ms=200)
        with pytest.raises(Late):
            await result_of(client.score(7, [1]))
        await result_of(client.close())

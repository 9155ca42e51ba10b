"""How an answer leaves: head and body together, and nothing of either is lost."""

from __future__ import annotations

import asyncio
import socket
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.app import error_response, refusals
from service.server.context import Application
from service.server.http_server import HttpServer
from tests.service.engine_gate import FAR
from tests.service.in_process import opened
from tests.service.wire import responses
from tests.service.world import World

Say = Callable[[Send], Awaitable[None]]
HEAD: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-length", b"3")],
}
BODY: Message = {"type": "http.response.body", "body": b"hey"}


def app_that(say: Say) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await say(send)

    return app


async def whole(send: Send) -> None:
    await send(HEAD)
    await send(BODY)


async def empty(send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def in_chunks(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await send({"type": "http.response.body", "body": b"b"})


async def broken_off(send: Send) -> None:
    await send(HEAD)
    raise RuntimeError("between head and body")


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the service gave a transport, piece by piece."""
    seen, write = list[bytes](), _SelectorSocketTransport.write

    def noted(transport: asyncio.Transport, data: bytes) -> None:
        if data.startswith((b"HTTP/1.1", b"hey", b"1\r\n", b"0\r\n")):
            seen.append(bytes(data))
        write(transport, data)

    monkeypatch.setattr(_SelectorSocketTransport, "write", noted)
    return seen


async def said(world: World, say: Say, *methods: str) -> bytes:
    """All that a connection answers to these requests, sent at once; the last one ends it."""
    requests = [f"{method} /x HTTP/1.1\r\nHost: 127.0.0.1\r\n" for method in methods]
    requests[-1] += "Connection: close\r\n"
    async with opened(world) as state:
        application = Application("x", app_that(say), refusals(state), error_response(state))
        server = HttpServer(application, state.settings, state.metrics)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        server.enter(ours)
        reader, writer = await asyncio.open_connection(sock=theirs)
        writer.write("".join(line + "\r\n" for line in requests).encode())
        async with asyncio.timeout(FAR):
            answered = await reader.read()
        writer.close()
    return answered


@pytest.mark.parametrize(
    ("say", "method", "pieces"),
    [(whole, "GET", 1), (whole, "HEAD", 1), (empty, "GET", 1), (in_chunks, "GET", 2)],
)
async def test_head_and_body_are_one_write(
    world: World, writes: list[bytes], say: Say, method: str, pieces: int
) -> None:
    answered = await said(world, say, method)
    assert len(writes) == pieces
    assert b"".join(writes) == answered
    assert answered.startswith(b"HTTP/1.1 20")


async def test_answers_to_requests_sent_ahead_follow_one_another(
    world: World, writes: list[bytes]
) -> None:
    found = responses(await said(world, whole, "GET", "GET", "GET"))
    assert [one.body for one in found] == 3 * [b"hey"]
    assert len(writes) == 3


async def test_nothing_waits_behind_the_answer_to_head(world: World, writes: list[bytes]) -> None:
    answered = await said(world, whole, "HEAD", "GET")
    assert answered.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert len(writes) == 2


async def test_an_answer_that_breaks_off_shows_that_it_was_one(world: World) -> None:
    answered = await said(world, broken_off, "GET")
    assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answered.endswith(b"\r\n\r\n")

"""Requests beyond the most that may be under way are refused, and nobody else notices."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.service.engine_gate import FAR, Gate
from tests.service.in_process import opened
from tests.service.live import listening, until
from tests.service.wire import Response, responses
from tests.service.world import World

MOST = 2
BODY = json.dumps({"user_id": 1, "candidates": [1, 2, 3]}).encode()
ITEM = b"GET /v1/items/1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HEAD = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
SCORE = HEAD % len(BODY) + BODY
CLOSING = b"Host: 127.0.0.1\r\nConnection: close\r\n"


Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def asked(port: int, request: bytes) -> Caller:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.replace(b"Host: 127.0.0.1\r\n", CLOSING))
    return reader, writer


async def answer(caller: Caller) -> Response:
    reader, writer = caller
    async with asyncio.timeout(FAR):
        (found,) = responses(await reader.read())
    writer.close()
    return found


async def test_one_beyond_the_most_is_a_429_and_the_others_are_answered(world: World) -> None:
    settings = {"max_in_flight_connections": MOST, "deadline_ms": 1e3 * FAR}
    async with opened(world, threads=1, **settings) as state, listening(state) as port:
        gate = Gate(state.engine)
        await gate.closed()
        under_way = [await asked(port, SCORE) for _ in range(MOST)]
        await until(lambda: state.engine.queued == MOST)

        for beyond in (SCORE, ITEM):
            refused = await answer(await asked(port, beyond))
            assert (refused.status, refused.problem) == (429, "over-capacity")
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["connection"] == "close"
        assert state.engine.queued == MOST

        await gate.open()
        assert [(await answer(one)).status for one in under_way] == [200] * MOST
        assert (await answer(await asked(port, SCORE))).status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_probes_are_answered_beyond_the_most(world: World, path: str, method: str) -> None:
    settings = {"max_in_flight_connections": MOST, "deadline_ms": 1e3 * FAR}
    async with opened(world, threads=1, **settings) as state, listening(state) as port:
        gate = Gate(state.engine)
        await gate.closed()
        under_way = [await asked(port, SCORE) for _ in range(MOST)]
        await until(lambda: state.engine.queued == MOST)

        probe = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        found = await answer(await asked(port, probe))
        assert found.status == 200

        await gate.open()
        assert [(await answer(one)).status for one in under_way] == [200] * MOST

"""A client that goes away stops costing."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from time import perf_counter

import pytest

from service.errors import ClientGone
from service.server.disconnect import CancelOnDisconnect
from tests.service.engine_gate import FAR, Gate
from tests.service.in_process import metric, opened
from tests.service.live import listening, until
from tests.service.world import World


class Connection:
    """What our server tells a request of its connection."""

    def __init__(self) -> None:
        self._left: Callable[[], None] | None = None
        self.has_left = False

    def whole_body(self) -> bytes | None:
        return None

    def watch(self, left: Callable[[], None] | None) -> None:
        self._left = left

    def close(self) -> None:
        self.has_left = True
        if self._left is not None:
            self._left()


def resets_when_closed(writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@pytest.mark.parametrize("before", [True, False])
async def test_whatever_is_awaited_ends_when_the_client_leaves(before: bool) -> None:
    connection = Connection()

    async def work() -> None:
        if before:
            connection.close()
        with CancelOnDisconnect(connection):
            if not before:
                asyncio.get_running_loop().call_soon(connection.close)
            await asyncio.sleep(FAR)

    with pytest.raises(ClientGone):
        await work()
    await asyncio.sleep(0)  # and nothing of it is left


async def test_a_client_that_stays_is_answered_and_not_watched_any_more() -> None:
    connection = Connection()
    with CancelOnDisconnect(connection):
        await asyncio.sleep(0)
    connection.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def work() -> None:
        with CancelOnDisconnect(Connection()):
            await asyncio.sleep(FAR)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_work_wins_over_a_client_that_leaves_meanwhile() -> None:
    connection = Connection()

    async def work() -> None:
        with CancelOnDisconnect(connection):
            asyncio.get_running_loop().call_soon(connection.close)
            try:
                await asyncio.sleep(FAR)
            finally:
                raise KeyError

    with pytest.raises(KeyError):
        await work()
    await asyncio.sleep(0)  # and it is not cancelled later


async def test_without_a_server_that_tells_nothing_is_cancelled() -> None:
    with CancelOnDisconnect(None):
        await asyncio.sleep(0)


async def test_the_chunks_of_a_client_that_left_are_not_run(world: World) -> None:
    """Over a real connection, while the only engine thread is held."""
    async with opened(world, threads=1) as state, listening(state) as port:
        gate = Gate(state.engine)
        await gate.closed()
        body = json.dumps({"user_id": 1, "candidates": [1] * 1000}).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        resets_when_closed(writer)
        head = f"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await until(lambda: state.engine.queued)
        writer.close()
        await until(lambda: metric(state, "qin_problems_total", problem="client-gone"))
        before = state.engine.chunks
        await gate.open()
        await state.engine.run(lambda *_: None, 1, perf_counter() + FAR)
        assert state.engine.chunks == before + 2  # the gate's own, and the one to wait for
        assert state.admission.forecast() == 0
